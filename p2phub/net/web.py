"""Ask servers of the public web, with a limit to every wait and to where they may lead us (spec/origins.md §3).

    Hop ──proxy?──▶ addresses, checked ──▶ connection ──GET──▶ answer ──redirect?──▶ next Hop

httpcore speaks HTTP and goes through proxies. The network under it is ours: each wait
ends at the deadline and with `abort`, and what a stranger wrote leads to public addresses alone.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urljoin

import httpcore

from p2phub.core.errors import InvalidName
from p2phub.core.origins import Url, parse_url

from .addresses import is_public, resolve
from .bulk import CONNECT_TIMEOUT_S, STALL_TIMEOUT_S
from .connection import one_line

REDIRECTS_MAX = 5  # spec/origins.md §3
LOCATION_SIZE_MAX = 8192  # bytes; presigned URLs are long
PAGE_SIZE_MAX = 16 * 1024  # bytes of an error page that are read so that the connection can be used again
KEEP_S = 60.0  # seconds that an idle connection is kept
CONNECTIONS_MAX = 4  # kept: an origin and where it redirects

_REDIRECTS = (301, 302, 303, 307, 308)
# What `quote` leaves alone in a Location, which may hold bytes that no URL has.
_URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"


class LedAstray(Exception):
    """A server leads where nobody should follow; the text says what it does."""


@dataclass(frozen=True)
class Hop:
    """A URL to ask, and under which conditions."""

    url: Url
    public_only: bool  # a stranger chose it: no private network is entered for it
    first: Url  # where it began; a secret in it is told to that server alone
    token: str | None = field(default=None, repr=False)  # a bearer's, for the server where it began alone

    @classmethod
    def begin(cls, url: Url, *, is_given: bool, token: str | None = None) -> Hop:
        """Return the first hop to `url`. is_given: the owner of this node wrote it."""
        return cls(url, not is_given, url, token)


class Web:
    """Sends one request at a time. One thread at a time; `abort` may be called from any.

    `deadline` (of `time.monotonic`) ends every wait; whoever asks moves it.
    """

    def __init__(self, places: Mapping[str, tuple[str, int]] | None = None) -> None:
        """places: by name of a host, where the owner of this node says that it answers: at any address."""
        self.deadline = 0.0
        self.places = places or {}
        self._pools: dict[tuple[str | None, bool], httpcore.ConnectionPool] = {}
        self._way = ""  # through which proxy the last request went
        self._lock = threading.Lock()  # for what `abort` touches
        self._aborted = False
        self._sockets: set[socket.socket] = set()
        self._resolving: threading.Event | None = None

    def get(self, hop: Hop, byte_range: tuple[int, int] | None) -> tuple[httpcore.Response, Hop]:
        """Ask for a file, or for a range of bytes (first and last), and follow redirects; returns the last hop too.

        The caller ends the answer with `end`. Raises LedAstray, and what `reason` explains.
        """
        for _ in range(REDIRECTS_MAX + 1):
            response = self._send(hop, byte_range)
            if response.status not in _REDIRECTS:
                return response, hop
            try:
                hop = _follow(hop, response)
            finally:
                self.end(response)
        raise LedAstray(f"redirects more than {REDIRECTS_MAX} times")

    def get_here(self, hop: Hop) -> httpcore.Response:
        """Ask for a file, and follow no redirect. As `get` otherwise."""
        return self._send(hop, None)

    def end(self, response: httpcore.Response) -> None:
        """Close an answer; the rest of a short one is read, so that its connection can be used again."""
        length = header(response, "content-length")
        try:
            if response.status not in (200, 206) and length.isdigit() and int(length) <= PAGE_SIZE_MAX:
                for _ in response.iter_stream():
                    pass
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
            pass  # what it meant is known without it
        finally:
            response.close()

    def abort(self) -> None:
        """Make a running request end now, and every later one."""
        with self._lock:
            self._aborted = True
            if self._resolving is not None:
                self._resolving.set()
            for handle in self._sockets:
                with contextlib.suppress(OSError):
                    handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def reason(self, exc: BaseException, who: str, *, is_answered: bool) -> str | None:
        """Return what happened on the way to `who`, None if `exc` is nothing of the network.

        is_answered: the answer had begun.
        """
        match exc:
            case httpcore.TimeoutException() | TimeoutError():
                return f"{who} is too slow"
            case httpcore.ProxyError():
                return f"cannot reach {who}{self._way}, which says {one_line(str(exc))[:100]}"
            case httpcore.ProtocolError() if is_answered:
                return f"{who} ended its answer too early"
            case httpcore.ProtocolError():
                return f"{who} sends no HTTP answer"
            case httpcore.NetworkError() | OSError() if is_answered:
                return f"{who} is gone: {_system_text(exc)}"
            case httpcore.NetworkError() | OSError():
                return f"cannot reach {who}{self._way}: {_system_text(exc)}"
            case _:
                return None

    # ── requests ────────────────────────────────────────────────────────────

    def _send(self, hop: Hop, byte_range: tuple[int, int] | None) -> httpcore.Response:
        url = hop.url
        proxy = _proxy_for(url) if url.host not in self.places else None
        self._way = f" through the proxy {proxy.url.host.decode()}" if proxy else ""
        if proxy is not None and hop.public_only:
            self._check_proxied(url)
        headers = [
            ("host", url.endpoint),
            ("user-agent", "p2phub"),
            ("accept", "*/*"),
            ("accept-encoding", "identity"),
        ]
        if byte_range is not None:
            headers.append(("range", f"bytes={byte_range[0]}-{byte_range[1]}"))
        if hop.first.user is not None and url.is_same_server(hop.first):
            headers.append(("authorization", f"Basic {base64.b64encode(b':'.join(_user(hop.first))).decode()}"))
        if hop.token is not None and url.is_same_server(hop.first):
            headers.append(("authorization", f"Bearer {hop.token}"))
        request = httpcore.Request("GET", _http_url(url), headers=headers)
        return self._pool(proxy, hop.public_only).handle_request(request)

    def _check_proxied(self, url: Url) -> None:
        """Refuse what a proxy would find where we must not go ourselves.

        The proxy resolves names by itself: only a certificate for the name binds it to the right host.
        """
        if url.scheme != "https":
            raise LedAstray("is to be asked over http through a proxy, which nobody here wished")
        _check_public(self.resolve(url.host, url.port))

    def _pool(self, proxy: httpcore.Proxy | None, public_only: bool) -> httpcore.ConnectionPool:
        # Apart by what was checked, so that no kept connection leads around a check.
        key = (repr(proxy.url) if proxy else None, public_only)
        if key not in self._pools:
            self._pools[key] = httpcore.ConnectionPool(
                ssl_context=_tls(),
                proxy=proxy,
                max_connections=CONNECTIONS_MAX,
                keepalive_expiry=KEEP_S,
                network_backend=_Network(self, public_only=public_only and not proxy, to_proxy=proxy is not None),
            )
        return self._pools[key]

    # ── waits ───────────────────────────────────────────────────────────────

    def left_s(self, most_s: float = STALL_TIMEOUT_S) -> float:
        """Return the seconds that a wait may take now. Raises TimeoutError past the deadline, OSError after `abort`."""
        if self._aborted:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the request was given up")
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the request has passed")
        return min(left, most_s)

    def resolve(self, host: str, port: int) -> list[str]:
        """Return the IP addresses of `host`. Raises OSError."""
        return resolve(host, port, self._wait)

    def _wait(self, done: threading.Event) -> None:
        wait_s = self.left_s(CONNECT_TIMEOUT_S)
        with self._lock:
            self._resolving = done
        in_time = done.wait(wait_s)
        with self._lock:
            self._resolving = None
        self.left_s()
        if not in_time:
            raise TimeoutError("the name of the host takes too long to resolve")

    def opened(self, handle: socket.socket) -> None:
        """Let `abort` end what waits for the socket of which this is a copy."""
        with self._lock:
            self._sockets.add(handle)

    def closed(self, handle: socket.socket) -> None:
        """Forget a socket."""
        with self._lock:
            self._sockets.discard(handle)
            handle.close()


def header(response: httpcore.Response, name: str) -> str:
    """Return a header of an answer, empty if it is missing."""
    for key, value in response.headers:
        if key.lower() == name.encode():
            return value.decode("latin-1").strip()
    return ""


# ── the network under httpcore ──────────────────────────────────────────────


class _Network(httpcore.NetworkBackend):
    """Connects for one Web."""

    def __init__(self, web: Web, *, public_only: bool, to_proxy: bool) -> None:
        self._web = web
        self._public_only = public_only
        self._to_proxy = to_proxy
        self._system = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        place = self._web.places.get(host)
        host, port = place or (host, port)
        addresses = self._web.resolve(host, port)
        if self._public_only and place is None:
            _check_public(addresses)
        # By address: the name could lead elsewhere when it is resolved once more.
        for address in addresses:
            try:
                inner = self._system.connect_tcp(address, port, self._web.left_s(CONNECT_TIMEOUT_S))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if address == addresses[-1]:
                    raise
                continue
            return _Stream(inner, self._web, None if self._to_proxy else address)
        raise AssertionError("a name has an address")


class _Stream(httpcore.NetworkStream):
    """A connection on which every wait ends at the deadline and with `abort`."""

    def __init__(
        self, inner: httpcore.NetworkStream, web: Web, address: str | None, handle: socket.socket | None = None
    ) -> None:
        """address: IP address of the server, None if a proxy knows it."""
        self._inner = inner
        self._web = web
        self.address = address
        # A copy, because TLS takes the socket itself away from who made it.
        self._handle: socket.socket = handle or inner.get_extra_info("socket").dup()
        web.opened(self._handle)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._web.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._web.left_s())

    def close(self) -> None:
        self._inner.close()
        self._web.closed(self._handle)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            inner = self._inner.start_tls(ssl_context, server_hostname, self._web.left_s(CONNECT_TIMEOUT_S))
        except BaseException:
            self.close()
            raise
        return _Stream(inner, self._web, self.address, self._handle)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _follow(hop: Hop, response: httpcore.Response) -> Hop:
    """Return where a redirect leads. Raises LedAstray if nobody should go there."""
    location = header(response, "location")
    if not 0 < len(location) <= LOCATION_SIZE_MAX:
        raise LedAstray("redirects to nowhere")
    try:
        joined = urljoin(str(hop.url), quote(location.encode("latin-1"), safe=_URL_CHARACTERS))
        url = parse_url(joined.partition("#")[0])
    except (InvalidName, ValueError) as exc:
        raise LedAstray("redirects to what is no http(s) URL") from exc
    if hop.url.scheme == "https" and url.scheme == "http":
        raise LedAstray("redirects from https to http")
    stream = response.extensions["network_stream"]
    # Whoever is out there must not choose what we ask in here.
    from_private = isinstance(stream, _Stream) and stream.address is not None and not is_public(stream.address)
    return replace(hop, url=url, public_only=hop.public_only or not from_private)


def _check_public(addresses: Iterable[str]) -> None:
    # All of them, or a name with two addresses would lead to either.
    if not all(is_public(address) for address in addresses):
        raise LedAstray("leads to an address that is not public")


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return the TLS settings for the public web: the authorities that this system trusts."""
    return ssl.create_default_context()


