"""Measure publish, verify and fetch beside simple programs that do the same work.

Every row is a whole process from start to exit, run in turn with the others so that all
meet the same machine; figures are medians, and what counts is the ratio to the reference
of the same group. The reference of a fetch is the limit: the simplest two programs that
send, hash and write (tools/bench_limit.py), which end with the bytes on disk as p2phub does.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from p2phub.testing.samples import write_safetensors

HERE = Path(__file__).parent
P2PHUB = str(Path(sys.executable).with_name("p2phub"))
LIMIT = [sys.executable, str(HERE / "bench_limit.py")]
READY_TIMEOUT_S = 30.0


@dataclass
class Row:
    """One thing that is measured, and its runs."""

    group: str
    name: str
    run: Callable[[], float]  # does it once; returns the peak memory of the serving side in bytes, 0 if none
    reference: bool = False
    before: Callable[[], object] = lambda: None  # what a run needs, not measured
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)  # bytes, of the measured process
    serving_peak: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench", description="Measure p2phub beside simple programs.")
    parser.add_argument("--size", type=float, default=1.0, metavar="GIB", help="of the file (default 1)")
    parser.add_argument("--runs", type=int, default=3, help="of each row (default 3)")
    parser.add_argument("--only", default="", metavar="WORD", help="only rows whose group or name has WORD")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results as JSON")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    arguments = parser.parse_args()
    size = int(arguments.size * 2**30)
    with tempfile.TemporaryDirectory(prefix="p2phub-bench-", dir=arguments.folder) as name, ExitStack() as stack:
        bench = Bench(Path(name), size, stack)
        rows = [row for row in bench.rows() if arguments.only in f"{row.group} {row.name}"]
        for turn in range(arguments.runs):
            for row in rows:
                bench.clear()
                measure(row, bench.folder, bench.size)
                took = f"{row.group} {row.name}: {row.seconds[-1]:.2f} s"
                print(f"run {turn + 1} of {arguments.runs}: {took}", file=sys.stderr)
        results = summarize(rows, size)
        show(results)
        for word in bench.skipped:
            print(word)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


class Bench:
    """The files, nodes and servers that the rows need."""

    def __init__(self, folder: Path, size: int, stack: ExitStack) -> None:
        self.folder = folder
        self.size = size
        self.stack = stack
        self.skipped: list[str] = []
        self.source = folder / "source"
        self.source.mkdir()
        self.file = self.source / "model.safetensors"
        self.target = folder / "target"
        columns = 4096
        rows = 2 * 2**20 // columns * 2  # 32 MiB a tensor
        tensors = {f"layers.{i}.weight": (rows, columns) for i in range(max(1, size // (2 * rows * columns)))}
        write_safetensors(self.file, tensors, np.random.default_rng(7))
        self.size = self.file.stat().st_size
        self.count = 0

    def rows(self) -> list[Row]:
        """Start what serves, and return what is to be measured."""
        publisher = self.home("publisher")
        self.p2phub(publisher, "id", "new")
        root = json.loads(self.p2phub(publisher, "publish", str(self.source), "bench@1.0.0", "--json"))["revision"]
        rows = [
            Row("publish", "cp + b3sum", self.copy_and_hash, reference=True),
            Row("publish", "p2phub publish", self.publish, before=self.prepare_publisher),
            Row(
                "publish",
                "p2phub publish --in-place",
                lambda: self.publish("--in-place"),
                before=self.prepare_publisher,
            ),
            Row("verify", "b3sum", lambda: self.run([*hash_command(), str(self.file)]), reference=True),
            Row("verify", "p2phub verify", lambda: self.run([P2PHUB, "verify", root], publisher)),
            Row("fetch tls", "limit, TLS sockets", self.limit(tls=True), reference=True),
            Row("fetch tls", "p2phub, 1 provider", self.fetch(root, [publisher], P2PHUB_ONLY_TLS="1")),
        ]
        others = [self.home("second"), self.home("third")]
        for home in others:
            shutil.copytree(publisher, home, dirs_exist_ok=True)
            shutil.rmtree(Path(home) / "keys")
        rows += [
            Row("fetch tls", "p2phub, 3 providers", self.fetch(root, [publisher, *others], P2PHUB_ONLY_TLS="1")),
            Row("fetch", "limit, plain sockets", self.limit(tls=False), reference=True),
            Row("fetch", "p2phub plain, 1 provider", self.fetch(root, [publisher], P2PHUB_PLAIN="1")),
            Row("fetch", "p2phub plain, 3 providers", self.fetch(root, [publisher, *others], P2PHUB_PLAIN="1")),
            Row("fetch", "p2phub frames, 1 provider", self.fetch(root, [publisher])),
            Row("fetch", "p2phub frames, 3 providers", self.fetch(root, [publisher, *others])),
        ]
        if shutil.which("rsync"):
            rows.append(Row("fetch", "rsync daemon", self.rsync()))
        else:
            self.skipped.append("rsync is not installed and was left out")
        return rows

    def home(self, name: str) -> str:
        """Return a new home."""
        self.count += 1
        home = self.folder / f"home-{self.count}-{name}"
        home.mkdir()
        return str(home)

    def run(self, command: list[str], home: str | None = None, **variables: str) -> float:
        """Run `command` to its end, its output thrown away."""
        environment = {**os.environ, **({"P2PHUB_HOME": home} if home else {}), **variables}
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        return 0.0

    def p2phub(self, home: str, *arguments: str) -> str:
        environment = {**os.environ, "P2PHUB_HOME": home}
        command = [P2PHUB, *arguments]
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout

    def clear(self) -> None:
        """Empty the folder that runs write to."""
        shutil.rmtree(self.target, ignore_errors=True)
        self.target.mkdir()

    def prepare_publisher(self) -> None:
        self.clear()
        self.p2phub(str(self.target), "id", "new")

    def copy_and_hash(self) -> float:
        copy = self.target / "copy"
        self.run(["sh", "-c", f"cp {self.file} {copy} && sync {copy} && {shlex.join(hash_command())} {copy}"])
        return 0.0

    def publish(self, *options: str) -> float:
        return self.run([P2PHUB, "publish", str(self.source), "bench", *options], str(self.target))

    def limit(self, *, tls: bool) -> Callable[[], float]:
        """Return what fetches the file with the limit programs."""
        port_file = self.folder / f"limit-{tls}.port"
        option = ["--tls"] if tls else []
        server = self.start([*LIMIT, "serve", str(self.file), str(port_file), *option], port_file)

        def fetch() -> float:
            target = str(self.target / "file")
            self.run([*LIMIT, "fetch", port_file.read_text(), target, str(self.size), *option])
            return peak_memory(server.pid)

        return fetch

    def fetch(self, revision: str, homes: list[str], **variables: str) -> Callable[[], float]:
        """Return what fetches the file from nodes of `homes`, all with these environment variables."""
        nodes: list[subprocess.Popen[bytes]] = []
        addresses: list[str] = []
        for home in homes:
            # A copy of the index, so that one store can be served in both ways.
            ready = self.folder / f"{len(list(self.folder.glob('*.ready')))}.ready"
            command = [P2PHUB, "node", "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", "--ready-file", str(ready)]
            serving = self.home("serving")
            os.rmdir(serving)
            shutil.copytree(home, serving, copy_function=os.link)
            for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm"):
                path = Path(serving) / name
                if path.exists():
                    path.unlink()
                    shutil.copy(Path(home) / name, path)
            nodes.append(self.start(command, ready, P2PHUB_HOME=serving, **variables))
            addresses.append(json.loads(ready.read_text())["address"])

        def run() -> float:
            peers = [word for address in addresses for word in ("--peer", address)]
            self.run([P2PHUB, "fetch", revision, *peers], str(self.target), **variables)
            return max(peak_memory(node.pid) for node in nodes)

        return run

    def rsync(self) -> Callable[[], float]:
        """Return what fetches the file from an rsync daemon, and hashes it."""
        port = 18730
        config = self.folder / "rsyncd.conf"
        config.write_text(f"use chroot = no\nlog file = /dev/null\n[bench]\npath = {self.source}\n")
        server = self.start(
            ["rsync", "--daemon", "--no-detach", f"--config={config}", f"--port={port}", "--address=127.0.0.1"], config
        )

        def fetch() -> float:
            target = self.target / "file"
            source = f"rsync://127.0.0.1:{port}/bench/model.safetensors"
            self.run(["sh", "-c", f"rsync --whole-file {source} {target} && sync {target}"])
            return peak_memory(server.pid)

        return fetch

    def start(self, command: list[str], ready: Path, **variables: str) -> subprocess.Popen[bytes]:
        """Start a server, wait until it has written the file `ready`, and stop it at the end."""
        process = subprocess.Popen(command, env={**os.environ, **variables}, stderr=subprocess.DEVNULL)
        self.stack.callback(stop, process)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command)} did not start")
            time.sleep(0.05)
        return process


def measure(row: Row, folder: Path, size: int) -> None:
    """Run `row` once and note what it took."""
    row.before()
    prime(folder, size)
    before = os.times()
    start = time.monotonic()
    serving_peak, peak = in_child(row.run)
    row.seconds.append(time.monotonic() - start)
    after = os.times()
    row.cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
    row.peak.append(peak)
    row.serving_peak.append(serving_peak)


def in_child(work: Callable[[], float]) -> tuple[float, float]:
    """Run `work` in a forked child; returns its result, and the peak memory of the largest process it ran."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        import resource

        try:
            serving_peak = work()
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            os.write(write, json.dumps([serving_peak, peak]).encode())
            os._exit(0)
        except BaseException as exc:
            print(f"p2phub: error: {exc}", file=sys.stderr)
            os._exit(1)
    os.close(write)
    answer = os.read(read, 4096)
    os.close(read)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("a run failed")
    serving_peak, peak = json.loads(answer)
    return serving_peak, peak


