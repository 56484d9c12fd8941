"""Ask one peer for what it knows: the control plane, over HTTP (spec/peer-protocol.md).

Whatever goes wrong becomes a PeerError here, with the peer's name: PeerUnreachable
if it may work later, PeerViolation if the peer broke the protocol.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import trio

from p2phub.core.encoding import decode, encode
from p2phub.core.errors import (
    HashMismatch,
    InvalidData,
    OtherVersion,
    PeerBusy,
    PeerError,
    PeerUnreachable,
    PeerViolation,
    UnknownForm,
)
from p2phub.core.federation import State
from p2phub.core.forks import PROOF_SIZE_MAX, ForkProof
from p2phub.core.fresh import SignedFresh
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId, NodeId
from p2phub.core.manifest import MANIFEST_SIZE_MAX, manifest_id
from p2phub.core.names import format_endpoint
from p2phub.protocol.federation import Join
from p2phub.protocol.messages import (
    ANSWER_SIZE_MAX,
    HAVE_ROOTS_MAX,
    SESSION_FIELD,
    SESSION_OVER,
    SIGN_AFTER_FIELD,
    BucketsQuery,
    ByteRange,
    Consistency,
    ConsistencyQuery,
    FreshQuery,
    Have,
    HaveQuery,
    Heads,
    Hello,
    Identities,
    IdentitiesQuery,
    IdentityChain,
    Inventory,
    LogHead,
    LogRange,
    NodeRecords,
    Nodes,
    PageRef,
    ReceiptsAnswer,
    ReceiptsQuery,
    Reconciled,
    ReconcileQuery,
    Records,
    RecordsQuery,
    SessionAnswer,
    SessionQuery,
    SpansQuery,
    Statements,
    Ticket,
    Tickets,
    TicketsQuery,
    Trees,
    TreesQuery,
    UpstreamFiles,
    UpstreamQuery,
)
from p2phub.protocol.privatetalk import PrivateHeads, PrivateHeadsQuery, PrivateNews, PrivateTaken
from p2phub.protocol.talk import Reply
from p2phub.protocol.witnessing import COSIGNATURES_SIZE_MAX

from .connection import one_line
from .http import Answer, AnswerTooLarge, HttpClient, NoAnswer
from .signer import Signer
from .tls import WrongPeer, client_context

ANSWER_TIMEOUT_S = 90.0  # for all of it: ANSWER_SIZE_MAX at 64 KiB/s, and a little
CBOR = "application/cbor"

T = TypeVar("T")


class PeerClient:
    """One peer at one endpoint. It connects when it is asked; `close` closes what is kept."""

    def __init__(
        self, node: NodeId, host: str, port: int, *, plain: bool = False, signer: Signer | None = None
    ) -> None:
        """plain: without TLS, for closed clusters. signer: signs requests once a session is begun."""
        self.node = node
        self.host = host
        self.port = port
        self._signer = signer
        self._http = HttpClient(host, port, None if plain else client_context(node))

    def close(self) -> None:
        """Close the connections that no question uses."""
        self._http.close()

    @property
    def signer(self) -> Signer:
        """What signs requests to the peer."""
        assert self._signer is not None, "this client was made to ask without a name"
        return self._signer

    async def begin_session(self, query: SessionQuery) -> SessionAnswer:
        """Say who we are and for whom we act; from then on requests are signed. Returns what the peer believes."""
        signer = self.signer
        # Not by an id of before: the peer may know it no more.
        signer.told, signer.session = query, None
        try:
            answer = await self._ask("session", query, SessionAnswer)
        except BaseException:
            # What is signed now would be refused, where what is for everybody is given without a name.
            signer.told = None
            raise
        signer.session = answer.id
        return answer

    async def show_receipts(self, query: ReceiptsQuery) -> ReceiptsAnswer | None:
        """Show what was accepted; returns what the peer says to each, None if it knows of no gates."""
        data = await self._exchange("POST", "receipts", content=encode(query), size_max=ANSWER_SIZE_MAX)
        if data is None:
            return None
        answer = self._decode(data, ReceiptsAnswer)
        if len(answer.states) != len(query.receipts):
            raise self._violation(f"answered about {len(answer.states)} receipts instead of {len(query.receipts)}")
        return answer

    async def hello(self, record: bytes) -> tuple[bytes, ...]:
        """Introduce ourselves; returns the signed node records that the peer knows, its own first."""
        return (await self._ask("hello", Hello(record), Nodes)).records

    async def reconcile(self, query: ReconcileQuery) -> Reconciled:
        """Return what the peer has under prefixes of the maps asked about."""
        answer = await self._ask("reconcile", query, Reconciled)
        for asked, told in ((query.logs, answer.logs), (query.nodes, answer.nodes)):
            expected = len(asked.prefixes) if asked and told and told.root != asked.root else 0
            if (asked is None) != (told is None) or (told and len(told.children) != expected):
                error = InvalidData("it is about other maps or prefixes than it was asked about")
                raise self._violation("sent an answer that breaks the protocol") from error
        return answer

    async def heads(self, query: BucketsQuery) -> Heads:
        """Return heads in the buckets asked for; unchecked."""
        return await self._ask("heads", query, Heads)

    async def node_records(self, query: BucketsQuery) -> NodeRecords:
        """Return node records in the buckets asked for; unchecked."""
        return await self._ask("nodes", query, NodeRecords)

    async def talk(self, message: bytes) -> Reply:
        """Say what a signed message says; returns the answer, unchecked."""
        answer = await self._exchange("POST", "talk", content=message, size_max=ANSWER_SIZE_MAX)
        if answer is None:
            raise PeerError(f"{self} does not talk", peer=str(self.node))
        return self._decode(answer, Reply)

    async def join_federation(self, request: Join) -> State:
        """Join a federation by an invitation of the peer; returns what it knows of it, unchecked.

        Raises PeerError with the reason if the peer refuses.
        """
        return await self._ask("federation/join", request, State)

    async def head(self, log: LogId) -> LogHead | None:
        """Return the head that the peer has of `log`, unchecked; None if it has none."""
        answer = await self._exchange("GET", f"head/{log}", content=None, size_max=ANSWER_SIZE_MAX)
        return self._decode(answer, LogHead) if answer is not None else None

    async def inventory(self, after: ManifestId | None) -> Inventory:
        """Return what the peer has, of what sorts after `after`."""
        query = f"?after={after.hex()}" if after else ""
        return self._decode(await self._get(f"inventory{query}"), Inventory)

    async def identities(self, namespaces: Sequence[NamespaceId]) -> tuple[IdentityChain | None, ...]:
        """Return the identity documents of the first of `namespaces`, as many as fit; unchecked."""
        chains = (await self._ask("identities", IdentitiesQuery(tuple(namespaces)), Identities)).chains
        if not 1 <= len(chains) <= len(namespaces):
            raise self._violation(f"answered {len(chains)} identities instead of 1 to {len(namespaces)}")
        return chains

    async def fresh(self, namespaces: Sequence[NamespaceId]) -> tuple[SignedFresh | None, ...]:
        """Return what the first of the publishers `namespaces` stated last, as many as fit; unchecked."""
        found = (await self._ask("fresh", FreshQuery(tuple(namespaces)), Statements)).statements
        if not 1 <= len(found) <= len(namespaces):
            raise self._violation(f"answered {len(found)} statements instead of 1 to {len(namespaces)}")
        return found

    async def add_checkpoint(self, body: bytes) -> Answer:
        """Return what the witness of the peer says of a head; unchecked."""
        return await self._answer("POST", "witness/add-checkpoint", body, "text/plain", size_max=COSIGNATURES_SIZE_MAX)

    async def records(self, ranges: Sequence[LogRange]) -> tuple[tuple[bytes, ...], ...]:
        """Return the entries of the first of `ranges`, as many as fit; unchecked."""
        return await self._records("records", ranges)

    async def _records(self, what: str, ranges: Sequence[LogRange]) -> tuple[tuple[bytes, ...], ...]:
        entries = (await self._ask(what, RecordsQuery(tuple(ranges)), Records)).entries
        if not 1 <= len(entries) <= len(ranges):
            raise self._violation(f"answered for {len(entries)} logs instead of 1 to {len(ranges)}")
        if any(len(some) > asked.count for some, asked in zip(entries, ranges, strict=False)):
            raise self._violation("sent more records than it was asked for")
        return entries

    async def fork(self, log: LogId) -> ForkProof:
        """Return what proves that `log` forked; unchecked."""
        return self._decode(await self._get(f"fork/{log}", size_max=PROOF_SIZE_MAX), ForkProof)  # type: ignore[arg-type]

    async def private_heads(self, query: PrivateHeadsQuery) -> PrivateHeads | None:
        """Return the private logs that we may read, unchecked; None if the peer does not know what that is."""
        answer = await self._exchange("POST", "private/heads", content=encode(query), size_max=ANSWER_SIZE_MAX)
        return self._decode(answer, PrivateHeads) if answer is not None else None

    async def private_records(self, ranges: Sequence[LogRange]) -> tuple[tuple[bytes, ...], ...]:
        """Do what `records` does, for private logs that we may read."""
        return await self._records("private/records", ranges)

    async def private_news(self, news: PrivateNews) -> PrivateTaken | None:
        """Tell of a private log; returns what became of it, None if the peer does not know what that is."""
        answer = await self._exchange("POST", "private/news", content=encode(news), size_max=ANSWER_SIZE_MAX)
        return self._decode(answer, PrivateTaken) if answer is not None else None

    async def consistency(self, log: LogId, old: int, new: int) -> Consistency | None:
        """Return the root that `log` had at `old` records and what proves it; None if the peer has no such proof."""
        query = encode(ConsistencyQuery(log, old, new))
        data = await self._exchange("POST", "consistency", content=query, size_max=ANSWER_SIZE_MAX)
        return self._decode(data, Consistency) if data is not None else None

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

    async def upstream_files(self, files: Sequence[bytes], wanting: NodeId | None) -> UpstreamFiles:
        """Return what the peer has of files that another hub lists by these hashes; the roots are its word alone.

        wanting: ourselves, if we will fetch them there unless the peer does.
        """
        answer = await self._ask("upstream", UpstreamQuery(tuple(files), wanting), UpstreamFiles)
        if len(answer.roots) != len(files) or len(answer.states) != len(files):
            raise self._violation(f"answered for {len(answer.roots)} files instead of {len(files)}")
        return answer

    async def trees(self, pages: Sequence[PageRef]) -> Trees:
        """Return the first of the asked pages of chunk lists, as many as fit; unchecked."""
        answer = await self._ask("trees", TreesQuery(tuple(pages)), Trees)
        if not 1 <= len(answer.pages) <= len(pages):
            raise self._violation(f"answered {len(answer.pages)} pages instead of 1 to {len(pages)}")
        return answer

    async def span(self, root: ContentId, offset: int, length: int) -> bytes | None:
        """Return some bytes of a file, unchecked; None if the peer does not have them. For a look, not for a download.

        length: at most what an answer may have.
        """
        query = encode(SpansQuery((ByteRange(root, offset, length),), background=True))
        return await self._exchange("POST", "spans", content=query, size_max=length)

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
        answer = await self._answer(method, what, content, CBOR, size_max=size_max)
        if answer.status == 401 and self._signer and self._signer.sign_after(answer.header(SIGN_AFTER_FIELD)):
            # The peer was started just now, and cannot know any more what it was asked before.
            answer = await self._answer(method, what, content, CBOR, size_max=size_max)
        is_over = answer.status == 401 and answer.header(SESSION_FIELD) == SESSION_OVER.encode()
        if is_over and self._signer and self._signer.told and self._signer.session:
            # The peer began anew, or forgot us for others.
            await self.begin_session(self._signer.told)
            answer = await self._answer(method, what, content, CBOR, size_max=size_max)
        status, body = answer.status, answer.body
        if status == 404:
            return None
        if status == 429:
            retry_after = answer.headers.get(b"retry-after", b"")
            wait = float(retry_after) if retry_after.isdigit() else 1.0
            raise PeerBusy(f"{self} is busy", peer=str(self.node), retry_after_s=min(wait, 60.0))
        if status not in (200, 204):
            text = body[:200].decode("utf-8", "replace")
            # Each says what it refuses; that the cause is a clock, only both together know.
            clocks = f"; {self._signer.difference}" if self._signer and self._signer.is_apart else ""
            raise PeerError(f"{self} answered {status}: {one_line(text)}{clocks}", peer=str(self.node))
        return body

    async def _answer(
        self, method: str, what: str, content: bytes | None, content_type: str, *, size_max: int
    ) -> Answer:
        """Return the answer, whatever its status."""
        headers = {"accept-encoding": "identity", "user-agent": "p2phub"}
        if content is not None:
            headers["content-type"] = content_type
        sign = {"sign": self._signer.fields} if self._signer else {}
        try:
            # Each byte restarts the timeout for the next one, so that a trickle would never end.
            with trio.fail_after(ANSWER_TIMEOUT_S):
                asked = self._signer.time() if self._signer else 0.0
                answer = await self._http.ask(method, f"/v1/{what}", headers, content or b"", size_max=size_max, **sign)
        except trio.TooSlowError as exc:
            raise PeerUnreachable(f"{self} is too slow", peer=str(self.node)) from exc
        except AnswerTooLarge as exc:
            raise self._violation(f"sent more than {size_max} bytes") from exc
        except WrongPeer as exc:
            raise PeerUnreachable(f"{self}: {exc}", peer=str(self.node)) from exc
        except NoAnswer as exc:
            raise PeerUnreachable(f"cannot reach {self}: {exc}", peer=str(self.node)) from exc
        if self._signer and (date := answer.header("date")):
            self._signer.see_clock(date, asked)
        return answer

    def _decode(self, data: bytes | None, type_: type[T]) -> T:
        assert data is not None
        try:
            return decode(data, type_, size_max=ANSWER_SIZE_MAX)
        except UnknownForm as exc:
            raise OtherVersion(
                f"{self} answers in a way that this version does not know: {exc}", peer=str(self.node)
            ) from exc
        except InvalidData as exc:
            raise self._violation("sent an answer that breaks the protocol") from exc

    def _violation(self, text: str) -> PeerViolation:
        return PeerViolation(f"{self} {text}", peer=str(self.node))

    def __str__(self) -> str:
        return f"node {str(self.node)[:12]}… at {format_endpoint(self.host, self.port)}"


@asynccontextmanager
async def open_peer(node: NodeId, host: str, port: int, *, plain: bool = False) -> AsyncIterator[PeerClient]:
    """Give a client that is closed at the end."""
    client = PeerClient(node, host, port, plain=plain)
    try:
        yield client
    finally:
        client.close()
