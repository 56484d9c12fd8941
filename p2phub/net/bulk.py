"""Fetch chunks from one peer, verified, on a blocking socket in a worker thread (spec/transport.md §4).

Heads are read by h11; the bytes behind them go past it, straight into the buffer in
which they are hashed.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

import h11

from p2phub.core.encoding import encode
from p2phub.core.errors import PeerUnreachable, PeerViolation
from p2phub.core.ids import NodeId
from p2phub.core.names import format_endpoint
from p2phub.protocol.messages import SIGN_AFTER_FIELD, ByteRange, SpansQuery

from .connection import PeerConnection, Refused, Sink, WantedChunk
from .pacing import Pacer
from .signer import Signer
from .tls import client_context

CONNECT_TIMEOUT_S = 5.0
STALL_TIMEOUT_S = 10.0  # seconds without a byte
HEAD_SIZE_MAX = 16 * 1024  # bytes of an answer's head


class _SignedTooEarly(Refused):
    """The peer was started just now, and wants what is signed later, which it gets from now on."""


class BulkConnection(PeerConnection):
    """A kept connection over HTTPS, or HTTP where nothing is encrypted. It connects again by itself."""

    def __init__(
        self,
        node: NodeId,
        host: str,
        port: int,
        *,
        plain: bool = False,
        pacer: Pacer | None = None,
        signer: Signer | None = None,
    ) -> None:
        """signer: signs the requests, if the peer was told who we are."""
        super().__init__(node, host, port, pacer)
        self._signer = signer
        self._context = None if plain else client_context(node)
        self._rest = b""  # received behind the head of an answer
        self._aborted = False

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
        query = SpansQuery(tuple(spans), first_copy, background)
        deadline = self._now() + deadline_s
        kept = self._socket is not None
        size = sum(chunk.length for chunk in chunks)
        with self._blame():
            try:
                self._ask(query, size, deadline)
            except (OSError, PeerUnreachable):
                # A kept connection may have been closed by the peer meanwhile: once more on a new one.
                if not kept or self._aborted:
                    raise
                self.close()
                self._ask(query, size, deadline)
            self._take_chunks(chunks, sink, deadline)

    def abort(self) -> None:
        self._aborted = True
        super().abort()

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        super().close()
        self._socket = None
        self._rest = b""

    def _connect(self, deadline: float) -> None:
        timeout_s = min(CONNECT_TIMEOUT_S, self._left(deadline))
        # Known from here on, so that `abort` can end the handshake too.
        self._socket = socket.create_connection((self._host, self._port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context:
            secure = self._context.wrap_socket(self._socket, do_handshake_on_connect=False)
            self._socket = secure
            self._check_not_aborted()
            secure.do_handshake()

    def _check_not_aborted(self) -> None:
        if self._aborted:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the request was given up")

    def _ask(self, query: SpansQuery, size: int, deadline: float) -> None:
        """Send a request and read the head of its answer, behind which `size` bytes of content follow."""
        with contextlib.suppress(_SignedTooEarly):
            self._request(query, deadline)
            return self._read_head(size, deadline)
        self._request(query, deadline)
        self._read_head(size, deadline)

    def _request(self, query: SpansQuery, deadline: float) -> None:
        if self._socket is None:
            self._connect(deadline)
        assert self._socket is not None
        self._check_not_aborted()
        body = encode(query)
        http = h11.Connection(h11.CLIENT)
        head = http.send(
            h11.Request(
                method="POST",
                target="/v1/spans",
                headers=[
                    ("host", format_endpoint(self._host, self._port)),
                    ("content-type", "application/cbor"),
                    ("content-length", str(len(body))),
                    *(self._signer.fields("POST", "/v1/spans", body) if self._signer else {}).items(),
                ],
            )
        )
        self._socket.settimeout(self._left(deadline))
        self._socket.sendall((head or b"") + body)

    def _read_head(self, size: int, deadline: float) -> None:
        """Read the head of the answer and check that `size` bytes of content follow."""
        assert self._socket is not None
        data = self._rest
        while b"\r\n\r\n" not in data:
            if len(data) > HEAD_SIZE_MAX:
                raise PeerViolation(f"{self} sent an endless head", peer=str(self.node))
            self._socket.settimeout(self._left(deadline))
            piece = self._socket.recv(64 * 1024)
            if not piece:
                raise PeerUnreachable(f"{self} closed the connection", peer=str(self.node))
            data += piece
        end = data.index(b"\r\n\r\n") + 4
        self._rest = data[end:]
        # h11 reads the head only; the body goes past it into our buffer.
        http = h11.Connection(h11.CLIENT)
        http.send(h11.Request(method="GET", target="/", headers=[("host", "peer")]))
        http.send(h11.EndOfMessage())
        try:
            http.receive_data(data[:end])
            response = http.next_event()
        except h11.RemoteProtocolError as exc:
            raise PeerViolation(f"{self} sent no HTTP answer", peer=str(self.node)) from exc
        if not isinstance(response, h11.Response):
            raise PeerViolation(f"{self} sent no HTTP answer", peer=str(self.node))
        headers = dict(response.headers)
        if response.status_code == 200:
            coded = {b"transfer-encoding", b"content-encoding"} & headers.keys()
            if coded or headers.get(b"content-length") != str(size).encode():
                raise PeerViolation(f"{self} sent an answer of another size than asked", peer=str(self.node))
            return
        self._refused(response.status_code, headers, deadline)

    def _refused(self, status: int, headers: dict[bytes, bytes], deadline: float) -> None:
        """Read the short text of a refusal, so that the connection can be used again, and raise it."""
        length = headers.get(b"content-length", b"")
        text = b""
        if length.isdigit() and int(length) <= HEAD_SIZE_MAX:
            view = memoryview(bytearray(int(length)))
            self._fill(view, deadline)
            text = bytes(view)
        else:
            self.close()
        retry_after = headers.get(b"retry-after", b"1")
        wait_s = float(retry_after) if retry_after.isdigit() else 1.0
        refusal = self._refusal(status, text[:200].decode("utf-8", "replace"), wait_s)
        if status == 401 and self._signer and self._signer.sign_after(headers.get(SIGN_AFTER_FIELD.encode(), b"")):
            raise _SignedTooEarly(refusal.error)
        raise refusal

    def _fill(self, view: memoryview, deadline: float) -> None:
        """Fill `view` with the next bytes of the answer."""
        done = min(len(self._rest), len(view))
        view[:done] = self._rest[:done]
        self._rest = self._rest[done:]
        self._receive(view[done:], deadline)

    def _left(self, deadline: float) -> float:
        """Return the seconds to wait for the next byte. Raises TimeoutError past the deadline."""
        left = deadline - self._now()
        if left <= 0:
            raise TimeoutError("the deadline of the request has passed")
        return min(left, STALL_TIMEOUT_S)
