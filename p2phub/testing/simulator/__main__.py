"""`tools/simulate`: run scenarios and say what came out (spec/simulation.md §3)."""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
import time
from collections.abc import Sequence
from typing import TextIO, cast

from .measures import Measure
from .network import Weather
from .scenarios import SCENARIOS, Scenario
from .trace import KINDS, Kind, Trace
from .world import Unmet, simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:12} {scenario.about} ({scenario.nodes} nodes)")
        return 0
    if options.trace_to and not options.trace:
        parser.error("--trace-to writes what --trace names, and that is missing")
    weather = Weather(options.latency[0] / 1000, options.latency[1] / 1000, loss=options.loss / 100)
    failed = 0
    with contextlib.ExitStack() as stack:
        out = sys.stdout
        if options.trace_to:
            try:
                out = stack.enter_context(open(options.trace_to, "w"))
            except OSError as exc:
                parser.error(f"{options.trace_to} cannot be written: {exc.strerror}")
        try:
            for name in options.scenario or SCENARIOS:
                for seed in range(options.seed, options.seed + options.seeds):
                    failed += not _run(SCENARIOS[name], seed, weather, options, out)
        except KeyboardInterrupt:
            return 130
    return 1 if failed else 0


def _run(scenario: Scenario, seed: int, weather: Weather, options: argparse.Namespace, out: TextIO) -> bool:
    """Run one scenario with one seed, the trace going to `out`; returns whether all came out as it must."""
    count = options.nodes or scenario.nodes
    trace = Trace(lambda line: print(line, file=out), options.trace)
    begun = time.monotonic()
    measures: list[Measure] = []
    error = ""
    try:
        measures = simulate(
            lambda world: scenario.run(world, count), seed=seed, weather=weather, plain=not options.tls, trace=trace
        )
    except Unmet as exc:
        error = f"FAILED: {exc}"
    found = error or "; ".join(str(measure) for measure in measures)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{scenario.name}, {count} nodes, seed {seed}: {found}")
    print(
        f"  trace {trace.digest} of {trace.lines} lines, {time.monotonic() - begun:.1f} s, at most {memory:.0f} MB",
        file=sys.stderr,
    )
    return not error and all(measure.is_met for measure in measures)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/simulate",
        description="Run real nodes on a simulated network, with virtual time and seeded chance. "
        "The same seed gives the same trace. Exit code 1: something did not come out as it must.",
    )
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], metavar="SCENARIO", help="all, unless named")
    parser.add_argument("--list", action="store_true", help="say what scenarios there are")
    parser.add_argument("--nodes", type=_positive, metavar="N", help="how many nodes (each scenario has a number)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all chance (1)")
    parser.add_argument("--seeds", type=_positive, default=1, metavar="N", help="run with so many, from --seed on (1)")
    parser.add_argument(
        "--latency", type=_range, default=(20.0, 200.0), metavar="MS-MS", help="one way, from pair to pair (20-200)"
    )
    parser.add_argument("--loss", type=_percent, default=1.0, metavar="PERCENT", help="of packets (1)")
    parser.add_argument("--tls", action="store_true", help="encrypt as real nodes do, at twice the time and memory")
    parser.add_argument(
        "--trace", type=_kinds, default=(), metavar="KINDS", help=f"print the trace: {','.join(KINDS)}, or all"
    )
    parser.add_argument("--trace-to", metavar="FILE", help="write the traces of all runs to a file")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 on")
    return int(text)


def _range(text: str) -> tuple[float, float]:
    least, _, most = text.partition("-")
    try:
        found = float(least), float(most or least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no range of milliseconds, such as 20-200") from None
    if not 0 <= found[0] <= found[1] <= 60_000:
        raise argparse.ArgumentTypeError(f"'{text}' is no range of milliseconds from 0 to 60000")
    return found


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no number") from None
    if not 0 <= value <= 90:
        raise argparse.ArgumentTypeError(f"a loss of {text} % is not simulated, only 0 to 90")
    return value


def _kinds(text: str) -> tuple[Kind, ...]:
    kinds = KINDS if text == "all" else tuple(text.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"'{kind}' is none of {', '.join(KINDS)}, all")
    return cast(tuple[Kind, ...], kinds)


if __name__ == "__main__":
    sys.exit(main())
