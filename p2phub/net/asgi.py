"""Run an ASGI application on one connection of HTTP/1.1 after the other, on trio (spec/local-api.md §1).

    socket ──h11──▶ scope, receive ──▶ application ──send──▶ h11 ──▶ socket
                                            └──write_body──▶ a worker thread ──▶ socket

What is large goes past trio and h11: `write_body` lets a worker thread read, check and
send, so that bytes change hands once. Each hand-over between threads waits for a
processor, and on a machine that is at work this takes longer than the bytes do.

A receiver that is slow holds no thread: its turn ends, and trio waits for it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import h11
import trio

from .passed import note_passed
from .threads import run_abortable

log = logging.getLogger(__name__)

IDLE_TIMEOUT_S = 60.0  # between requests, and before the first
HEAD_TIMEOUT_S = 20.0  # for the head of a request, once its first byte came
LINGER_S = 2.0  # that who was answered early may go on sending its request
STALL_S = 0.2  # that a thread waits for a receiver which takes nothing
WRITERS_MAX = 32  # threads that write bodies at once
HEAD_SIZE_MAX = 16 * 1024  # bytes of a request's head

WRITE_BODY = "p2phub.write_body"  # the extension of the scope that holds `Connection.write_body`

Application = Callable[[Any, Any, Any], Awaitable[None]]
# Puts bytes on a connection; returns how many the receiver took before it made the thread wait.
Put = Callable[[memoryview], int]
WriteBody = Callable[[Callable[[Put], None]], Awaitable[int]]

_RECEIVE_SIZE = 64 * 1024  # bytes
_JOINED_SIZE_MAX = 64 * 1024  # bytes of a body that goes out in one write with the head
_SENT_SIZE = 256 * 1024  # bytes sent at once
_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


class Connection:
    """One connection of a client."""

    def __init__(
        self,
        app: Application,
        stream: trio.SocketStream,
        writers: trio.CapacityLimiter,
        note_rest: Callable[[Connection, bool], None],
        *,
        stall_s: float = math.inf,
    ) -> None:
        """Take `stream` over.

        writers: threads that write bodies. note_rest: told whether there is no request. stall_s: seconds after
        which a receiver that takes nothing is gone.
        """
        self._stall_s = stall_s
        self._app = app
        self._socket = socket.socket(fileno=stream.socket.detach())
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._socket))
        self._writers = writers
        self._note_rest = note_rest
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_SIZE_MAX)
        self._begin(b"GET")

    async def run(self) -> None:
        """Answer until either side has had enough, and close the connection."""
        try:
            self._ends = self._socket.getsockname()[:2], self._socket.getpeername()[:2]
            while await self._answer_one():
                pass
            await self._linger()
        except* _GONE as group:
            log.debug("a client went away: %s", group.exceptions[0])
        except* Exception:
            log.exception("an answer failed")
        finally:
            self._note_rest(self, False)
            self._socket.close()

    def _begin(self, method: bytes) -> None:
        self._has_body = method != b"HEAD"  # the answer
        self._head: h11.Response | None = None  # of the answer, until its first byte
        self._is_begun = False  # the answer
        self._is_read = False  # the request, to its end
        self._is_gone = False  # the client
        self._answered = trio.Event()
        self._listening = trio.CancelScope()  # to a client that waits for its answer

    async def _answer_one(self) -> bool:
        """Answer one request; returns whether the connection can carry another."""
        self._note_rest(self, True)
        try:
            request = await self._request()
        except h11.RemoteProtocolError as exc:
            await self._refuse(exc.error_status_hint)
            return False
        self._note_rest(self, False)
        if request is None:
            return False
        self._begin(request.method)
        try:
            await self._app(self._scope(request), self._receive, self._send)
        finally:
            if not self._is_begun and not self._is_gone:
                await self._refuse(500)
        if not self._answered.is_set():
            return False
        with trio.move_on_after(LINGER_S):
            await self._drain()
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def write_body(self, write: Callable[[Put], None]) -> int:
        """Let `write` put bytes of the answer's body on the connection, in a worker thread; returns how many it put.

        The head must be out. `write` ends when what it put was not taken whole, and is to be called again.
        """
        with trio.fail_after(self._stall_s):
            await trio.lowlevel.wait_writable(self._socket)
        pipe = _Pipe(self._socket)
        await run_abortable(lambda: write(pipe.put), pipe.abort, self._writers)
        note_passed(self._http, pipe.count)
        return pipe.count

    async def _linger(self) -> None:
        """Say that nothing more comes, and take what the client still sends.

        A connection that is closed with bytes unread is reset, and the client may never see its answer.
        """
        self._stream.socket.shutdown(socket.SHUT_WR)
        with trio.move_on_after(LINGER_S):
            while await self._stream.receive_some(_RECEIVE_SIZE):
                pass

    async def _request(self) -> h11.Request | None:
        """Return the head of the next request, None if none comes. Raises h11.RemoteProtocolError."""
        with trio.move_on_after(IDLE_TIMEOUT_S) as waiting:
            is_begun = bool(self._http.trailing_data[0])
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = await self._stream.receive_some(_RECEIVE_SIZE)
                self._http.receive_data(data)
                if not is_begun:
                    is_begun = True
                    waiting.deadline = min(waiting.deadline, trio.current_time() + HEAD_TIMEOUT_S)
            return event if isinstance(event, h11.Request) else None
        return None

    def _scope(self, request: h11.Request) -> dict[str, Any]:
        path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii").upper(),
            "scheme": "http",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "server": self._ends[0],
            "client": self._ends[1],
            "extensions": {WRITE_BODY: self.write_body},
        }

    async def _receive(self) -> dict[str, Any]:
        """Return the next piece of the request, or that the client went away or has its answer."""
        if not self._is_read:
            try:
                event = await self._body_event()
            except (h11.RemoteProtocolError, *_GONE):
                self._is_read = self._is_gone = True
                return {"type": "http.disconnect"}
            if isinstance(event, h11.Data):
                return {"type": "http.request", "body": bytes(event.data), "more_body": True}
            self._is_read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._wait_gone()
        return {"type": "http.disconnect"}

    async def _body_event(self) -> h11.Data | h11.EndOfMessage:
        """Return a piece of the request's body, or its end. Raises h11.RemoteProtocolError."""
        while True:
            if self._http.they_are_waiting_for_100_continue and not self._is_begun:
                await self._send_all(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            event = self._http.next_event()
            if isinstance(event, h11.Data | h11.EndOfMessage):
                return event
            if event is not h11.NEED_DATA:
                raise h11.RemoteProtocolError("the request ended too early")
            self._http.receive_data(await self._stream.receive_some(_RECEIVE_SIZE))

    async def _wait_gone(self) -> None:
        """Return when the client went away or has its answer."""
        # Who sent the next request already is here; it waits in the buffer, which gets no larger.
        if not self._is_gone and not self._answered.is_set() and self._http.trailing_data == (b"", False):
            data = None
            with trio.CancelScope() as self._listening:
                try:
                    data = await self._stream.receive_some(_RECEIVE_SIZE)
                except _GONE:
                    data = b""
            if data is not None:
                self._http.receive_data(data)
                self._is_gone = not data
        if not self._is_gone:
            await self._answered.wait()

    async def _send(self, message: dict[str, Any]) -> None:
        """Take a part of the answer from the application."""
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message.get("headers", ())]
            if not any(name.lower() == b"date" for name, _ in headers):
                headers.append((b"date", formatdate(usegmt=True).encode("ascii")))
            self._head = h11.Response(status_code=message["status"], headers=headers)
            if message["status"] in (204, 304):
                self._has_body = False
            return
        data = b""
        if self._head is not None:
            data, self._head, self._is_begun = self._http.send(self._head) or b"", None, True
        body = message.get("body", b"") if self._has_body else b""
        if body:
            coded = self._http.send(h11.Data(data=body)) or b""
            if len(coded) > _JOINED_SIZE_MAX and data:
                await self._send_all(data)
                data = b""
            data = data + coded if data else coded
        if not message.get("more_body", False):
            data += self._http.send(h11.EndOfMessage()) or b""
        if data:
            await self._send_all(data)
        if not message.get("more_body", False):
            self._answered.set()
            self._listening.cancel()

    async def _send_all(self, data: bytes) -> None:
        # In pieces, so that who takes them slowly is not taken for one who takes nothing.
        for begin in range(0, len(data), _SENT_SIZE):
            with trio.fail_after(self._stall_s):
                await self._stream.send_all(data[begin : begin + _SENT_SIZE])

    async def _refuse(self, status: int) -> None:
        """Answer in the place of the application, if nothing was answered yet."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [("content-length", "0"), ("connection", "close")]
            head = self._http.send(h11.Response(status_code=status, headers=headers)) or b""
            await self._send_all(head + (self._http.send(h11.EndOfMessage()) or b""))

    async def _drain(self) -> None:
        """Read the rest of a request that was answered before all of it came."""
        with contextlib.suppress(h11.RemoteProtocolError):
            while not self._is_read:
                self._is_read = isinstance(await self._body_event(), h11.EndOfMessage)


class _Pipe:
    """The connection as a worker thread sees it."""

    def __init__(self, raw: socket.socket) -> None:
        self._socket = raw
        self._poll = select.poll()
        self._poll.register(raw, select.POLLOUT)
        self._is_over = False
        self.count = 0  # bytes put

    def put(self, data: memoryview) -> int:
        """Send `data`; returns how many bytes were taken. Raises OSError if the client went away."""
        done = 0
        while done < len(data) and not self._is_over:
            try:
                done += self._socket.send(data[done:])
            except BlockingIOError:
                if not self._poll.poll(STALL_S * 1000):
                    break
        self.count += done
        return done

    def abort(self) -> None:
        """Let nothing more be taken."""
        self._is_over = True
