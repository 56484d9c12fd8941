"""Machines that act for a publisher, as people let them: a word, taken from one machine to another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2phub.testing.processes import Home, RunningNode

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[tuple[Home, RunningNode]]:
    """Give the running node of somebody who published `hidden` for himself."""
    home = Home(tmp_path / "publisher")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("# Hidden\n")
    home.call("id", "new")
    home.call("publish", str(tmp_path / "model"), "hidden", "--private")
    with home.node() as node:
        yield home, node


def own_id(home: Home) -> str:
    return str(home.ask("status")["node_id"])


def namespace_of(home: Home) -> str:
    return str(home.ask("id", "show")["namespace"])


def test_a_machine_reads_what_is_private_once_it_took_the_word(
    publisher: tuple[Home, RunningNode], tmp_path: Path
) -> None:
    home, node = publisher
    other, name = Home(tmp_path / "other"), f"{namespace_of(home)}/hidden"
    before = other.call("fetch", name, "--peer", node.address, "--to", str(tmp_path / "out"), code=3)
    word = home.call("id", "delegate", own_id(other), "--days", "7")
    taken = other.call("id", "delegate", "--take", word.out)
    other.call("fetch", name, "--peer", node.address, "--to", str(tmp_path / "out"))

    assert "hidden" in before.err
    assert "id delegate --take" in word.err
    assert f"acts for {namespace_of(home)} until" in taken.out
    assert (tmp_path / "out" / "README.md").read_text() == "# Hidden\n"


def test_a_word_is_for_one_machine(publisher: tuple[Home, RunningNode], tmp_path: Path) -> None:
    home, _ = publisher
    thief, other = Home(tmp_path / "thief"), Home(tmp_path / "other")
    word = home.ask("id", "delegate", own_id(other))
    (tmp_path / "word").write_text(f"{word['word'][:70]}\n {word['word'][70:]}\n")
    refused = thief.call("id", "delegate", "--take", word["word"], code=1)
    taken = other.ask("id", "delegate", "--take", str(tmp_path / "word"))

    assert f"this is for node {own_id(other)}" in refused.err
    assert thief.call("id", "delegate").out == ""
    assert taken == {field: word[field] for field in ("namespace", "node", "expires")}


def test_a_machine_can_stop_to_act_for_somebody(publisher: tuple[Home, RunningNode], tmp_path: Path) -> None:
    home, _ = publisher
    other = Home(tmp_path / "other")
    other.call("id", "delegate", "--take", home.ask("id", "delegate", own_id(other))["word"])
    acted = other.ask("id", "delegate")
    other.call("id", "delegate", "--drop", namespace_of(home))
    again = other.call("id", "delegate", "--drop", namespace_of(home), code=3)

    assert [each["namespace"] for each in acted] == [namespace_of(home)]
    assert other.ask("id", "delegate") == []
    assert "does not act for" in again.err


def test_a_home_acts_for_its_own_publisher_by_itself(publisher: tuple[Home, RunningNode]) -> None:
    home, node = publisher
    (acts,) = home.ask("id", "delegate")
    itself = home.call("id", "delegate", node.node_id, code=2)

    assert (acts["namespace"], acts["node"]) == (namespace_of(home), node.node_id)
    assert "by itself" in itself.err


def test_what_is_no_word_is_refused_in_a_sentence(publisher: tuple[Home, RunningNode], tmp_path: Path) -> None:
    home, _ = publisher
    other = Home(tmp_path / "other")
    word = home.ask("id", "delegate", own_id(other))["word"]
    for spoilt in (word[:-8], word[:60] + "AAAA" + word[64:], "p2phub-request-1:AAAA", str(tmp_path / "none")):
        outcome = other.call("id", "delegate", "--take", spoilt, code=None)

        assert outcome.code in (1, 3)
        error, *hints = outcome.err.splitlines()
        assert error.startswith("p2phub: error: ")
        assert all(line.startswith("p2phub: hint: ") for line in hints), outcome.err
    assert json.loads(other.call("id", "delegate", "--json").out) == []


def test_without_a_publisher_there_is_nobody_to_act_for(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    outcome = home.call("id", "delegate", own_id(Home(tmp_path / "other")), code=3)

    assert "p2phub id new" in outcome.err
