"""tools/bench still measures what it says: its smallest runs, and what it makes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from benchmark.cases import CASES, Case, catalogue, small
from benchmark.command import run_case
from benchmark.measuring import Failure, Row, Target, measure, reached
from benchmark.plot import plot
from benchmark.report import as_json, table
from benchmark.workplace import Options

from p2phub.testing.processes import is_running, wait_until

ROOT = Path(__file__).parent.parent
SIZE = 24 * 2**20  # bytes of the smallest runs


def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run tools/bench once for each row and return its JSON."""
    out = folder / "results.json"
    command = [
        sys.executable,
        "-m",
        "benchmark",
        *arguments,
        "--runs",
        "1",
        "--json",
        str(out),
        "--folder",
        str(folder),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    document: dict[str, Any] = json.loads(out.read_text())
    return document


def test_the_main_cases_measure_every_row(tmp_path: Path) -> None:
    document = bench(tmp_path, "fetch", "finetune", "--size", str(SIZE / 2**30))

    rows = {row["name"]: row for row in document["rows"]}
    assert {f"limit, {kind}" for kind in ("plain", "frames", "tls")} <= rows.keys()
    for kind in ("plain", "frames", "tls"):
        fetched = rows[f"p2phub {kind}, 1 provider"]["runs"][0]
        assert fetched["received"] == pytest.approx(SIZE, rel=0.1)
        assert fetched["seconds"] > 0
        assert fetched["cpu"] == pytest.approx(fetched["cpu_fetching"] + fetched["cpu_serving"])
        # Whoever measured the wrong process would find a shell or a launcher.
        assert min(fetched["peak"], fetched["serving_peak"]) > 30e6
    for name in ("header changed", "LoRA merged"):
        assert rows[name]["runs"][0]["received"] < 0.3 * rows[name]["bytes"]
    missing = [
        (row["name"], target["against"])
        for row in document["rows"]
        for target in row["targets"]
        if target["reached"] is None
    ]
    assert all(against not in rows for _, against in missing)
    # Each case says why it left something out.
    assert bool(missing) <= bool(document["skipped"])
    assert list(tmp_path.iterdir()) == [tmp_path / "results.json"]


def test_a_catalogue_is_taken_over_and_searched_in_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SEARCHES": 4, "WARM_UP": 1, "RATE": 50, "FED_SECONDS": 1}.items():
        monkeypatch.setattr(catalogue, name, value)
    rows: list[Row] = []
    options = Options(records=400, keep=tmp_path / "kept")
    run_case("catalogue", options, tmp_path, rows, [], runs=1)

    by_name = {row.name: row.samples[0] for row in rows}
    taken = by_name.pop("take over 400 records")
    assert taken["records_a_signature"] == pytest.approx(taken["records_rate"] / taken["signature_rate"])
    assert 1000 < taken["record_bytes"] < 10_000
    assert len(by_name) == 12
    assert all(0 < sample["p50"] <= sample["p99"] for sample in by_name.values())
    # What was kept is used, and not made again.
    kept = (tmp_path / "kept" / "cost-400.json").stat().st_mtime_ns
    run_case("catalogue", options, tmp_path, [], [], runs=1, only="take over")
    assert (tmp_path / "kept" / "cost-400.json").stat().st_mtime_ns == kept


def test_small_files_come_in_every_way_that_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "COUNTS", (7,))
    rows: list[Row] = []
    skipped: list[str] = []
    run_case("small", Options(), tmp_path, rows, skipped, runs=1)

    assert {"p2phub plain, 7 files", "p2phub frames, 7 files"} <= {row.name for row in rows}
    assert all(row.samples[0]["seconds"] > 0 and row.amount == 70_000 for row in rows)
    assert len(rows) + len(skipped) >= 6


