"""The networks of namespaces that benchmarks and tests run in."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from p2phub.testing import netns
from p2phub.testing.netns import Link, Machine, NoNamespaces, network
from p2phub.testing.processes import is_running, wait_until

pytestmark = pytest.mark.usefixtures("namespaces")

SERVE = "import socket; l = socket.create_server(('0.0.0.0', 9000)); print('ready', flush=True); c, _ = l.accept()"
TAKE = f"{SERVE}\nwhile c.recv(65536): pass"
GIVE = "import socket, sys; s = socket.create_connection((sys.argv[1], 9000)); s.sendall(bytes(int(sys.argv[2])))"


def send(giver: Machine, taker: Machine, size: int) -> None:
    """Move `size` bytes over TCP."""
    server = taker.popen([sys.executable, "-c", TAKE], stdout=subprocess.PIPE)
    with server:
        server.stdout.readline()
        giver.run([sys.executable, "-c", GIVE, taker.address, str(size)])


def test_machines_reach_each_other_and_count_what_they_send() -> None:
    with network(3) as (alice, bob, carol):
        send(alice, carol, 1_000_000)

        assert 1_000_000 < alice.sent < 1_100_000
        assert 1_000_000 < carol.received < 1_100_000
        assert bob.sent < 10_000


def test_an_uplink_has_the_rate_that_was_asked_for_with_headers_on_top() -> None:
    with network(2, Link(rate=12.5e6)) as (alice, bob):
        bob.shape(Link())

        shown = [
            machine.run(["tc", "qdisc", "show", "dev", "eth0"], capture_output=True).stdout for machine in (alice, bob)
        ]
        (rate,) = re.findall(r"tbf .*rate (\d+)[Kk]bit", shown[0])
        assert int(rate) == pytest.approx(100_000 * 1514 / 1448, rel=0.001)
        assert "tbf" not in shown[1]


def test_packets_are_late_where_the_kernel_can_do_that() -> None:
    with network(2) as (alice, bob):
        try:
            alice.shape(Link(delay_s=0.05))
        except NoNamespaces as exc:
            pytest.skip(str(exc))
        shown = alice.run(["tc", "qdisc", "show", "dev", "eth0"], capture_output=True).stdout
        send(alice, bob, 1000)

    assert "delay 50ms" in shown


def test_what_still_runs_is_killed_at_the_end() -> None:
    with network(1) as (alice,):
        sleeper = alice.popen(["sleep", "1000"], stdout=subprocess.DEVNULL)

    assert sleeper.wait(10) == -signal.SIGKILL


def test_nothing_is_left_after_a_crash() -> None:
    code = (
        "import os, signal, subprocess\n"
        "from p2phub.testing.netns import network\n"
        "with network(2) as (alice, bob):\n"
        "    print(alice.pid, bob.pid, alice.popen(['sleep', '1000'], stdout=subprocess.DEVNULL).pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    crashed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)

    pids = [int(word) for word in crashed.stdout.split()]
    assert crashed.returncode == -signal.SIGKILL
    assert len(pids) == 3
    for pid in pids:
        wait_until(lambda pid=pid: not is_running(pid), f"process {pid} to end")


def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(NoNamespaces, match="need root"):
        netns.check_available()
