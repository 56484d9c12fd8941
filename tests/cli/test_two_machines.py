"""Two machines that sign for one publisher at the same time learn of it at once, and one of them yields."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2phub.cli import secrets
from p2phub.core.errors import SplitIdentity
from p2phub.core.identity import Identity
from p2phub.core.ids import NamespaceId
from p2phub.store.layout import Layout
from p2phub.store.store import Store
from p2phub.testing.processes import Home, copy_home

pytestmark = pytest.mark.timeout(120)

OFFLINE = {"P2PHUB_OFFLINE": "1"}


def recovery(home: Home, name: str) -> tuple[str, ...]:
    """Return the command that lets one more root key sign."""
    return "id", "recovery", "new", "--shared", "--no-passphrase", "--to", str(home.folder.parent / name)


@pytest.fixture
def laptop(tmp_path: Path) -> Home:
    home = Home(tmp_path / "laptop", {"P2PHUB_LAN": "off"})
    home.call("id", "new")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("# One\n")
    home.call("publish", str(tmp_path / "model"), "one")
    return home


@pytest.fixture
def desktop(laptop: Home, tmp_path: Path) -> Home:
    return Home(copy_home(laptop.folder, tmp_path / "desktop"), {"P2PHUB_LAN": "off"})


@contextlib.contextmanager
def opened(home: Home) -> Iterator[Store]:
    store = Store(Layout(home.folder, home.folder / "store"))
    try:
        yield store
    finally:
        store.database.close()


def known(home: Home) -> Identity:
    """Return the own identity that counts in a home, as it is kept for others."""
    return known_by(home, NamespaceId.parse(home.ask("id")["namespace"]))


def known_by(home: Home, namespace: NamespaceId) -> Identity:
    """Return the identity that counts in a home, of anybody."""
    with opened(home) as store:
        found = store.logs.identity(namespace)
    assert found
    return found


def test_the_second_machine_is_stopped_and_yields(laptop: Home, desktop: Home) -> None:
    laptop.call(*recovery(laptop, "one.keys"))
    desktop.call(*recovery(desktop, "two.keys"), env=OFFLINE)
    with laptop.node() as node:
        desktop.call("peers", "add", node.address)
        stopped = desktop.call(*recovery(desktop, "three.keys"), code=1)
        shown = desktop.call("id")
        theirs = laptop.ask("id")["root"]
        assert desktop.ask("id")["root"] != theirs
        desktop.call("id", "yield")
        assert desktop.ask("id")["root"] == theirs
        again = desktop.call(*recovery(desktop, "two again.keys"))

    assert "another machine signed a version 2 of this identity, too" in stopped.err
    assert "p2phub id yield" in stopped.err
    assert "p2phub id yield" in shown.err
    assert not (desktop.folder.parent / "three.keys").exists()
    assert "version 3" in again.out
    assert "no two documents" in desktop.call("id", "yield", code=3).err
    # The laptop goes on with what the desktop signed since.
    assert known(laptop) == known(desktop)


def test_who_has_to_can_go_on_despite_it(laptop: Home, desktop: Home) -> None:
    """As when the other was a thief."""
    laptop.call(*recovery(laptop, "one.keys"))
    desktop.call(*recovery(desktop, "two.keys"), env=OFFLINE)
    with laptop.node() as node:
        desktop.call("peers", "add", node.address)
        desktop.call(*recovery(desktop, "three.keys"), code=1)

        assert "version 3" in desktop.call(*recovery(desktop, "three.keys"), "--despite-split").out


def test_nobody_recovers_an_identity_that_split_without_being_told(laptop: Home, desktop: Home, tmp_path: Path) -> None:
    """A thief signs with the stolen keys, at the moment of the last change of who lost them."""
    laptop.call(*recovery(laptop, "one.keys"))
    desktop.call(*recovery(desktop, "two.keys"), env=OFFLINE)
    other = Home(tmp_path / "other", {"P2PHUB_LAN": "off"})
    hear(other, known(laptop), known(desktop))
    command = ("id", "recover", "--from-index", "1", "--key", str(tmp_path / "one.keys"))
    stopped = other.call(*command, code=1)

    assert "another machine signed a version 2 of this identity, too" in stopped.err
    assert known_by(other, known(laptop).namespace) == known(laptop)
    assert "version 3" in other.call(*command, "--despite-split").out


def test_nobody_signs_for_others_what_split_without_being_told(laptop: Home, desktop: Home, tmp_path: Path) -> None:
    laptop.call(*recovery(laptop, "one.keys"))
    desktop.call(*recovery(desktop, "two.keys"), env=OFFLINE)
    proposal = str(tmp_path / "change.proposal")
    laptop.call("id", "threshold", "root", "2", "--key", str(tmp_path / "one.keys"))
    laptop.call("id", "rotate", "--publish", "--proposal", proposal)
    before = known(laptop)
    other = Home(tmp_path / "other", {"P2PHUB_LAN": "off"})
    hear(other, before, known(desktop))
    command = ("id", "sign", proposal, "--yes", "--key", str(tmp_path / "one.keys"))
    stopped = other.call(*command, code=1)

    assert "another machine signed a version 2 of this identity, too" in stopped.err
    assert known_by(other, before.namespace) == before
    assert "version 4" in other.call(*command, "--despite-split").out


def hear(home: Home, first: Identity, then: Identity) -> None:
    """Let a home know both documents of one version; the first counts."""
    home.call("peers", "ls")
    with opened(home) as store:
        store.logs.add_identity(first)
        with pytest.raises(SplitIdentity):
            store.logs.add_identity(then)


def test_two_that_sign_in_the_same_moment_are_told(
    laptop: Home, desktop: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them could know: the other's document comes between the look for it and the end."""
    laptop.call(*recovery(laptop, "one.keys"))
    theirs = known(laptop)

    def hear_now() -> None:
        with opened(desktop) as store, pytest.raises(SplitIdentity):
            store.logs.add_identity(theirs)

    monkeypatch.setattr(secrets, "tell_node", hear_now)

    assert "another machine signed a version 2" in desktop.call(*recovery(desktop, "two.keys"), code=1).err


def test_who_can_ask_nobody_is_told_so(laptop: Home) -> None:
    with Home(laptop.folder.parent / "other").node() as node:
        laptop.call("peers", "add", node.address)
        assert "no node could be asked" not in laptop.call(*recovery(laptop, "one.keys")).err

    assert "no node could be asked" in laptop.call(*recovery(laptop, "two.keys")).err
