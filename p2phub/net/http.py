"""Ask one server over HTTP/1.1, on trio: connections that are kept, answers that are bounded (spec/transport.md §3).

    request ──h11──▶ stream ──▶ ⋯ ──▶ h11 ──▶ Answer

What the protocol between nodes needs of HTTP and no more: no redirects, no cookies, no
compression, no proxies. So a command that talks to a peer loads h11 and nothing else for it.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable, Iterator

import h11
import trio
from msgspec import Struct

from p2phub.core.names import format_endpoint

from .tls import WrongPeer

CONNECTIONS_MAX = 4  # for questions at the same time
CONNECT_TIMEOUT_S = 5.0  # for TCP, and again for TLS
READ_TIMEOUT_S = 15.0  # without a byte of the answer
HEAD_SIZE_MAX = 16 * 1024  # bytes of an answer's head

_RECEIVE_SIZE = 64 * 1024  # bytes


class NoAnswer(Exception):
    """There is no answer; the text says why."""


class AnswerTooLarge(Exception):
    """The answer is larger than it may be."""


class Answer(Struct, frozen=True):
    """What the server said."""

    status: int
    headers: dict[bytes, bytes]  # names in lower case
    body: bytes

    def header(self, name: str) -> bytes:
        """Return the value of a header field, given in lower case; nothing if there is none."""
        return self.headers.get(name.encode(), b"")


class HttpClient:
    """Questions to one endpoint. It connects when it is asked; `close` closes what is kept."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._slots = trio.CapacityLimiter(CONNECTIONS_MAX)
        self._idle: list[_Connection] = []

    async def ask(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes,
        *,
        size_max: int,
        sign: Callable[[str, str, bytes], dict[str, str]] = lambda method, target, body: {},
    ) -> Answer:
        """Return the answer to a request that may be sent twice without harm.

        sign: gives the header fields that sign a request, others each time that it is sent.
        Raises NoAnswer, AnswerTooLarge if its body has more than `size_max` bytes, WrongPeer.
        """
        fields = [("host", format_endpoint(self._host, self._port)), *headers.items()]
        if body:
            fields.append(("content-length", str(len(body))))

        def request() -> h11.Request:
            return h11.Request(method=method, target=target, headers=[*fields, *sign(method, target, body).items()])

        async with self._slots:
            if self._idle:
                connection = self._idle.pop()
                # The server may have closed it meanwhile: once more on a new one.
                with contextlib.suppress(_Lost):
                    return await self._ask_on(connection, request(), body, size_max)
            with _explained():
                connection = await self._connect()
                return await self._ask_on(connection, request(), body, size_max)

    def close(self) -> None:
        """Close the connections that are kept."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _ask_on(self, connection: _Connection, request: h11.Request, body: bytes, size_max: int) -> Answer:
        try:
            with _explained():
                answer = await connection.exchange(request, body, size_max)
        except BaseException:
            connection.close()
            raise
        if connection.is_reusable:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    async def _connect(self) -> _Connection:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            tcp = await trio.open_tcp_stream(self._host, self._port)
        if self._tls is None:
            return _Connection(tcp, tcp)
        try:
            secure = trio.SSLStream(tcp, self._tls, server_hostname=self._host, https_compatible=True)
            with trio.fail_after(CONNECT_TIMEOUT_S):
                await secure.do_handshake()
        except BaseException:
            tcp.socket.close()
            raise
        return _Connection(tcp, secure)


class _Lost(NoAnswer):
    """The connection ended before a byte of the answer came."""


class _Connection:
    """One connection, for one question after the other."""

    def __init__(self, tcp: trio.SocketStream, stream: trio.abc.Stream) -> None:
        self._tcp = tcp
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_SIZE_MAX)
        self._closed = "the connection was closed"
        if stream is tcp:
            self._closed += "; perhaps it speaks TLS, and P2PHUB_PLAIN=1 is for both sides"
        self.is_reusable = False

    async def exchange(self, request: h11.Request, body: bytes, size_max: int) -> Answer:
        """Send a request and return its answer."""
        self.is_reusable = False
        data = (self._http.send(request) or b"") + (self._http.send(h11.Data(data=body)) or b"" if body else b"")
        self._http.send(h11.EndOfMessage())
        received = False
        head: h11.Response | None = None
        content = bytearray()
        try:
            await self._stream.send_all(data)
            while not isinstance(event := self._http.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    with trio.fail_after(READ_TIMEOUT_S):
                        piece = await self._stream.receive_some(_RECEIVE_SIZE)
                    if not piece and not received:
                        raise _Lost(self._closed)
                    received = True
                    self._http.receive_data(bytes(piece))
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    content += event.data
                    if len(content) > size_max:
                        raise AnswerTooLarge
        except (OSError, trio.BrokenResourceError) as exc:
            if received:
                raise
            raise _Lost(_reason(exc)) from exc
        assert head is not None
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self.is_reusable = True
        return Answer(head.status_code, dict(head.headers), bytes(content))

    def close(self) -> None:
        self._tcp.socket.close()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn what goes wrong on a connection into NoAnswer."""
    try:
        yield
    except (NoAnswer, AnswerTooLarge, WrongPeer):
        raise
    except (OSError, ssl.SSLError, trio.TooSlowError, trio.BrokenResourceError, h11.ProtocolError) as exc:
        wrong = exc.__cause__
        if isinstance(wrong, WrongPeer):
            raise wrong from None
        raise NoAnswer(_reason(exc)) from exc


def _reason(exc: BaseException) -> str:
    """Return the innermost text of an error: trio wraps what really happened."""
    if isinstance(exc, trio.TooSlowError | TimeoutError):
        return "no answer in time"
    text = type(exc).__name__
    inner: BaseException | None = exc
    while inner is not None:
        if isinstance(inner, BaseExceptionGroup):  # one for each address of a host
            inner = inner.exceptions[-1]
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"its certificate does not hold: {inner.verify_message}"
        if isinstance(inner, ssl.SSLEOFError):
            return "it ended the handshake; perhaps it speaks without TLS, and P2PHUB_PLAIN=1 is for both sides"
        if isinstance(inner, ssl.SSLError):
            return "what answers there is no p2phub node"
        text = _said(inner) or str(inner) or text
        inner = inner.__cause__ or inner.__context__
    return text


def _said(exc: BaseException) -> str | None:
    """Return what the system said of `exc`."""
    if not isinstance(exc, OSError):
        return None
    # Trio tells the address as Python writes it. What is no error of the kernel has numbers of its own.
    return os.strerror(exc.errno) if isinstance(exc, ConnectionError) and exc.errno else exc.strerror
