"""Ask one peer for what it knows: the control plane, over httpx (spec/peer-protocol.md).

Whatever goes wrong becomes a PeerError here, with the peer's name: PeerUnreachable
if it may work later, PeerViolation if the peer broke the protocol.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx
import msgspec
import trio

from p2phub.core.encoding import decode, encode
from p2phub.core.errors import HashMismatch, InvalidData, PeerBusy, PeerError, PeerUnreachable, PeerViolation
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId, NodeId
from p2phub.core.manifest import MANIFEST_SIZE_MAX, manifest_id
from p2phub.core.names import format_endpoint
from p2phub.protocol.messages import (
    ANSWER_SIZE_MAX,
    HAVE_ROOTS_MAX,
    Announcement,
    Have,
    HaveQuery,
    Heads,
    HeadsQuery,
    Hello,
    IdentityChain,
    LogPage,
    Nodes,
    PageRef,
    Ticket,
    Tickets,
    TicketsQuery,
    Trees,
    TreesQuery,
)

from .connection import one_line
from .tls import WrongPeer, client_context

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 15.0  # without a byte of the answer
ANSWER_TIMEOUT_S = 90.0  # for all of it: ANSWER_SIZE_MAX at 64 KiB/s, and a little
CBOR = "application/cbor"

T = TypeVar("T")


class PeerClient:
    """One peer at one endpoint. Make it with `open_peer`."""

    def __init__(self, node: NodeId, host: str, port: int, http: httpx.AsyncClient) -> None:
        self.node = node
        self.host = host
        self.port = port
        self._http = http

    async def hello(self, record: bytes) -> tuple[bytes, ...]:
        """Introduce ourselves; returns the signed node records that the peer knows, its own first."""
        return (await self._ask("hello", Hello(record), Nodes)).records

    async def heads(self, after: LogId | None) -> Heads:
        """Return the page of the peer's heads after `after`."""
        return await self._ask("heads", HeadsQuery(after), Heads)

    async def announce(self, announcement: Announcement) -> None:
        """Tell the peer of heads that changed here."""
        await self._post("announce", announcement)

    async def identity(self, namespace: NamespaceId) -> IdentityChain:
        """Return the identity documents of `namespace`; unchecked."""
        return self._decode(await self._get(f"identity/{namespace}"), IdentityChain)

    async def log_page(self, log: LogId, start: int) -> LogPage:
        """Return entries of `log` from index `start` on; unchecked."""
        return self._decode(await self._get(f"log/{log}?start={start}"), LogPage)

    async def manifest(self, manifest: ManifestId) -> bytes | None:
        """Return the bytes of a manifest, checked against its hash; None if the peer has it not."""
        data = await self._get(f"manifest/{manifest.hex()}", size_max=MANIFEST_SIZE_MAX, missing_is_error=False)
        if data is not None and manifest_id(data) != manifest:
            raise self._violation("sent another manifest") from HashMismatch("not the manifest asked for")
        return data

    async def have(self, roots: Sequence[ContentId], fetching: NodeId | None = None) -> Have:
        """Return what the peer has, and lately gave, of each file; `given` is empty or as long as `held`.

        fetching: ourselves, if we download these files and can give in turn.
        """
        held: list[bool | bytes] = []
        given: list[bool | bytes] = []
        is_fetching = False
        while len(held) < len(roots):
            asked = roots[len(held) : len(held) + HAVE_ROOTS_MAX]
            answer = await self._ask("have", HaveQuery(tuple(asked), fetching), Have)
            if not 1 <= len(answer.held) <= len(asked):
                raise self._violation(f"answered for {len(answer.held)} files instead of 1 to {len(asked)}")
            if answer.given and len(answer.given) != len(answer.held):
                raise self._violation("answered for another number of files what it gave than what it has")
            held += answer.held
            given += answer.given or (False,) * len(answer.held)
            is_fetching = is_fetching or answer.fetching
        return Have(tuple(held), tuple(given) if any(given) else (), is_fetching)

    async def trees(self, pages: Sequence[PageRef]) -> Trees:
        """Return the first of the asked pages of chunk lists, as many as fit; unchecked."""
        answer = await self._ask("trees", TreesQuery(tuple(pages)), Trees)
        if not 1 <= len(answer.pages) <= len(pages):
            raise self._violation(f"answered {len(answer.pages)} pages instead of 1 to {len(pages)}")
        return answer

    async def tickets(self, count: int) -> tuple[Ticket, ...] | None:
        """Return tickets for bulk connections; None if the peer has none to give, so that content goes over HTTPS."""
        data = await self._exchange("POST", "tickets", content=encode(TicketsQuery(count)), size_max=ANSWER_SIZE_MAX)
        return self._decode(data, Tickets).tickets if data is not None else None

    async def _ask(self, what: str, query: msgspec.Struct, type_: type[T]) -> T:
        return self._decode(await self._post(what, query), type_)

    async def _post(self, what: str, query: msgspec.Struct) -> bytes:
        content = encode(query)
        answer = await self._exchange("POST", what, content=content, size_max=ANSWER_SIZE_MAX)
        if answer is None:
            raise PeerError(f"{self} does not know what was asked", peer=str(self.node))
        return answer

    async def _get(self, what: str, *, size_max: int = ANSWER_SIZE_MAX, missing_is_error: bool = True) -> bytes | None:
        answer = await self._exchange("GET", what, content=None, size_max=size_max)
        if answer is None and missing_is_error:
            raise PeerError(f"{self} does not have what was asked", peer=str(self.node))
        return answer

    async def _exchange(self, method: str, what: str, *, content: bytes | None, size_max: int) -> bytes | None:
        """Return the body of the answer, None if the peer has it not."""
        headers = {"content-type": CBOR} if content is not None else {}
        try:
            # Each byte restarts the timeout of httpx, so that a trickle would never end.
            with trio.fail_after(ANSWER_TIMEOUT_S):
                async with self._http.stream(method, f"/v1/{what}", content=content, headers=headers) as response:
                    body = bytearray()
                    async for piece in response.aiter_raw():
                        body += piece
                        if len(body) > size_max:
                            raise self._violation(f"sent more than {size_max} bytes")
                    status, retry_after = response.status_code, response.headers.get("retry-after", "")
        except trio.TooSlowError as exc:
            raise PeerUnreachable(f"{self} is too slow", peer=str(self.node)) from exc
        except WrongPeer as exc:
            raise PeerUnreachable(f"{self}: {exc}", peer=str(self.node)) from exc
        except (httpx.HTTPError, OSError, ssl.SSLError) as exc:
            raise PeerUnreachable(f"cannot reach {self}: {_reason(exc)}", peer=str(self.node)) from exc
        if status == 404:
            return None
        if status == 429:
            wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 1.0
            raise PeerBusy(f"{self} is busy", peer=str(self.node), retry_after_s=min(wait, 60.0))
        if status not in (200, 204):
            text = bytes(body[:200]).decode("utf-8", "replace")
            raise PeerError(f"{self} answered {status}: {one_line(text)}", peer=str(self.node))
        return bytes(body)

    def _decode(self, data: bytes | None, type_: type[T]) -> T:
        assert data is not None
        try:
            return decode(data, type_, size_max=ANSWER_SIZE_MAX)
        except InvalidData as exc:
            raise self._violation("sent an answer that breaks the protocol") from exc

    def _violation(self, text: str) -> PeerViolation:
        return PeerViolation(f"{self} {text}", peer=str(self.node))

    def __str__(self) -> str:
        return f"node {str(self.node)[:12]}… at {format_endpoint(self.host, self.port)}"


