"""The peer door: requests are handed over and answered, and those that break the rules reach nobody."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from pathlib import Path

import pytest
import trio
from callerkit import CONTENTS, MIB, PARTS, WAYS, ends, on_connection
from netkit import HOST, NODE, Answer, Caller, Files, echo, in_thread, open_below, open_door

from p2phub.net import door as module
from p2phub.net.door import HEAD_SIZE_MAX, Request, Response
from p2phub.net.tls import client_context
from p2phub.protocol.messages import LARGE_QUERY_SIZE_MAX
from p2phub.testing import values

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
