"""What all connections that fetch content have in common: blame, and chunks that are checked before use.

    request ──▶ `_fill` a reused buffer with the next bytes ──▶ BLAKE3 ──▶ sink

Each chunk is hashed before the sink sees it, so what is not right is never written.
One chunk comes from one provider, so blame is exact.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from p2phub.core.errors import (
    GivenMeanwhile,
    HashMismatch,
    InvalidData,
    PeerBusy,
    PeerError,
    PeerUnreachable,
    PeerViolation,
)
from p2phub.core.filetree import CHUNK_SIZE_MAX, check_chunk
from p2phub.core.ids import NodeId
from p2phub.core.names import format_endpoint
from p2phub.protocol.messages import ByteRange

from .buffers import Buffers
from .pacing import Pacer
from .tls import WrongPeer

_chunk_buffers = Buffers(CHUNK_SIZE_MAX)


class WantedChunk(Struct, frozen=True):
    """A chunk that a request covers, in the order of the answer."""

    length: int  # bytes
    hash: bytes  # BLAKE3


Sink = Callable[[int, memoryview], None]  # the chunk's place in the request, and its verified bytes


class Refused(Exception):
    """The peer said that it does not send; the connection can be used again."""

    def __init__(self, error: PeerError) -> None:
        self.error = error


class ContentConnection:
    """A connection to one provider. One thread at a time; `abort` may be called from any."""

    usable = True  # for another request
    wrong_bytes = "sent wrong bytes"

    def __init__(self, peer: str, pacer: Pacer | None = None) -> None:
        """peer: what errors call the provider. pacer: asked after each piece that came."""
        self.peer = peer
        # What it holds up, TCP holds back at the sender.
        self._pacer = pacer or Pacer()
        self._paused_s = 0.0  # seconds that the pacer took, since the connection was made

    def fetch(
        self,
        spans: Sequence[ByteRange],
        chunks: Sequence[WantedChunk],
        sink: Sink,
        *,
        deadline_s: float,
        first_copy: bool = False,
        background: bool = False,
    ) -> None:
        """Ask for `spans`, whose bytes are `chunks` one after the other, and give each to `sink`.

        deadline_s: without the time that the limits of this node hold it up.
        first_copy: only if the peer gave none of it to anybody lately.
        background: let others go first.
        Raises PeerUnreachable if the peer is gone or slower than the deadline, PeerBusy if
        it has no slot, GivenMeanwhile if it would be no first copy, PeerError if it has not
        what was asked, PeerViolation if it lied.
        """
        raise NotImplementedError

    def abort(self) -> None:
        """Make a running `fetch` end soon."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection."""
        raise NotImplementedError

    def _fill(self, view: memoryview, deadline: float) -> None:
        """Fill `view` with the next bytes of content. Raises TimeoutError past the deadline, OSError."""
        raise NotImplementedError

    def _now(self) -> float:
        """Return the time in seconds by which deadlines are measured; it stands still while our own limit holds."""
        return time.monotonic() - self._paused_s

    def _take_chunks(self, chunks: Sequence[WantedChunk], sink: Sink, deadline: float) -> None:
        """Read `chunks` one after the other and give each, verified, to `sink`."""
        with _chunk_buffers.lend() as buffer:
            for place, chunk in enumerate(chunks):
                view = buffer[: chunk.length]
                self._fill(view, deadline)
                try:
                    check_chunk(view, chunk.hash)
                except HashMismatch as exc:
                    raise PeerViolation(f"{self} {self.wrong_bytes}", peer=self.peer) from exc
                sink(place, view)

    @contextlib.contextmanager
    def _blame(self) -> Iterator[None]:
        """Turn what goes wrong in the block into an error of the peer, and close a connection that it spoiled."""
        try:
            yield
        except Refused as exc:
            raise exc.error from None
        except BaseException as exc:
            # The connection may stand in the middle of an answer.
            self.close()
            if (text := self._reason(exc)) is not None:
                raise PeerUnreachable(text, peer=self.peer) from exc
            raise

    def _reason(self, exc: BaseException) -> str | None:
        """Return what happened to the connection, None if `exc` is no matter of the connection."""
        match exc:
            case WrongPeer():
                return f"{self}: {exc}"
            case TimeoutError():
                return f"{self} is too slow"
            case OSError():
                return f"{self} is gone: {exc.strerror or exc}"
            case InvalidData():
                # Whoever sits between us can garble frames: that is no proof against the peer.
                return f"the connection to {self} is garbled: {exc}"
            case _:
                return None


class PeerConnection(ContentConnection):
    """A connection to a peer, on a socket of its own."""

    def __init__(self, node: NodeId, host: str, port: int, pacer: Pacer | None = None) -> None:
        super().__init__(str(node), pacer)
        self.node = node
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None

    def abort(self) -> None:
        current = self._socket
        if current is not None:
            with contextlib.suppress(OSError):
                # Closed with a reset: a peer that waits for room in our buffer would not notice another end.
                current.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
                # The socket's own: that of TLS would unwrap it under the thread.
                socket.socket.shutdown(current, socket.SHUT_RDWR)
        self._pacer.stop()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _receive(self, view: memoryview, deadline: float, *, least: int | None = None) -> int:
        """Fill `view`, or `least` bytes of it, with the next bytes of the connection; returns how many came.

        Raises as `_fill` does, PeerUnreachable at the end of the connection.
        """
        assert self._socket is not None
        done = 0
        while done < (len(view) if least is None else least):
            # Each byte restarts the socket's timeout: the deadline is what ends a trickle.
            if self._now() > deadline:
                raise TimeoutError("the deadline of the request has passed")
            piece = self._pacer.piece(len(view) - done)
            count = self._socket.recv_into(view[done : done + piece])
            if count == 0:
                raise PeerUnreachable(f"{self} closed the connection", peer=self.peer)
            done += count
            self._paused_s += self._pacer.wait(count)
        return done

    def _refusal(self, status: int, text: str, retry_after_s: float) -> Refused:
        """Return what to raise when the peer answered with another status than 200."""
        match status:
            case 409:
                error: PeerError = GivenMeanwhile(f"{self} gave it to another", peer=self.peer)
            case 429:
                error = PeerBusy(f"{self} is busy", peer=self.peer, retry_after_s=min(retry_after_s, 60.0))
            case _:
                error = PeerError(f"{self} answered {status}: {one_line(text)}", peer=self.peer)
        return Refused(error)

    def __str__(self) -> str:
        return f"node {str(self.node)[:12]}… at {format_endpoint(self._host, self._port)}"


def one_line(text: str) -> str:
    """Return what a peer said as it can stand in a sentence: without line breaks and what a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text).strip()
