"""What processes use: time, processors, memory."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .measuring import Failure, Sample

CLOCK = (sys.executable, "-I", "-S", str(Path(__file__).parent / "programs" / "clock.py"))
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def run_command(
    command: Sequence[str], environment: Mapping[str, str], *, output: Path, serving: Sequence[int] = ()
) -> Sample:
    """Run a command from start to exit; its stdout goes to the file `output`. Raises Failure if it fails.

    serving: the processes on the other side, whose use counts too.
    """
    watch = Watch(serving)
    clock = [*CLOCK, str(output), *command]
    # A session of its own, so that whatever ends us ends the command too, and all that it started.
    process = subprocess.Popen(clock, env=environment, stdout=subprocess.PIPE, start_new_session=True)
    try:
        printed, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        raise Failure(f"`{shlex.join(command)}` could not be measured")
    result = json.loads(printed)
    if result["code"]:
        raise Failure(f"`{shlex.join(command)}` ended with {result['code']}")
    sample = {"seconds": result["seconds"], "peak": result["peak"], "cpu": result["cpu"]}
    if serving:
        cpu = sum(watch.cpu())
        both = {"cpu": result["cpu"] + cpu, "cpu_fetching": result["cpu"], "cpu_serving": cpu}
        sample |= {**both, "serving_peak": watch.peak()}
    return sample


class Watch:
    """What running processes use from now on."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = tuple(pids)
        for pid in pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak of memory begins anew
        self._before = [_cpu_seconds(pid) for pid in pids]

    def cpu(self) -> list[float]:
        """Return the CPU seconds of each process since the start, with children that ended."""
        return [_cpu_seconds(pid) - before for pid, before in zip(self._pids, self._before, strict=True)]

    def peak(self) -> float:
        """Return the largest resident size of any of them since the start, in bytes."""
        return max((_peak_memory(pid) for pid in self._pids), default=0.0)


class Processors:
    """How busy all processors of the machine are from now on, with whatever work of whomever."""

    def __init__(self) -> None:
        self._before = _processor_times()

    def busy(self) -> float:
        """Return the share of their time that was used."""
        busy, total = (now - before for now, before in zip(_processor_times(), self._before, strict=True))
        return busy / max(total, TICK_S)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * TICK_S


def _peak_memory(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024
    return 0.0


def _processor_times() -> tuple[float, float]:
    words = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    times = [int(word) * TICK_S for word in words]
    return sum(times) - times[3] - times[4], sum(times)  # without idle, and waiting for the disk
