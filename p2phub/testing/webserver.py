"""HTTP origins at their best and worst: a server of files on loopback, in threads of this process.

    with WebServer({"parrot/weights.bin": data}, without_ranges, cutting(100_000)) as server:
        ... f"{server.url}/parrot" ...

A server answers rightly, then each behaviour spoils the reply in turn. It notes what it was asked.
"""

from __future__ import annotations

import contextlib
import datetime
import gzip
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
PIECE_SIZE = 64 * 1024  # bytes sent at once

_FLIPPED = bytes(byte ^ 1 for byte in range(256))


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    target: str  # path and query, as they came
    headers: Mapping[str, str]  # by name in lower case

    @property
    def path(self) -> str:
        """The path of the file that is asked for."""
        return unquote(self.target.partition("?")[0]).lstrip("/")

    @property
    def byte_range(self) -> tuple[int, int] | None:
        """The first and the last byte that are asked for, None for a whole file."""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True)
class Reply:
    """What is sent back, and how."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    begin: int = 0  # where the body begins in its file
    is_chunked: bool = False  # else its length is told, unless `headers` has another or an empty one
    cut_at: int | None = None  # bytes of the body after which the connection is closed
    rate: float | None = None  # bytes of the body a second
    stall_at: int | None = None  # bytes of the body after which nothing comes any more
    raw: bytes | None = None  # instead of all the above


Behaviour = Callable[[Asked, Reply], Reply]


class WebServer:
    """Serves files by path. A context manager, during which it runs."""

    def __init__(self, files: Mapping[str, bytes], *behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self.files = files
        self.behaviours = list(behaviours)
        self.asked: list[Asked] = []
        self.connections = 0
        self._tls = tls
        self._is_closing = threading.Event()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{HOST}:{self.port}"

    def __enter__(self) -> WebServer:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closing.set()
        for connection in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        for connection in [self._listener, *self._open]:
            connection.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self.connections += 1
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            data = b""
            while True:
                asked, data = _read_head(connection, data)
                self.asked.append(asked)
                reply = self._answer(asked)
                for behave in self.behaviours:
                    reply = behave(asked, reply)
                if not self._send(connection, reply):
                    break
        connection.close()

    def _answer(self, asked: Asked) -> Reply:
        data = self.files.get(asked.path)
        if data is None:
            return Reply(404, b"there is no such file\n")
        if asked.byte_range is None:
            return Reply(200, data, {"accept-ranges": "bytes"})
        first, last = asked.byte_range
        if first >= len(data):
            return Reply(416, headers={"content-range": f"bytes */{len(data)}"})
        last = min(last, len(data) - 1)
        return Reply(206, data[first : last + 1], {"content-range": f"bytes {first}-{last}/{len(data)}"}, first)

    def _send(self, connection: socket.socket, reply: Reply) -> bool:
        """Send a reply; returns whether the connection goes on."""
        if reply.raw is not None:
            connection.sendall(reply.raw)
            return False
        headers = {"content-length": str(len(reply.body))} | dict(reply.headers)
        if reply.is_chunked:
            headers |= {"content-length": "", "transfer-encoding": "chunked"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
        connection.sendall(f"HTTP/1.1 {reply.status} X\r\n{lines}\r\n".encode("latin-1"))
        step = PIECE_SIZE if reply.rate is None else max(1, min(PIECE_SIZE, int(reply.rate / 20)))
        at = 0
        while at < len(reply.body):
            if reply.cut_at is not None and at >= reply.cut_at:
                return False
            if reply.stall_at is not None and at >= reply.stall_at:
                self._is_closing.wait()
                return False
            stops = [at + step, *(stop for stop in (reply.cut_at, reply.stall_at) if stop is not None and stop > at)]
            piece = reply.body[at : min(stops)]
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if reply.is_chunked else piece)
            at += len(piece)
            if reply.rate is not None and self._is_closing.wait(len(piece) / reply.rate):
                return False
        if reply.is_chunked:
            connection.sendall(b"0\r\n\r\n")
        return reply.is_chunked or headers["content-length"] == str(len(reply.body))


def _read_head(connection: socket.socket, data: bytes) -> tuple[Asked, bytes]:
    """Return the next request, which has no body, and what was read behind it. Raises EOFError."""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(64 * 1024)
        if not piece:
            raise EOFError
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return Asked(method, target, {name.lower(): value.strip() for name, _, value in pairs}), rest


# ── behaviours ──────────────────────────────────────────────────────────────


def without_ranges(files: Mapping[str, bytes]) -> Behaviour:
    """Answer with the whole file, whatever part is asked for."""
    return lambda asked, reply: Reply(200, files[asked.path]) if reply.status == 206 else reply


def answering(status: int, **headers: str) -> Behaviour:
    """Answer every request with `status`; `_` in the names of headers stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked, reply: Reply(status, b"so it is\n", named)


