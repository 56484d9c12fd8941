"""What a site shares crosses its expensive link about once: whole nodes on machines of their own."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from p2phub.testing.netns import Link, Machine, network
from p2phub.testing.processes import DEADLINE_S, Home, wait_until

SIZE = 64 * 1024 * 1024  # bytes: four areas of those that a site shares out
FAR_RATE = 16_000_000  # bytes a second, of the expensive link
NEAR_RATE = 10_000_000  # of each uplink in the site
COMMAND = [sys.executable, "-c", "from p2phub.cli.main import main; main()"]

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("namespaces")]


class Computer:
    """A machine with a node on it."""

    def __init__(self, machine: Machine, home: Home) -> None:
        self.machine = machine
        self.home = home

    def start(self, stack: ExitStack, *options: str) -> None:
        ready = self.home.folder / "ready"
        doors = ["node", "--listen", f"{self.machine.address}:8627", "--local", "127.0.0.1:0"]
        words = [*COMMAND, *doors, "--ready-file", str(ready), *options]
        self.home.folder.mkdir(parents=True, exist_ok=True)
        node = self.machine.popen(words, env=self.home.environment(), stderr=subprocess.DEVNULL)
        stack.callback(node.wait, DEADLINE_S)
        stack.callback(node.terminate)
        wait_until(ready.exists, "a node")
        self.peer = json.loads(self.home.daemon_file.read_text())["address"]

    def begin(self, *words: str) -> subprocess.Popen[str]:
        environment = self.home.environment()
        return self.machine.popen([*COMMAND, *words], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Computer, list[Computer]]]:
    """Give a revision, who has published it far away, and five nodes of one site."""
    base = tmp_path_factory.mktemp("site")
    (base / "source").mkdir()
    (base / "source" / "weights.bin").write_bytes(random.Random(0).randbytes(SIZE))
    with ExitStack() as stack:
        machines = stack.enter_context(network(6))
        for machine in machines:
            machine.shape(Link(NEAR_RATE if machine is not machines[0] else FAR_RATE))
        far, *site = [Computer(machine, Home(base / machine.address)) for machine in machines]
        far.home.ask("id", "new")
        revision = far.home.ask("publish", str(base / "source"), "weights")["revision"]
        far.start(stack)
        for computer in site:
            computer.home.ask("limits", "range", f"{far.machine.address}/32", "internet")
            computer.start(stack, "--peer", far.peer, "--site", "here")
        yield revision, far, site


def fetch_all(revision: str, computers: list[Computer]) -> list[dict[str, int]]:
    """Fetch on all at once; returns for each what came over which class of link, in bytes."""
    running = [computer.begin("fetch", revision, "--json") for computer in computers]
    results = [json.loads(process.communicate(timeout=3 * DEADLINE_S)[0]) for process in running]
    assert all(process.returncode == 0 for process in running)
    return [{share["link"]: share["size"] for share in result["links"]} for result in results]


def test_nodes_that_begin_together_fetch_it_once_and_who_comes_later_fetches_nothing(world) -> None:
    revision, far, site = world
    before = far.machine.sent
    came = fetch_all(revision, site[:4])
    sent = far.machine.sent - before
    before = far.machine.sent
    (late,) = fetch_all(revision, site[4:])
    sent_late = far.machine.sent - before

    print(f"{sent / SIZE:.2f} copies for four, then {sent_late / SIZE:.2f}: {came}, {late}")
    # Of four copies. What is asked for before they know each other comes more than once.
    assert sent < 1.2 * SIZE
    assert sum(links.get("internet", 0) for links in came) >= SIZE
    assert all(sum(links.values()) >= SIZE for links in [*came, late])
    assert sent_late < 0.2 * SIZE
