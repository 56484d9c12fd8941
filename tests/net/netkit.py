"""What the tests of the network share: the real door, raw clients, and servers that break the rules."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h11
import trio
from blake3 import blake3

from p2phub.core.ids import ContentId, NodeId
from p2phub.core.signing import SigningKey
from p2phub.net.channels import FilePart
from p2phub.net.connection import WantedChunk
from p2phub.net.door import Handler, Request, Response, serve_peers
from p2phub.net.tls import client_context, server_context
from p2phub.protocol.messages import ByteRange
from p2phub.testing import values

KEY = values.key("node")
NODE = NodeId(KEY.public_key)
OTHER = NodeId(values.key("other").public_key)
HOST = "127.0.0.1"
PATIENCE_S = 30.0  # seconds that anything here may take; nothing proves speed


# ── the real door ───────────────────────────────────────────────────────────


@asynccontextmanager
async def open_door(handler: Handler, *, plain: bool = False, **options: Any) -> AsyncIterator[int]:
    """Serve `handler` at the port that is given."""
    async with trio.open_nursery() as nursery:
        tls = None if plain else server_context(KEY)
        bound = await nursery.start(partial(serve_peers, HOST, 0, handler, tls=tls, **options))
        yield bound[1]
        nursery.cancel_scope.cancel()


async def echo(request: Request) -> Response:
    """Answer with what was asked."""
    text = f"{request.method} {request.path} {request.query} {len(request.body)} "
    return Response(200, text.encode() + request.body[:100], "text/plain")


async def in_thread(work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Run what blocks beside the door, which runs in this thread."""
    with trio.fail_after(PATIENCE_S):
        return await trio.to_thread.run_sync(partial(work, *arguments, **options), abandon_on_cancel=True)


@dataclass
class Files:
    """A handler that answers with parts of files, as content is answered, and counts what it opened."""

    folder: Path
    contents: dict[str, bytes]
    parts: list[tuple[str, int, int]] = field(default_factory=list)  # name, offset, length
    released: int = 0

    def __post_init__(self) -> None:
        for name, data in self.contents.items():
            (self.folder / name).write_bytes(data)

    @property
    def expected(self) -> bytes:
        return b"".join(self.contents[name][offset : offset + length] for name, offset, length in self.parts)

    async def __call__(self, request: Request) -> Response:
        files = [os.open(self.folder / name, os.O_RDONLY) for name, _, _ in self.parts]

        def release() -> None:
            for file in files:
                os.close(file)
            self.released += 1

        places = zip(files, self.parts, strict=True)
        body = [FilePart(file, offset, length) for file, (_, offset, length) in places]
        return Response(200, body, "application/octet-stream", release=release)


def open_below(folder: Path) -> list[str]:
    """Return the files below `folder` that this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [name for name in found if name.startswith(f"{folder}/")]


async def wait_until(check: Callable[[], bool], what: str) -> None:
    """Wait until something that another task or thread does has happened."""
    with trio.move_on_after(PATIENCE_S):
        while not check():  # noqa: ASYNC110  a thread or the kernel makes it true, which tells no event
            await trio.sleep(0.01)
    assert check(), f"waited {PATIENCE_S:.0f} s for {what}"


# ── raw clients ─────────────────────────────────────────────────────────────


class Caller:
    """A connection to a door on which a test says what it likes. Blocks; for threads."""

    def __init__(self, port: int, *, plain: bool = False, receive_buffer: int | None = None) -> None:
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(PATIENCE_S)
        raw.connect((HOST, port))
        self.socket = raw if plain else client_context(NODE).wrap_socket(raw)
        self._http = h11.Connection(h11.CLIENT)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Caller:
        self.socket.sendall(data)
        return self

    def ask(self, target: str = "/", *, method: str = "POST", body: bytes = b"", headers: str = "") -> Answer:
        """Send one whole request; returns the answer."""
        head = f"{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        self.send(head.encode() + body)
        return self.answer(method)

    def answer(self, method: str = "POST") -> Answer:
        """Read the next answer, whose request had this method. Raises EOFError if the connection ends before."""
        http = self._http
        if http.our_state is h11.IDLE:
            http.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
            http.send(h11.EndOfMessage())
        status, headers, body = 0, {}, bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                data = self.socket.recv(64 * 1024)
                if not data and http.their_state is h11.SEND_RESPONSE:
                    raise EOFError
                http.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                if http.their_state is h11.DONE and http.our_state is h11.DONE:
                    http.start_next_cycle()
                return Answer(status, headers, bytes(body))
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError

    def rest(self) -> bytes:
        """Read to the end of the connection, however it ends."""
        data = bytearray()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while piece := self.socket.recv(64 * 1024):
                data += piece
        return bytes(data)

    def vanish(self) -> None:
        """Reset the connection, as a machine that is switched off does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


