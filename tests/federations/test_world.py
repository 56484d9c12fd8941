"""Institutions are apart: each in a network of its own, and all can reach each other."""

from __future__ import annotations

from p2phub.testing.processes import wait_until


def test_what_one_publishes_reaches_all_over_networks_that_are_not_one(world, tmp_path):
    alma = world.north[0]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("# Open to all\n")
    alma.home.run("publish", str(tmp_path / "model"), "open-to-all@1.0.0")
    for other in world.all[1:]:
        wait_until(lambda other=other: other.knows(alma.namespace), f"{other.name} to hear of it")
    result = world.outsider.home.json("fetch", f"{alma.namespace}/open-to-all@1.0.0", "--to", str(tmp_path / "copy"))
    links = {peer["link"] for peer in world.outsider.home.json("peers", "ls")}

    assert result["received"] == result["size"]
    assert len({each.machine.address for each in world.all}) == 7
    assert links == {"site"}  # addresses of one organisation, and no interface of the same network
