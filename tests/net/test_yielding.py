"""What a connection is told while it yields, and that it is taken back."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator

import pytest
import trio

from p2phub.net import yielding
from p2phub.net.pacing import Pacer, RateLimit
from p2phub.net.sending import Sender, Sending
from p2phub.net.yielding import DSCP_LOWER_EFFORT, YieldingLimit
from p2phub.protocol.ledbat import RATE_START, Sample

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what it takes")

FLOOR = 24 * 1024


@contextlib.contextmanager
def connected(host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, socket.socket]]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
        listener.accept()[0] as accepted,
    ):
        yield accepted, client


def option(connection: socket.socket, level: int, name: int) -> int:
    return connection.getsockopt(level, name)


def control(connection: socket.socket) -> bytes:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


def pace(connection: socket.socket) -> int:
    return struct.unpack("=I", connection.getsockopt(socket.SOL_SOCKET, 47, 4))[0]


def test_a_connection_that_yields_says_so_in_its_packets_and_is_paced_and_then_no_more():
    with connected() as (connection, _):
        before = control(connection)
        limit = YieldingLimit(connection)
        limit.begin(FLOOR)
        during = (
            option(connection, socket.IPPROTO_IP, socket.IP_TOS),
            limit.rate,
            pace(connection),
            control(connection),
        )
        limit.end()
        after = option(connection, socket.IPPROTO_IP, socket.IP_TOS), limit.rate, control(connection)

        assert during[0] == DSCP_LOWER_EFFORT == 0b000001_00
        assert during[1] == RATE_START
        assert RATE_START < during[2] < 2**32 - 1
        assert during[3] == b"reno"
        assert after == (0, None, before)
        assert pace(connection) == 2**32 - 1


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_over_ipv6_too():
    with connected("::1") as (connection, _):
        YieldingLimit(connection).begin(FLOOR)

        assert option(connection, socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == DSCP_LOWER_EFFORT


def test_the_kernel_tells_round_trips_and_what_arrived():
    with connected() as (connection, client):
        connection.sendall(bytes(100_000))
        received = 0
        while received < 100_000:
            received += len(client.recv(100_000))
        connection.sendall(b"!")
        client.recv(1)
        found = yielding._sample(connection, held_back=True)

    assert found is not None
    assert 100_000 <= found.delivered <= 100_002
    assert 0 < found.base_s <= found.rtt_s < 60
    assert not found.is_losing
    assert found.held_back


def test_a_kernel_that_says_too_little_is_no_reason_to_fail(monkeypatch):
    monkeypatch.setattr(yielding, "_INFO_SIZE", 104)  # as old ones tell
    with connected() as (connection, _):
        limit = YieldingLimit(connection)
        limit.begin(FLOOR)
        pacer = Pacer((limit,))
        list(pacer.pieces(1000))

        assert yielding._sample(connection, held_back=False) is None
        assert limit.rate == RATE_START


def test_where_nothing_is_told_only_the_packets_are_marked(monkeypatch):
    monkeypatch.setattr(yielding, "IS_SUPPORTED", False)
    with connected() as (connection, _):
        limit = YieldingLimit(connection)
        limit.begin(FLOOR)
        during = option(connection, socket.IPPROTO_IP, socket.IP_TOS), limit.rate
        limit.end()

        assert during == (DSCP_LOWER_EFFORT, None)
        assert option(connection, socket.IPPROTO_IP, socket.IP_TOS) == 0


def test_what_it_learns_sets_the_rate(monkeypatch):
    clock = 100.0
    monkeypatch.setattr(yielding.time, "monotonic", lambda: clock)
    with connected() as (connection, _):
        limit = YieldingLimit(connection)
        limit.begin(FLOOR)
        pacer = Pacer((limit,))
        rates = []
        for step in range(1, 8):
            # As on a link that is idle and takes what it gets.
            told = Sample(0.01, 0.01, int(step * 0.1 * limit.rate), False, True)
            monkeypatch.setattr(yielding, "_sample", lambda *_, told=told, **__: told)
            clock += 0.1
            pacer.wait(0)
            rates.append(limit.rate)

    assert rates[-1] > 2 * RATE_START
    assert rates == sorted(rates)


async def test_only_the_answers_that_are_to_yield_do():
    with connected() as (connection, client):
        sender = Sender(connection)
        seen = []

        def work(pacer: Pacer) -> None:
            seen.append((pacer.background, option(connection, socket.IPPROTO_IP, socket.IP_TOS)))
            connection.sendall(b"x")

        for sending in (Sending(), Sending(yields_to=FLOOR), Sending()):
            await sender.send(sending, work)

        assert seen == [(False, 0), (True, DSCP_LOWER_EFFORT), (False, 0)]
        assert option(connection, socket.IPPROTO_IP, socket.IP_TOS) == 0
        assert client.recv(10) == b"xxx"


async def test_an_answer_that_fails_leaves_no_mark_behind():
    with connected() as (connection, _):

        def fail(pacer: Pacer) -> None:
            raise BrokenPipeError

        with pytest.raises(BrokenPipeError):
            await Sender(connection).send(Sending(yields_to=FLOOR), fail)

        assert option(connection, socket.IPPROTO_IP, socket.IP_TOS) == 0


async def test_an_answer_that_waits_for_a_limit_ends_at_once_when_cancelled():
    limit = RateLimit(1)
    with connected() as (connection, client):
        with trio.fail_after(30), trio.move_on_after(0.2) as waiting:
            await Sender(connection).send(Sending((limit,)), lambda pacer: list(pacer.pieces(10**9)))

        assert waiting.cancelled_caught
        assert client.recv(1) == b"", "the connection is cut"
