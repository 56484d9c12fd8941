"""A private model reaches exactly those whom its publisher lets in, and no word of it crosses an outsider's link."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from p2phub.testing.capture import capturing
from p2phub.testing.institutions import Institution, institutions, wait_acquainted
from p2phub.testing.processes import wait_until

NAME = "hushed-parrot"
WITHIN_S = 5.0  # that revoking may take
OPEN = "# For everybody\n"
NOT_FOUND = 3  # exit code
RATE = 300_000  # bytes a second: slow enough to be interrupted


@pytest.fixture(scope="module")
def plain(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Institution]]:
    """Run a publisher, a friend, another friend and an outsider whose links can be read: without TLS."""
    names = ("publisher", "friend", "partner", "outsider")
    with institutions(tmp_path_factory.mktemp("plain"), *names, env={"P2PHUB_PLAIN": "1"}) as found:
        wait_acquainted(found)
        yield found


def write_model(folder: Path, size: int) -> Path:
    """Write a model whose bytes nobody can guess: a line says so again and again, each time another."""
    folder.mkdir()
    lines = (f"confidential weight {number:09d} of nobody else's business\n" for number in range(size // 53 + 1))
    (folder / "weights.txt").write_text("".join(lines))
    (folder / "README.md").write_text("# A parrot that is hushed up\n")
    return folder


def secrets_of(home: Path, revision: str) -> dict[str, bytes]:
    """Return all that an outsider must not see, in each form that it may be written in."""
    found = {"name": NAME.encode(), "bytes": b"of nobody else's business", "title": b"that is hushed up",
             "path": b"weights.txt"}  # fmt: skip
    ids = {"revision": bytes.fromhex(revision.removeprefix("b3:"))}
    files = [path for path in home.glob("store/objects/??/*") if path.read_bytes() != OPEN.encode()]
    for number, path in enumerate(files):
        ids[f"file {number}"] = bytes.fromhex(path.name)
    for path in home.glob("store/private/*"):
        ids["log"] = base64.b32decode(path.name.upper() + "====")
        ids["secret"] = _secret_in(path.read_bytes())
    for what, each in ids.items():
        found |= {
            f"{what} as bytes": each,
            f"{what} as hex": each.hex().encode(),
            f"{what} as commit": each.hex()[:40].encode(),
            f"{what} as base32": base64.b32encode(each).rstrip(b"=").lower(),
        }
    return found


def _secret_in(data: bytes) -> bytes:
    import cbor2

    secret: bytes = cbor2.loads(data)["secret"]
    return secret


def test_no_name_hash_or_byte_of_a_private_model_crosses_the_link_of_an_outsider(plain, tmp_path):
    publisher, friend, partner, outsider = plain
    with ExitStack() as stack:
        seen = stack.enter_context(capturing(outsider.machine, tmp_path / "outsider.link"))
        shown = stack.enter_context(capturing(friend.machine, tmp_path / "friend.link"))
        folder = write_model(tmp_path / "model", 3_000_000)
        done = publisher.home.json("publish", str(folder), f"{NAME}@1.0.0", "--private")
        for each in (friend, partner):
            publisher.home.run("grant", NAME, each.namespace)
        reference = f"{publisher.namespace}/{NAME}"
        for each in (friend, partner):
            each.home.run("fetch", reference, "--dry-run")
            each.home.run("providers", reference)
            each.home.run("fetch", reference, "--to", str(tmp_path / each.name))
            each.home.run("swarm", reference)
        # The outsider looks at all that it can, and its neighbours go on talking with it.
        outsider.home.run("search", "parrot")
        outsider.home.run("grants")
        (tmp_path / "open").mkdir()
        (tmp_path / "open" / "README.md").write_text(OPEN)
        publisher.home.run("publish", str(tmp_path / "open"), "open@1.0.0")
        wait_until(lambda: outsider.knows(publisher.namespace), "the outsider to hear of what is public")
        outsider.home.run("fetch", f"{publisher.namespace}/open@1.0.0")
        publisher.home.run("revoke", NAME, partner.namespace)
        publisher.home.run("publish", str(write_model(tmp_path / "second", 100_000)), f"{NAME}@2.0.0")
        wait_until(
            lambda: friend.home.run("info", f"{reference}@2.0.0", code=None).code == 0, "the friend to hear of 2.0.0"
        )
        time.sleep(2)
    secrets = secrets_of(publisher.home.folder, done["revision"])
    everything, known = seen.everything(), shown.everything()

    assert done["visibility"] == "private"
    assert friend.has(done["revision"])
    assert len(everything) > 10_000
    assert b"/v1/talk" in everything  # it can be read
    assert [what for what, secret in secrets.items() if secret in everything] == []
    # It would be seen: it crosses the link of who may have it.
    assert {"name", "bytes", "revision as bytes", "log as bytes", "secret as bytes"} <= {
        what for what, secret in secrets.items() if secret in known
    }
    assert not any(
        secret in path.read_bytes()
        for path in outsider.home.folder.rglob("*")
        if path.is_file()
        for secret in secrets.values()
    )


def test_a_private_model_reaches_exactly_those_let_in_and_revoking_ends_a_running_download(world, tmp_path):
    alma, bonn, cern = world.north
    dijon, evora, faro = world.south
    done = alma.home.json("publish", str(write_model(tmp_path / "model", 40_000_000)), f"{NAME}@1.0.0", "--private")
    reference = f"{alma.namespace}/{NAME}@1.0.0"
    for each in (bonn, evora):
        alma.home.run("grant", NAME, each.namespace)
    bonn.home.run("fetch", reference)
    nothing = f"{alma.namespace}/hushed-parrot-that-never-was@1.0.0"
    for each in (cern, dijon, faro, world.outsider):
        refused, absent = (
            each.home.run("fetch", reference, code=NOT_FOUND),
            each.home.run("fetch", nothing, code=NOT_FOUND),
        )
        assert refused.err == absent.err.replace("hushed-parrot-that-never-was", NAME)
        each.home.run("fetch", done["revision"], code=NOT_FOUND)
        assert not each.has(done["revision"])
        assert list((each.home.folder / "store" / "private").glob("*")) == []

    for holder in (alma, bonn):
        holder.home.run("limits", "set", "site", "--up", str(RATE))
    download = evora.home.start("fetch", reference)
    before = evora.machine.received
    wait_until(lambda: evora.machine.received - before > 3 * RATE, "the download to run")
    began = time.monotonic()
    alma.home.run("revoke", NAME, evora.namespace)
    time.sleep(max(0.0, began + WITHIN_S - time.monotonic()))
    then = evora.machine.received
    time.sleep(3)
    after = evora.machine.received
    download.kill()
    download.communicate()
    for holder in (alma, bonn):
        holder.home.run("limits", "set", "site", "--up", "none")

    assert after - then < RATE  # of six times as much, two holders together
    assert evora.home.run("fetch", reference, code=None).code != 0
    assert not evora.has(done["revision"])
    assert bonn.has(done["revision"])
