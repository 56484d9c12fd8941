"""Two federations of three institutions each agree, act by it and end it; what one does is nothing to the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2phub.testing.institutions import Institution
from p2phub.testing.processes import wait_until

pytestmark = pytest.mark.timeout(240)


def members(one: Institution, name: str) -> set[str]:
    """Return the names of those whose word counts, as `one` shows it."""
    found = one.home.run("federation", "ls", name, "--json", code=None)
    if found.code:
        return set()
    (info,) = json.loads(found.out)
    return {each["namespace"] for each in info["members"] if each["state"] == "member"}


def agree(name: str, some: list[Institution], *terms: str) -> None:
    """Let the first of `some` found a federation, and the others join it."""
    first, *others = some
    for number, other in enumerate(others):
        text = first.home.run("federation", "invite", name, *(terms if number == 0 else ())).out.strip()
        other.home.run("federation", "join", text, "--yes")
    everybody = {each.namespace for each in some}
    for each in some:
        wait_until(lambda each=each: members(each, name) == everybody, f"{each.name} to know all members")


@pytest.fixture(scope="module")
def agreed(world):
    """Let two federations be agreed on: one that mirrors what is free, and one that does not mirror."""
    agree("north", world.north, "--replicas", "2", "--license", "apache-2.0")
    agree("south", world.south)
    return world


def publish(one: Institution, folder: Path, name: str, *options: str, licence: str = "apache-2.0") -> str:
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n# {name}\n")
    (folder / "weights.bin").write_bytes(name.encode() * 50_000)
    revision: str = one.home.json("publish", str(folder), name, *options)["revision"]
    return revision


def test_members_mirror_each_other_and_outsiders_and_the_other_federation_do_not(agreed, world, tmp_path):
    alma, bonn, cern = world.north
    shared = publish(alma, tmp_path / "shared", "shared@1.0.0")
    other = publish(alma, tmp_path / "other", "other@1.0.0", licence="gpl-3.0")

    wait_until(lambda: bonn.has(shared) or cern.has(shared), "the second copy")
    assert not any(each.has(shared) for each in (*world.south, world.outsider))
    assert not any(each.has(other) for each in (bonn, cern))
    # Nobody else learns of the agreement.
    for each in (*world.south, world.outsider):
        assert each.home.run("federation", "ls", "north", code=3).out == ""
    seen = {peer["node"]: peer["link"] for peer in bonn.home.json("peers", "ls")}
    assert {seen[each.node.node_id] for each in (alma, cern)} == {"federation"}
    assert seen[world.outsider.node.node_id] == seen[world.south[0].node.node_id] == "site"
    status = bonn.home.run("pledge", "ls").out
    assert status == ""  # it pledged nothing by itself


def test_a_private_model_is_for_members_and_whoever_leaves_has_lost_it_within_seconds(agreed, world, tmp_path):
    # Across the two: an institution can be in several.
    evora, alma, bonn = world.south[1], *world.north[:2]
    agree("close", [evora, alma, bonn])
    publish(evora, tmp_path / "secret", "secret@1.0.0", "--private")
    evora.home.run("grant", "secret", "federation:close")
    name = f"{evora.namespace}/secret@1.0.0"
    for each in (alma, bonn):
        wait_until(lambda each=each: each.home.run("fetch", name, code=None).code == 0, f"{each.name} to have it")
    refused = [each.home.run("fetch", name, code=3).err for each in (world.north[2], world.south[0], world.outsider)]
    left = bonn.home.run("federation", "leave", "close", "--yes").out
    rest = {evora.namespace, alma.namespace}
    for each in (evora, alma):
        wait_until(lambda each=each: members(each, "close") == rest, f"{each.name} to hear of it", deadline_s=5)

    def granted() -> set[str]:
        return {each["to"] for each in evora.home.json("grants", "secret")[0]["grants"]}

    wait_until(lambda: granted() == {alma.namespace}, "the grant to be taken back", deadline_s=5)
    bonn.home.run("store", "gc", "--unpinned")
    publish(evora, tmp_path / "second", "secret@2.0.0", "--private")

    assert left == "left close\n"
    assert all("nothing is known of" in text for text in refused)
    assert bonn.namespace not in members(bonn, "close")
    assert not bonn.home.json("federation", "ls", "close")[0]["member"]
    assert "this home left close" in bonn.home.run("federation", "accept", "close", code=5).err
    newer = f"{evora.namespace}/secret@2.0.0"
    wait_until(lambda: alma.home.run("fetch", newer, code=None).code == 0, "alma to have the next version")
    assert bonn.home.run("fetch", newer, "--to", str(tmp_path / "bonn"), code=None).code == 3


def test_a_stolen_invitation_is_of_no_use(agreed, world):
    alma, outsider = world.north[0], world.outsider
    text = alma.home.run("federation", "invite", "north", "--for", world.south[2].namespace).out.strip()
    refused = outsider.home.run("federation", "join", text, "--yes", code=5)
    unasked = outsider.home.run("federation", "join", text, code=2)

    assert "the invitation is for" in refused.err
    assert "--yes agrees to the terms" in unasked.err
    assert outsider.namespace not in members(alma, "north")
