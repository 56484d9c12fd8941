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


def publish(one: Institution, folder: Path, name: str, licence: str = "apache-2.0") -> str:
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n# {name}\n")
    (folder / "weights.bin").write_bytes(name.encode() * 50_000)
    revision: str = one.home.json("publish", str(folder), name)["revision"]
    return revision


def test_members_mirror_each_other_and_outsiders_and_the_other_federation_do_not(world, tmp_path):
    agree("north", world.north, "--replicas", "2", "--license", "apache-2.0")
    agree("south", world.south)
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


def test_whoever_leaves_is_out_everywhere_within_seconds(world):
    dijon, evora, faro = world.south
    left = faro.home.run("federation", "leave", "south").out
    rest = {dijon.namespace, evora.namespace}

    assert left == "left south\n"
    for each in (dijon, evora):
        wait_until(lambda each=each: members(each, "south") == rest, f"{each.name} to hear of it", deadline_s=5)
    assert faro.namespace not in members(faro, "south")
    assert not faro.home.json("federation", "ls", "south")[0]["member"]
    refused = faro.home.run("federation", "accept", "south", code=5)
    assert "this home left south" in refused.err


def test_a_stolen_invitation_is_of_no_use(world):
    alma, outsider = world.north[0], world.outsider
    text = alma.home.run("federation", "invite", "north", "--for", world.south[2].namespace).out.strip()
    refused = outsider.home.run("federation", "join", text, "--yes", code=5)
    unasked = outsider.home.run("federation", "join", text, code=2)

    assert "the invitation is for" in refused.err
    assert "--yes agrees to the terms" in unasked.err
    assert outsider.namespace not in members(alma, "north")