def _proxy_for(url: Url) -> httpcore.Proxy | None:
    """Return the proxy that the environment names for `url`. Raises OSError if it is no HTTP proxy."""
    proxies = urllib.request.getproxies()
    text = proxies.get(url.scheme) or proxies.get("all")
    if not text or urllib.request.proxy_bypass(f"{url.host}:{url.port}"):
        return None
    try:
        proxy = parse_url(text if "://" in text else f"http://{text}")
    except InvalidName as exc:
        raise OSError(errno.EINVAL, "the proxy that the environment names is none of http(s)") from exc
    auth = _user(proxy) if proxy.user is not None else None
    return httpcore.Proxy(_http_url(proxy), auth=auth, ssl_context=_tls() if proxy.scheme == "https" else None)


def _user(url: Url) -> tuple[bytes, bytes]:
    user, _, password = (url.user or "").partition(":")
    return unquote_to_bytes(user), unquote_to_bytes(password)


def _http_url(url: Url) -> httpcore.URL:
    return httpcore.URL(scheme=url.scheme.encode(), host=url.host.encode(), port=url.port, target=url.target.encode())


def _system_text(exc: BaseException) -> str:
    """Return what the system said at the bottom of an error."""
    inner: BaseException | None = exc
    text = ""
    while inner is not None:
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({inner.verify_message})"
        if isinstance(inner, ssl.SSLError):
            return "no TLS connection comes about"
        text = (inner.strerror if isinstance(inner, OSError) else None) or text or str(inner)
        inner = inner.__cause__ or inner.__context__
    return one_line(text)[:200] or "the connection broke"
