"""The peer door: HTTP/1.1 over TLS 1.3, with bytes of files sent past Python (spec/transport.md §3).

    socket ──channel──▶ h11 ──▶ Request ──handler──▶ Response ──▶ head by h11, body as bytes or from files ──▶ channel

The door counts connections and decides which may stay; how bytes travel on one is up to its channel.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

import h11
import trio
from msgspec import Struct, field

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.errors import HubError
from p2phub.protocol.messages import BULK_PREFACE, LARGE_QUERY_SIZE_MAX

from .channels import Channel, FilePart, joined, open_channel
from .descriptors import room_for
from .passed import note_passed
from .queries import Query
from .receivers import send_watched
from .sending import ORDINARY, Sending

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 1024  # open at once; spec/transport.md §3
CONNECTIONS_PER_HOST_MAX = 256  # of one address; spec/transport.md §3
HANDSHAKE_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 20.0  # to send a request once its first byte came
IDLE_TIMEOUT_S = 120.0  # between requests, and before the first; spec/transport.md §3
FIRST_REQUEST_TIMEOUT_S = 15.0
LINGER_S = 5.0  # for the rest of a request that was refused
HEAD_SIZE_MAX = 16 * 1024  # bytes of a request's head


class Request(Struct, frozen=True):
    """One request of a peer, read whole."""

    method: str
    path: str  # without the query
    query: dict[str, str]
    body: bytes
    host: str  # the peer's address
    caller: Caller = ANYBODY  # who asks, as far as it was proved
    raw_query: str = ""  # as it came, without the question mark
    # By name in lower case; what came several times is joined as in RFC 9110 §5.3.
    headers: Mapping[str, str] = field(default_factory=dict)


Guard = Callable[[trio.CancelScope], contextlib.AbstractContextManager[None]]


class Response(Struct, frozen=True):
    """What is answered: bytes, or parts of open files one after the other."""

    status: int
    body: bytes | Sequence[FilePart] = b""
    content_type: str = "application/cbor"
    headers: dict[str, str] = field(default_factory=dict)
    sending: Sending = ORDINARY  # of files
    # Called when the answer is done with, whether or not it was sent.
    release: Callable[[], None] = lambda: None
    # Entered with what ends the answer while it is sent, if the caller may not have it any more.
    guard: Guard = lambda scope: contextlib.nullcontext()
    # Says whether others wait for the place that this answer takes: then a slow receiver is cut off.
    others_wait: Callable[[], bool] = lambda: False


Handler = Callable[[Request], Awaitable[Response]]
BulkHandler = Callable[[trio.SocketStream, str], Awaitable[None]]  # takes the stream over, and the peer's address


async def serve_peers(
    host: str,
    port: int,
    handler: Handler,
    *,
    tls: ssl.SSLContext | None,
    bulk: BulkHandler | None = None,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer peers at `host:port` until cancelled; `started` gives the address really bound.

    tls: None serves without encryption, for closed clusters. bulk: what runs bulk
    connections, told apart by their first byte. Raises HubError if the port cannot be had.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=512)
    except OSError as exc:
        raise HubError(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
    door = _Door(handler, tls, bulk)
    bound = listeners[0].socket.getsockname()
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(trio.serve_listeners, door.serve, [listener])
        task_status.started((bound[0], bound[1]))


class _Door:
    """Counts connections and runs each.

    When there are too many, one that has asked nothing yet makes room, the oldest first:
    to open connections and say nothing keeps nobody out.
    """

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None, bulk: BulkHandler | None) -> None:
        self._handler = handler
        self._tls = tls
        self._bulk = bulk
        self._hosts: dict[str, int] = {}  # connections, by caller
        # Connections that asked nothing yet, in the order of their coming, and their callers.
        self._strangers: dict[trio.CancelScope, str] = {}

    async def serve(self, stream: trio.SocketStream) -> None:
        host = str(stream.socket.getpeername()[0]) if _is_connected(stream) else ""
        caller = caller_of(host)
        if not self._make_room(caller):
            await trio.aclose_forcefully(stream)
            return
        self._hosts[caller] = self._hosts.get(caller, 0) + 1
        stranger = trio.CancelScope()
        self._strangers[stranger] = caller
        try:
            with stranger:
                await self._run(stream, host, stranger)
        except (OSError, ssl.SSLError, h11.ProtocolError, trio.TooSlowError, trio.BrokenResourceError) as exc:
            # Peers come and go, and strangers knock: nothing that one of them does is our error.
            log.debug("a connection from %s ended: %s", host, str(exc) or type(exc).__name__)
        except Exception:
            log.exception("a request from %s failed", host)
        finally:
            self._strangers.pop(stranger, None)
            self._hosts[caller] -= 1
            if not self._hosts[caller]:
                del self._hosts[caller]

    def _make_room(self, caller: str) -> bool:
        """Dismiss a stranger if there are too many connections; returns whether there is room for one of `caller`."""
        is_mine_full = self._hosts.get(caller, 0) >= CONNECTIONS_PER_HOST_MAX
        if not is_mine_full and sum(self._hosts.values()) < room_for(CONNECTIONS_MAX):
            return True
        for stranger, other in self._strangers.items():
            if other == caller or not is_mine_full:
                del self._strangers[stranger]
                stranger.cancel()
                return True
        return False

    async def _run(self, stream: trio.SocketStream, host: str, stranger: trio.CancelScope) -> None:
        if self._bulk is not None:
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                first = await stream.socket.recv(1, socket.MSG_PEEK)
            if first == BULK_PREFACE[:1]:
                # It has a ticket, or ends soon.
                self._strangers.pop(stranger, None)
                await self._bulk(stream, host)
                return
        channel = open_channel(stream, self._tls)
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                await channel.handshake()
            http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_SIZE_MAX)
            timeout_s = FIRST_REQUEST_TIMEOUT_S
            while await self._answer_one(http, channel, host, stranger, timeout_s):
                timeout_s = IDLE_TIMEOUT_S
        finally:
            channel.close()

    async def _answer_one(
        self, http: h11.Connection, channel: Channel, host: str, stranger: trio.CancelScope, timeout_s: float
    ) -> bool:
        """Answer one request; returns whether the connection can carry another."""
        with Query(caller_of(host)) as reading:
            with trio.move_on_after(timeout_s) as waiting:
                request = await _receive(http, channel, host, reading, waiting)
            if waiting.cancelled_caught or request is None:
                return False
            if isinstance(request, Response):
                await _send(http, channel, request)
                with trio.move_on_after(LINGER_S):
                    await channel.linger()
                return False
            self._strangers.pop(stranger, None)
            response = await self._handler(request)
            head_only = request.method == "HEAD"
            del request  # its body may be large
        try:
            with trio.CancelScope() as scope, response.guard(scope):
                await _send(http, channel, response, head_only=head_only)
        finally:
            response.release()
        if scope.cancelled_caught or http.our_state is h11.MUST_CLOSE or http.their_state is h11.MUST_CLOSE:
            return False
        http.start_next_cycle()
        return True


async def _receive(
    http: h11.Connection, channel: Channel, host: str, reading: Query, waiting: trio.CancelScope
) -> Request | Response | None:
    """Return the next request, an answer that refuses it, or None at the end of the connection.

    waiting: what ends the wait; it is shortened once the request has begun.
    """
    head: h11.Request | None = None
    body = bytearray()
    begun = False
    while True:
        if not begun and http.trailing_data[0]:
            begun = True
            waiting.deadline = min(waiting.deadline, trio.current_time() + REQUEST_TIMEOUT_S)
        event = http.next_event()
        if event is h11.NEED_DATA:
            if http.they_are_waiting_for_100_continue:
                await channel.send(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            data = await channel.receive()
            http.receive_data(data)
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LARGE_QUERY_SIZE_MAX:
                return Response(413, b"the query is too large", "text/plain")
            if not reading.may_have(len(body)):
                return Response(429, b"too many large queries at once", "text/plain", {"retry-after": "2"})
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            path, _, query = head.target.decode("ascii", "replace").partition("?")
            pairs = (pair.partition("=") for pair in query.split("&") if pair)
            return Request(
                head.method.decode("ascii"),
                path,
                {name: value for name, _, value in pairs},
                bytes(body),
                host,
                raw_query=query,
                headers=_joined_fields(head.headers),
            )
        else:
            return None


def _joined_fields(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in fields:
        before, text = joined.get(name.decode("ascii")), value.decode("latin-1")
        joined[name.decode("ascii")] = text if before is None else f"{before}, {text}"
    return joined


async def _send(http: h11.Connection, channel: Channel, response: Response, *, head_only: bool = False) -> None:
    parts = response.body if not isinstance(response.body, bytes) else ()
    size = len(response.body) if isinstance(response.body, bytes) else sum(part.length for part in parts)
    headers = [("content-length", str(size)), ("content-type", response.content_type), *response.headers.items()]
    if response.status == 204:
        headers = []  # RFC 9110 §8.6: there is no body to tell of
    head = http.send(h11.Response(status_code=response.status, headers=headers)) or b""
    if head_only:
        await channel.send(head)
    elif isinstance(response.body, bytes):
        # One write: a second small one would wait for the peer's acknowledgement.
        await channel.send(head + (http.send(h11.Data(data=response.body)) or b""))
    else:
        await channel.send(head)
        send = partial(channel.send_files, joined(parts), response.sending)
        await (send_watched(channel.raw, response.others_wait, send) if channel.raw else send())
        note_passed(http, size)
    http.send(h11.EndOfMessage())


def caller_of(host: str) -> str:
    """Return what counts as one caller: an IPv4 address, or the /64 of an IPv6 address, as who has one has them all."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))


def _is_connected(stream: trio.SocketStream) -> bool:
    try:
        stream.socket.getpeername()
    except OSError:
        return False
    return True
