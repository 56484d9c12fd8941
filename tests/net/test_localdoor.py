from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from netkit import HOST, in_thread

from p2phub.core.errors import HubError
from p2phub.net import asgi as module
from p2phub.net.localdoor import bind_local, serve_local


async def echo(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Awaitable[Any]]
) -> None:
    """A small ASGI application."""
    assert scope["type"] == "http"
    if scope["path"] == "/never":
        await trio.sleep_forever()
    if scope["path"] == "/late":
        await trio.sleep(0.2)  # in which more of a body comes than is kept for a reader
    body = f"{scope['method']} {scope['path']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


async def test_an_application_is_served_until_it_is_cancelled() -> None:
    listener, address = bind_local(HOST, 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_local, echo, listener)
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:
            for _ in range(3):
                answer = await client.get("/some/path")
                assert (answer.status_code, answer.text) == (200, "GET /some/path")
                assert "server" not in answer.headers
        nursery.cancel_scope.cancel()
    listener.close()

    with pytest.raises(OSError, match="refused"):
        await in_thread(socket.create_connection, (HOST, int(address.split(":")[1])))


async def test_an_answer_that_never_comes_does_not_keep_the_door_open() -> None:
    listener, address = bind_local(HOST, 0)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_local, echo, listener)
            with await in_thread(socket.create_connection, (HOST, int(address.split(":")[1]))) as connection:
                await in_thread(connection.sendall, b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n")
                async with httpx.AsyncClient(base_url=f"http://{address}") as client:
                    assert (await client.get("/")).status_code == 200
                nursery.cancel_scope.cancel()
    listener.close()


async def endless(pieces: int) -> AsyncIterator[bytes]:
    for _ in range(pieces):
        yield bytes(65536)


async def test_a_body_that_nobody_reads_does_not_keep_its_answer_back() -> None:
    listener, address = bind_local(HOST, 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_local, echo, listener)
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=30) as client:
            for _ in range(5):
                answer = await client.put("/late", content=endless(100))
                assert (answer.status_code, answer.text) == (200, "PUT /late")
        nursery.cancel_scope.cancel()
    listener.close()


async def test_who_never_stops_sending_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.2)
    listener, address = bind_local(HOST, 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_local, echo, listener)
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=30) as client:
            # The answer may be lost with the connection.
            with contextlib.suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
                await client.put("/late", content=endless(2**40))
        nursery.cancel_scope.cancel()
    listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_address_that_was_bound_is_told(host: str) -> None:
    try:
        listener, address = bind_local(host, 0)
    except HubError:
        pytest.skip("no IPv6 here")
    with listener:
        port = listener.getsockname()[1]

        assert address == (f"[::1]:{port}" if ":" in host else f"{host}:{port}")
        with socket.create_connection((host, port)):
            pass


def test_a_port_that_is_taken_is_said_to_be() -> None:
    listener, address = bind_local(HOST, 0)
    with listener, pytest.raises(HubError, match=f"cannot listen on {address}"):
        bind_local(HOST, listener.getsockname()[1])


def test_a_host_that_is_not_ours_is_said_to_be() -> None:
    with pytest.raises(HubError, match=r"cannot listen on 192\.0\.2\.1"):
        bind_local("192.0.2.1", 0)


@contextlib.asynccontextmanager
async def door(app: module.Application) -> AsyncIterator[tuple[str, int]]:
    """Give the address at which `app` answers."""
    listener, _ = bind_local(HOST, 0)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_local, app, listener)
            yield listener.getsockname()
            nursery.cancel_scope.cancel()
    finally:
        listener.close()


async def talk(address: tuple[str, int], request: bytes) -> bytes:
    """Send a request as it is, and return all that comes until the door closes the connection."""
    answer = bytearray()
    with trio.fail_after(30):
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(request)
            while data := await stream.receive_some(2**20):
                answer += data
    return bytes(answer)


GET = b"GET /a HTTP/1.1\r\nhost: x\r\n"


async def test_a_connection_ends_when_the_client_wants_it() -> None:
    async with door(echo) as address:
        answer = await talk(address, GET + b"connection: close\r\n\r\n")
        old = await talk(address, b"GET /a HTTP/1.0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")
    assert b"\r\ndate: " in answer
    assert b"GET /a" in answer
    assert old.endswith(b"\r\n\r\nGET /a")


async def test_requests_that_come_together_are_answered_in_turn() -> None:
    async def waits_for_the_end(scope: Any, receive: Any, send: Any) -> None:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass

            nursery.start_soon(watch)
            await echo(scope, receive, send)

    async with door(waits_for_the_end) as address:
        answer = await talk(address, 20 * (GET + b"\r\n") + b"GET /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")

    assert answer.count(b"GET /a") == 20
    assert answer.rstrip(b"\r\n0").endswith(b"GET /b")


