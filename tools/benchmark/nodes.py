"""Nodes of p2phub and other servers as processes, here or on a machine of a network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from p2phub.testing.netns import Machine

from .measuring import Failure

P2PHUB = str(Path(sys.executable).with_name("p2phub"))
PORT = 8627  # of a node that has a machine for itself
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
# Environment of both sides, by the way that content takes.
TRANSPORTS: dict[str, dict[str, str]] = {
    "plain": {"P2PHUB_PLAIN": "1"},
    "frames": {},
    "tls": {"P2PHUB_ONLY_TLS": "1"},
}


@dataclass
class Node:
    """A node that runs, and where it answers."""

    home: Path
    process: subprocess.Popen[bytes]
    address: str
    local_url: str
    machine: Machine | None
    environment: dict[str, str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def command(self, *arguments: str) -> list[str]:
        """Return a p2phub command as it runs beside this node."""
        return beside(self.machine, [P2PHUB, *arguments])


def start_node(
    stack: ExitStack,
    home: Path,
    *,
    machine: Machine | None = None,
    peers: Sequence[str] = (),
    transport: str = "frames",
) -> Node:
    """Start a node of `home` and wait until it answers; it is stopped when `stack` closes. Raises Failure."""
    home.mkdir(exist_ok=True)
    environment = environment_of(home, transport)
    ready = home / "ready.json"
    ready.unlink(missing_ok=True)
    listen = f"{machine.address}:{PORT}" if machine else "127.0.0.1:0"
    doors = ["--listen", listen, "--local", "127.0.0.1:0", "--ready-file", str(ready)]
    command = [P2PHUB, "node", *doors, *peer_options(peers)]
    process = start(stack, beside(machine, command), environment, home / "node.log", ready.exists)
    facts = json.loads(ready.read_text())
    return Node(home, process, facts["address"], facts["local_url"], machine, environment)


def peer_options(addresses: Sequence[str]) -> list[str]:
    """Return the options that name these peers to a command."""
    return [word for address in addresses for word in ("--peer", address)]


def environment_of(home: Path, transport: str = "frames") -> dict[str, str]:
    """Return the environment of commands and nodes of `home`."""
    return {**clean_environment(), "P2PHUB_HOME": str(home), **TRANSPORTS[transport]}


def clean_environment() -> dict[str, str]:
    """Return our environment without what somebody set for another home."""
    return {name: value for name, value in os.environ.items() if not name.startswith("P2PHUB_")}


def beside(machine: Machine | None, command: Sequence[str]) -> list[str]:
    """Return `command` as it runs on `machine`; None: here."""
    return machine.command(command) if machine else list(command)


def start(
    stack: ExitStack, command: list[str], environment: Mapping[str, str], log: Path, is_ready: Callable[[], bool]
) -> subprocess.Popen[bytes]:
    """Start a server, wait until `is_ready()`, and stop it when `stack` closes. Raises Failure."""
    with open(log, "ab") as file:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    stack.callback(stop, process)
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failure(f"`{' '.join(command)}` did not start: {log.read_text()[-500:]}")
        time.sleep(0.02)
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server, gently if it lets us."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
