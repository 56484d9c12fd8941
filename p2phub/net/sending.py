"""Send answers with content, each in a thread of its own, within the limits that it falls under.

Whatever sends (frames, TLS, the kernel by itself) asks its pacer before each piece.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import trio
from msgspec import Struct

from .pacing import Pacer, RateLimit
from .threads import run_abortable
from .yielding import YieldingLimit


class Sending(Struct, frozen=True):
    """How one answer is sent."""

    limits: tuple[RateLimit, ...] = ()
    yields_to: int | None = None  # bytes a second to which it may be held back by others; None: it does not yield


ORDINARY = Sending()

# Threads that send; the upload slots of the node are the limit that matters.
_threads = trio.CapacityLimiter(64)


class Sender:
    """Sends answers on one connection, one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._yielding: YieldingLimit | None = None  # once it has yielded: what was learned is kept

    async def send(self, sending: Sending, work: Callable[[Pacer], None]) -> None:
        """Run `work`, which sends, in a thread. When cancelled, cut the connection so that it ends.

        The thread is waited for even then: it uses files that the caller closes.
        """
        pacer = self._begin(sending)

        def abort() -> None:
            with contextlib.suppress(OSError):
                # The socket's own: that of TLS would unwrap it under the thread.
                socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
            pacer.stop()

        try:
            await run_abortable(lambda: work(pacer), abort, _threads)
        finally:
            if sending.yields_to is not None and self._yielding is not None:
                self._yielding.end()

    def _begin(self, sending: Sending) -> Pacer:
        if sending.yields_to is None:
            return Pacer(sending.limits)
        if self._yielding is None:
            self._yielding = YieldingLimit(self._connection)
        self._yielding.begin(sending.yields_to)
        return Pacer((*sending.limits, self._yielding), background=True)
