"""A key that signs on two machines, as after a restored backup: what people see of it, and how they get out."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2phub.testing.processes import Home, copy_home, wait_until

pytestmark = pytest.mark.timeout(180)


def publish(home: Home, folder: Path, name: str, *, code: int = 0):
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(f"# {name}\n")
    return home.run("publish", str(folder), name, code=code)


def test_two_histories_are_shown_and_the_publisher_goes_on(tmp_path: Path) -> None:
    one = Home(tmp_path / "one")
    namespace = one.json("id", "new", "--json")["namespace"]
    publish(one, tmp_path / "folder", "common")
    two = Home(copy_home(one.folder, tmp_path / "two"))
    publish(one, tmp_path / "folder", "from-one")
    publish(two, tmp_path / "folder", "from-two")
    with one.node() as first, two.node("--no-lan") as second:
        two.run("peers", "add", first.address)
        one.run("peers", "add", second.address)
        found = wait_until(lambda: one.json("trust", "conflicts", "--json"), "the fork to be found")
        lines = one.json("log", namespace, "--json")
        refused = publish(one, tmp_path / "folder", "too-late", code=5)
        reopened = one.json("id", "reopen", "--json")
        publish(one, tmp_path / "folder", "goes-on")

        def names() -> bool:
            return {model["model"] for model in two.json("search", "--json")["models"]} == {
                "common",
                "from-one",
                "goes-on",
            }

        wait_until(names, "the other machine to follow")
        told = two.run("trust", "conflicts")

    assert [(conflict["kind"], conflict["namespace"], conflict["index"]) for conflict in found] == [
        ("fork", namespace, 1)
    ]
    assert [(line["model"], bool(line["refused"])) for line in lines] == [("from-one", True), ("common", False)]
    assert "p2phub: hint: `p2phub id reopen`" in refused.err
    assert reopened["version"] == 2
    assert len(reopened["closed"]) == 1
    assert "two histories were signed" in told.out
    assert "closed it since" in told.out


def test_without_conflicts_nothing_is_shown_and_nothing_is_reopened(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.run("id", "new")

    assert home.json("trust", "conflicts", "--json") == []
    assert "no conflicts" in home.run("trust", "conflicts").err
    assert "has not forked" in home.run("id", "reopen", code=1).err
    assert "no publisher is known here" in home.run("trust", "conflicts", "acme", code=3).err
