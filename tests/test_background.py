"""What runs in the background takes hardly anything from others, and uses what they leave: processes on a real link.

The link is the way into one machine, with a queue as home routers have it. What is
compared are shares of its rate, as a busy machine measures them.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2phub.testing.netns import Link, Machine, network
from p2phub.testing.processes import DEADLINE_S, Home, wait_until

RATE = 2_500_000  # bytes a second
SIZE = 20_000_000  # bytes
FLOW_S = 8.0  # seconds of a foreground flow

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("namespaces")]

# Cubic, which most systems use, whatever this one does.
FLOW = """
import socket, sys, time
connection = socket.socket()
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
connection.connect((sys.argv[1], 9000))
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    connection.sendall(bytes(65536))
"""
TAKE = """
import socket, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("", 9000))
listener.listen()
print("ready", flush=True)
connection, _ = listener.accept()
size, start = 0, time.monotonic()
while data := connection.recv(65536):
    size += len(data)
print(size / (time.monotonic() - start))
"""


class Site:
    """A machine behind the link, one that has a model, and one that sends something else."""

    def __init__(self, folder: Path, receiver: Machine, seed: Machine, other: Machine) -> None:
        self.folder = folder
        self.receiver = receiver
        self.other = other
        source = folder / "source"
        source.mkdir()
        (source / "weights.bin").write_bytes(random.Random(0).randbytes(SIZE))
        home = Home(folder / "seed")
        home.ask("id", "new")
        self.revision = home.ask("publish", str(source), "weights")["revision"]
        ready = folder / "ready"
        options = ["node", "--listen", f"{seed.address}:8627", "--local", "127.0.0.1:0", "--ready-file", str(ready)]
        self.node = seed.popen([*command(), *options], env=home.environment(), stderr=subprocess.DEVNULL)
        wait_until(ready.exists, "the node")
        self.peer = f"p2phub://{home.daemon_file.read_text().split('p2phub://')[1].split(chr(34))[0]}"
        self.fetches = 0

    def flow(self) -> float:
        """Send something over the link for a while; returns the rate at which it came, in bytes a second."""
        taker = self.receiver.popen([sys.executable, "-c", TAKE], stdout=subprocess.PIPE, text=True)
        with taker:
            assert taker.stdout.readline() == "ready\n"
            self.other.run([sys.executable, "-c", FLOW, self.receiver.address, str(FLOW_S)])
            return float(taker.stdout.readline())

    def fetch(self, *options: str) -> Fetching:
        """Begin to fetch the model over the link."""
        self.fetches += 1
        home = Home(self.folder / f"fetcher-{self.fetches}")
        words = [*command(), "fetch", self.revision, "--peer", self.peer, *options]
        return Fetching(self.receiver, words, home)


class Fetching:
    """A fetch that runs."""

    def __init__(self, receiver: Machine, words: list[str], home: Home) -> None:
        self.receiver = receiver
        self.before = receiver.received
        self.process = receiver.popen(words, env=home.environment(), stderr=subprocess.DEVNULL)
        self.thread = threading.Thread(target=self._wait)
        self.thread.start()

    def _wait(self) -> None:
        self.code = self.process.wait()

    def wait_begun(self) -> None:
        """Wait until a good part of what it may use comes."""
        wait_until(lambda: self.receiver.received - self.before > SIZE / 20, "the fetch to begin")

    def end(self) -> float:
        """Wait for its end; returns the bytes a second that it brought since it was seen to have begun."""
        received, start = self.receiver.received, time.monotonic()
        self.thread.join(3 * DEADLINE_S)
        assert self.code == 0
        return (self.before + SIZE - received) / (time.monotonic() - start)


def command() -> list[str]:
    return [sys.executable, "-c", "from p2phub.cli.main import main; main()"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with network(3) as (receiver, seed, other):
        receiver.shape_down(Link(rate=RATE))
        found = Site(tmp_path_factory.mktemp("site"), receiver, seed, other)
        try:
            yield found
        finally:
            found.node.terminate()
            found.node.wait(DEADLINE_S)


def test_the_foreground_keeps_most_of_its_rate_whoever_came_first(site: Site) -> None:
    alone = site.flow()
    running = site.fetch("--background")
    running.wait_begun()
    beside = site.flow()
    running.end()
    flow: list[float] = []
    first = threading.Thread(target=lambda: flow.append(site.flow()))
    first.start()
    time.sleep(1.0)
    late = site.fetch("--background")
    first.join()
    late.end()

    assert alone > 0.9 * RATE
    assert beside > 0.7 * alone
    assert flow[0] > 0.7 * alone


def test_a_link_that_nobody_else_uses_is_used(site: Site) -> None:
    running = site.fetch("--background")
    running.wait_begun()

    assert running.end() > 0.5 * RATE
