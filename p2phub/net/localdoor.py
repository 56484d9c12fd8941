"""The local door: an ASGI application on HTTP/1.1, bound to loopback (spec/local-api.md §1)."""

from __future__ import annotations

import socket

import trio

from p2phub.core.errors import HubError
from p2phub.core.names import format_endpoint

from .asgi import WRITERS_MAX, Application, serve_connection


async def serve_local(
    app: Application,
    listener: socket.socket,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on the bound `listener`, which stays the caller's to close, until cancelled."""
    writers = trio.CapacityLimiter(WRITERS_MAX)

    async def serve(stream: trio.SocketStream) -> None:
        await serve_connection(app, stream, writers)

    own = trio.SocketListener(trio.socket.from_stdlib_socket(listener.dup()))
    task_status.started()
    await trio.serve_listeners(serve, [own])


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
