from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import trio
from netkit import HOST, in_thread

from p2phub.core.errors import HubError
from p2phub.net import localdoor as module
from p2phub.net.localdoor import bind_local, serve_local


async def echo(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Awaitable[Any]]
) -> None:
    """A small ASGI application."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
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


async def test_an_answer_that_never_comes_does_not_keep_the_door_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHUTDOWN_TIMEOUT_S", 0.2)
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
