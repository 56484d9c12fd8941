"""Results as a table for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from typing import Any

from .measuring import Row, Target, reached

BUSY_MAX = 0.9  # of the processors' time; above it, they and not the network set the time

# Heading and form of the quantities of a table; those that no row measured are left out.
COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "seconds": ("s", lambda value: f"{value:.2f}"),
    "ideal": ("ideal s", lambda value: f"{value:.2f}"),
    "rate": ("MB/s", lambda value: f"{value / 1e6:.0f}"),
    "cpu": ("CPU s", lambda value: f"{value:.2f}"),
    "cpu_per_gb": ("CPU s/GB", lambda value: f"{value:.2f}"),
    "peak": ("peak MB", lambda value: f"{value / 1e6:.0f}"),
    "serving_peak": ("serving MB", lambda value: f"{value / 1e6:.0f}"),
    "changed": ("changed MB", lambda value: f"{value / 1e6:.3f}"),
    "received": ("moved MB", lambda value: f"{value / 1e6:.3f}"),
    "rounds": ("questions", lambda value: f"{value:.0f}"),
    "records_rate": ("records/s", lambda value: f"{value:.0f}"),
    "signature_rate": ("signatures/s", lambda value: f"{value:.0f}"),
    "record_bytes": ("B/record", lambda value: f"{value:.0f}"),
    "index_bytes": ("index B/rec", lambda value: f"{value:.0f}"),
    "p50": ("p50 ms", lambda value: f"{value:.2f}"),
    "p99": ("p99 ms", lambda value: f"{value:.2f}"),
    "busy": ("CPU busy", lambda value: f"{value:.0%}"),
}
# How a target's quantity reads; with "of …" behind it when it is a ratio.
WORDS = {
    "seconds": "time",
    "rate": "rate",
    "cpu": "CPU",
    "cpu_per_gb": "CPU",
    "peak": "peak memory, MB",
    "serving_peak": "serving memory, MB",
    "records_rate": "records a second",
    "records_a_signature": "records while one core checks a signature",
    "record_bytes": "bytes on disk a record",
    "p50": "ms, median",
    "p99": "ms, 99 of 100",
    "of_ideal": "of the ideal time",
    "of_changed": "of the changed bytes moved",
    "copies": "copies sent by the seed",
    "received": "bytes passed",
    "rounds": "questions",
    "of_allowed": "of 1.5 × the records + 50 KB passed",
}
MEGABYTES = ("peak", "serving_peak")


def table(rows: list[Row], skipped: list[str]) -> str:
    """Return the results as text: a table for each case, targets beside what was reached."""
    lines: list[str] = []
    for case, group in groupby(rows, key=lambda row: row.case):
        lines += ["", *_case_lines(case, list(group))]
    return "\n".join([*lines[1:], "", _summary(rows), *skipped])


def as_json(rows: list[Row], skipped: list[str]) -> dict[str, Any]:
    """Return the results as a JSON document."""
    return {
        "machine": {"processors": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "rows": [
            {
                "case": row.case,
                "name": row.name,
                "bytes": row.amount,
                "medians": {name: row.median(name) for name in row.quantities},
                "runs": row.samples,
                "targets": [_target_json(row, target, rows) for target in row.targets],
            }
            for row in rows
        ],
        "skipped": skipped,
    }


def _case_lines(case: str, rows: list[Row]) -> list[str]:
    columns = [name for name in COLUMNS if any(row.values(name) for row in rows if name in row.quantities)]
    width = max(len(row.name) for row in rows) + 2
    heads = "".join(f"{COLUMNS[name][0]:>11}" for name in columns)
    lines = [f"{case:{width}}{heads}"]
    for row in rows:
        cells = "".join(f"{_cell(row, name):>11}" for name in columns)
        remarks = [_target_text(row, target, rows) for target in row.targets]
        if (busy := row.median("busy") or 0.0) > BUSY_MAX:
            own = row.median("busy_own") or 0.0
            remarks.append(f"bound by the processors: {busy:.0%} busy, {own:.0%} with what is measured here")
        first, *others = remarks or [""]
        lines.append(f"{row.name:{width}}{cells}   {first}".rstrip())
        lines += [f"{'':{width + 11 * len(columns)}}   {remark}" for remark in others]
    return lines


def _summary(rows: list[Row]) -> str:
    verdicts = Counter(_verdict(target, reached(row, target, rows)) for row in rows for target in row.targets)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())) or "none"
    return f"targets: {counts}; ratios are medians of the ratios within each round of runs"


def _verdict(target: Target, value: float | None) -> str:
    if value is None:
        return "not measured"
    return "met" if target.is_met(value) else "MISSED"


def _cell(row: Row, quantity: str) -> str:
    value = row.median(quantity) if quantity in row.quantities else None
    return "-" if value is None else COLUMNS[quantity][1](value)


def _target_text(row: Row, target: Target, rows: list[Row]) -> str:
    value = reached(row, target, rows)
    words = WORDS[target.quantity]
    what = f"× {words} of {target.against}" if target.against else words
    scale = 1e6 if target.quantity in MEGABYTES and not target.against else 1
    wanted = f"target {target.sign} {target.bound / scale:g}"
    shown = "?" if value is None else f"{value / scale:.2f}"
    return f"{shown} {what} ({wanted}: {_verdict(target, value)})"


def _target_json(row: Row, target: Target, rows: list[Row]) -> dict[str, Any]:
    value = reached(row, target, rows)
    return {
        "quantity": target.quantity,
        "against": target.against,
        "sign": target.sign,
        "bound": target.bound,
        "reached": value,
        "met": None if value is None else target.is_met(value),
    }
