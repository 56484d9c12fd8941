"""Rows, their runs, and what the runs add up to."""

from __future__ import annotations

import operator
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

# What a run gives, by quantity: "seconds" always; "cpu" (seconds, all sides), "peak" and
# "serving_peak" (bytes), and what its case measures besides. Derived from these are "rate"
# (bytes per second) and "cpu_per_gb".
Sample = dict[str, float]

SPARE = 10**9  # bytes that are left free on the disk
_COMPARE = {"≥": operator.ge, "≤": operator.le}


class Failure(Exception):
    """A benchmark cannot go on; the text says why."""


@dataclass(frozen=True)
class Target:
    """What a row has to reach: `quantity` ≥ or ≤ `bound`, absolute or as a multiple of another row's."""

    quantity: str
    sign: str
    bound: float
    against: str | None = None  # name of a row of the same case

    def is_met(self, value: float) -> bool:
        met: bool = _COMPARE[self.sign](value, self.bound)
        return met


@dataclass
class Row:
    """One thing that is measured, and its runs."""

    case: str
    name: str
    run: Callable[[], Sample]
    amount: int = 0  # bytes that a run brings; 0: it is not about bytes
    copies: int = 1  # to how many nodes it brings them
    targets: tuple[Target, ...] = ()
    curve: tuple[str, int] | None = None  # the line of the plot that it is a point of, and the number of nodes
    runs_max: int | None = None  # of what takes too long to run as often as the rest
    samples: list[Sample] = field(default_factory=list)

    def values(self, quantity: str) -> list[float]:
        """Return a quantity of each run; empty if the runs did not measure it."""
        if quantity == "rate":
            return [self.amount / sample["seconds"] for sample in self.samples if self.amount]
        if quantity == "cpu_per_gb":
            return [value / (self.amount * self.copies / 1e9) for value in self.values("cpu") if self.amount]
        return [sample[quantity] for sample in self.samples if quantity in sample]

    def median(self, quantity: str) -> float | None:
        """Return the median of a quantity, None if the runs did not measure it."""
        values = self.values(quantity)
        return statistics.median(values) if values else None

    @property
    def quantities(self) -> list[str]:
        """What can be asked of `values`."""
        measured = list(dict.fromkeys(name for sample in self.samples for name in sample))
        return measured + [name for name in ("rate", "cpu_per_gb") if self.values(name)]


def reached(row: Row, target: Target, rows: Iterable[Row]) -> float | None:
    """Return what `row` reached of the target's quantity: the median, or the median ratio, run by run.

    None if the row that it is compared with was left out.
    """
    own = row.values(target.quantity)
    if target.against is None:
        return statistics.median(own) if own else None
    other = next((other for other in rows if (other.case, other.name) == (row.case, target.against)), None)
    theirs = other.values(target.quantity) if other else []
    ratios = [mine / yours for mine, yours in zip(own, theirs, strict=False) if yours]
    return statistics.median(ratios) if ratios else None


def measure(rows: list[Row], runs: int, folder: Path, before: Callable[[], None]) -> None:
    """Run every row `runs` times, in turn; `before` is called before each run and not measured."""
    for turn in range(runs):
        for row in rows:
            if row.runs_max is not None and turn >= row.runs_max:
                continue
            before()
            prime(folder, row.amount * row.copies)
            row.samples.append(row.run())
            took = f"{row.case}, {row.name}: {row.samples[-1]['seconds']:.2f} s"
            print(f"run {turn + 1} of {runs}: {took}", file=sys.stderr)


def check_space(folder: Path, size: int) -> None:
    """Raise Failure unless so many bytes fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise Failure(f"{size / 1e9:.1f} GB are needed in {folder}, and {free / 1e9:.1f} GB are free; see --folder")


def prime(folder: Path, size: int) -> None:
    """Write and unlink a filler of `size` bytes, so that no run pays for getting memory back from the host."""
    check_space(folder, size)
    with tempfile.TemporaryFile(dir=folder) as filler:
        block = bytes(2**20)
        for _ in range(-(-size // len(block))):
            filler.write(block)
