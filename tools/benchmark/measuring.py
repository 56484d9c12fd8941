"""Rows, their runs, and what the runs add up to."""

from __future__ import annotations

import operator
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

CLOCK_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
BUSY_SHARE = 0.9  # of the processors; above it, they and not the network set the time

# What a run gives, by quantity: "seconds" always; "cpu" (seconds, all sides), "peak" and
# "serving_peak" (bytes), and what its case measures besides. Ratios to another row are
# taken of these, and of "rate" (bytes per second) and "cpu_per_gb", which are derived.
Sample = dict[str, float]

_COMPARE = {"≥": operator.ge, "≤": operator.le}


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
    targets: tuple[Target, ...] = ()
    filler: int | None = None  # bytes that a run writes to disk, if not `amount`
    samples: list[Sample] = field(default_factory=list)

    def values(self, quantity: str) -> list[float]:
        """Return a quantity of each run; empty if the runs did not measure it."""
        if quantity == "rate":
            return [self.amount / sample["seconds"] for sample in self.samples]
        if quantity == "cpu_per_gb":
            return [value / (self.amount / 1e9) for value in self.values("cpu")]
        return [sample[quantity] for sample in self.samples if quantity in sample]

    def median(self, quantity: str) -> float | None:
        values = self.values(quantity)
        return statistics.median(values) if values else None


def reached(row: Row, target: Target, rows: Iterable[Row]) -> float | None:
    """Return what `row` reached of the target's quantity: the median, or the median ratio, run by run.

    None if the row that it is compared with was left out.
    """
    own = row.values(target.quantity)
    if target.against is None:
        return statistics.median(own) if own else None
    other = next((other for other in rows if (other.case, other.name) == (row.case, target.against)), None)
    theirs = other.values(target.quantity) if other else []
    pairs = [(mine, yours) for mine, yours in zip(own, theirs, strict=False) if yours]
    return statistics.median(mine / yours for mine, yours in pairs) if pairs else None


def measure(rows: list[Row], runs: int, folder: Path, before: Callable[[], None]) -> None:
    """Run every row `runs` times, in turn; `before` is called before each run and not measured."""
    for turn in range(runs):
        for row in rows:
            before()
            prime(folder, row.amount if row.filler is None else row.filler)
            row.samples.append(row.run())
            took = f"{row.case}, {row.name}: {row.samples[-1]['seconds']:.2f} s"
            print(f"run {turn + 1} of {runs}: {took}", file=sys.stderr)


def prime(folder: Path, size: int) -> None:
    """Write and unlink a filler of `size` bytes, so that no run pays for getting memory back from the host."""
    with tempfile.TemporaryFile(dir=folder) as filler:
        block = bytes(2**20)
        for _ in range(-(-size // len(block))):
            filler.write(block)


@dataclass
class Watch:
    """What running processes use from now on: CPU time and the largest memory."""

    pids: tuple[int, ...]
    _before: dict[int, float] = field(init=False)

    def __post_init__(self) -> None:
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        self._before = {pid: cpu_seconds(pid) for pid in self.pids}

    def cpu(self) -> list[float]:
        """Return the CPU seconds of each process since the start."""
        return [cpu_seconds(pid) - before for pid, before in self._before.items()]

    def peak(self) -> float:
        """Return the largest resident size of any of them since the start, in bytes."""
        return max((peak_memory(pid) for pid in self.pids), default=0.0)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a running process and its ended children used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * CLOCK_TICK_S


def peak_memory(pid: int) -> float:
    """Return the largest resident size of a running process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024
    return 0.0


def processor_times() -> tuple[float, float]:
    """Return the seconds that all processors were busy, and that they were there, since the start of the machine."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    times = [int(word) * CLOCK_TICK_S for word in words]
    idle = times[3] + times[4]
    return sum(times) - idle, sum(times)


def busy_share(since: tuple[float, float]) -> float:
    """Return the share of the processors' time that was used by anybody since `processor_times()` gave `since`."""
    busy, total = processor_times()
    return (busy - since[0]) / max(total - since[1], CLOCK_TICK_S)
