"""What carries the answers of the peer door: TCP as it is, TLS, or a simulated stream (spec/transport.md §3).

Control answers are small and go through trio. Content does not: a worker thread sends
it. Over TLS it reads a file into one buffer and writes that to the socket, over plain
TCP the kernel sends the file itself. So serving costs memory for one buffer a running answer.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import trio
from msgspec import Struct

from .buffers import Buffers
from .pacing import Pacer
from .sending import Sender, Sending

SEND_TIMEOUT_S = 60.0  # a receiver that takes nothing for so long is gone

_buffers = Buffers(1024 * 1024)  # for what is read at once of a file for TLS
_SENDFILE_SIZE = 8 * 1024 * 1024  # bytes in one call of sendfile
_STREAM_SIZE = 256 * 1024  # bytes read at once for a stream


class FilePart(Struct, frozen=True):
    """`length` bytes from `offset` on of an open file, or of one that is opened when its turn comes."""

    file: int | Callable[[], int]  # or what opens it
    offset: int
    length: int

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Give the descriptor of the file. Raises OSError."""
        if isinstance(self.file, int):
            yield self.file
            return
        file = self.file()
        try:
            yield file
        finally:
            os.close(file)


class Channel:
    """A connection to one peer."""

    raw: socket.socket | None  # what it runs on; None: no socket of the kernel

    async def handshake(self) -> None:
        """Make it ready for use."""

    async def receive(self) -> bytes:
        """Return some bytes, none at the end."""
        raise NotImplementedError

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        raise NotImplementedError

    async def send_files(self, parts: Sequence[FilePart], sending: Sending) -> None:
        """Send parts of files, one after the other."""
        raise NotImplementedError

    async def linger(self) -> None:
        """Say that nothing more comes, and take what the peer still sends, up to its end.

        Closing a connection with bytes unread resets it, and the peer may never see our answer.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close it at once."""
        raise NotImplementedError


class _OnStream(Channel):
    """What goes over a stream of Trio, but for files."""

    _stream: trio.abc.Stream

    async def receive(self) -> bytes:
        return bytes(await self._stream.receive_some(64 * 1024))

    async def send(self, data: bytes) -> None:
        with trio.fail_after(SEND_TIMEOUT_S):
            await self._stream.send_all(data)


