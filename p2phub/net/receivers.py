"""Cut off who takes an answer too slowly while others wait for its place (spec/transport.md §3).

What a receiver has taken is what its system acknowledged, and the kernel counts that. So
this stands beside whatever sends, and needs to know nothing of it.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable

import trio

log = logging.getLogger(__name__)

RECEIVER_WINDOW_S = 10.0  # seconds over which a receiver's rate is looked at; spec/transport.md §3
RECEIVER_RATE_MIN = 16 * 1024  # bytes a second; spec/transport.md §3

_BYTES_ACKED = struct.Struct("=120xQ")  # tcpi_bytes_acked in Linux's struct tcp_info


async def send_watched(
    connection: socket.socket, others_wait: Callable[[], bool], send: Callable[[], Awaitable[None]]
) -> None:
    """Run `send`, which sends on `connection`; break the connection if its receiver is too slow and `others_wait`.

    Raises what `send` raises, an OSError if the connection was broken.
    """
    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, connection, others_wait)
        try:
            await send()
        except Exception as exc:
            error = exc
        nursery.cancel_scope.cancel()
    # Out here, so that callers meet the error itself and not a group of one.
    if error is not None:
        raise error


async def _watch(connection: socket.socket, others_wait: Callable[[], bool]) -> None:
    taken = _taken(connection)
    while taken is not None:
        await trio.sleep(RECEIVER_WINDOW_S)
        now = _taken(connection)
        if now is not None and now - taken < RECEIVER_RATE_MIN * RECEIVER_WINDOW_S and others_wait():
            log.debug("a receiver took %d bytes in %.0f s while others wait", now - taken, RECEIVER_WINDOW_S)
            _cut(connection)
            return
        taken = now


def _taken(connection: socket.socket) -> int | None:
    """Return how many bytes the other side has acknowledged, None if the system does not say."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    except (OSError, AttributeError):
        return None
    taken: int | None = _BYTES_ACKED.unpack(info)[0] if len(info) == _BYTES_ACKED.size else None
    return taken


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # The socket's own: that of TLS would unwrap it under the thread that sends.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
