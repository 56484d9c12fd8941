"""Make a network of several machines on this one: a namespace for each, joined by one bridge.

    with network(3, Link(rate=100_000_000)) as (alice, bob, carol):
        alice.popen(["p2phub", "node", "--listen", f"{alice.address}:8627"])
        bob.run(["ping", "-c1", alice.address])

Nothing has a name or shows on the machine: a namespace lives as long as a shell in it,
which ends when the pipe to it closes. So everything goes away at the end, also when this
process is killed: the shell takes along what still runs in its namespace.

Needs Linux, root, and `ip` and `tc` of iproute2.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

PREFIX = "10.77"  # of all addresses; the network reaches nobody, so nobody can have the same
MACHINES_MAX = 250
SEGMENT = 1448, 1514  # bytes of payload and of frame in a full TCP segment of Ethernet, with timestamps
BURST_S = 0.01  # what an idle uplink may send at once, in seconds of its rate: a busy machine wakes it late
BURST_MIN = 128 * 1024  # bytes; a packet that the kernel has yet to cut up has 64 KiB
QUEUE_S = 0.2  # of an uplink, in seconds of its rate

# Waits until the pipe closes, then kills what else is in its namespace.
_HOLDER = """
echo ready
cat >/dev/null
own=$(readlink /proc/$$/ns/net)
for process in /proc/[0-9]*; do
    number=${process#/proc/}
    if [ "$number" != $$ ] && [ "$(readlink "$process/ns/net" 2>/dev/null)" = "$own" ]; then
        kill -9 "$number" 2>/dev/null
    fi
done
exit 0
"""


class NoNamespaces(Exception):
    """This machine, or this user, cannot make network namespaces; the text says why."""


@dataclass(frozen=True)
class Link:
    """What an uplink is like: how much TCP payload it takes per second, and what happens to packets on it."""

    rate: float | None = None  # bytes of payload per second in full segments; None: no limit
    delay_s: float = 0.0
    loss: float = 0.0  # share of packets


class Machine:
    """One namespace, with one interface `eth0` beside loopback."""

    def __init__(self, holder: subprocess.Popen[str], address: str = "") -> None:
        self._holder = holder
        self.address = address
        self._switch: tuple[Machine, str] | None = None  # what it is plugged into: the bridge's side of its cable

    @property
    def pid(self) -> int:
        """A process in the namespace, for `nsenter --target` and /proc/PID/net."""
        return self._holder.pid

    def command(self, command: Sequence[str]) -> list[str]:
        """Return `command` as it runs in this namespace; the process is the command itself, not a wrapper."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *command]

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `command` here to its end; options are those of subprocess.run. Raises CalledProcessError."""
        return subprocess.run(self.command(command), **{"check": True, "text": True, **options})

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start `command` here; options are those of subprocess.Popen. What still runs at the end is killed."""
        return subprocess.Popen(self.command(command), **options)

    def shape(self, link: Link) -> None:
        """Make the uplink, what this machine sends, like `link`. Raises NoNamespaces if the kernel cannot."""
        _shape(self, "eth0", link)

    def shape_down(self, link: Link) -> None:
        """Make the downlink, what this machine receives, like `link`. Raises NoNamespaces if the kernel cannot.

        It queues as a router does, which cannot tell a sender to wait as its own uplink can.
        """
        assert self._switch
        _shape(*self._switch, link)

    @property
    def sent(self) -> int:
        """Bytes that left through `eth0` so far, headers included."""
        return self._counters()[8]

    @property
    def received(self) -> int:
        """Bytes that came through `eth0` so far, headers included."""
        return self._counters()[0]

    def _counters(self) -> list[int]:
        with open(f"/proc/{self.pid}/net/dev") as file:
            line = next(line for line in file if line.lstrip().startswith("eth0:"))
        return [int(word) for word in line.partition(":")[2].split()]

    def _end(self) -> None:
        assert self._holder.stdin
        self._holder.stdin.close()
        self._holder.wait()


@contextlib.contextmanager
def network(count: int, link: Link | None = None, *, apart: bool = False) -> Iterator[list[Machine]]:
    """Give `count` machines that reach each other, each with an uplink like `link`.

    apart: each in a network of its own, as machines of different institutions are; else all in one.
    Raises NoNamespaces.
    """
    if not 1 <= count <= MACHINES_MAX:
        raise ValueError(f"a network has 1 to {MACHINES_MAX} machines, not {count}")
    _check_tools()
    with contextlib.ExitStack() as stack:
        bridge = stack.enter_context(_namespace())
        _tool("ip", "link", "add", "bridge", "type", "bridge", machine=bridge)
        _tool("ip", "link", "set", "bridge", "up", machine=bridge)
        machines = []
        for number in range(1, count + 1):
            machine = stack.enter_context(_namespace())
            machine.address = f"{PREFIX}.{number}.1" if apart else f"{PREFIX}.0.{number}"
            machine._switch = bridge, f"to{number}"
            peer = ["peer", "name", "eth0", "netns", str(machine.pid)]
            _tool("ip", "link", "add", f"to{number}", "type", "veth", *peer, machine=bridge)
            _tool("ip", "link", "set", f"to{number}", "master", "bridge", "up", machine=bridge)
            length = 32 if apart else 24
            _tool("ip", "address", "add", f"{machine.address}/{length}", "dev", "eth0", machine=machine)
            _tool("ip", "link", "set", "eth0", "up", machine=machine)
            if apart:
                _tool("ip", "route", "add", f"{PREFIX}.0.0/16", "dev", "eth0", machine=machine)
            if link:
                machine.shape(link)
            machines.append(machine)
        yield machines


def check_available() -> None:
    """Raise NoNamespaces if there can be no network, by making a small one."""
    with network(1, Link(rate=1e6)):
        pass


def _check_tools() -> None:
    if missing := [tool for tool in ("ip", "tc", "nsenter", "unshare") if not shutil.which(tool)]:
        raise NoNamespaces(f"network namespaces need {', '.join(missing)} (packages iproute2, util-linux)")
    if os.geteuid() != 0:
        raise NoNamespaces("network namespaces need root")


@contextlib.contextmanager
def _namespace() -> Iterator[Machine]:
    # A session of its own, so that Ctrl-C leaves it to us.
    holder = subprocess.Popen(
        ["unshare", "--net", "--", "sh", "-c", _HOLDER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    machine = Machine(holder)
    assert holder.stdout
    assert holder.stderr
    try:
        if holder.stdout.readline() != "ready\n":
            raise NoNamespaces(f"cannot make a network namespace: {holder.stderr.read().strip()}")
        _tool("ip", "link", "set", "lo", "up", machine=machine)
        yield machine
    finally:
        machine._end()
        holder.stdout.close()
        holder.stderr.close()


def _shape(machine: Machine, device: str, link: Link) -> None:
    """Make what leaves `machine` through `device` like `link`."""
    with contextlib.suppress(NoNamespaces):  # there is none to delete at first
        _tool("tc", "qdisc", "delete", "dev", device, "root", machine=machine)
    place = ["root"]
    if link.delay_s or link.loss:
        netem = ["netem", "delay", f"{link.delay_s * 1e6:.0f}us", "loss", f"{link.loss * 100}%", "limit", "100000"]
        _tool("tc", "qdisc", "add", "dev", device, *place, "handle", "1:", *netem, machine=machine)
        place = ["parent", "1:1"]
    if link.rate:
        rate = link.rate * SEGMENT[1] / SEGMENT[0]
        burst, queue = max(BURST_MIN, rate * BURST_S), max(4 * BURST_MIN, rate * QUEUE_S)
        tbf = ["tbf", "rate", f"{rate * 8:.0f}bit", "burst", f"{burst:.0f}b", "limit", f"{queue:.0f}b"]
        _tool("tc", "qdisc", "add", "dev", device, *place, *tbf, machine=machine)


def _tool(*command: str, machine: Machine) -> None:
    result = machine.run(command, check=False, capture_output=True)
    if result.returncode:
        raise NoNamespaces(f"`{' '.join(command)}` failed: {result.stderr.strip()}")
