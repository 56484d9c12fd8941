"""Let the daemon of this home do an operation (spec/local-api.md).

Blocking, on a plain socket, with few imports: where a daemon runs, a command is over in
the time in which a node of its own would still load its code.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from p2phub.core.errors import HubError, InvalidData, rebuild
from p2phub.core.jsonform import from_json, to_json
from p2phub.node.events import Event, Notice, Tell, ignore
from p2phub.node.operations import Operation
from p2phub.store.layout import Layout

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0  # until a node has said that it is one
QUIET_S = 2.0  # seconds of these after which who waits is told for what
SIGN_S = 10.0  # silence of a node that does an operation until it is asked whether it lives; spec/local-api.md §2
SIGNS_MISSED_MAX = 12  # times that it is asked, for as long each, until it is given up
GONE_HINT = "what it had done so far is kept: start it again (p2phub node), or do without it, and run the command again"
HUNG_HINT = (
    "it hangs or was stopped: end it and start it again (p2phub node), or do without it; what it did so far is kept"
)
HEALTH_SIZE_MAX = 64 * 1024  # bytes of that answer, its head included
PIECE_SIZE = 64 * 1024  # bytes of an answer that are read at once


class Health(Struct, frozen=True):
    """What the local door says to anybody."""

    node_id: str


class Daemon(Struct, frozen=True):
    """A running daemon's local door."""

    local_url: str
    token: str
    pid: int = 0
    node_id: str = ""
    address: str = ""

    def __str__(self) -> str:
        return f"the node at {self.local_url}" + (f" (process {self.pid})" if self.pid else "")


def find_daemon(layout: Layout, environment: Mapping[str, str] = os.environ, *, tell: Tell = ignore) -> Daemon | None:
    """Return the daemon that answers for this home, or for P2PHUB_NODE if that is set; None if none does.

    tell: hears of one that does not answer while it is waited for.
    Raises HubError if P2PHUB_NODE is set and nothing answers there.
    """
    named = environment.get("P2PHUB_NODE", "")
    if named == "none":
        return None
    try:
        daemon: Daemon | None = from_json(layout.daemon.read_bytes(), Daemon)
    except (OSError, InvalidData):
        daemon = None
    if named:
        token = environment.get("P2PHUB_TOKEN") or (daemon.token if daemon else "")
        daemon = Daemon(named.rstrip("/"), token)
    if daemon is None:
        return None
    node_id, reason = _who_answers(daemon, tell)
    if named:
        if node_id is None:
            raise HubError(f"no node answers at P2PHUB_NODE={named}: {reason}")
        return daemon
    # A node that was killed leaves its file behind, and anybody may have its port by now.
    return daemon if node_id == daemon.node_id else None


