"""Keys of a publisher change hands, as people do it: whole commands, nodes that are processes, a real ssh-agent."""

from __future__ import annotations

import base64
import os
import pty
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2phub.testing.processes import COMMAND, Home, Outcome, wait_until

pytestmark = pytest.mark.timeout(180)

PASSPHRASE = "correct horse battery"


class Homes:
    """Homes whose commands are overheard: no secret may be in anything that they say or keep for others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: list[str] = []

    def __getitem__(self, name: str) -> Overheard:
        home = Overheard(self.folder / name, {"P2PHUB_LAN": "off"})
        home.heard = self.heard
        return home


class Overheard(Home):
    heard: list[str]

    def call(self, *arguments: str, **options: object) -> Outcome:
        outcome = super().call(*arguments, **options)  # type: ignore[arg-type]
        self.heard += [outcome.out, outcome.err]
        return outcome

    def run(self, *arguments: str, **options: object) -> Outcome:
        outcome = super().run(*arguments, **options)  # type: ignore[arg-type]
        self.heard += [outcome.out, outcome.err]
        return outcome


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[Homes]:
    found = Homes(tmp_path)
    yield found
    texts = [text.encode(errors="surrogateescape") for text in found.heard]
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix not in (".key", ".secret")]
    secrets = [secret for path in tmp_path.rglob("*.key") for secret in spellings(path)]
    assert len(secrets) >= 4
    for place, data in [("what was said", text) for text in texts] + [(path, path.read_bytes()) for path in kept]:
        for secret in secrets:
            assert secret not in data, f"a secret is in {place}"
    for path in [*tmp_path.rglob("*.key"), *tmp_path.rglob("*.secret")]:
        assert path.stat().st_mode & 0o077 == 0, path


def spellings(path: Path) -> list[bytes]:
    """Return the secret in a key file in all ways in which it could be written by mistake."""
    header, _, text = path.read_text().strip().partition(" ")
    if header == "p2phub-agent-1":
        return []
    seed = bytes.fromhex(text)
    return [
        seed,
        seed.hex().encode(),
        seed.hex().upper().encode(),
        base64.b64encode(seed)[:-4],
        base64.urlsafe_b64encode(seed)[:-4],
        base64.b32encode(seed)[:-6],
        base64.b32encode(seed)[:-6].lower(),
        repr(seed)[2:-1].encode(),
    ]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("# One\n")
    return folder


@pytest.fixture
def passphrase(tmp_path: Path) -> dict[str, str]:
    return {"P2PHUB_PASSPHRASE_FILE": str(secret_file(tmp_path / "passphrase.secret", PASSPHRASE))}


def secret_file(path: Path, text: str) -> Path:
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


def join(homes: Homes, first: str, second: str) -> str:
    """Let the machine `second` publish as `first` does; returns its key."""
    word = homes[second].call("id", "request").out.strip()
    added = homes[first].ask("id", "add-key", word, "--yes")
    homes[second].call("id", "join", added["answer"])
    return str(added["key"])


def models(reader: Home, namespace: str) -> set[str]:
    return {found["model"] for found in reader.ask("search", "--publisher", namespace)["models"]}


def eventually(reader: Home, namespace: str, expected: set[str]) -> None:
    wait_until(lambda: models(reader, namespace) == expected, f"{expected}, not {models(reader, namespace)}")


# ── two machines of one person ──────────────────────────────────────────────


def test_a_second_machine_publishes_as_the_same_person_until_its_key_is_revoked(homes: Homes, model: Path) -> None:
    desk, laptop, reader = homes["desk"], homes["laptop"], homes["reader"]
    namespace = desk.ask("id", "new")["namespace"]
    desk.call("publish", str(model), "from-desk")
    key = join(homes, "desk", "laptop")
    assert laptop.ask("id")["namespace"] == namespace
    assert laptop.ask("id")["here"] == [key]
    for name in ("from-laptop", "stolen-1", "stolen-2"):
        laptop.call("publish", str(model), name)
    with desk.node() as first, laptop.node(peers=(first.address,)), reader.node(peers=(first.address,)):
        eventually(reader, namespace, {"from-desk", "from-laptop", "stolen-1", "stolen-2"})
        # It was stolen after its first record.
        assert "3 of these 9 records are here" in desk.call("id", "revoke-key", key[:10], "--from-index", "9").err
        desk.call("id", "revoke-key", key[:10], "--from-index", "1")
        eventually(reader, namespace, {"from-desk", "from-laptop"})
        # Whoever has it hears of it, and can sign nothing more that anybody takes.
        wait_until(lambda: laptop.ask("id")["version"] == 4, "the laptop to hear of it")
        refused = laptop.call("publish", str(model), "stolen-3", code=5)
        assert "was retired" in refused.err
        assert "id request" in refused.err
        again = desk.call("id", "revoke-key", key, "--from-index", "2", code=1)
        assert "cannot become more" in again.err
    assert desk.ask("id")["retired"] == [{"key": key, "size": 1}]
    back = desk.call("id", "add-key", laptop.call("id", "request").out.strip(), "--yes")
    assert "may publish" in back.err + back.out


def test_both_machines_sign_for_other_tools_and_open_what_is_encrypted_to_them(homes: Homes) -> None:
    homes["desk"].call("id", "new")
    join(homes, "desk", "laptop")

    for header in ("p2phub-companion-1", "p2phub-recipient-1"):
        desk, laptop = (
            {path.read_text() for path in (homes[name].folder / "keys").glob("*.key")
             if path.read_text().startswith(header) and path.name != "request.key"}
            for name in ("desk", "laptop")
        )  # fmt: skip
        assert desk == laptop
        assert len(desk) == 1


def test_an_answer_is_for_the_machine_that_asked(homes: Homes) -> None:
    homes["desk"].call("id", "new")
    word = homes["laptop"].call("id", "request").out.strip()
    answer = homes["desk"].ask("id", "add-key", word, "--yes")["answer"]
    homes["thief"].call("id", "request")

    assert "not for this machine" in homes["thief"].call("id", "join", answer, code=1).err
    for end in (-1, -2, -3, -4, -50):
        assert "not copied whole" in homes["laptop"].call("id", "join", answer[:end], code=1).err
    assert "p2phub-answer-1" in homes["laptop"].call("id", "join", word, code=1).err
    homes["laptop"].call("id", "join", f"{answer[:60]}\n {answer[60:]}")  # as a mail program breaks it
    assert "already" in homes["laptop"].call("id", "request", code=1).err
    assert "terminal" in homes["desk"].call("id", "add-key", word, code=2).err


def test_a_machine_learns_from_others_that_its_key_was_added(homes: Homes, model: Path) -> None:
    desk, laptop = homes["desk"], homes["laptop"]
    namespace = desk.ask("id", "new")["namespace"]
    word = laptop.call("id", "request").out.strip()
    assert "--peer" in laptop.call("id", "join", namespace, code=3).err
    with desk.node() as node:
        desk.call("publish", str(model), "one")
        assert "no key of this machine" in laptop.call("id", "join", namespace, "--peer", node.address, code=1).err
        desk.call("id", "add-key", word, "--yes")
        laptop.call("id", "join", namespace, "--peer", node.address)
    laptop.call("publish", str(model), "two")


# ── new keys ────────────────────────────────────────────────────────────────


def test_new_keys_take_the_place_of_old_ones_and_what_was_published_stays(homes: Homes, model: Path) -> None:
    desk, reader = homes["desk"], homes["reader"]
    before = desk.ask("id", "new")
    desk.call("publish", str(model), "before")
    with desk.node() as node, reader.node(peers=(node.address,)):
        eventually(reader, before["namespace"], {"before"})
        after = desk.ask("id", "rotate", "--all")
        desk.call("publish", str(model), "after")
        eventually(reader, before["namespace"], {"before", "after"})
    for role in ("root", "publish", "fresh"):
        assert after[role] != before[role]
    assert after["retired"] == [{"key": before["publish"][0], "size": 1}]
    assert after["companion"] != before["companion"]
    assert after["recipient"] != before["recipient"]
    only = desk.ask("id", "rotate", "--publish")
    assert only["root"] == after["root"]
    assert only["publish"] != after["publish"]
    desk.call("publish", str(model), "third")


def test_an_identity_of_before_is_completed(homes: Homes) -> None:
    desk = homes["desk"]
    desk.call("id", "new")
    assert "all keys that it can have" in desk.call("id", "renew", code=1).err
    (desk.folder / "keys" / "recipient.key").unlink()
    renewed = desk.ask("id", "renew")

    assert renewed["version"] == 2
    assert "may" not in desk.call("id", "renew", code=1).out


# ── recovery ────────────────────────────────────────────────────────────────


def test_who_has_the_recovery_key_gets_the_name_back_from_a_thief(
    homes: Homes, model: Path, tmp_path: Path, passphrase: dict[str, str]
) -> None:
    desk, new, reader = homes["desk"], homes["new"], homes["reader"]
    namespace = desk.ask("id", "new")["namespace"]
    desk.call("publish", str(model), "mine")
    recovery = tmp_path / "recovery.secret"
    desk.call("id", "recovery", "new", "--to", str(recovery), env=passphrase)
    with reader.node() as node:
        with desk.node(peers=(node.address,)):
            eventually(reader, namespace, {"mine"})
            # What a thief of the machine can do: publish, and no more.
            desk.call("publish", str(model), "forged")
            eventually(reader, namespace, {"mine", "forged"})
            taken = desk.call("id", "rotate", "--proposal", str(tmp_path / "proposal"))
            assert "nothing changed yet" in taken.out
            assert desk.ask("id")["version"] == 2
        wrong = {"P2PHUB_PASSPHRASE_FILE": str(secret_file(tmp_path / "wrong.secret", "another horse"))}
        assert "passphrase" in new.call("id", "recover", "--key", str(recovery), code=5, env=wrong).err
        recovered = new.ask(
            "id", "recover", "--key", str(recovery), "--from-index", "1", "--peer", node.address, env=passphrase
        )
        assert recovered["namespace"] == namespace
        new.call("publish", str(model), "mine-again")
        with new.node(peers=(node.address,)), desk.node(peers=(node.address,)):
            eventually(reader, namespace, {"mine", "mine-again"})
            wait_until(lambda: desk.ask("id")["version"] == 3, "the thief to hear of it")
            assert "was retired" in desk.call("publish", str(model), "forged-2", code=5).err
    assert len(recovered["publish"]) == 1
    assert recovered["retired"][0]["size"] == 1
    # The key that gave the name back still is the only one that can change it.
    assert len(recovered["root"]) == 1
    assert recovered["root"][0] not in recovered["publish"]


def test_a_change_of_keys_holds_at_once_where_no_node_of_the_home_runs(
    homes: Homes, model: Path, tmp_path: Path
) -> None:
    desk, new, reader = homes["desk"], homes["new"], homes["reader"]
    namespace = desk.ask("id", "new")["namespace"]
    recovery = tmp_path / "recovery.secret"
    with reader.node() as node:
        desk.call("peers", "add", node.address)
        for name in ("mine", "forged"):
            desk.call("publish", str(model), name, "--wait", "1")
        desk.call("id", "recovery", "new", "--to", str(recovery), "--no-passphrase")
        assert "2 identity documents" in reader.call("trust", "why", namespace, "--offline").out
        new.call("id", "recover", "--key", str(recovery), "--from-index", "1", "--peer", node.address)
        eventually(reader, namespace, {"mine"})
        # All logs that anybody knows are closed by now.
        new.call("id", "rotate", "--key", str(recovery))
        assert "4 identity documents" in reader.call("trust", "why", namespace, "--offline").out
        assert new.call("id", "rotate", "--key", str(recovery)).err == ""
    assert "no other node could be told" in new.call("id", "rotate", "--key", str(recovery)).err


def test_after_a_machine_was_lost_all_that_is_known_counts(homes: Homes, model: Path, tmp_path: Path) -> None:
    desk, new, reader = homes["desk"], homes["new"], homes["reader"]
    namespace = desk.ask("id", "new")["namespace"]
    recovery = tmp_path / "recovery.secret"
    desk.call("id", "recovery", "new", "--to", str(recovery), "--no-passphrase")
    for name in ("one", "two"):
        desk.call("publish", str(model), name)
    with reader.node() as node:
        with desk.node(peers=(node.address,)):
            eventually(reader, namespace, {"one", "two"})
        shutil.rmtree(desk.folder)
        new.call("id", "recover", "--key", str(recovery), "--peer", node.address)
        new.call("publish", str(model), "three")
        with new.node(peers=(node.address,)):
            eventually(reader, namespace, {"one", "two", "three"})


def test_changes_need_the_recovery_key_and_take_it(homes: Homes, tmp_path: Path) -> None:
    desk = homes["desk"]
    desk.call("id", "new")
    recovery = tmp_path / "recovery.secret"
    made = desk.ask("id", "recovery", "new", "--to", str(recovery), "--no-passphrase")
    again = desk.call("id", "recovery", "new", "--to", str(recovery), "--no-passphrase", code=1)
    claimed = desk.call("id", "domain", "lab.example", "--key", str(recovery))
    rotated = desk.ask("id", "rotate", "--key", str(recovery))

    assert "already" in again.err
    assert "lab.example" in claimed.err
    assert rotated["root"] == made["root"]
    assert rotated["domains"] == ["lab.example"]
    assert desk.ask("id")["version"] == 4


# ── copies ──────────────────────────────────────────────────────────────────


def test_a_copy_with_a_passphrase_brings_a_publisher_back_and_forks_nothing(
    homes: Homes, model: Path, tmp_path: Path, passphrase: dict[str, str]
) -> None:
    desk, new, reader = homes["desk"], homes["new"], homes["reader"]
    namespace = desk.ask("id", "new")["namespace"]
    copy = tmp_path / "copy.secret"
    for name in ("one", "two"):
        desk.call("publish", str(model), name)
    desk.call("id", "export", "--to", str(copy), env=passphrase)
    desk.call("publish", str(model), "three")
    assert "already" in desk.call("id", "export", "--to", str(copy), env=passphrase, code=1).err
    wrong = {"P2PHUB_PASSPHRASE_FILE": str(secret_file(tmp_path / "wrong.secret", "another horse"))}
    assert "does not open" in new.call("id", "import", str(copy), env=wrong, code=5).err
    with reader.node() as node:
        with desk.node(peers=(node.address,)):
            eventually(reader, namespace, {"one", "two", "three"})
        shutil.rmtree(desk.folder)
        assert new.ask("id", "import", str(copy), env=passphrase)["namespace"] == namespace
        # Nothing of its log is here: to sign now would be to sign a second history.
        alone = new.call("publish", str(model), "four", code=1)
        assert "records of the own log were signed" in alone.err
        assert "--peer" in alone.err
        new.call("publish", str(model), "four", "--peer", node.address)
        with new.node(peers=(node.address,)):
            eventually(reader, namespace, {"one", "two", "three", "four"})
    assert reader.ask("trust", "conflicts") == []
    assert "already" in new.call("id", "import", str(copy), env=passphrase, code=1).err


def test_a_copy_goes_on_with_a_new_key_where_nobody_has_the_log(
    homes: Homes, model: Path, tmp_path: Path, passphrase: dict[str, str]
) -> None:
    desk, new = homes["desk"], homes["new"]
    desk.call("id", "new")
    for name in ("one", "two"):
        desk.call("publish", str(model), name)
    copy = tmp_path / "copy.secret"
    desk.call("id", "export", "--to", str(copy), env=passphrase)
    new.call("id", "import", str(copy), env=passphrase)
    rotated = new.ask("id", "rotate")
    new.call("publish", str(model), "three")

    # What it signed before goes on to count, for those who have it.
    assert [each["size"] for each in rotated["retired"]] == [2]


def test_nothing_is_made_void_by_accident(homes: Homes, model: Path, tmp_path: Path) -> None:
    desk, laptop, new = homes["desk"], homes["laptop"], homes["new"]
    desk.call("id", "new")
    key = join(homes, "desk", "laptop")
    laptop.call("publish", str(model), "one")
    recovery = tmp_path / "recovery.secret"
    unknown = desk.call("id", "revoke-key", key, code=1)
    desk.call("id", "recovery", "new", "--to", str(recovery), "--no-passphrase")
    lost = new.call("id", "recover", "--key", str(recovery), code=1)

    for outcome in (unknown, lost):
        assert "none of it would count any more" in outcome.err
        assert "--from-index 0" in outcome.err
    assert desk.ask("id")["version"] == 3
    desk.call("id", "revoke-key", key, "--from-index", "0", "--key", str(recovery))
    assert desk.ask("id")["retired"] == [{"key": key, "size": 0}]


def test_what_a_copy_needs_is_said(homes: Homes, tmp_path: Path, passphrase: dict[str, str]) -> None:
    desk, other = homes["desk"], homes["other"]
    desk.call("id", "new")
    copy = tmp_path / "copy.secret"
    none = desk.call("id", "export", "--to", str(copy), code=5)
    short = {"P2PHUB_PASSPHRASE_FILE": str(secret_file(tmp_path / "short.secret", "abc"))}
    too_short = desk.call("id", "export", "--to", str(copy), code=5, env=short)
    open_to_all = tmp_path / "open.txt"
    open_to_all.write_text(PASSPHRASE)
    refused = desk.call("id", "export", "--to", str(copy), code=1, env={"P2PHUB_PASSPHRASE_FILE": str(open_to_all)})
    desk.call("id", "export", "--to", str(copy), env=passphrase)
    copy.chmod(0o644)
    readable = other.call("id", "import", str(copy), env=passphrase, code=1)
    copy.chmod(0o600)
    copy.write_text(copy.read_text()[:-20])
    cut = other.call("id", "import", str(copy), env=passphrase, code=1)
    readme = tmp_path / "README.md"
    readme.write_text("# Birds\n")
    no_keys = other.call("id", "import", str(readme), code=1)

    nowhere = tmp_path / "no" / "folder" / "x.secret"
    for command in (
        ("export", "--to"), ("export", "--public", "--to"), ("recovery", "new", "--to"), ("add-key", "--new"),
    ):  # fmt: skip
        told = desk.call("id", *command, str(nowhere), env=passphrase, code=3).err
        assert f"there is no folder {nowhere.parent}" in told, command
    assert not nowhere.parent.parent.exists()
    assert f"a passphrase is needed to lock {copy} with" in none.err
    assert "P2PHUB_PASSPHRASE_FILE" in none.err
    assert "at least 8" in too_short.err
    assert "chmod 600" in refused.err
    assert "chmod 600" in readable.err
    assert "no key file, or damaged" in cut.err
    assert no_keys.err == f"p2phub: error: {readme} is no key file\n"
    assert "no publisher identity" in other.call("id", "show", code=3).err


def test_a_passphrase_is_asked_for_without_echo(homes: Homes, tmp_path: Path) -> None:
    desk = homes["desk"]
    desk.call("id", "new")
    copy = tmp_path / "copy.secret"
    process, screen = pty.fork()
    if process == 0:
        environment = {**desk.environment(), "TERM": "dumb"}
        os.execve(COMMAND[0], [*COMMAND, "id", "export", "--to", str(copy)], environment)
    seen = b""
    for prompt in (b"new passphrase", b"the same again"):
        while prompt not in seen:
            seen += os.read(screen, 1000)
        # Once the terminal echoes no more.
        wait_until(lambda: not is_echoing(screen), "the terminal to be silent")
        os.write(screen, f"{PASSPHRASE}\n".encode())
    try:
        while piece := os.read(screen, 1000):
            seen += piece
    except OSError:
        pass  # the other side is gone
    _, status = os.waitpid(process, 0)

    assert os.waitstatus_to_exitcode(status) == 0, seen
    assert PASSPHRASE.encode() not in seen
    assert copy.read_text().startswith("p2phub-locked-1:")


def test_nothing_secret_is_in_what_is_logged(
    homes: Homes, model: Path, tmp_path: Path, passphrase: dict[str, str]
) -> None:
    desk, laptop = homes["desk"], homes["laptop"]
    desk.call("id", "new")
    recovery = tmp_path / "recovery.secret"
    desk.run("-v", "id", "recovery", "new", "--to", str(recovery), env=passphrase)
    word = laptop.call("id", "request").out.strip()
    added = desk.run("-v", "id", "add-key", word, "--yes", "--key", str(recovery), env=passphrase)
    laptop.run("-v", "id", "join", added.out.splitlines()[-1])
    (laptop.folder / "keys" / "publish.key").chmod(0o644)
    laptop.run("-v", "publish", str(model), "x", code=1)
    (laptop.folder / "keys" / "publish.key").chmod(0o600)

    assert all(PASSPHRASE not in text for text in homes.heard)


def is_echoing(screen: int) -> bool:
    import termios

    return bool(termios.tcgetattr(screen)[3] & termios.ECHO)


def test_documents_for_everybody_are_taken_in(homes: Homes) -> None:
    namespace = homes["desk"].ask("id", "new")["namespace"]
    word = homes["desk"].call("id", "export", "--public").out
    path = homes.folder / "documents"
    path.write_text(word)

    assert homes["other"].ask("id", "import", str(path))["namespace"] == namespace
    assert "no publisher identity" in homes["other"].call("id", code=3).err


# ── robots ──────────────────────────────────────────────────────────────────


def test_a_robot_publishes_with_a_key_in_a_file_from_homes_that_are_new_each_time(
    homes: Homes, model: Path, tmp_path: Path
) -> None:
    desk = homes["desk"]
    namespace = desk.ask("id", "new")["namespace"]
    desk.call("publish", str(model), "by-hand")
    secret = tmp_path / "robot.secret"
    desk.call("id", "add-key", "--new", str(secret), "--no-passphrase")
    robot = {"P2PHUB_KEY_FILE": str(secret)}
    with desk.node() as node:
        alone = homes["run-0"].call("publish", str(model), "nightly-0", env=robot, code=1)
        assert "--peer" in alone.err
        for number in (1, 2):
            home = homes[f"run-{number}"]
            # Without --wait: a home that is new each time hands over what it signed, or its log would fork.
            done = home.ask("publish", str(model), f"nightly-{number}", "--peer", node.address, env=robot)
            assert done["namespace"] == namespace
            assert done["log_index"] == number - 1
        eventually(desk, namespace, {"by-hand", "nightly-1", "nightly-2"})
    assert desk.ask("trust", "conflicts") == []
    secret.chmod(0o644)
    assert "chmod 600" in homes["run-3"].call("publish", str(model), "x", env=robot, code=1).err
    assert (
        "there is no key file"
        in homes["run-3"].call("publish", str(model), "x", env={"P2PHUB_KEY_FILE": "/nowhere"}, code=3).err
    )
    secret.chmod(0o600)


def test_a_robot_may_do_nothing_but_publish(homes: Homes, tmp_path: Path) -> None:
    desk = homes["desk"]
    desk.call("id", "new")
    secret = tmp_path / "robot.secret"
    desk.call("id", "add-key", "--new", str(secret), "--no-passphrase")
    robot = {"P2PHUB_KEY_FILE": str(secret)}
    taken = homes["run"].call("id", "rotate", "--proposal", str(tmp_path / "p"), env=robot)

    assert "nothing changed yet" in taken.out
    assert homes["desk"].ask("id")["version"] == 2


# ── several people ──────────────────────────────────────────────────────────


def test_two_of_three_people_have_to_sign(homes: Homes, tmp_path: Path) -> None:
    lab, ann, bob = homes["lab"], homes["ann"], homes["bob"]
    namespace = lab.ask("id", "new")["namespace"]
    for person in (ann, bob):
        own = person.ask("id", "new")["namespace"]
        word = person.call("id", "request", "--for-another").out.strip()
        lab.call("id", "add-key", word, "--role", "root", "--yes")
        assert own != namespace
    lab.call("id", "threshold", "root", "2", "--proposal", str(tmp_path / "first"))
    # Both of the documents before and after want enough: one of three, then two of three.
    assert lab.ask("id")["version"] == 3
    shown = ann.call("id", "sign", str(tmp_path / "first"), "--yes")
    assert "2 of 3 keys must sign" in shown.err
    assert "in force" in shown.out
    assert "takes it up where it was proposed" in shown.err
    in_force = lab.call("id", "sign", str(tmp_path / "first"), "--yes")
    assert in_force.out.count("in force") == 1
    assert "note" not in in_force.err
    assert lab.ask("id")["version"] == 4

    proposal = tmp_path / "claim"
    waiting = lab.call("id", "domain", "lab.example", "--proposal", str(proposal))
    assert "1 more root key must sign" in waiting.out
    assert lab.ask("id")["domains"] == []
    again = lab.call("id", "sign", str(proposal), "--yes", code=5)
    assert "no key of this machine has to sign" in again.err
    assert (
        "no key of this machine has to sign" in homes["stranger"].call("id", "sign", str(proposal), "--yes", code=5).err
    )
    signed = bob.call("id", "sign", str(proposal), "--yes")
    assert "claims the domain lab.example" in signed.err
    lab.call("id", "sign", str(proposal), "--yes")
    assert lab.ask("id")["domains"] == ["lab.example"]
    assert "too few" not in bob.call("id").err
    # Another proposal of the same version comes too late.
    other = tmp_path / "late"
    text = proposal.read_text()
    lab.call("id", "rotate", "--proposal", str(other))
    ann.call("id", "sign", str(other), "--yes")
    lab.call("id", "sign", str(other), "--yes")
    assert text == proposal.read_text()
    assert "in force" in lab.call("id", "sign", str(proposal), "--yes").out


def test_a_proposal_that_was_changed_is_refused(homes: Homes, tmp_path: Path) -> None:
    lab, ann = homes["lab"], homes["ann"]
    lab.call("id", "new")
    recovery = tmp_path / "recovery.secret"
    lab.call("id", "recovery", "new", "--to", str(recovery), "--no-passphrase")
    proposal = tmp_path / "proposal"
    lab.call("id", "rotate", "--proposal", str(proposal))
    text = proposal.read_text()
    proposal.write_text(text.replace(text[200:204], text[200:204].swapcase(), 1))
    ann.call("id", "new")

    assert ann.call("id", "sign", str(proposal), "--yes", code=None).code in (1, 4)
    proposal.write_text(text)
    assert "in force" in lab.call("id", "sign", str(proposal), "--yes", "--key", str(recovery)).out


# ── ssh-agent ───────────────────────────────────────────────────────────────


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Run an ssh-agent with one Ed25519 key and one of another kind; gives the environment that names it."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("there is no ssh-agent here")
    said = subprocess.run(
        ["ssh-agent", "-s", "-a", str(tmp_path / "agent")], capture_output=True, text=True, check=True
    )
    found = dict(re.findall(r"(SSH_AUTH_SOCK|SSH_AGENT_PID)=([^;]+);", said.stdout))
    try:
        for kind, name in (("ed25519", "mine"), ("ecdsa", "other")):
            ssh(found, "ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(tmp_path / f"id_{kind}"))
            ssh(found, "ssh-add", "-q", str(tmp_path / f"id_{kind}"))
        yield found
    finally:
        ssh(found, "ssh-agent", "-k")


def ssh(agent: dict[str, str], *command: str) -> None:
    subprocess.run(command, env={**os.environ, **agent}, check=True, capture_output=True)


def test_a_key_in_an_ssh_agent_publishes_and_is_in_no_file(
    homes: Homes, model: Path, agent: dict[str, str], tmp_path: Path, passphrase: dict[str, str]
) -> None:
    desk, reader = homes["desk"], homes["reader"]
    made = desk.ask("id", "use-agent", env=agent)
    assert made["publish"] == made["root"]
    with desk.node(env=agent) as node, reader.node(peers=(node.address,)):
        desk.call("publish", str(model), "one")
        eventually(reader, made["namespace"], {"one"})
    # By itself, without a node.
    desk.call("publish", str(model), "two", env=agent)
    headers = {path.read_text().split()[0] for path in (desk.folder / "keys").glob("*.key") if path.name != "node.key"}
    assert headers == {"p2phub-agent-1", "p2phub-companion-1", "p2phub-recipient-1"}
    assert (
        "SSH_AUTH_SOCK is not set" in desk.call("publish", str(model), "three", code=3, env={"SSH_AUTH_SOCK": ""}).err
    )
    ssh(agent, "ssh-add", "-q", "-d", str(tmp_path / "id_ed25519"))
    assert "does not sign with key" in desk.call("publish", str(model), "three", code=3, env=agent).err
    gone = {"SSH_AUTH_SOCK": str(tmp_path / "nothing")}
    assert "cannot be asked" in desk.call("publish", str(model), "three", code=1, env=gone).err
    assert "no key" in desk.call("id", "export", "--to", str(tmp_path / "copy.secret"), code=3, env=passphrase).err


def test_a_command_that_a_stopped_agent_keeps_waiting_says_so(homes: Homes, model: Path, agent: dict[str, str]) -> None:
    desk = homes["desk"]
    desk.call("id", "use-agent", env=agent)
    process = int(agent["SSH_AGENT_PID"])

    def waits(*arguments: str) -> None:
        os.kill(process, signal.SIGSTOP)
        command = desk.start(*arguments, env=agent)
        try:
            assert command.stderr is not None
            assert "waiting for the ssh-agent" in command.stderr.readline()
            assert command.poll() is None
        finally:
            os.kill(process, signal.SIGCONT)
        assert command.wait(60) == 0

    waits("publish", str(model), "one")
    waits("id", "rotate", "--fresh")
    with desk.node(env=agent):
        waits("publish", str(model), "two")


def test_an_agent_takes_over_from_a_file(homes: Homes, model: Path, agent: dict[str, str]) -> None:
    desk = homes["desk"]
    before = desk.ask("id", "new")
    desk.call("publish", str(model), "one")
    assert "named one of" not in desk.call("id", "use-agent", "nobody", code=3, env=agent).out
    of_another_kind = desk.call("id", "use-agent", "other", code=3, env=agent).err
    after = desk.ask("id", "use-agent", "mine", env=agent)
    again = desk.call("id", "use-agent", "mine", code=1, env=agent).err
    desk.call("publish", str(model), "two", env=agent)

    assert "no Ed25519 key that is called so, and no others will do" in of_another_kind
    assert "signs for this machine already: it may change this identity and publish" in again

    assert after["namespace"] == before["namespace"]
    assert after["publish"] != before["publish"]
    assert after["retired"] == [{"key": before["publish"][0], "size": 1}]
    assert {found["model"] for found in desk.ask("search", "--publisher", before["namespace"])["models"]} == {
        "one",
        "two",
    }


def test_a_machine_that_still_has_its_key_keeps_it_when_it_recovers(homes: Homes, tmp_path: Path) -> None:
    desk = homes["desk"]
    desk.call("id", "new")
    recovery = tmp_path / "recovery.secret"
    made = desk.ask("id", "recovery", "new", "--to", str(recovery), "--no-passphrase")
    recovered = desk.ask("id", "recover", "--key", str(recovery))

    assert recovered["publish"] == made["publish"]
    assert recovered["retired"] == []
    assert recovered["recipient"] != made["recipient"]


def test_a_private_repository_goes_on_under_new_keys(homes: Homes, model: Path) -> None:
    desk, partner = homes["desk"], homes["partner"]
    namespace, other = desk.ask("id", "new")["namespace"], partner.ask("id", "new")["namespace"]
    desk.call("publish", str(model), "draft", "--private")
    desk.call("grant", "draft", other)
    with desk.node() as node, partner.node(peers=(node.address,)):

        def has(text: str) -> bool:
            target = homes.folder / "fetched"
            shutil.rmtree(target, ignore_errors=True)
            fetched = partner.call("fetch", f"{namespace}/draft", "--to", str(target), code=None)
            return fetched.code == 0 and (target / "README.md").read_text() == text

        wait_until(lambda: has("# One\n"), "the first revision")
        desk.call("id", "rotate")
        (model / "README.md").write_text("# Two\n")
        desk.call("publish", str(model), "draft")
        wait_until(lambda: has("# Two\n"), "the second revision")
