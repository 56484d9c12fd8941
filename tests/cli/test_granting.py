"""What people type to let somebody in, and what they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2phub.testing.processes import Home, wait_until

NOT_FOUND, FAILED, USAGE = 3, 1, 2


@pytest.fixture
def alice(tmp_path: Path) -> Home:
    home = Home(tmp_path / "alice")
    home.call("id", "new")
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "README.md").write_text("# A draft\n")
    home.call("publish", str(tmp_path / "draft"), "draft@1.0.0", "--private")
    return home


def test_two_commands_let_somebody_in_and_one_takes_it_back(alice: Home, tmp_path: Path) -> None:
    bob = Home(tmp_path / "bob")
    whom = bob.json("id", "new")["namespace"]
    with alice.node() as node, bob.node(peers=(node.address,)):
        own = alice.json("status")["namespace"]
        wait_until(lambda: len(alice.json("peers", "ls")) == 1, "Bob's node to be known")
        granted = alice.call("grant", "draft", whom)
        fetched = bob.call("fetch", f"{own}/draft", "--to", str(tmp_path / "copy"))
        shown, info = bob.call("grants"), bob.call("info", f"{own}/draft")
        taken = alice.call("revoke", "draft", whom, "-m", "parted")
        again = bob.call("fetch", f"{own}/draft@1.0.0", "--to", str(tmp_path / "other"))  # what was fetched stays
        log = alice.call("log", "draft").out

    assert "then renewed" in granted.out
    assert "1 node that may read it was told" in granted.out
    assert (tmp_path / "copy" / "README.md").read_text() == "# A draft\n"
    assert f"namespace {whom}" in shown.out
    assert "its publisher, and those it is granted to" in info.out
    assert "nobody else" in taken.out
    assert "it ended at once on this node" in taken.out
    assert "0 nodes" not in taken.out
    assert fetched.code == again.code == 0
    assert "parted" in log


def test_what_is_mistyped_says_what_to_type(alice: Home, tmp_path: Path) -> None:
    whom = Home(tmp_path / "bob").json("id", "new")["namespace"]

    assert "publish --private" in alice.call("grant", "nothing", whom, code=NOT_FOUND).err
    assert "p2phub grants" in alice.call("revoke", "draft", whom, code=NOT_FOUND).err
    assert "1<=x<=30" in alice.call("grant", "draft", whom, "--days", "31", code=USAGE).err
    assert "another name" in alice.call("publish", str(tmp_path / "draft"), "draft", "--unlisted", code=FAILED).err
    assert "--wait" in alice.call("publish", str(tmp_path / "draft"), "x", "--private", "--wait", "1", code=USAGE).err
    assert "no private repositories" in Home(tmp_path / "bob").call("grants").err


def test_a_grant_for_some_days_ends_by_itself(alice: Home, tmp_path: Path) -> None:
    whom = Home(tmp_path / "bob").json("id", "new")["namespace"]
    (grant,) = alice.json("grant", "draft", whom, "--days", "3")["grants"]

    assert not grant["renewed"]
    assert "then renewed" not in alice.call("grants", "draft").out