class PlainChannel(_OnStream):
    """TCP as it is; files are sent by the kernel."""

    _stream: trio.SocketStream

    def __init__(self, stream: trio.SocketStream) -> None:
        raw = socket.socket(fileno=stream.socket.detach())
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(raw))
        self._socket = raw
        self._sender = Sender(raw)
        self.raw = raw

    async def send_files(self, parts: Sequence[FilePart], sending: Sending) -> None:
        await self._sender.send(sending, lambda pacer: self._send_files(parts, pacer))

    def _send_files(self, parts: Sequence[FilePart], pacer: Pacer) -> None:
        self._socket.settimeout(None)
        # In one call the kernel waits for the peer many times; Python's timeouts make it return each time.
        seconds, rest = divmod(SEND_TIMEOUT_S, 1)
        timeout = struct.pack("@ll", int(seconds), int(rest * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        try:
            for part in parts:
                with part.opened() as file:
                    for begin, end in pacer.pieces(part.length):
                        self._send_file(file, part.offset + begin, part.offset + end)
        finally:
            self._socket.setblocking(False)

    def _send_file(self, file: int, offset: int, end: int) -> None:
        while offset < end:
            count = os.sendfile(self._socket.fileno(), file, offset, min(_SENDFILE_SIZE, end - offset))
            if count == 0:
                raise BrokenPipeError("a file became shorter while it was sent")
            offset += count

    async def linger(self) -> None:
        self._stream.socket.shutdown(socket.SHUT_WR)
        while await self._stream.receive_some(64 * 1024):
            pass

    def close(self) -> None:
        self._stream.socket.close()


class TlsChannel(Channel):
    """TLS on the socket itself, so that a worker thread can send bulk without passing trio."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        raw = socket.socket(fileno=stream.socket.detach())
        raw.setblocking(False)
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        except BaseException:
            raw.close()
            raise
        self.raw = self._socket
        self._sender = Sender(self._socket)

    async def handshake(self) -> None:
        await self._retry(self._socket.do_handshake)

    async def receive(self) -> bytes:
        try:
            return bytes(await self._retry(lambda: self._socket.recv(64 * 1024)))
        except ssl.SSLEOFError:
            return b""

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        with trio.fail_after(SEND_TIMEOUT_S):
            while view:
                view = view[await self._retry(partial(self._socket.send, view)) :]

    async def send_files(self, parts: Sequence[FilePart], sending: Sending) -> None:
        await self._sender.send(sending, lambda pacer: self._send_files(parts, pacer))

    def _send_files(self, parts: Sequence[FilePart], pacer: Pacer) -> None:
        self._socket.settimeout(SEND_TIMEOUT_S)
        try:
            with _buffers.lend() as buffer:
                for part in parts:
                    with part.opened() as file:
                        self._send_part(file, part.offset, part.offset + part.length, buffer, pacer)
        finally:
            self._socket.setblocking(False)

    def _send_part(self, file: int, offset: int, end: int, buffer: memoryview, pacer: Pacer) -> None:
        while offset < end:
            count = os.preadv(file, [buffer[: end - offset]], offset)
            if count == 0:
                raise BrokenPipeError("a file became shorter while it was sent")
            for begin, stop in pacer.pieces(count):
                self._socket.sendall(buffer[begin:stop])
            offset += count

    async def linger(self) -> None:
        # Past TLS: what comes is thrown away unread.
        socket.socket.shutdown(self._socket, socket.SHUT_WR)
        while True:
            try:
                if not socket.socket.recv(self._socket, 64 * 1024):
                    return
                await trio.lowlevel.checkpoint()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)

    def close(self) -> None:
        # A clean end (FIN), never a reset: what was sent must still arrive.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
        self._socket.close()

    async def _retry(self, operation: Callable[[], Any]) -> Any:
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._socket)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._socket)
            else:
                await trio.lowlevel.checkpoint()
                return result


class StreamChannel(_OnStream):
    """A connection without a socket of the kernel behind it, as the simulator has them."""

    raw = None

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext | None) -> None:
        self._tcp = stream
        self._secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True) if context else None
        self._stream = self._secure or stream

    async def handshake(self) -> None:
        if self._secure:
            await self._secure.do_handshake()

    async def send_files(self, parts: Sequence[FilePart], sending: Sending) -> None:
        for part in parts:
            with part.opened() as file:
                for offset in range(part.offset, part.offset + part.length, _STREAM_SIZE):
                    size = min(_STREAM_SIZE, part.offset + part.length - offset)
                    data = os.pread(file, size, offset)
                    if len(data) < size:
                        raise BrokenPipeError("a file became shorter while it was sent")
                    await self.send(data)

    async def linger(self) -> None:
        await self._tcp.send_eof()
        while await self._tcp.receive_some(64 * 1024):
            pass

    def close(self) -> None:
        self._tcp.socket.close()


def open_channel(stream: trio.SocketStream, tls: ssl.SSLContext | None) -> Channel:
    if stream.socket.fileno() < 0:
        return StreamChannel(stream, tls)
    return TlsChannel(stream, tls) if tls is not None else PlainChannel(stream)


def joined(parts: Sequence[FilePart]) -> list[FilePart]:
    """Return the same bytes in as few parts as can be: chunks that follow each other are asked for one by one."""
    joined: list[FilePart] = []
    for part in parts:
        last = joined[-1] if joined else None
        if last and last.file == part.file and last.offset + last.length == part.offset:
            joined[-1] = FilePart(last.file, last.offset, last.length + part.length)
        else:
            joined.append(part)
    return joined