# ── servers that break the rules ────────────────────────────────────────────


Script = Callable[["Visit"], None]


class Visit:
    """One connection to a hostile server, for its script. It is closed when the script ends."""

    def __init__(self, connection: socket.socket, number: int) -> None:
        self.socket = connection
        self.number = number  # of the connection, from 0
        self.received = bytearray()
        self._rest = b""

    def read_request(self) -> tuple[bytes, bytes]:
        """Return head and body of the next request."""
        data = self._rest
        while b"\r\n\r\n" not in data:
            data += self.read()
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < length:
            body += self.read()
        self._rest = body[length:]
        return head, body[:length]

    def read(self) -> bytes:
        data = self.socket.recv(64 * 1024)
        if not data:
            raise EOFError
        self.received += data
        return data

    def read_exactly(self, size: int) -> bytes:
        data = self._rest
        while len(data) < size:
            data += self.read()
        self._rest = data[size:]
        return data[:size]

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send(answer(body, status, **headers))

    def wait(self) -> None:
        """Say nothing more until the other side has had enough."""
        with contextlib.suppress(EOFError):
            while True:
                self.read()


def answering(*answers: bytes) -> Script:
    """Return a script that answers requests with these bytes, one after the other, and then waits."""

    def script(visit: Visit) -> None:
        for data in answers:
            visit.read_request()
            visit.send(data)
        visit.wait()

    return script


class Hostile:
    """A server in threads that runs a script for each connection."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None) -> None:
        self._script = script
        self._tls = tls
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.visits: list[Visit] = []
        self.handshakes = 0  # that succeeded
        self.ended = 0  # connections whose script is done, and that are closed
        self.errors: list[BaseException] = []  # of our own making
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def received(self) -> bytes:
        """What came after the handshake, on all connections."""
        return b"".join(bytes(visit.received) for visit in self.visits)

    def wait_ended(self, count: int) -> None:
        """Wait until `count` connections are closed on this side."""
        end = time.monotonic() + PATIENCE_S
        while self.ended < count:
            assert time.monotonic() < end, f"{self.ended} connections ended, not {count}"
            time.sleep(0.005)

    def close(self) -> None:
        for connection in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for connection in [self._listener, *self._sockets]:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE_S)
            self._sockets.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection, len(self._threads) - 1), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._sockets.append(connection)
            self.handshakes += 1
            visit = Visit(connection, number)
            self.visits.append(visit)
            self._script(visit)
        except (OSError, EOFError):
            pass  # the client had enough
        except BaseException as exc:
            self.errors.append(exc)
        finally:
            with contextlib.suppress(OSError):
                connection.close()
            self.ended += 1


@contextmanager
def hostile(script: Script, *, key: SigningKey | None = KEY, tls: ssl.SSLContext | None = None) -> Iterator[Hostile]:
    """Serve `script`; over TLS with `key`, or as `tls` says, or in the clear if `key` is None."""
    server = Hostile(script, tls or (server_context(key) if key else None))
    try:
        yield server
    finally:
        server.close()
    assert server.errors == []


def answer(body: bytes = b"", status: int = 200, **headers: str) -> bytes:
    """Return an HTTP answer; a header that is None is left out, `_` in names stands for `-`."""
    fields = {"content-length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body


def chunked(body: bytes, size: int = 1000) -> bytes:
    """Return `body` in the chunked coding of HTTP."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def bomb(size: int) -> bytes:
    """Return few bytes that expand to `size`."""
    return gzip.compress(bytes(size), 9)


# ── content ─────────────────────────────────────────────────────────────────


@dataclass
class Wanted:
    """A file of which some chunks are wanted."""

    data: bytes
    chunk_size: int = 100_000
    root: ContentId = field(default_factory=lambda: ContentId(bytes(32)))

    @property
    def chunks(self) -> list[bytes]:
        return [self.data[at : at + self.chunk_size] for at in range(0, len(self.data), self.chunk_size)]

    @property
    def wanted(self) -> list[WantedChunk]:
        return [WantedChunk(len(chunk), blake3(chunk).digest()) for chunk in self.chunks]

    @property
    def spans(self) -> list[ByteRange]:
        """One for each chunk."""
        offsets = itertools.accumulate((len(chunk) for chunk in self.chunks), initial=0)
        return [ByteRange(self.root, offset, len(chunk)) for offset, chunk in zip(offsets, self.chunks, strict=False)]


class Sink:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.chunks: dict[int, bytes] = {}

    def __call__(self, place: int, data: memoryview) -> None:
        assert place not in self.chunks
        self.chunks[place] = bytes(data)

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks[place] for place in sorted(self.chunks))
