from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from netkit import HOST, NODE, PATIENCE_S, Answer, Caller, Files, echo, in_thread, open_below, open_door, wait_until

from p2phub.core.errors import HubError
from p2phub.net import channels, queries, receivers
from p2phub.net import door as module
from p2phub.net.door import HEAD_SIZE_MAX, Request, Response, serve_peers
from p2phub.net.tls import client_context
from p2phub.protocol.messages import LARGE_QUERY_SIZE_MAX
from p2phub.testing import values

MIB = 1024 * 1024
WAYS = pytest.mark.parametrize("plain", [False, True], ids=["tls", "plain"])


def on_connection(port: int, plain: bool, talk: Callable[[Caller], object], **options: object) -> object:
    with Caller(port, plain=plain, **options) as caller:  # type: ignore[arg-type]
        return talk(caller)


def ends(caller: Caller) -> bytes:
    """Return what comes until the door closes the connection."""
    return caller.rest()


# ── requests ────────────────────────────────────────────────────────────────


@WAYS
async def test_a_request_is_handed_over_whole(plain: bool) -> None:
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return Response(200, b"answer", "text/plain", {"x-more": "yes"})

    async with open_door(handler, plain=plain) as port:
        answer = await in_thread(
            on_connection, port, plain, lambda caller: caller.ask("/v1/log/abc?start=5&x=&y", body=b"body")
        )

    assert [(each.method, each.path, each.query, each.body, each.host) for each in seen] == [
        ("POST", "/v1/log/abc", {"start": "5", "x": "", "y": ""}, b"body", HOST)
    ]
    assert answer == Answer(200, {"content-length": "6", "content-type": "text/plain", "x-more": "yes"}, b"answer")


@WAYS
async def test_a_connection_carries_many_requests(plain: bool) -> None:
    def talk(caller: Caller) -> None:
        for number in range(20):
            answer = caller.ask(f"/{number}", body=bytes(number))
            assert answer.body.startswith(b"POST /%d {} %d " % (number, number))

    async with open_door(echo, plain=plain) as port:
        await in_thread(on_connection, port, plain, talk)


@WAYS
async def test_requests_that_come_at_once_are_answered_in_order(plain: bool) -> None:
    def talk(caller: Caller) -> None:
        caller.send(b"".join(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % number for number in range(20)))
        for number in range(20):
            assert caller.answer("GET").body.startswith(b"GET /%d " % number)

    async with open_door(echo, plain=plain) as port:
        await in_thread(on_connection, port, plain, talk)


@WAYS
async def test_a_request_may_come_byte_by_byte(plain: bool) -> None:
    def talk(caller: Caller) -> None:
        for byte in b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc":
            caller.send(bytes([byte]))
        assert caller.answer().body == b"POST /slow {} 3 abc"

    async with open_door(echo, plain=plain) as port:
        await in_thread(on_connection, port, plain, talk)


@WAYS
async def test_head_is_answered_without_a_body(tmp_path: Path, plain: bool) -> None:
    files = Files(tmp_path, {"a": bytes(1000)}, [("a", 0, 1000)])

    async def handler(request: Request) -> Response:
        return await (files(request) if request.path == "/files" else echo(request))

    def talk(caller: Caller) -> None:
        for path, size in (("/files", 1000), ("/other", 17), ("/files", 1000)):
            answer = caller.ask(path, method="HEAD")
            assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", str(size))
        assert caller.ask("/files").body == bytes(1000)

    async with open_door(handler, plain=plain) as port:
        await in_thread(on_connection, port, plain, talk)
    assert files.released == 3
    assert open_below(tmp_path) == []


@WAYS
async def test_a_client_may_wait_for_leave_to_send(plain: bool) -> None:
    def talk(caller: Caller) -> None:
        for number in range(2):
            caller.send(b"POST /%d HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n" % number)
            assert caller.socket.recv(1000) == b"HTTP/1.1 100 \r\n\r\n"
            assert caller.send(b"abc").answer().body == b"POST /%d {} 3 abc" % number

    async with open_door(echo, plain=plain) as port:
        await in_thread(on_connection, port, plain, talk)


