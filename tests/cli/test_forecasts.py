"""What people are told of a download before and while it runs: what is here, what comes from where, and how long."""

from __future__ import annotations

import shutil

import pytest
from rich.console import Console

from p2phub.cli.progress import render
from p2phub.node.events import LinkRate, Progress, ProviderRate

pytestmark = pytest.mark.timeout(180)


def shown(progress: Progress) -> str:
    console = Console(width=160, no_color=True)
    with console.capture() as capture:
        console.print(render(progress))
    return capture.get()


def test_the_progress_line_says_what_was_here_what_comes_over_which_link_and_how_long():
    text = shown(
        Progress(
            "fetching",
            6_000_000,
            10_000_000,
            rate=1_000_000.0,
            providers=(ProviderRate("a" * 52, 1_000_000.0, 4_500_000),),
            here=1_000_000,
            links=(LinkRate("lan", 900_000.0, 4_500_000), LinkRate("internet", 100_000.0, 500_000)),
            left_s=4.0,
        )
    )

    assert "6.0 MB of 10.0 MB" in text
    assert "4.0 s left" in text
    assert "1.0 MB were here, 4.5 MB over lan, 500 kB over internet" in text


def test_where_nothing_is_known_the_progress_line_says_so():
    assert "time left unknown" in shown(Progress("fetching", 0, 10_000_000))
    assert "unknown" not in shown(Progress("hashing", 5_000_000, 10_000_000, rate=1e6))
    assert "5.0 s left" in shown(Progress("hashing", 5_000_000, 10_000_000, rate=1e6))


@pytest.mark.parametrize("how", ["alone", "through the daemon"])
def test_a_dry_run_says_what_would_come_from_where_and_how_long_it_would_take(how, seed, home):
    home.call("fetch", seed.name, *seed.peer, "--include", "config.json")

    def ask() -> None:
        text = home.call("fetch", seed.name, "--dry-run").out
        result = home.ask("fetch", seed.name, "--dry-run")
        assert f"{result['here_before']} B are here" in text
        assert "3.0 MB would be fetched" in text
        assert "3.0 MB over lan, from 1 provider" in text
        assert result["links"] == [{"link": "lan", "size": result["size"] - result["here_before"], "providers": 1}]
        assert result["unoffered"] == 0
        if result["expected_s"] is None:
            assert "expected time: unknown" in text
        else:
            assert "expected time: " in text
        expected.append(result["expected_s"])

    expected: list[float | None] = []

    def steps() -> None:
        ask()
        # A limit tells how long it takes at least; no rate is known yet.
        home.call("limits", "set", "lan", "--down", "100k")
        ask()
        home.call("limits", "set", "lan", "--down", "none")
        fetched = home.ask("fetch", seed.name)
        assert fetched["links"] == [{"link": "lan", "size": fetched["received"], "providers": 1}]
        assert [provider["link"] for provider in fetched["providers"] if provider["received"]] == ["lan"]
        home.call("store", "rm", seed.name)
        shutil.rmtree(home.folder / "store" / "views")
        home.call("fetch", seed.name, "--include", "config.json")
        ask()

    if how == "alone":
        steps()
    else:
        with home.node():
            steps()

    assert expected[0] is None
    assert expected[1] == pytest.approx(30.0, rel=0.01)
    assert expected[2] is not None
    assert 0 < expected[2] < 30
