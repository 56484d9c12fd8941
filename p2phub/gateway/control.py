"""The control API of the local door: run operations for the command line (spec/local-api.md).

    POST /control/v1/run   Authorization: Bearer TOKEN   body: one operation as JSON
    answer: a line of JSON for each event, then {"result": …} or {"error": {…}}

Only who can read the home's token may ask, and a page in a browser cannot: requests
with a foreign Host or any Origin are refused.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from p2phub.core.errors import HubError, InvalidData, InvalidName, told_class
from p2phub.core.jsonform import to_json
from p2phub.node.dispatch import run
from p2phub.node.events import Event, Progress
from p2phub.node.given import read_given
from p2phub.node.node import Node

from .guard import Barred, Guard

log = logging.getLogger(__name__)

BODY_SIZE_MAX = 1024 * 1024  # bytes of an operation; spec/local-api.md §2
EVENTS_WAITING_MAX = 256  # events that a slow reader may be behind; older progress is dropped


def control_app(node: Node, token: str, hosts: frozenset[str]) -> Starlette:
    """Return the application that runs operations.

    token: what `Authorization: Bearer` must carry; hosts: values of `Host` that are ours besides loopback.
    """
    door = _Control(node, Guard(token, hosts))
    return Starlette(routes=[Route("/control/v1/run", door.run, methods=["POST"]), Route("/healthz", door.health)])


class _Control:
    def __init__(self, node: Node, guard: Guard) -> None:
        self._node = node
        self._guard = guard

    async def health(self, request: Request) -> Response:
        """Say that the node answers; for scripts and supervisors."""
        try:
            self._guard.check(request)
        except Barred as barred:
            return _refuse(barred.status, barred.text)
        return JSONResponse({"node_id": str(self._node.id)})

    async def run(self, request: Request) -> Response:
        """Run one operation and stream what it tells."""
        try:
            self._guard.check(request)
        except Barred as barred:
            return _refuse(barred.status, barred.text)
        if not self._guard.is_owner(request.headers):
            return _refuse(401, "the token is wrong")
        body = b""
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > BODY_SIZE_MAX:
                    return _refuse(413, f"an operation has at most {BODY_SIZE_MAX} bytes")
            operation: Any = read_given(body)
        except ClientDisconnect:
            return _refuse(400, "the operation ended too early")
        except (InvalidData, InvalidName) as exc:
            return JSONResponse({"error": error_fields(exc)}, 400)
        return _RunningOperation(self._node, operation)


class _RunningOperation(Response):
    """An answer that runs an operation while it is sent. When the reader goes away, the operation is cancelled."""

    def __init__(self, node: Node, operation: Any) -> None:
        super().__init__(media_type="application/x-ndjson")
        del self.headers["content-length"]
        self._node = node
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with trio.open_nursery() as nursery:

            async def watch_reader() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch_reader)
            teller = _Teller(nursery, send)
            line = await outcome(self._node, self._operation, teller.tell)
            await teller.wait_told()
            await send({"type": "http.response.body", "body": line + b"\n", "more_body": False})
            nursery.cancel_scope.cancel()


class _Teller:
    """Sends events to the reader while an operation runs; most operations tell nothing."""

    def __init__(self, nursery: trio.Nursery, send: Send) -> None:
        self._nursery = nursery
        self._send = send
        self._events: trio.MemorySendChannel[bytes] | None = None  # None: nothing was told, so no task is needed
        self._is_told = trio.Event()

    def tell(self, event: Event) -> None:
        """Send an event as soon as those before it are."""
        if self._events is None:
            # Not size 0: an operation never waits for whoever watches it.
            self._events, waiting = trio.open_memory_channel[bytes](EVENTS_WAITING_MAX)
            self._nursery.start_soon(self._pass_on, waiting)
        try:
            self._events.send_nowait(_encode({"event": event}) + b"\n")
        except trio.WouldBlock:
            if not isinstance(event, Progress):
                log.warning("nobody read the notice: %s", event.text)

    async def wait_told(self) -> None:
        """Return when all events are sent; none follow."""
        if self._events is not None:
            self._events.close()
            await self._is_told.wait()

    async def _pass_on(self, waiting: trio.MemoryReceiveChannel[bytes]) -> None:
        async for line in waiting:
            await self._send({"type": "http.response.body", "body": line, "more_body": True})
        self._is_told.set()


async def outcome(node: Node, operation: Any, tell: Any) -> bytes:
    """Run `operation` and return the last line of the answer: its result or its error."""
    try:
        return _encode({"result": await run(node, operation, tell)})
    except HubError as exc:
        return _encode({"error": error_fields(exc)})
    except Exception:
        log.exception("%s failed", type(operation).__name__)
        return to_json({"error": {"type": "InternalError", "text": "the node met a bug of its own; its log says more"}})


def error_fields(exc: HubError) -> dict[str, Any]:
    """Return what a client needs to raise the same error."""
    fields = {"type": told_class(exc), "text": str(exc), "hint": exc.hint}
    return {name: value for name, value in fields.items() if value is not None}


def _encode(value: Any) -> bytes:
    """Return `value` as JSON; names of files that are no text are shown as far as they are."""
    try:
        return to_json(value)
    except UnicodeEncodeError:
        return to_json(_printable(msgspec.to_builtins(value, enc_hook=str)))


def _printable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {key: _printable(item) for key, item in value.items()}
        case list() | tuple():
            return [_printable(item) for item in value]
        case _:
            return value


def _refuse(status: int, text: str) -> Response:
    return JSONResponse({"error": {"type": "AccessDenied", "text": text}}, status)
