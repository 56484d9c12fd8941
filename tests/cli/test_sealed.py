"""Sealed repositories from one end to the other, with real processes: publish, keep, open, unseal."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from p2phub.core.sealing import CHUNK_SIZE
from p2phub.testing import values
from p2phub.testing.processes import Home, RunningNode, flip_byte, tree, wait_until

SECRET = b"what the keeper must not read"


@dataclass
class People:
    """A publisher, a keeper whose node runs, a reader that may open, and one that may not."""

    alice: Home
    keeper: Home
    bob: Home
    eve: Home
    door: RunningNode
    names: dict[str, str]
    folder: Path

    @property
    def model(self) -> str:
        return f"{self.names['alice']}/parrot"


def write_model(folder: Path) -> None:
    folder.mkdir()
    (folder / "README.md").write_bytes(b"---\nlicense: mit\n---\n# Parrot\n\n" + SECRET + b"\n")
    (folder / "secret-name.bin").write_bytes(SECRET + values.content("weights", 2 * CHUNK_SIZE + 5))
    (folder / "empty").write_bytes(b"")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """Alice sealed `parrot` for Bob, the keeper has all of it, and Alice is gone."""
    place = tmp_path_factory.mktemp("sealed")
    homes = {name: Home(place / name) for name in ("alice", "keeper", "bob", "eve")}
    names = {name: home.ask("id", "new")["namespace"] for name, home in homes.items()}
    write_model(place / "model")
    keeper = homes["keeper"].start_node()
    try:
        with homes["bob"].node(peers=(keeper.address,)) as bob, homes["alice"].node(peers=(keeper.address,)):
            alice = homes["alice"]
            wait_until(lambda: _knows(alice, bob), "Alice to hear of Bob's node")
            done = alice.ask("publish", str(place / "model"), "parrot@1.0.0", "--sealed-for", names["bob"])
            assert done["sealed"]
            homes["keeper"].call("fetch", f"{names['alice']}/parrot", "--sealed")
        yield People(homes["alice"], homes["keeper"], homes["bob"], homes["eve"], keeper, names, place / "model")
    finally:
        keeper.stop()


def _knows(home: Home, node: RunningNode) -> bool:
    # Who published nothing has no log, and only the own node can say who that is.
    known = [peer["addresses"] for peer in home.ask("peers", "ls") if peer["node"] == node.node_id]
    return any(f":{node.endpoint[1]}" in address for addresses in known for address in addresses)


def test_a_keeper_holds_what_it_cannot_read(people: People) -> None:
    kept = b"".join(path.read_bytes() for path in people.keeper.store.rglob("*") if path.is_file())
    index = (people.keeper.folder / "index.sqlite").read_bytes()
    assert SECRET not in kept + index
    assert b"secret-name" not in kept + index
    outcome = people.keeper.call("fetch", people.model, code=5)
    assert "sealed, for" in outcome.err
    assert "--sealed" in outcome.err


def test_who_may_opens_it_from_a_keeper(people: People, tmp_path: Path) -> None:
    people.bob.call("fetch", people.model, "--to", str(tmp_path / "out"), "--peer", people.door.address)

    assert tree(tmp_path / "out") == tree(people.folder)
    listed = people.bob.ask("ls", people.model)
    assert [file["path"] for file in listed] == ["README.md", "empty", "secret-name.bin"]
    assert all(file["here"] for file in listed)
    info = people.bob.ask("info", people.model)
    assert (info["sealed"], info["card"]["license"]) == ("open to you", "MIT")
    why = {each["about"]: each["verdict"] for each in people.bob.ask("trust", "why", people.model)}
    assert why["seal"] == "good"
    assert "secret-name.bin" in people.bob.call("sbom", people.model, "--as", "cyclonedx").out
    assert SECRET in people.bob.run("cat", people.model, "README.md").out.encode()


def test_what_is_opened_is_placed_checked_and_repaired_as_all_is(people: People, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    people.bob.call("fetch", people.model, "--to", str(folder), "--include", "*.bin", "--peer", people.door.address)
    assert list(tree(folder)) == ["secret-name.bin"]
    assert people.bob.ask("fetch", people.model, "--to", str(folder), "--include", "*.bin")["linked"] == "kept"
    flip_byte(folder / "secret-name.bin", 5)

    assert people.bob.ask("verify", str(folder), code=4)["damaged"][0]["path"] == "secret-name.bin"
    assert people.bob.call("fetch", people.model, "--to", str(folder), code=1).err.count("holds something else") == 1
    people.bob.call("verify", str(folder), "--repair")
    assert tree(folder)["secret-name.bin"] == tree(people.folder)["secret-name.bin"]


def test_who_may_not_does_not(people: People, tmp_path: Path) -> None:
    outcome = people.eve.call("fetch", people.model, "--peer", people.door.address, "--to", str(tmp_path), code=5)

    assert "there is no key here that opens it" in outcome.err
    assert tree(tmp_path) == {}
    info = people.eve.ask("info", people.model)
    assert info["sealed"] == "closed"
    assert "secret-name" not in str(info)


def overwrite(path: Path, data: bytes) -> None:
    """Write into a file so that only hashing can notice."""
    status = path.stat()
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.write(data)
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("attack", ["swapped", "repeated", "cut off", "of another file", "changed"])
def test_sealed_bytes_at_the_wrong_place_do_not_open(people: People, attack: str, tmp_path: Path) -> None:
    """Where the hashes of content do not notice either: written over the object, behind the back of the store."""
    people.bob.call("fetch", people.model, "--sealed", "--peer", people.door.address)
    kept = max(people.bob.objects, key=lambda path: path.stat().st_size)
    other = min(people.bob.objects, key=lambda path: path.stat().st_size).read_bytes()
    good, mib = kept.read_bytes(), 1024 * 1024
    bad = {
        "swapped": good[mib : 2 * mib] + good[:mib] + good[2 * mib :],
        "repeated": good[:mib] + good[:mib] + good[2 * mib :],
        "cut off": good[: 2 * mib] + bytes(len(good) - 2 * mib),
        "of another file": other.ljust(len(good), b"\0"),
        "changed": good[:-1] + bytes([good[-1] ^ 1]),
    }[attack]
    overwrite(kept, bad)
    try:
        outcome = people.bob.call("fetch", people.model, "--to", str(tmp_path / "out"), "--offline", code=4)
    finally:
        overwrite(kept, good)

    assert "not what was sealed there" in outcome.err
    assert "secret-name.bin" not in tree(tmp_path / "out")


def read(node: RunningNode, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    url = f"{node.local_url}/{path}"
    headers.setdefault("authorization", f"Bearer {json.loads(node.home.daemon_file.read_text())['token']}")
    try:
        with urlopen(Request(url, headers=headers), timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except HTTPError as exc:
        return exc.code, dict(exc.headers), exc.read()


def test_the_hub_door_shows_it_opened_to_the_owner_of_the_node(people: People, tmp_path: Path) -> None:
    """While it is fetched: nothing of it is in this store before."""
    other = Home(tmp_path / "bob2")
    shutil.copytree(people.bob.folder / "keys", other.folder / "keys")
    shutil.copy(people.bob.folder / "identity.cbor", other.folder)
    (other.folder / "keys/node.key").unlink()
    whole = (people.folder / "secret-name.bin").read_bytes()
    with other.node(peers=(people.door.address,)) as node:
        base = f"{people.model}/resolve/main"
        begin, end = CHUNK_SIZE - 100, 2 * CHUNK_SIZE + 3
        status, headers, body = read(node, f"{base}/secret-name.bin", Range=f"bytes={begin}-{end - 1}")
        assert (status, body == whole[begin:end]) == (206, True)
        assert headers["etag"] == f'"{tree(people.folder)["secret-name.bin"]}"'
        assert read(node, f"{base}/secret-name.bin")[2] == whole
        assert read(node, f"{base}/README.md")[2] == (people.folder / "README.md").read_bytes()
        assert read(node, f"{base}/empty")[0] == 200
        # Others on the machine have no business with what is sealed for its owner.
        assert read(node, f"{base}/README.md", authorization="")[0] == 403
        info = json.loads(read(node, f"api/models/{people.model}")[2])
        assert [file["rfilename"] for file in info["siblings"]] == ["README.md", "empty", "secret-name.bin"]
    with people.eve.node(peers=(people.door.address,)) as node:
        status, headers, body = read(node, f"{people.model}/resolve/main/README.md")
        assert (status, headers["x-error-code"]) == (403, "GatedRepo")
        assert SECRET not in body


def test_the_next_revision_stays_sealed_and_shares_what_did_not_change(people: People, tmp_path: Path) -> None:
    folder = tmp_path / "next"
    shutil.copytree(people.folder, folder)
    (folder / "README.md").write_text("# Parrot 2\n")
    first = {file["path"]: file["root"] for file in people.eve.ask("ls", people.model)}

    done = people.alice.ask("publish", str(folder), "parrot@2.0.0", "--branch", "two")

    assert done["sealed"]
    assert done["written"] < 5000
    assert people.alice.ask("info", f"parrot@{'2.0.0'}")["sealed"] == "open to you"
    assert len(first) == 4
    again = people.alice.ask("publish", str(folder), "parrot@2.0.0", "--branch", "two")
    assert (again["new"], again["written"]) == (False, 0)


def test_it_can_be_opened_for_more_and_at_last_for_all(people: People, tmp_path: Path) -> None:
    with people.alice.node(peers=(people.door.address,)), people.eve.node(peers=(people.door.address,)) as eve:
        wait_until(lambda: _knows(people.alice, eve), "Alice to hear of Eve's node")
        people.eve.call("fetch", people.model, code=5)
        sealed = people.alice.ask("seal", "add", "parrot", people.names["eve"])
        assert set(sealed["recipients"]) == {people.names[name] for name in ("alice", "bob", "eve")}
        people.eve.call("fetch", f"{people.model}@1.0.0", "--to", str(tmp_path / "eve"))
        assert tree(tmp_path / "eve") == tree(people.folder)
        people.keeper.call("fetch", people.model, code=5)
        sent = people.keeper.ask("status")["uploaded"]

        assert people.alice.ask("unseal", "parrot", "--yes")["unsealed"]

        wait_until(
            lambda: people.keeper.call("fetch", people.model, "--to", str(tmp_path / "keeper"), code=None).code == 0,
            "the keeper to hear of the key",
        )
        assert tree(tmp_path / "keeper") == tree(people.folder)
        assert people.keeper.ask("status")["uploaded"] == sent
        assert people.keeper.ask("info", people.model)["sealed"] == "open to all"
        assert not people.alice.ask("publish", str(people.folder), "parrot@3.0.0")["sealed"]


def test_other_keys_of_a_publisher_seal_anew_and_open_what_was_sealed_before(tmp_path: Path) -> None:
    home, folder = Home(tmp_path / "home"), tmp_path / "model"
    home.call("id", "new")
    write_model(folder)
    home.call("publish", str(folder), "parrot@1.0.0", "--sealed")
    (folder / "README.md").write_text("# Parrot 2\n")
    home.call("publish", str(folder), "parrot@2.0.0")
    assert home.ask("seal", "ls", "parrot")["keys"] == 1
    home.call("id", "rotate", "--all")
    (folder / "README.md").write_text("# Parrot 3\n")

    # Somebody may have the old one.
    home.call("publish", str(folder), "parrot@3.0.0")

    assert home.ask("seal", "ls", "parrot")["keys"] == 2
    for number in (1, 2, 3):
        home.call("fetch", f"parrot@{number}.0.0", "--to", str(tmp_path / str(number)), "--offline")
    assert tree(tmp_path / "3") == tree(folder)
    stored = b"".join(path.read_bytes() for path in home.store.glob("objects/*/*"))
    assert SECRET not in stored


def test_what_is_sealed_is_changed_by_no_client_that_would_open_it(tmp_path: Path) -> None:
    home, folder = Home(tmp_path / "home"), tmp_path / "model"
    namespace = home.ask("id", "new")["namespace"]
    write_model(folder)
    home.call("publish", str(folder), "parrot", "--sealed")
    lines = [
        {"key": "header", "value": {"summary": "more"}},
        {"key": "file", "value": {"path": "more.txt", "content": "bW9yZQ==", "encoding": "base64"}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    with home.node() as node:
        token = json.loads(home.daemon_file.read_text())["token"]
        request = Request(
            f"{node.local_url}/api/models/{namespace}/parrot/commit/main",
            data=body,
            headers={"authorization": f"Bearer {token}", "content-type": "application/x-ndjson"},
        )
        with pytest.raises(HTTPError) as refused:
            urlopen(request, timeout=60)
        assert refused.value.code == 412
        assert "sealed" in refused.value.headers["x-error-message"]
    assert home.ask("info", "parrot")["sealed"] == "open to you"
    assert [file["path"] for file in home.ask("ls", "parrot")] == ["README.md", "empty", "secret-name.bin"]
