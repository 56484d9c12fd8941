"""Institutions agree as people do it: in a terminal, and over loopback."""

from __future__ import annotations

import pytest

from p2phub.testing.processes import Home


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """Run two nodes, each with a publisher, that know nothing of each other."""
    base = tmp_path_factory.mktemp("homes")
    alma, bonn = Home(base / "alma"), Home(base / "bonn")
    names = [home.ask("id", "new")["namespace"] for home in (alma, bonn)]
    with alma.node("--no-lan"), bonn.node("--no-lan"):
        yield alma, bonn, *names


def test_two_agree_change_the_terms_and_part(homes, tmp_path):
    alma, bonn, alma_name, bonn_name = homes
    invited = alma.call("federation", "invite", "vision-eu", "--replicas", "2", "--license", "mit", "--up", "50MB/s")
    (tmp_path / "invitation.txt").write_text(invited.out)
    joined = bonn.call("federation", "join", str(tmp_path / "invitation.txt"), "--yes").out
    status = bonn.call("status").out
    policy = bonn.call("follow", "vision-eu").out
    refused = bonn.call("federation", "terms", "vision-eu", "--replicas", "3", code=5)
    alma.call("federation", "terms", "vision-eu", "--kind", "model", "--license", "none")
    changed = bonn.call("federation", "ls").out
    bonn.call("federation", "accept", "vision-eu")
    (agreed,) = alma.ask("federation", "ls", "vision-eu")
    unasked = bonn.call("federation", "leave", "vision-eu", code=2).err
    (kept,) = bonn.ask("federation", "ls", "vision-eu")
    left = bonn.call("federation", "leave", "vision-eu", "--yes").out
    left_twice = bonn.call("federation", "leave", "vision-eu", "--yes", code=1).err
    dissolved = alma.call("federation", "leave", "vision-eu", "--yes").out

    assert "can be used once, until" in invited.err
    assert invited.out.startswith("p2phub-invite:")
    assert f"{alma_name}  member until" in joined
    assert "about all repositories under MIT of the members: 2 copies of each are kept together" in joined
    assert "links between members are of the class federation, at most 50.0 MB/s up" in joined
    assert "vision-eu: 2 members" in status
    assert "federation 50.0 MB/s up" in status
    assert policy.startswith("records of the members of vision-eu are taken in, and your own")
    assert "coordinated by" in refused.err
    assert "has not agreed to these terms yet" in changed
    assert "this home is no member" in changed
    assert {each["namespace"]: each["state"] for each in agreed["members"]} == {
        alma_name: "member",
        bonn_name: "member",
    }
    assert (agreed["terms"]["kinds"], agreed["terms"]["licenses"], agreed["terms"]["replicas"]) == (["model"], [], 2)
    assert "--yes" in unasked
    assert kept["member"]
    assert "this home has left vision-eu already" in left_twice
    assert (left, dissolved) == ("left vision-eu\n", "left vision-eu, which is dissolved\n")


def test_what_is_wrong_is_said(homes, tmp_path):
    alma, bonn, _, _ = homes
    text = alma.call("federation", "invite", "birds").out.strip()
    asked = bonn.call("federation", "join", text, code=2)
    cut = bonn.call("federation", "join", text[:-9], code=2)
    nothing = bonn.call("federation", "join", "no-such-file", "--yes", code=2)
    rate = alma.call("federation", "invite", "bees", "--up", "1k", code=2)
    licence = alma.call("federation", "invite", "bees", "--license", "no such licence", code=2)
    unknown = bonn.call("federation", "leave", "bees", "--yes", code=3)
    alone = Home(tmp_path / "alone")
    alone.call("id", "new")
    stopped = alone.call("federation", "invite", "bees", code=1)
    empty = alone.call("federation", "ls")

    assert "--yes agrees to the terms" in asked.err
    assert "was all of it copied?" in cut.err
    assert "neither an invitation nor a file" in nothing.err
    assert "the lowest is 50k" in rate.err
    assert "no licence that SPDX knows" in licence.err
    assert "no federation called bees" in unknown.err
    assert "this node does not run" in stopped.err
    assert empty.out == ""
    assert "belongs to no federation" in empty.err
