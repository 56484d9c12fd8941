"""The peer door lets nobody wait for ever, and no more in than it has room for."""

from __future__ import annotations

import contextlib
import math
import socket
import time

import pytest
import trio
from callerkit import WAYS, on_connection
from netkit import HOST, PATIENCE_S, Caller, echo, in_thread, open_door

from p2phub.core.errors import HubError
from p2phub.net import door as module
from p2phub.net import queries
from p2phub.net.door import Request, Response, serve_peers

SILENCES = {
    "nothing": b"",
    "half a head": b"POST / HTTP/1.1\r\nhos",
    "half a body": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab",
}


# ── waiting ─────────────────────────────────────────────────────────────────


@WAYS
@pytest.mark.parametrize("what", SILENCES)
async def test_who_falls_silent_in_a_first_request_is_let_go(
    plain: bool, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_REQUEST_TIMEOUT_S", 0.2)
    async with open_door(echo, plain=plain) as port:
        rest = await in_thread(on_connection, port, plain, lambda caller: caller.send(SILENCES[what]).rest())

    assert rest == b""


@WAYS
@pytest.mark.parametrize("what", ["half a head", "half a body"])
async def test_who_falls_silent_in_a_later_request_is_let_go_sooner_than_who_only_rests(
    plain: bool, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", 0.2)

    def talk(caller: Caller) -> bytes:
        assert caller.ask().status == 200
        return caller.send(SILENCES[what]).rest()

    async with open_door(echo, plain=plain) as port:
        assert await in_thread(on_connection, port, plain, talk) == b""


@WAYS
async def test_who_rests_too_long_between_requests_is_let_go(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_TIMEOUT_S", 0.2)

    def talk(caller: Caller) -> bytes:
        assert caller.ask().status == 200
        return caller.rest()

    async with open_door(echo, plain=plain) as port:
        assert await in_thread(on_connection, port, plain, talk) == b""


async def test_who_never_begins_the_handshake_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_TIMEOUT_S", 0.2)
    async with open_door(echo) as port:
        for noise in (b"", b"\x16\x03\x01\x02\x00"):
            rest = await in_thread(on_connection, port, True, lambda caller, noise=noise: caller.send(noise).rest())
            assert rest == b""


@WAYS
async def test_a_handler_may_take_its_time(plain: bool) -> None:
    """Only waiting for the peer is bounded."""
    deadlines: list[float] = []

    async def handler(request: Request) -> Response:
        deadlines.append(trio.current_effective_deadline())
        return await echo(request)

    def talk(caller: Caller) -> None:
        for _ in range(2):
            assert caller.ask().status == 200

    async with open_door(handler, plain=plain) as port:
        await in_thread(on_connection, port, plain, talk)
    assert deadlines == [math.inf, math.inf]


# ── how many ────────────────────────────────────────────────────────────────


@WAYS
@pytest.mark.parametrize("limit", ["CONNECTIONS_PER_HOST_MAX", "CONNECTIONS_MAX"])
async def test_no_more_connections_are_open_than_the_limit(
    plain: bool, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, limit, 3)

    def talk(port: int) -> None:
        with contextlib.ExitStack() as opened:
            callers = [opened.enter_context(Caller(port, plain=plain)) for _ in range(3)]
            for caller in callers:
                assert caller.ask().status == 200
            with pytest.raises((OSError, EOFError)):
                opened.enter_context(Caller(port, plain=plain)).ask()
            # Those who are in stay in.
            for caller in callers:
                assert caller.ask().status == 200
            callers[0].socket.close()
            ask_when_there_is_room(port, plain)

    async with open_door(echo, plain=plain) as port:
        await in_thread(talk, port)


@WAYS
@pytest.mark.parametrize("limit", ["CONNECTIONS_PER_HOST_MAX", "CONNECTIONS_MAX"])
async def test_who_asks_nothing_makes_room_for_who_does(
    plain: bool, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, limit, 5)

    def talk(port: int) -> None:
        with contextlib.ExitStack() as opened:
            asking = [opened.enter_context(Caller(port, plain=plain)) for _ in range(2)]
            for caller in asking:
                assert caller.ask().status == 200
            silent = [opened.enter_context(Caller(port, plain=plain)) for _ in range(3)]
            for _ in range(20):
                late = opened.enter_context(Caller(port, plain=plain))
                assert late.ask().status == 200
                late.socket.close()
            # The oldest, and no more than had to.
            assert silent[0].rest() == b""
            for caller in asking + silent[2:]:
                assert caller.ask().status == 200

    async with open_door(echo, plain=plain) as port:
        await in_thread(talk, port)


@WAYS
async def test_large_queries_that_never_end_keep_no_small_ones_out_and_no_others(
    plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "LARGE_QUERIES_EACH_MAX", 3)
    head = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n"

    def talk(port: int) -> None:
        with contextlib.ExitStack() as opened:
            for _ in range(3):
                opened.enter_context(Caller(port, plain=plain)).send(head + bytes(100_000))
            other = opened.enter_context(Caller(port, plain=plain))
            until = time.monotonic() + PATIENCE_S
            while (status := refused(port)) != 429:
                assert status == 200
                assert time.monotonic() < until
            assert other.ask(body=b"small").status == 200
        # And when they are gone, there is room again.
        until = time.monotonic() + PATIENCE_S
        while refused(port) != 200:
            assert time.monotonic() < until

    def refused(port: int) -> int:
        with Caller(port, plain=plain) as caller:
            return caller.ask(body=bytes(100_000)).status

    async with open_door(echo, plain=plain) as port:
        await in_thread(talk, port)
    assert not queries._large


async def test_callers_with_many_addresses_count_as_one() -> None:
    assert module.caller_of("192.0.2.7") == "192.0.2.7"
    assert module.caller_of("192.0.2.7") != module.caller_of("192.0.2.8")
    assert module.caller_of("2001:db8:0:1::7") == module.caller_of("2001:db8:0:1:ffff::8")
    assert module.caller_of("2001:db8:0:1::7") != module.caller_of("2001:db8:0:2::7")
    assert module.caller_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert module.caller_of("fe80::1%eth0") == module.caller_of("fe80::2")
    assert module.caller_of("") == ""


def ask_when_there_is_room(port: int, plain: bool) -> None:
    """Ask until the door has noticed that somebody left."""
    while True:
        with contextlib.suppress(OSError, EOFError), Caller(port, plain=plain) as caller:
            assert caller.ask().status == 200
            return


@WAYS
async def test_connections_that_ended_do_not_count(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 2)

    def talk(port: int) -> None:
        for number in range(10):
            with contextlib.suppress(OSError, EOFError):
                caller = Caller(port, plain=plain)
                caller.vanish() if number % 2 else caller.socket.close()
            ask_when_there_is_room(port, plain)

    async with open_door(echo, plain=plain) as port:
        await in_thread(talk, port)


async def test_a_port_that_is_taken_is_said_to_be() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HubError, match=f"cannot listen on {HOST}:{port}"):
            await serve_peers(HOST, port, echo, tls=None)
