"""`p2phub limits`: what people type, what holds then, with a node that runs and without."""

from __future__ import annotations

import json
import os
import time

import pytest

from p2phub.cli.text import human_rate, parse_rate
from p2phub.testing.processes import Home, wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("500k", 500_000),
        ("500K/s", 500_000),
        ("50MB", 50_000_000),
        ("50MB/s", 50_000_000),
        ("1 MiB/s", 1_048_576),
        ("1.5m", 1_500_000),
        ("64KiB", 65_536),
        ("100Mbit", 12_500_000),
        ("100 Mbit/s", 12_500_000),
        ("1Gbits/s", 125_000_000),
        ("2g", 2_000_000_000),
        ("123456", 123_456),
        ("123456 B/s", 123_456),
        (" 7kB ", 7_000),
        ("0", 0),
        ("0 MB/s", 0),
        ("none", 0),
        ("None", 0),
    ],
)
def test_rates_are_read_as_people_write_them(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "fast", "-5k", "5x", "5 MB per second", "1e6", "5MBB", "k", "5kk", "0.1", "0.5 bit", "99999999t", "5,5M", "٣"],
)
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="rate"):
        parse_rate(text)


@pytest.mark.parametrize("rate", [1, 999, 1_500_000, 50_000_000, 12_000_000_000])
def test_a_rate_that_is_shown_can_be_typed(rate: int) -> None:
    assert parse_rate(human_rate(rate)) == pytest.approx(rate, rel=0.01)


def test_limits_are_shown_set_and_lifted(home: Home) -> None:
    first = home.call("limits").out
    home.call("limits", "set", "internet", "--up", "5MB/s", "--down", "100Mbit")
    home.call("limits", "set", "site", "--background", "on")
    shown = home.call("limits").out
    facts = home.ask("limits")
    status = home.call("status").out
    home.call("limits", "set", "internet", "--up", "none", "--down", "0")
    after = home.ask("limits")

    assert first.count("no limit") == 4
    assert "internet  5.0 MB/s up, 12.5 MB/s down" in shown
    assert "site  no limit, in the background" in shown
    assert facts["limits"][3] == {"link": "internet", "up": 5_000_000, "down": 12_500_000, "background": False}
    assert facts["limits"][1] == {"link": "site", "up": None, "down": None, "background": True}
    (line,) = [line for line in status.splitlines() if line.lstrip().startswith("limits")]
    assert "internet 5.0 MB/s up" in line
    assert "site" in line
    assert after["limits"][3] == {"link": "internet", "up": None, "down": None, "background": False}


def test_without_limits_the_status_has_no_line_of_them(home: Home) -> None:
    lines = home.call("status").out.splitlines()

    assert not [line for line in lines if line.lstrip().startswith("limits")]


def test_ranges_and_labels_are_shown_set_and_forgotten(home: Home) -> None:
    home.call("limits", "range", "10.8.0.0/16", "site")
    home.call("limits", "range", "fd00::/8", "federation")
    home.call("limits", "label", "lip6", "federation")
    home.call("store", "rebuild")
    shown = home.call("limits").out
    home.call("limits", "range", "10.8.0.0/16", "none")
    facts = json.loads(home.call("limits", "label", "lip6", "none", "--json").out)

    assert "range  10.8.0.0/16 is site" in shown
    assert "label  lip6 is federation" in shown
    assert facts["ranges"] == [{"range": "fd00::/8", "link": "federation"}]
    assert facts["labels"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("set", "lan"), 2, "--up"),
        (("set", "moon", "--up", "1M"), 2, "moon"),
        (("set", "lan", "--up", "fast"), 2, "'fast' is no rate"),
        (("set", "lan", "--up", "10k"), 2, "too low"),
        (("set", "lan", "--background", "maybe"), 2, "maybe"),
        (("range", "10.8.0.1/16", "lan"), 2, "bits set"),
        (("range", "here", "lan"), 2, "'here' is no range"),
        (("range", "10.8.0.0/16", "none"), 3, "no rule"),
        (("label", "a b", "lan"), 2, "no label"),
        (("label", "lip6", "none"), 3, "no rule"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(home: Home, arguments, code: int, why: str) -> None:
    outcome = home.call("limits", *arguments, code=code)

    assert why in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize("option", ["--cluster", "--site"])
def test_a_label_that_is_none_starts_no_node(home: Home, option: str) -> None:
    assert "no label" in home.call("node", option, "a b", code=2).err


def test_a_variable_with_a_label_that_is_none_is_named(home: Home) -> None:
    assert "P2PHUB_SITE" in home.call("status", env={"P2PHUB_SITE": "a b"}, code=2).err


def test_a_running_node_takes_limits_over_and_says_where_it_stands(seed, home: Home) -> None:
    with home.node("--cluster", "rack-1", "--site", "campus", *seed.peer) as node:
        wait_until(lambda: home.ask("peers", "ls")[0]["last_seen"] is not None, "the seed to be seen")
        near = home.ask("peers", "ls")[0]["link"]
        home.call("limits", "range", "127.0.0.0/8", "federation")
        far = home.ask("peers", "ls")[0]["link"]
        listed = home.call("peers", "ls").out
        home.call("limits", "set", "federation", "--up", "1MB/s")
        status = home.ask("status")
        stranger = Home(home.folder.parent / "stranger")
        stranger.call("peers", "add", node.address)
        labelled = stranger.ask("peers", "ls", env={"P2PHUB_SITE": "elsewhere"})[0]["link"]
        stranger.call("limits", "label", "campus", "internet")
        ruled = stranger.ask("peers", "ls")[0]["link"]

    assert (near, far) == ("lan", "federation")
    assert "federation, last seen" in listed
    assert status["limits"] == [{"link": "federation", "up": 1_000_000, "down": None, "background": False}]
    assert (labelled, ruled) == ("lan", "internet")


def test_a_fetch_in_the_background_brings_the_same(seed, home: Home, tmp_path) -> None:
    home.call("fetch", seed.name, *seed.peer, "--background", "--to", str(tmp_path / "out"))

    for path in ("weights.bin", "README.md"):
        assert (tmp_path / "out" / path).read_bytes() == (seed.folder / path).read_bytes()


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