async def test_an_answer_to_head_has_no_body() -> None:
    async with door(echo) as address:
        answer = await talk(address, b"HEAD /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "request_", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /" + b"a" * 20_000, b"GET / HTTP/1.1\r\nhost: x"]
)
async def test_what_is_no_request_is_refused_or_ends(request_: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_TIMEOUT_S", 0.3)
    async with door(echo) as address:
        answer = await talk(address, request_)

    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


async def test_who_asks_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_TIMEOUT_S", 0.2)
    async with door(echo) as address:
        assert await talk(address, b"") == b""
        assert b"GET /a" in await talk(address, GET + b"\r\n")


async def test_a_client_that_waits_is_told_to_go_on() -> None:
    async def count(scope: Any, receive: Any, send: Any) -> None:
        size = 0
        while (message := await receive())["more_body"]:
            size += len(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": str(size).encode()})

    async with door(count) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
        with trio.fail_after(30):
            go_on = await stream.receive_some()
            await stream.send_all(b"12345")
            answer = await stream.receive_some()

    assert go_on.startswith(b"HTTP/1.1 100")
    assert answer.endswith(b"\r\n\r\n5")


async def test_an_application_that_fails_or_says_nothing_gives_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        pass

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("a bug")

    async with door(silent) as address:
        assert (await talk(address, GET + b"\r\n")).startswith(b"HTTP/1.1 500")
    async with door(broken) as address:
        assert (await talk(address, GET + b"\r\n")).startswith(b"HTTP/1.1 500")
    assert "a bug" in caplog.text


def pours(size: int) -> module.Application:
    """Return an application that lets a thread write `size` bytes, a MiB at a time, each with its number."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        write_body: module.WriteBody = scope["extensions"][module.WRITE_BODY]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        done = 0

        def write(put: module.Put) -> None:
            at = done
            while at < size:
                block, skip = divmod(at, 2**20)
                data = memoryview(bytes([block % 251]) * 2**20)[skip : skip + size - at]
                taken = put(data)
                at += taken
                if taken < len(data):
                    return

        while done < size:
            done += await write_body(write)
        await send({"type": "http.response.body", "body": b""})

    return app


async def test_a_thread_writes_bodies_and_the_connection_goes_on() -> None:
    size = 9 * 2**20 + 17
    async with door(pours(size)) as address:
        answer = await talk(address, GET + b"\r\n" + GET + b"connection: close\r\n\r\n")
    wanted = b"".join(bytes([block]) * 2**20 for block in range(10))[:size]
    first, second = answer.split(b"HTTP/1.1 200")[1:]

    assert first.endswith(b"\r\n\r\n" + wanted)
    assert second.endswith(b"\r\n\r\n" + wanted)


async def test_slow_receivers_hold_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2phub.net.localdoor.WRITERS_MAX", 1)
    size = 40 * 2**20
    async with door(pours(size)) as address, contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(await trio.open_tcp_stream(*address)) for _ in range(4)]
        for stream in slow:
            await stream.send_all(GET + b"\r\n")
            await stream.receive_some(1)

        answer = await talk(address, GET + b"connection: close\r\n\r\n")
        rest = 0
        while rest < size:
            rest += len(await slow[0].receive_some(2**20))

    assert len(answer) > size


async def test_a_client_that_goes_away_ends_its_answer() -> None:
    ended = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await pours(2**40)(scope, receive, send)
        finally:
            ended.set()

    async with door(app) as address:
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(GET + b"\r\n")
            await stream.receive_some()
        with trio.fail_after(30):
            await ended.wait()


async def test_connections_that_rest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2phub.net.localdoor.CONNECTIONS_MAX", 3)
    async with door(echo) as address, contextlib.AsyncExitStack() as stack:
        busy = await stack.enter_async_context(await trio.open_tcp_stream(*address))
        await busy.send_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n")
        resting = [await stack.enter_async_context(await trio.open_tcp_stream(*address)) for _ in range(2)]
        for stream in resting:
            await stream.send_all(GET + b"\r\n")
            assert await stream.receive_some()

        for _ in range(3):
            assert b"GET /a" in await talk(address, GET + b"connection: close\r\n\r\n")
        with trio.fail_after(30):
            ended = await resting[0].receive_some()
        await resting[1].send_all(GET + b"\r\n")
        answer = await resting[1].receive_some()

    assert ended == b""
    assert answer.startswith(b"HTTP/1.1 200")


async def test_when_all_are_at_work_nobody_else_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2phub.net.localdoor.CONNECTIONS_MAX", 1)
    async with door(echo) as address, await trio.open_tcp_stream(*address) as busy:
        await busy.send_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n")
        await trio.sleep(0.2)
        with contextlib.suppress(trio.BrokenResourceError):
            assert await talk(address, GET + b"\r\n") == b""


@pytest.mark.parametrize("by_thread", [False, True], ids=["by the door", "by a thread"])
async def test_a_receiver_that_takes_nothing_is_let_go_where_that_matters(by_thread: bool) -> None:
    gone = trio.Event()

    async def endless(
        scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Awaitable[Any]]
    ) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000000000")]})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        try:
            while True:
                if by_thread:
                    await scope["extensions"][module.WRITE_BODY](lambda put: put(memoryview(bytes(1_000_000))))
                else:
                    await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})
        finally:
            gone.set()

    listener, address = bind_local(HOST, 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_local, endless, listener, stall_s=0.2))
        with await in_thread(socket.create_connection, (HOST, int(address.split(":")[1]))) as connection:
            await in_thread(connection.sendall, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            with trio.fail_after(60):
                await gone.wait()
        nursery.cancel_scope.cancel()
    listener.close()