@WAYS
async def test_a_body_may_come_in_chunks(plain: bool) -> None:
    def talk(caller: Caller) -> None:
        head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        for _ in range(2):
            caller.send(head + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
            assert caller.answer().body == b"POST / {} 7 abcdefg"

    async with open_door(echo, plain=plain) as port:
        await in_thread(on_connection, port, plain, talk)


@WAYS
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_client_that_wants_no_more_is_let_go(plain: bool, version: str) -> None:
    def talk(caller: Caller) -> bytes:
        return caller.send(f"GET / HTTP/{version}\r\nhost: x\r\nconnection: close\r\n\r\n".encode()).rest()

    async with open_door(echo, plain=plain) as port:
        data = await in_thread(on_connection, port, plain, talk)

    assert data.startswith(b"HTTP/1.1 200 ")
    assert data.endswith(b"GET / {} 0 ")


# ── requests that break the rules ───────────────────────────────────────────


def bad_requests() -> dict[str, bytes]:
    return {
        "no HTTP": b"HELO mail.example\r\n\r\n",
        "noise": values.content("noise", 3000),
        "zeros": bytes(3000) + b"\r\n\r\n",
        "no host": b"GET / HTTP/1.1\r\n\r\n",
        "a length that is none": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        "two lengths": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "a chunk that is none": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "a coding nobody knows": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
        "a header with a line break": b"GET / HTTP/1.1\r\nhost: x\r\nx: a\r\n\tb\0\r\n\r\n",
        "an endless line": b"GET /" + b"x" * (HEAD_SIZE_MAX + 1),
        "endless headers": b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * (HEAD_SIZE_MAX // 6),
        "half": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc",
    }


@WAYS
@pytest.mark.parametrize("what", bad_requests())
async def test_a_bad_request_never_reaches_the_handler_and_costs_nobody_else(
    plain: bool, what: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_REQUEST_TIMEOUT_S", 0.3)  # what looks like the beginning of a head is waited for
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return await echo(request)

    def talk(caller: Caller) -> bytes:
        with contextlib.suppress(ConnectionError):
            caller.send(bad_requests()[what])
        if what == "half":
            caller.socket.shutdown(socket.SHUT_WR)
        return caller.rest()

    async with open_door(handler, plain=plain) as port:
        assert not (await in_thread(on_connection, port, plain, talk)).startswith(b"HTTP/1.1 2")
        assert seen == []
        monkeypatch.undo()
        assert (await in_thread(on_connection, port, plain, lambda caller: caller.ask())).status == 200
    # What strangers do is no error of ours.
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@WAYS
@pytest.mark.parametrize("length", [LARGE_QUERY_SIZE_MAX + 1, 4 * MIB])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_over_the_limit_is_refused_and_told_so(plain: bool, length: int, framing: str) -> None:
    """The answer arrives although the client was still sending: no reset may destroy it."""
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return await echo(request)

    def talk(caller: Caller) -> Answer:
        if framing == "length":
            caller.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % length + bytes(length))
        else:
            caller.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            caller.send(b"%x\r\n%b\r\n" % (length, bytes(length)) + b"0\r\n\r\n")
        answer = caller.answer()
        assert caller.rest() == b""
        return answer

    async with open_door(handler, plain=plain) as port:
        answer = await in_thread(on_connection, port, plain, talk)
        assert (answer.status, answer.headers["content-type"]) == (413, "text/plain")
        assert seen == []
        exact = await in_thread(on_connection, port, plain, lambda caller: caller.ask(body=bytes(LARGE_QUERY_SIZE_MAX)))
        assert exact.status == 200


@WAYS
async def test_a_client_that_sends_for_ever_is_cut_off(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.3)

    def talk(caller: Caller) -> None:
        caller.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            caller.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    async with open_door(echo, plain=plain) as port:
        with pytest.raises((ConnectionError, ssl.SSLEOFError)):
            await in_thread(on_connection, port, plain, talk)


# ── waiting ─────────────────────────────────────────────────────────────────


SILENCES = {
    "nothing": b"",
    "half a head": b"POST / HTTP/1.1\r\nhos",
    "half a body": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab",
}


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


# ── content ─────────────────────────────────────────────────────────────────


CONTENTS = {"large": values.content("large", 5 * MIB + 123), "small": b"small", "other": values.content("o", 2 * MIB)}
PARTS = [
    ("large", 0, 5 * MIB + 123), ("small", 1, 3), ("other", MIB, MIB), ("large", 1000, 1), ("large", MIB - 1, MIB + 2),
    ("small", 0, 5), ("small", 0, 5),
]  # fmt: skip


@WAYS
async def test_parts_of_files_are_sent_one_after_the_other(tmp_path: Path, plain: bool) -> None:
    files = Files(tmp_path, CONTENTS, PARTS)

    def talk(caller: Caller) -> None:
        for _ in range(2):
            answer = caller.ask()
            assert answer.headers["content-length"] == str(len(files.expected))
            assert answer.body == files.expected

    async with open_door(files, plain=plain) as port:
        await in_thread(on_connection, port, plain, talk)

    assert files.released == 2
    assert open_below(tmp_path) == []


@WAYS
@pytest.mark.parametrize("shrinks", ["before", "meanwhile"])
async def test_a_file_that_shrinks_while_it_is_sent_ends_the_answer(tmp_path: Path, plain: bool, shrinks: str) -> None:
    """Rather nothing than bytes that were never there."""
    size = 30 * MIB
    files = Files(tmp_path, {"file": values.content("file", size)}, [("file", 0, size)])

    async def handler(request: Request) -> Response:
        response = await files(request)
        if shrinks == "before":
            os.truncate(tmp_path / "file", size // 2)
        return response

    def talk(caller: Caller) -> bytes:
        caller.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        begin = caller.socket.recv(1000)
        if shrinks == "meanwhile":
            os.truncate(tmp_path / "file", size // 2)
        return begin + caller.rest()

    async with open_door(handler, plain=plain) as port:
        data = await in_thread(on_connection, port, plain, talk, receive_buffer=64 * 1024)
        head, _, body = data.partition(b"\r\n\r\n")
        assert f"content-length: {size}".encode() in head.lower()
        assert len(body) < size
        assert body == files.contents["file"][: len(body)]
        await wait_until(lambda: open_below(tmp_path) == [], "the door to close the file")
        assert (await in_thread(on_connection, port, plain, lambda caller: caller.ask(method="HEAD"))).status == 200
    assert files.released == 2


@WAYS
@pytest.mark.parametrize("how", ["vanish", "close"])
async def test_files_are_closed_when_the_client_goes_in_the_middle(
    tmp_path: Path, plain: bool, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    size = 30 * MIB
    files = Files(tmp_path, {"file": bytes(size)}, [("file", 0, size)])

    def talk(port: int) -> None:
        for _ in range(3):
            caller = Caller(port, plain=plain, receive_buffer=64 * 1024)
            caller.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert caller.socket.recv(1000)
            caller.vanish() if how == "vanish" else caller.socket.close()

    async with open_door(files, plain=plain) as port:
        await in_thread(talk, port)
        await wait_until(lambda: files.released == 3, "the door to give up")
        assert open_below(tmp_path) == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@WAYS
async def test_who_reads_nothing_is_cut_off_and_blocks_nobody(
    tmp_path: Path, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 30 * MIB
    files = Files(tmp_path, {"file": bytes(size)}, [("file", 0, size)])

    async def handler(request: Request) -> Response:
        return await (files(request) if request.path == "/file" else echo(request))

    def deaf(port: int, count: int) -> list[Caller]:
        callers = [Caller(port, plain=plain, receive_buffer=4096) for _ in range(count)]
        for caller in callers:
            caller.send(b"GET /file HTTP/1.1\r\nhost: x\r\n\r\n")
        return callers

    async with open_door(handler, plain=plain) as port:
        callers = await in_thread(deaf, port, 10)
        await wait_until(lambda: len(open_below(tmp_path)) == 10, "ten answers to begin")
        # Others are served: what is small, and content too.
        assert (await in_thread(on_connection, port, plain, lambda caller: caller.ask("/other"))).status == 200
        whole = await in_thread(on_connection, port, plain, lambda caller: caller.ask("/file"))
        assert len(whole.body) == size
        monkeypatch.setattr(channels, "SEND_TIMEOUT_S", 0.3)
        callers += await in_thread(deaf, port, 3)
        await wait_until(lambda: files.released >= 4, "the door to lose patience with three")
        for caller in callers:
            caller.socket.close()
        await wait_until(lambda: files.released == 14, "the door to give up")
    assert open_below(tmp_path) == []


@WAYS
async def test_who_takes_it_slowly_is_cut_off_once_others_wait(
    tmp_path: Path, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "RECEIVER_WINDOW_S", 0.3)
    files = Files(tmp_path, {"file": bytes(30 * MIB)}, [("file", 0, 30 * MIB)])
    others_wait = False

    async def handler(request: Request) -> Response:
        return replace(await files(request), others_wait=lambda: others_wait)

    def slow(port: int) -> Caller:
        caller = Caller(port, plain=plain, receive_buffer=4096)
        return caller.send(b"GET /file HTTP/1.1\r\nhost: x\r\n\r\n")

    async with open_door(handler, plain=plain) as port:
        caller = await in_thread(slow, port)
        await trio.sleep(1.0)
        assert files.released == 0
        others_wait = True
        await wait_until(lambda: files.released == 1, "the door to cut it off")
        caller.socket.close()
    assert open_below(tmp_path) == []


@WAYS
async def test_closing_the_door_ends_answers_and_closes_files(tmp_path: Path, plain: bool) -> None:
    size = 30 * MIB
    files = Files(tmp_path, {"file": bytes(size)}, [("file", 0, size)])
    callers: list[Caller] = []

    def begin(port: int) -> None:
        caller = Caller(port, plain=plain, receive_buffer=4096)
        caller.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert caller.socket.recv(1)
        callers.append(caller)

    with trio.fail_after(30):
        async with open_door(files, plain=plain) as port:
            for _ in range(3):
                await in_thread(begin, port)
    assert open_below(tmp_path) == []
    assert files.released == 3
    for caller in callers:
        await in_thread(caller.rest)
        caller.socket.close()


# ── handlers that fail ──────────────────────────────────────────────────────


@WAYS
async def test_a_bug_in_a_handler_ends_one_connection_and_is_logged(
    plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: Request) -> Response:
        if request.path == "/bug":
            raise ZeroDivisionError("a bug")
        return await echo(request)

    def talk(port: int) -> None:
        with Caller(port, plain=plain) as other:
            assert other.ask("/before").status == 200
            with Caller(port, plain=plain) as caller, pytest.raises((EOFError, ConnectionError)):
                caller.ask("/bug")
            assert other.ask("/after").status == 200

    async with open_door(handler, plain=plain) as port:
        await in_thread(talk, port)
    assert ["a bug" in (record.exc_text or str(record.exc_info)) for record in caplog.records] == [True]


async def test_many_clients_at_once_are_all_answered(tmp_path: Path) -> None:
    files = Files(tmp_path, CONTENTS, PARTS)
    results: list[bytes] = []

    def ask(port: int) -> None:
        with Caller(port) as caller:
            results.append(caller.ask().body)

    def ask_many(port: int) -> None:
        threads = [threading.Thread(target=ask, args=(port,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    async with open_door(files) as port:
        await in_thread(ask_many, port)

    assert results == [files.expected] * 12
    assert open_below(tmp_path) == []


# ── two kinds of connections on one port ────────────────────────────────────


async def test_connections_are_told_apart_by_their_first_byte() -> None:
    preface: list[bytes] = []

    async def bulk(stream: trio.SocketStream, host: str) -> None:
        assert host == HOST
        preface.append(await stream.receive_some(100))
        await stream.send_all(b"bulk it is")

    async with open_door(echo, bulk=bulk) as port:
        said = await in_thread(on_connection, port, True, lambda caller: caller.send(b"p2pbulk1 and more").rest())
        assert said == b"bulk it is"
        assert (await in_thread(on_connection, port, False, lambda caller: caller.ask())).status == 200
        # Neither: no TLS, and no bulk connection.
        said = await in_thread(on_connection, port, True, lambda caller: caller.send(b"GET / HTTP/1.1\r\n\r\n").rest())
        assert not said.startswith(b"HTTP")
    assert preface == [b"p2pbulk1 and more"]


async def test_who_says_nothing_at_all_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_TIMEOUT_S", 0.2)

    async def bulk(stream: trio.SocketStream, host: str) -> None:
        raise AssertionError

    async with open_door(echo, bulk=bulk) as port:
        assert await in_thread(on_connection, port, True, ends) == b""


async def test_a_tls_client_need_not_be_ours() -> None:
    """Any client that speaks TLS 1.3 and HTTP/1.1 can ask; who asks does not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def ask(port: int) -> bytes:
        with context.wrap_socket(socket.create_connection((HOST, port))) as connection:
            connection.sendall(b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            data = b""
            while piece := connection.recv(10000):
                data += piece
            return data

    async with open_door(echo) as port:
        assert b"GET /x {} 0 " in await in_thread(ask, port)
        assert client_context(NODE)