@asynccontextmanager
async def open_peer(node: NodeId, host: str, port: int, *, plain: bool = False) -> AsyncIterator[PeerClient]:
    """Give a client for the peer `node` at `host:port`; it connects when it is first asked.

    plain: without TLS, for closed clusters.
    """
    scheme = "http" if plain else "https"
    http = httpx.AsyncClient(
        base_url=f"{scheme}://{format_endpoint(host, port)}",
        verify=client_context(node),
        timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        limits=httpx.Limits(max_connections=4),
        headers={"accept-encoding": "identity", "user-agent": "p2phub"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
    )
    async with http:
        yield PeerClient(node, host, port, http)


def _reason(exc: BaseException) -> str:
    """Return the innermost text of an error: httpx and trio wrap what really happened."""
    if isinstance(exc, httpx.TimeoutException):
        return "no answer in time"
    text = type(exc).__name__
    inner: BaseException | None = exc
    while inner is not None:
        if isinstance(inner, BaseExceptionGroup):  # one for each address of a host
            inner = inner.exceptions[-1]
        if isinstance(inner, ssl.SSLError) and not isinstance(inner, ssl.SSLEOFError | WrongPeer):
            return "what answers there is no p2phub node"
        said = inner.strerror if isinstance(inner, OSError) else None
        text = said or str(inner) or text
        inner = inner.__cause__ or inner.__context__
    return text