class Call:
    """One operation that a daemon does. `abort` may be called from any thread."""

    def __init__(self, daemon: Daemon, operation: Operation, tell: Tell) -> None:
        self._daemon = daemon
        self._operation = operation
        self._tell = tell
        self._connection: socket.socket | None = None
        self._is_aborted = False

    def run(self) -> Any:
        """Return the operation's result. Raises HubError, also of a node that does not live any more."""
        body = to_json(self._operation)
        try:
            with _connect(self._daemon) as connection:
                self._connection = connection
                if not self._is_aborted:
                    head = f"authorization: Bearer {self._daemon.token}\r\ncontent-type: application/json\r\n"
                    connection.settimeout(SIGN_S * SIGNS_MISSED_MAX)
                    _send(connection, self._daemon, "POST /control/v1/run", head, body)
                    lines = self._lines(connection)
                    # What went wrong is said in the body.
                    while next(lines, b"").strip():
                        pass
                    for line in lines:
                        if outcome := self._take(line):
                            return outcome[0]
        except (OSError, ValueError) as exc:
            raise HubError(f"{self._daemon} went away: {_reason(exc)}", hint=GONE_HINT) from exc
        raise HubError(f"{self._daemon} went away: it ended its answer too early", hint=GONE_HINT)

    def abort(self) -> None:
        """Make a running `run` end soon; the daemon cancels the operation then."""
        self._is_aborted = True
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def _lines(self, connection: socket.socket) -> Iterator[bytes]:
        """Give the lines of the answer as they come, without their ends. Raises OSError, HubError."""
        connection.settimeout(SIGN_S)
        begun: list[bytes] = []
        while piece := self._receive(connection):
            *ended, rest = piece.split(b"\n")
            for line in ended:
                yield b"".join((*begun, line))
                begun.clear()
            begun.append(rest)
        if rest := b"".join(begun):
            yield rest

    def _receive(self, connection: socket.socket) -> bytes:
        """Return what comes next, empty at the end, however long the operation takes."""
        while True:
            try:
                return connection.recv(PIECE_SIZE)
            except TimeoutError:
                self._check_lives(connection)

    def _check_lives(self, connection: socket.socket) -> None:
        """Return once the node is seen to live. Raises HubError if it is not.

        A large file may be hashed or a peer waited for without a word. One that does so answers beside it.
        """
        # In tries, and not until a time: if this process was stopped too, the node gets another one.
        for missed in range(SIGNS_MISSED_MAX):
            if missed == 1:
                most_s = f"{SIGN_S * SIGNS_MISSED_MAX:g} s"
                self._tell(Notice(f"{self._daemon} says nothing any more; it is waited for, {most_s} at most"))
            if self._is_alive(connection):
                return
        raise HubError(f"{self._daemon} has said nothing for {SIGN_S * SIGNS_MISSED_MAX:g} s", hint=HUNG_HINT)

    def _is_alive(self, connection: socket.socket) -> bool:
        """Say whether the answer goes on or the node answers beside it, each of them however it likes."""
        with contextlib.ExitStack() as opened, selectors.DefaultSelector() as either:
            either.register(connection, selectors.EVENT_READ)
            with contextlib.suppress(OSError):
                beside = opened.enter_context(_connect(self._daemon))
                _send(beside, self._daemon, "GET /healthz")
                either.register(beside, selectors.EVENT_READ)
            return bool(either.select(SIGN_S))

    def _take(self, line: bytes) -> tuple[Any] | None:
        """Tell the event in `line`, or return the result in it. Raises the error in it."""
        answer = _parse(line)
        if "error" in answer:
            error = answer["error"]
            raise rebuild(error.get("type", ""), error.get("text", ""), error.get("hint"))
        if "result" in answer:
            return (msgspec.convert(answer["result"], self._operation.result),)
        if "event" in answer:
            self._tell(msgspec.convert(answer["event"], Event))
        return None


def _who_answers(daemon: Daemon, tell: Tell) -> tuple[str | None, str]:
    """Return the id of the node that answers at the daemon's local door, or None and why there is none."""
    begun = time.monotonic()
    try:
        with _connect(daemon) as connection:
            _send(connection, daemon, "GET /healthz")
            answer = bytearray()
            try:
                _receive(connection, answer, begun + QUIET_S)
            except TimeoutError:
                most_s = f"{ANSWER_TIMEOUT_S:g} s"
                tell(Notice(f"the node at {daemon.local_url} does not answer; it is waited for, {most_s} at most"))
                _receive(connection, answer, begun + ANSWER_TIMEOUT_S)
        return from_json(bytes(answer).partition(b"\r\n\r\n")[2], Health).node_id, ""
    except InvalidData:
        return None, "what answers there is no p2phub node"
    except (OSError, ValueError) as exc:
        return None, _reason(exc)


def _receive(connection: socket.socket, answer: bytearray, deadline: float) -> None:
    """Add to `answer` what comes up to the end of the connection.

    deadline: by time.monotonic(); raises TimeoutError then.
    """
    while len(answer) < HEALTH_SIZE_MAX:
        connection.settimeout(max(deadline - time.monotonic(), 1e-3))
        piece = connection.recv(HEALTH_SIZE_MAX)
        if not piece:
            return
        answer += piece


def _connect(daemon: Daemon) -> socket.socket:
    """Return a connection to the local door. Raises OSError, ValueError if its URL is none."""
    url = urlsplit(daemon.local_url)
    if url.scheme != "http" or not url.hostname:
        raise ValueError("expected http://HOST:PORT")
    return socket.create_connection((url.hostname, url.port or 80), timeout=CONNECT_TIMEOUT_S)


def _send(connection: socket.socket, daemon: Daemon, request: str, head: str = "", body: bytes = b"") -> None:
    # In HTTP/1.0 an answer is not cut into pieces that would have to be put together again.
    url = urlsplit(daemon.local_url)
    method, path = request.split()
    lines = f"{method} {url.path}{path} HTTP/1.0\r\nhost: {url.netloc}\r\ncontent-length: {len(body)}\r\n{head}\r\n"
    connection.sendall(lines.encode() + body)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        return from_json(line, dict[str, Any])
    except InvalidData as exc:
        raise InvalidData("the local door is not that of a p2phub node") from exc


def _reason(exc: OSError | ValueError) -> str:
    if isinstance(exc, UnicodeError):
        return "its host is no name that a host could have"
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
