"""The local door: an ASGI application on Hypercorn's trio worker, bound to loopback (spec/local-api.md §1)."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from p2phub.core.errors import HubError
from p2phub.core.names import format_endpoint

SHUTDOWN_TIMEOUT_S = 2.0  # seconds that running answers get when the node stops
LINGER_S = 2.0  # seconds that who was answered early may go on sending its request


async def serve_local(
    app: Any,
    listener: socket.socket,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on the bound `listener` until cancelled."""
    config = Config()
    # Hypercorn closes what it is given; `listener` stays the caller's to close.
    config.bind = [f"fd://{os.dup(listener.fileno())}"]
    config.graceful_timeout = SHUTDOWN_TIMEOUT_S
    config.shutdown_timeout = SHUTDOWN_TIMEOUT_S
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.ERROR)
    config.include_server_header = False
    await serve(_Lingering(app), config, mode="asgi", task_status=task_status)  # type: ignore[arg-type]


class _Lingering:
    """Reads on while a request is answered before all of its body came.

    Hypercorn waits for the application to take the body, also when it has answered and gone; and a
    connection that is closed on a client that sends loses the answer on the way.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_whole = False

        async def receive_some() -> Any:
            nonlocal is_whole
            message = await receive()
            is_whole = is_whole or message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def drain() -> None:
            while not is_whole:
                await receive_some()

        async def send_some(message: Any) -> None:
            if is_whole or message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            await send({**message, "more_body": True})
            with trio.move_on_after(LINGER_S):
                await drain()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                nursery.cancel_scope.cancel()

        await self._app(scope, receive_some, send_some)


def bind_local(host: str, port: int) -> tuple[socket.socket, str]:
    """Bind the local door; returns the socket and its `HOST:PORT`. Raises HubError if the port cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as exc:
        listener.close()
        raise HubError(f"cannot listen on {format_endpoint(host, port)}: {exc.strerror or exc}") from exc
    listener.setblocking(False)
    bound = listener.getsockname()
    return listener, format_endpoint(bound[0], bound[1])
