"""The command `tools/bench`."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from .cases import CASES
from .measuring import Failure, Row, measure
from .others import install
from .plot import plot
from .report import as_json, table
from .workplace import Options, Workplace

SIZE_MIN = 2**20  # bytes
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.install:
        return install()
    if arguments.list:
        for name, case in CASES.items():
            print(f"{name:12}{case.summary}{'' if case.default else ' (only when named, or with --all)'}")
        return 0
    if unknown := [name for name in arguments.cases if name not in CASES]:
        parser.error(f"there is no case {unknown[0]!r}; --list names them")
    # So that what was started ends with us also if the terminal is closed.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    names = arguments.cases or [name for name, case in CASES.items() if case.default or arguments.all]
    for option in ("size", "nodes", "rate", "records", "keep"):
        if getattr(arguments, option) and not any(option in CASES[name].options for name in names):
            parser.error(f"--{option} changes nothing of {', '.join(names)}")
    drawn = next((name for name in ("growth", "swarm") if name in names), None)
    if arguments.svg and drawn is None:
        parser.error("--svg plots the case growth or swarm, and neither is to be measured")
    full = arguments.full or arguments.all
    options = Options(
        size=arguments.size,
        nodes=arguments.nodes,
        rate=arguments.rate,
        full=full,
        records=arguments.records,
        keep=arguments.keep,
    )
    rows: list[Row] = []
    skipped: list[str] = []
    failures: list[str] = []
    code = 0
    try:
        for name in names:
            try:
                with tempfile.TemporaryDirectory(prefix="p2phub-bench-", dir=arguments.folder) as folder:
                    run_case(name, options, Path(folder), rows, skipped, runs=arguments.runs, only=arguments.only)
            except Failure as exc:
                failures.append(f"tools/bench: error: {name}: {exc}")
                print(failures[-1], file=sys.stderr)
                code = 1
    except KeyboardInterrupt:
        failures.append("tools/bench: interrupted, so that not all was measured")
        code = 130
    rows = [row for row in rows if row.samples]
    # First, as it took long and files may turn out not to be writable after all.
    print("\n".join([table(rows, skipped), *failures]), flush=True)
    try:
        if arguments.json:
            arguments.json.write_text(json.dumps(as_json(rows, skipped), indent=2) + "\n")
        if arguments.svg and any(row.case == drawn for row in rows):
            arguments.svg.write_text(plot([row for row in rows if row.case == drawn]))
    except OSError as exc:
        print(f"tools/bench: error: {exc.filename} cannot be written: {exc.strerror}", file=sys.stderr)
        return code or 1
    return code


def run_case(
    name: str, options: Options, folder: Path, rows: list[Row], skipped: list[str], *, runs: int, only: str = ""
) -> None:
    """Measure a case in `folder`; adds its rows, and what was left out and why. Raises Failure."""
    with ExitStack() as stack:
        place = Workplace(name, folder, options, stack, skipped)
        found = CASES[name].rows(place)
        own = [row for row in found if only in row.name]
        if found and not own:
            skipped.append(f"{name}: no row has {only!r} in its name; there are {', '.join(row.name for row in found)}")
        rows += own
        measure(own, runs, place.folder, place.clear)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/bench", description="Measure p2phub beside what else there is.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="what to measure (default: what takes a few minutes)")
    parser.add_argument("--all", action="store_true", help="every case, at full size")
    parser.add_argument("--full", action="store_true", help="the sizes of the targets (--all implies it)")
    parser.add_argument("--list", action="store_true", help="only say which cases there are")
    parser.add_argument("--size", type=_size, metavar="GIB", help="of what is moved (default: what suits the case)")
    parser.add_argument("--runs", type=_number, default=3, metavar="N", help="of each row (default 3)")
    parser.add_argument("--only", default="", metavar="WORD", help="only rows whose name has WORD")
    parser.add_argument("--nodes", type=_numbers, metavar="N[,N…]", help="swarm, growth: how many nodes want it")
    parser.add_argument(
        "--rate", type=_rate, metavar="RATE", help="providers, swarm, growth: of an uplink, such as 100MB"
    )
    parser.add_argument("--records", type=_number, metavar="N", help="catalogue: how many (default: 100,000)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="catalogue: keep the store here, or use it")
    parser.add_argument("--json", type=_output, metavar="FILE", help="also write the results as JSON")
    parser.add_argument("--svg", type=_output, metavar="FILE", help="also plot how the time grows with the nodes")
    parser.add_argument("--install", action="store_true", help="only install the others, with apt-get and pip, as root")
    parser.add_argument("--folder", type=_folder, help="where to work, made if missing (default: a temporary folder)")
    return parser


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_number(word) for word in text.split(",")))


def _size(text: str) -> int:
    """Return the bytes of so many GiB."""
    try:
        size = int(float(text) * 2**30)
    except (ValueError, OverflowError):
        size = 0
    if size < SIZE_MIN:
        raise argparse.ArgumentTypeError(f"{text!r} is no size in GiB, or a tiny one")
    return size


def _folder(text: str) -> Path:
    """Return a folder, made if it is missing."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is no folder, and none can be made: {exc.strerror}") from exc
    return path


def _output(text: str) -> Path:
    """Return a file that can be written once all is measured: better to know it before."""
    path = Path(text)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written")
    return path


def _rate(text: str) -> float:
    match = re.fullmatch(r"([0-9.]+) ?([kmg]?)b?(?:/s)?", text.lower())
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate; 100MB is one")
    return float(match[1]) * UNITS[match[2]]
