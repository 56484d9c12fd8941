"""trio's sockets over the simulated network: what `trio.open_tcp_stream` and `trio.open_tcp_listeners` get.

Which host a socket is of is known by the task that makes it: `on_host` says so for a
task and all that it starts.
"""

from __future__ import annotations

import errno
import os
import socket as stdlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import trio

from .network import End, Host, Listener, Network

_host: ContextVar[Host] = ContextVar("simulated_host")


@contextmanager
def on_host(host: Host) -> Iterator[None]:
    """Let tasks that are started within be tasks of `host`."""
    token = _host.set(host)
    try:
        yield
    finally:
        _host.reset(token)


def current_host() -> Host | None:
    """Return the host whose task this is, None if it is of none."""
    return _host.get(None)


class Sockets(trio.abc.SocketFactory, trio.abc.HostnameResolver):
    """Makes sockets of a simulated network. There are no names of hosts, only addresses."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def socket(
        self,
        family: stdlib.AddressFamily | int = stdlib.AF_INET,
        type: stdlib.SocketKind | int = stdlib.SOCK_STREAM,
        proto: int = 0,
    ) -> trio.socket.SocketType:
        if family != stdlib.AF_INET:
            raise OSError(errno.EAFNOSUPPORT, "the simulated network has IPv4 only")
        if type != stdlib.SOCK_STREAM:
            raise OSError(errno.EPROTONOSUPPORT, "the simulated network has TCP only")
        host = current_host()
        if host is None:
            raise RuntimeError("this task is on no simulated host")
        return VirtualSocket(self._network, host)

    async def getaddrinfo(self, *_: Any) -> list[Any]:
        raise stdlib.gaierror(stdlib.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_: Any) -> tuple[str, str]:
        raise stdlib.gaierror(stdlib.EAI_NONAME, "Name or service not known")


class VirtualSocket(trio.socket.SocketType):
    """A socket of a simulated host: a listener, or one end of a connection."""

    def __init__(self, network: Network, host: Host, end: End | None = None) -> None:
        super().__init__()
        self._network = network
        self._host = host
        self._end = end
        self._listener: Listener | None = None
        self._port = end.port if end else 0
        self._is_closed = False
        self._is_shut = False

    # ── facts ───────────────────────────────────────────────────────────────

    @property
    def family(self) -> stdlib.AddressFamily:
        return stdlib.AF_INET

    @property
    def type(self) -> stdlib.SocketKind:
        return stdlib.SOCK_STREAM

    @property
    def proto(self) -> int:
        return stdlib.IPPROTO_TCP

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        return self._is_shut

    def fileno(self) -> int:
        return -1  # the kernel knows nothing of it

    def getsockname(self) -> tuple[str, int]:
        return self._host.address, self._port

    def getpeername(self) -> tuple[str, int]:
        other = self._connected().other
        return other.host.address, other.port

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> Any:
        if (level, optname) == (stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN):
            return int(self._listener is not None)
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None) -> None:
        # Options tune what is not simulated.
        return

    # ── connections ─────────────────────────────────────────────────────────

    async def bind(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()
        host, port = address[:2]
        if host != self._host.address:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        if port in self._host.listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._port = port or next(free for free in range(1024, 32768) if free not in self._host.listeners)

    def listen(self, backlog: int = 128) -> None:
        self._listener = self._host.listeners[self._port] = Listener(self._host, self._port)

    async def accept(self) -> tuple[trio.socket.SocketType, Any]:
        assert self._listener is not None
        await trio.lowlevel.checkpoint()
        while not self._listener.waiting:
            if self._listener.is_closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            await self._listener.changed.park()
        accepted = VirtualSocket(self._network, self._host, self._listener.waiting.popleft())
        return accepted, accepted._connected().other.host.address

    async def connect(self, address: Any) -> None:
        end = await self._network.connect(self._host, address[0], address[1])
        if self._is_closed:
            end.close()
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._end, self._port = end, end.port

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        await trio.lowlevel.checkpoint()
        end = self._connected()
        while not end.unread:
            if end.error is not None:
                raise end.error
            if end.is_ended:
                return b""
            await end.readable.park()
            self._check_open()
        return end.read(buflen, keep=bool(flags & stdlib.MSG_PEEK))

    async def send(self, data: Any, flags: int = 0, /) -> int:
        await trio.lowlevel.checkpoint()
        await self.wait_writable()
        end = self._connected()
        if self._is_shut:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        piece = bytes(data[: end.room])
        end.send(piece)
        return len(piece)

    async def wait_writable(self) -> None:
        end = self._connected()
        while not end.room and end.error is None:
            await end.writable.park()
            self._check_open()
        if end.error is not None:
            raise end.error

    def shutdown(self, flag: int) -> None:
        if flag in (stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            self._is_shut = True
            self._connected().shut()

    def close(self) -> None:
        self._is_closed = True
        if self._listener is not None:
            self._listener.close()
        if self._end is not None:
            self._end.close()

    def _connected(self) -> End:
        self._check_open()
        if self._end is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._end

    def _check_open(self) -> None:
        if self._is_closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
