"""p2phub limits, as a person uses it, and what it does to transfers of real processes."""

from __future__ import annotations

import os
import time

import pytest

from p2phub.testing.processes import Home

pytestmark = pytest.mark.timeout(180)


def test_limits_are_kept_shown_and_taken_back(tmp_path):
    home = Home(tmp_path / "home")
    home.run("limits", "set", "internet", "--up", "5MB/s", "--down", "40Mbit", "--background", "on")
    home.run("limits", "range", "10.8.0.0/16", "site")
    home.run("limits", "label", "partner", "federation")
    home.run("store", "rebuild")
    shown = home.json("limits")
    limit = next(limit for limit in shown["limits"] if limit["link"] == "internet")

    assert (limit["up"], limit["down"], limit["background"]) == (5_000_000, 5_000_000, True)
    assert shown["ranges"] == [{"range": "10.8.0.0/16", "link": "site"}]
    assert shown["labels"] == [{"label": "partner", "link": "federation"}]

    home.run("limits", "set", "internet", "--up", "none", "--down", "0", "--background", "off")
    home.run("limits", "range", "10.8.0.0/16", "none")
    home.run("limits", "label", "partner", "none")
    shown = home.json("limits")

    assert all(not limit.get("up") and not limit.get("down") and not limit["background"] for limit in shown["limits"])
    assert not shown["ranges"]
    assert not shown["labels"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("set", "moon", "--up", "1MB"), 2, "moon"),
        (("set", "lan"), 2, "--up"),
        (("set", "lan", "--up", "5cows"), 2, "5cows"),
        (("set", "lan", "--up", "-5"), 2, "-5"),
        (("set", "lan", "--up", "10"), 2, "too low"),
        (("range", "10.0.0.1/8", "site"), 2, "10.0.0.1/8"),
        (("range", "10.0.0.0/8", "none"), 3, "no rule"),
        (("label", "with space", "site"), 2, "with space"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_changes(arguments, code, said, tmp_path):
    home = Home(tmp_path / "home")
    before = home.json("limits")
    outcome = home.call("limits", *arguments, code=code)

    assert said in outcome.err
    assert home.json("limits") == before


def test_a_limit_holds_for_what_is_under_way_and_its_end_too(tmp_path):
    size = 20_000_000
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights.bin").write_bytes(os.urandom(size))
    seed, home = Home(tmp_path / "seed"), Home(tmp_path / "home")
    seed.run("id", "new")
    revision = seed.json("publish", str(tmp_path / "folder"), "model")["revision"]
    seed.run("limits", "set", "lan", "--up", "1MB/s")
    with seed.node() as node, home.node(peers=(node.address,)):
        start = time.monotonic()
        process = home.start("fetch", revision, "--to", str(tmp_path / "out"), "--json")
        time.sleep(4.0)
        under_way = home.json("swarm", revision)
        seed.run("limits", "set", "lan", "--up", "none")
        _, err = process.communicate(timeout=120)
        took_s = time.monotonic() - start

    assert under_way["fetching"]
    assert under_way["here"] < 1_000_000 * (took_s + 1)
    assert under_way["here"] < size / 2
    assert process.returncode == 0, err
    assert (tmp_path / "out" / "weights.bin").read_bytes() == (tmp_path / "folder" / "weights.bin").read_bytes()