def test_a_swarm_is_measured_where_there_can_be_namespaces(tmp_path: Path) -> None:
    size = str(SIZE / 2**30)
    drawing = tmp_path / "growth.svg"
    only = ["--only", "p2phub", "--svg", str(drawing)]
    document = bench(tmp_path, "swarm", "--nodes", "2", "--rate", "50MB", "--size", size, *only)

    if not document["rows"]:
        assert any("swarm: everything left out" in sentence for sentence in document["skipped"])
        pytest.skip(document["skipped"][0])
    (row,) = document["rows"]
    (run,) = row["runs"]
    assert run["seconds"] >= run["ideal"] == pytest.approx(row["bytes"] / 50e6)
    assert run["copies"] >= 1
    assert {target["quantity"] for target in row["targets"]} == {"of_ideal", "copies"}
    ElementTree.parse(drawing)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--size", "0"],
        ["--nodes", "0"],
        ["--rate", "fast"],
        ["small", "--svg", "x"],
        ["small", "--size", "1"],
        ["fetch", "publish", "--nodes", "4"],
        ["swarm", "--records", "1000"],
        ["small", "--folder", "/proc/nowhere"],
        ["small", "--json", "/nowhere/results.json"],
    ],
)
def test_a_wrong_command_line_is_refused(arguments: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    command = [sys.executable, "-m", "benchmark", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 2
    assert "error:" in result.stderr


def test_what_ends_a_run_ends_the_command_and_all_that_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    command = ["sh", "-c", f"sleep 1000 & echo $! >{mark}.new; mv {mark}.new {mark}; wait"]
    program = (
        "import os, pathlib, signal, sys\n"
        "from benchmark.usage import run_command\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"run_command({command!r}, os.environ, output=pathlib.Path({str(tmp_path / 'out')!r}))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    wait_until(mark.exists, "the command to begin")
    started = int(mark.read_text())
    process.terminate()

    try:
        assert process.wait() == 143
        wait_until(lambda: not is_running(started), "what the command started to end")
    finally:
        if is_running(started):
            os.kill(started, signal.SIGKILL)


def test_rows_that_no_name_fits_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, "made", Case("made up", lambda place: [row_of("one", [1.0]), row_of("two", [1.0])]))
    rows: list[Row] = []
    skipped: list[str] = []
    run_case("made", Options(), tmp_path, rows, skipped, runs=1, only="three")

    assert rows == []
    assert skipped == ["made: no row has 'three' in its name; there are one, two"]


def row_of(name: str, seconds: list[float], *targets: Target, **more: Any) -> Row:
    samples = [{"seconds": value} for value in seconds]
    return Row("case", name, lambda: {}, 10**9, targets=targets, samples=samples, **more)


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    reference = row_of("reference", [1.0, 10.0, 1.0])
    faster = Target("seconds", "≤", 0.6, "reference")
    row = row_of("ours", [0.5, 5.0, 3.0], faster)

    assert reached(row, faster, [reference, row]) == 0.5
    assert reached(row, Target("rate", "≥", 1, "reference"), [reference, row]) == 2.0
    assert reached(row, Target("rate", "≥", 1), [reference, row]) == 1e9 / 3.0


def test_targets_stand_beside_what_was_reached() -> None:
    rows = [
        row_of("reference", [2.0]),
        row_of(
            "ours",
            [1.0],
            Target("seconds", "≤", 0.6, "reference"),
            Target("rate", "≥", 3, "reference"),
            Target("seconds", "≤", 1, "not here"),
        ),
    ]

    text = table(rows, ["case: not here left out: it is not installed"])
    assert "0.50 × time of reference (target ≤ 0.6: met)" in text
    assert "2.00 × rate of reference (target ≥ 3: MISSED)" in text
    assert "? × time of not here (target ≤ 1: not measured)" in text
    assert "1 MISSED, 1 met, 1 not measured" in text
    assert "it is not installed" in text
    assert [target["met"] for target in as_json(rows, [])["rows"][1]["targets"]] == [True, False, None]


def test_busy_processors_are_named_as_what_set_the_time() -> None:
    row = row_of("ours", [1.0])
    row.samples[0]["busy"] = 0.95

    assert "bound by the processors" in table([row], [])


def test_rows_take_turns(tmp_path: Path) -> None:
    order = []

    def row(name: str, runs_max: int | None = None) -> Row:
        return Row("case", name, lambda: order.append(name) or {"seconds": 1.0}, runs_max=runs_max)

    measure([row("a"), row("once", 1), row("b")], 2, tmp_path, lambda: order.append("|"))

    assert order == ["|", "a", "|", "once", "|", "b", "|", "a", "|", "b"]


def test_a_run_that_does_not_fit_on_the_disk_is_not_begun(tmp_path: Path) -> None:
    row = Row("case", "huge", lambda: {"seconds": 1.0}, 2**60)

    with pytest.raises(Failure, match="are free"):
        measure([row], 1, tmp_path, lambda: None)


def test_the_plot_has_a_line_for_each_way_and_the_ideal() -> None:
    points = [("p2phub", 4, 10.0), ("p2phub", 16, 12.0), ("nginx", 4, 40.0)]
    rows = [row_of(f"{who} {nodes}", [seconds], curve=(who, nodes)) for who, nodes, seconds in points]
    for row in rows:
        row.samples[0]["ideal"] = 9.0

    drawing = ElementTree.fromstring(plot(rows))
    words = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert {"p2phub", "nginx", "ideal", "4", "16"} <= set(words)


def test_every_case_is_described() -> None:
    page = (ROOT / "spec" / "benchmarks.md").read_text()

    assert [name for name in CASES if f"`{name}`" not in page] == []