def redirecting(to: Callable[[Asked], str], status: int = 302) -> Behaviour:
    """Send everybody on to the URL that `to` gives."""
    return lambda asked, reply: Reply(status, b"elsewhere\n", {"location": to(asked)})


def lying_from(begin: int) -> Behaviour:
    """Flip a bit of every byte of content from the offset `begin` of a file on."""

    def behave(asked: Asked, reply: Reply) -> Reply:
        if reply.status not in (200, 206):
            return reply
        good = max(0, begin - reply.begin)
        return replace(reply, body=reply.body[:good] + reply.body[good:].translate(_FLIPPED))

    return behave


def chunked(asked: Asked, reply: Reply) -> Reply:
    """Send bodies in the chunked coding of HTTP."""
    return replace(reply, is_chunked=True)


def cutting(size: int) -> Behaviour:
    """Close the connection after `size` bytes of a body."""
    return lambda asked, reply: replace(reply, cut_at=size)


def stalling(size: int) -> Behaviour:
    """Send nothing any more after `size` bytes of a body."""
    return lambda asked, reply: replace(reply, stall_at=size)


def slowly(rate: float) -> Behaviour:
    """Send `rate` bytes of content a second, on each connection."""
    return lambda asked, reply: replace(reply, rate=rate) if reply.status in (200, 206) else reply


def compressing(asked: Asked, reply: Reply) -> Reply:
    """Compress bodies though nobody wished it, whole ones as a stream whose length is not told."""
    body = gzip.compress(reply.body, 1)
    if reply.status == 206:
        headers = dict(reply.headers) | {"content-range": re.sub(r"/\d+", "/*", reply.headers["content-range"])}
        return replace(reply, headers=headers | {"content-encoding": "gzip"})
    return replace(reply, body=body, is_chunked=True, headers={"content-encoding": "gzip"})


def with_headers(**headers: str) -> Behaviour:
    """Say something else of what is sent; `_` in the names of headers stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked, reply: replace(reply, headers=dict(reply.headers) | named)


def raw(data: bytes) -> Behaviour:
    """Send `data` and close the connection."""
    return lambda asked, reply: Reply(200, raw=data)


def only(applies: Callable[[Asked], bool], behaviour: Behaviour) -> Behaviour:
    """Behave so where `applies` says it."""
    return lambda asked, reply: behaviour(asked, reply) if applies(asked) else reply


def times(count: int, behaviour: Behaviour) -> Behaviour:
    """Behave so for the first `count` requests."""
    left = [count]

    def behave(asked: Asked, reply: Reply) -> Reply:
        if left[0] <= 0:
            return reply
        left[0] -= 1
        return behaviour(asked, reply)

    return behave


def after(count: int, behaviour: Behaviour) -> Behaviour:
    """Behave so after the first `count` requests."""
    left = [count]

    def behave(asked: Asked, reply: Reply) -> Reply:
        left[0] -= 1
        return reply if left[0] >= 0 else behaviour(asked, reply)

    return behave


# ── TLS ─────────────────────────────────────────────────────────────────────


def make_certificate(folder: Path, *domains: str, days: int = 1) -> tuple[Path, ssl.SSLContext]:
    """Return the file of an authority that nobody trusts by itself, and the TLS settings of a server it vouches for.

    domains: names of the server besides those of loopback. days: until it expires; it began two days earlier.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback of a test")])
    names: list[x509.GeneralName] = [x509.IPAddress(ip_address(HOST)), x509.DNSName("localhost")]
    names += [x509.DNSName(domain) for domain in domains]
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=2))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    authority, both = folder / "authority.pem", folder / "server.pem"
    pem = certificate.public_bytes(Encoding.PEM)
    authority.write_bytes(pem)
    both.write_bytes(pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return authority, context


def wait_for(check: Callable[[], bool], what: str, *, deadline_s: float = 30.0) -> None:
    """Wait until another thread has made `check` true."""
    end = time.monotonic() + deadline_s
    while not check():
        assert time.monotonic() < end, f"waited {deadline_s:.0f} s for {what}"
        time.sleep(0.005)