def prime(folder: Path, size: int) -> None:
    """Write and unlink a filler of the same size, so that no run pays for getting memory back from the host."""
    with tempfile.TemporaryFile(dir=folder) as filler:
        block = bytes(2**20)
        for _ in range(-(-size // len(block))):
            filler.write(block)


def hash_command() -> list[str]:
    """Return the command that prints the BLAKE3 hash of a file: b3sum, or the same library from Python."""
    if shutil.which("b3sum"):
        return ["b3sum", "--num-threads", "1"]
    code = "import sys,blake3;h=blake3.blake3();h.update_mmap(sys.argv[1]);print(h.hexdigest())"
    return [sys.executable, "-c", code]


def peak_memory(pid: int) -> float:
    """Return the largest resident size that a running process had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024
    return 0.0


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def summarize(rows: list[Row], size: int) -> list[dict[str, Any]]:
    """Return the medians, and each rate as a ratio to the reference of its group, pair by pair."""
    results = []
    for row in rows:
        reference = next((other for other in rows if other.group == row.group and other.reference), None)
        pairs = zip(reference.seconds, row.seconds, strict=True) if reference else ()
        ratios = [theirs / ours for theirs, ours in pairs]
        facts = {name: value for name, value in asdict(row).items() if name not in ("run", "reference")}
        results.append(
            {
                **facts,
                "bytes": size,
                "rate": size / statistics.median(row.seconds),
                "ratio": statistics.median(ratios) if ratios else None,
            }
        )
    return results


def show(results: list[dict[str, Any]]) -> None:
    print(f"{'':28}{'MB/s':>8}{'ratio':>8}{'CPU s':>8}{'peak MB':>9}{'serving':>9}")
    group = None
    for result in results:
        if result["group"] != group:
            group = result["group"]
            print(group)
        ratio = f"{result['ratio']:.2f}" if result["ratio"] else "-"
        serving = statistics.median(result["serving_peak"]) / 1e6
        print(
            f"  {result['name']:26}{result['rate'] / 1e6:8.0f}{ratio:>8}"
            f"{statistics.median(result['cpu']):8.2f}{statistics.median(result['peak']) / 1e6:9.0f}"
            f"{f'{serving:.0f}' if serving else '-':>9}"
        )


if __name__ == "__main__":
    sys.exit(main())
