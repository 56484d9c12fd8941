"""The local door: an ASGI application on HTTP/1.1, bound to loopback (spec/local-api.md §1)."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import socket

import trio

from p2phub.core.errors import HubError
from p2phub.core.names import format_endpoint

from .asgi import WRITERS_MAX, Application, Connection
from .descriptors import room_for

CONNECTIONS_MAX = 1024  # open at once; spec/local-api.md §1


async def serve_local(
    app: Application,
    listener: socket.socket,
    *,
    stall_s: float = math.inf,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on the bound `listener`, which stays the caller's to close, until cancelled.

    stall_s: seconds after which a receiver that takes nothing is gone; programs of this machine may take their time.
    """
    door = _Door(app, stall_s)
    own = trio.SocketListener(trio.socket.from_stdlib_socket(listener.dup()))
    task_status.started()
    await trio.serve_listeners(door.serve, [own])


class _Door:
    """Counts connections and runs each. When there are too many, the one that rests longest makes room."""

    def __init__(self, app: Application, stall_s: float) -> None:
        self._app = app
        self._stall_s = stall_s
        self._writers = trio.CapacityLimiter(WRITERS_MAX)
        self._count = 0
        # Connections without a request, in the order in which they began to rest.
        self._resting: dict[Connection, trio.CancelScope] = {}

    async def serve(self, stream: trio.SocketStream) -> None:
        if self._count >= room_for(CONNECTIONS_MAX):
            if not self._resting:
                await trio.aclose_forcefully(stream)
                return
            self._resting.pop(next(iter(self._resting))).cancel()
        self._count += 1
        try:
            with trio.CancelScope() as scope:

                def note_rest(connection: Connection, rests: bool) -> None:
                    if rests:
                        self._resting[connection] = scope
                    else:
                        self._resting.pop(connection, None)

                await Connection(self._app, stream, self._writers, note_rest, stall_s=self._stall_s).run()
        finally:
            self._count -= 1


def check_loopback(host: str) -> None:
    """Raise HubError if `host` is no name or address of this machine alone."""
    with contextlib.suppress(ValueError):
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return
    raise HubError(
        f"the local door answers this machine only, so it cannot be at {host}",
        hint="--public ADDRESS:PORT opens a door for others, on which what everybody may have can be read",
    )


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
