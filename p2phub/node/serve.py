"""What the peer door answers (spec/peer-protocol.md): facts to whoever asks, content while slots are free.

Nothing a peer sends is believed here: heads and records go to `replicate`, which
verifies them, and everything sent out is checked by the receiver.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from email.utils import formatdate
from functools import partial
from types import MappingProxyType

import trio
from msgspec.structs import replace

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import AccessDenied, HubError, InvalidData, InvalidName
from p2phub.core.httpsig import SKEW_MAX_S
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId, NodeId
from p2phub.core.names import format_endpoint, parse_endpoint
from p2phub.core.noderecord import open_node_record
from p2phub.net.bulkdoor import TicketOffice, serve_bulk
from p2phub.net.door import FilePart, Handler, Request, Response, caller_of, serve_peers
from p2phub.net.receivers import RECEIVER_WINDOW_S
from p2phub.net.tls import server_context
from p2phub.protocol.lease import EXPENSIVE
from p2phub.protocol.membership import Contact
from p2phub.protocol.messages import (
    FRAME_SIZE_MAX,
    HAVE_ANSWER_SIZE,
    INVENTORY_PAGE,
    LARGE_QUERY_SIZE_MAX,
    NODES_MAX,
    SPAN_BYTES_MAX,
    TREE_ANSWER_SIZE,
    BucketsQuery,
    ByteRange,
    ConsistencyQuery,
    FreshQuery,
    Have,
    HaveQuery,
    Held,
    Hello,
    IdentitiesQuery,
    IdentityChain,
    Inventory,
    Nodes,
    ReceiptsQuery,
    ReconcileQuery,
    RecordsQuery,
    SessionQuery,
    SpansQuery,
    Tickets,
    TicketsQuery,
    Trees,
    TreesQuery,
    UpstreamQuery,
)
from p2phub.protocol.nonces import TooManyRequests
from p2phub.protocol.privatetalk import PrivateHeadsQuery, PrivateNews
from p2phub.protocol.talk import open_talk
from p2phub.store.partial import pack_bits
from p2phub.store.readables import Readable

from . import mates
from .authority import Unproven
from .disk import on_disk
from .federationtalk import answer_join
from .fresh import statements_of
from .gossip import hear
from .maps import (
    REFRESHED_MAX,
    compare,
    consistency_of,
    heads_in,
    identities_of,
    records_in,
    records_of,
    refresh_maps,
    refresh_maps_quietly,
    shown_head,
)
from .neighbours import cost_network, slot_network
from .node import Node
from .privatedoor import private_heads, private_records
from .privatenews import hear_private
from .receipts import take_receipts

log = logging.getLogger(__name__)

SLOT_WAIT_S = 1.0  # a request for content waits so long for a slot before it is sent away
LISTS_AT_ONCE = 64  # chunk lists of files in memory for one answer, of up to 64 KiB each
REACHED_S = 3600.0  # seconds that a peer is told to others after this node reached it; spec/peer-protocol.md §3
GREETED_S = 60.0  # seconds that it is told after it called: those who begin a download together find each other
GREETED_MAX = 1000  # of these, the latest: anybody can make up ids
RETRY_AFTER_S = 2  # seconds that a request sent away should wait
SUMMING_UP_S = 10  # seconds after which to ask again a node that has much to sum up; spec/replication.md §2
FILES_OPEN_MAX = 16  # that one answer keeps open; of more, each is opened when its turn comes


async def open_peer_door(
    node: Node, host: str, port: int, nursery: trio.Nursery, *, wrap: Callable[[Handler], Handler] = lambda door: door
) -> tuple[str, int]:
    """Let `node` serve peers at `host:port` (0: any free port) in `nursery`; returns what it is bound to.

    wrap: puts something between requests and their answers.
    """
    tls = None if node.settings.plain else server_context(node.key)
    door = PeerDoor(node, nursery)
    handler = wrap(door.handle)

    async def bulk(stream: trio.SocketStream, peer_host: str) -> None:
        await serve_bulk(stream, door.tickets, handler, peer_host)

    # Where nothing is encrypted, the kernel sends files by itself.
    serve = partial(serve_peers, host, port, handler, tls=tls, bulk=bulk if tls else None)
    bound: tuple[str, int] = await nursery.start(serve)
    node.serve_at(list(node.settings.advertise) or _reachable_endpoints(*bound))
    return bound


class PeerDoor:
    """The answers of one node."""

    def __init__(self, node: Node, background: trio.Nursery) -> None:
        """background: where work goes on after an answer, such as fetching announced records."""
        self._node = node
        self._store = node.store
        self._background = background
        self.tickets = TicketOffice()
        self._greeted: dict[NodeId, float] = {}  # who said hello of late, and when; the oldest first
        self._sent_away_at = -math.inf  # seconds, when a query last found no slot
        background.start_soon(node.open_answers.watch)
        self._routes: list[tuple[str, str, Callable[..., Awaitable[Response]]]] = [
            ("POST", r"/v1/hello", self._hello),
            ("POST", r"/v1/session", self._session),
            ("POST", r"/v1/receipts", self._receipts),
            ("POST", r"/v1/reconcile", self._reconcile),
            ("POST", r"/v1/heads", self._heads),
            ("POST", r"/v1/nodes", self._nodes),
            ("POST", r"/v1/identities", self._identities),
            ("POST", r"/v1/fresh", self._fresh),
            ("POST", r"/v1/records", self._records),
            ("POST", r"/v1/talk", self._talk),
            ("GET", r"/v1/head/([a-z2-7]{52})", self._head),
            ("GET", r"/v1/fork/([a-z2-7]{52})", self._fork),
            ("POST", r"/v1/consistency", self._consistency),
            ("GET", r"/v1/inventory", self._inventory),
            ("GET", r"/v1/manifest/([0-9a-f]{64})", self._manifest),
            ("POST", r"/v1/have", self._have),
            ("POST", r"/v1/trees", self._trees),
            ("POST", r"/v1/spans", self._spans),
            ("POST", r"/v1/upstream", self._upstream),
            ("POST", r"/v1/private/heads", self._private_heads),
            ("POST", r"/v1/private/records", self._private_records),
            ("POST", r"/v1/private/news", self._private_news),
            ("POST", r"/v1/federation/join", self._join_federation),
        ]
        if not node.settings.plain:
            self._routes.append(("POST", r"/v1/tickets", self._tickets))
        if node.witness is not None:
            self._routes.append(("POST", r"/v1/witness/add-checkpoint", self._cosign))

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        answer = await self._handle(request)
        if request.path in ("/v1/hello", "/v1/talk") or answer.status in (400, 401):
            # So that the caller finds out whose clock is how far from his: what is signed, it has to agree about.
            date = formatdate(self._node.clock(), usegmt=True)
            answer = replace(answer, headers={**answer.headers, "date": date})
        return answer

    async def _handle(self, request: Request) -> Response:
        if request.path != "/v1/spans" and (wait_s := self._node.neighbours.limits.wait_s(request.host)):
            return _busy(wait_s)
        try:
            request = await self._node.authority.identify(request)
        except Unproven as exc:
            return _unproven(str(exc), exc.headers)
        except TooManyRequests:
            return _busy(SKEW_MAX_S)
        except HubError as exc:
            log.warning("cannot say who asks: %s", exc)
            return _text(500, "this node has a problem of its own")
        path_known = False
        for method, pattern, answer in self._routes:
            match = re.fullmatch(pattern, request.path)
            if match is None:
                continue
            path_known = True
            if method != request.method:
                continue
            try:
                return await answer(request, *match.groups())
            except (InvalidData, InvalidName) as exc:
                return _text(400, str(exc))
            except HubError as exc:
                log.warning("cannot answer %s: %s", request.path, exc)
                return _text(500, "this node has a problem of its own")
        return _text(405, "this method is not for this path") if path_known else _text(404, "there is nothing here")

    async def _hello(self, request: Request) -> Response:
        hello = decode(request.body, Hello, size_max=FRAME_SIZE_MAX)
        signed = open_node_record(hello.record, now=self._node.clock())
        now = trio.current_time()
        if signed.record.node != self._node.id and signed.record.addresses:
            await on_disk(self._store.peers.note_record, signed)
            where = slot_network(parse_endpoint(signed.record.addresses[0])[0])
            self._node.neighbours.members.know(Contact(signed.record.node, where), "heard")
            self._greeted.pop(signed.record.node, None)
            self._greeted[signed.record.node] = now
        while self._greeted and (oldest := next(iter(self._greeted))):
            if now - self._greeted[oldest] <= GREETED_S and len(self._greeted) <= GREETED_MAX:
                break
            del self._greeted[oldest]
        told = await on_disk(self._whom_to_tell_of, signed.record.node)
        return Response(200, encode(Nodes((self._node.record(), *told))))

    async def _session(self, request: Request) -> Response:
        query = decode(request.body, SessionQuery, size_max=LARGE_QUERY_SIZE_MAX)
        if request.caller.node is None:
            return _unproven("a session is begun by a signed request")
        if wait_s := self._charge(request, query.identities, len(query.delegations)):
            return _busy(wait_s)
        return Response(200, encode(await self._node.authority.open_session(request.caller.node, query, request.host)))

    async def _receipts(self, request: Request) -> Response:
        query = decode(request.body, ReceiptsQuery, size_max=LARGE_QUERY_SIZE_MAX)
        if request.caller.node is None:
            return _unproven("receipts are shown by a signed request")
        if wait_s := self._charge(request, query.identities, len(query.receipts)):
            return _busy(wait_s)
        return Response(200, encode(await on_disk(take_receipts, self._node, request.caller, query)))

    def _charge(self, request: Request, chains: Iterable[IdentityChain], others: int = 0) -> float:
        """Count the signatures that a request lets us check; returns 0, or the seconds to wait if they are too many.

        others: how many there are besides those of the identities.
        """
        signatures = sum(len(document.signatures) for chain in chains for document in chain.documents)
        limit = self._node.neighbours.limits.networks
        return limit.take(cost_network(request.host), 1 + others + signatures, trio.current_time())

    def _whom_to_tell_of(self, asker: NodeId) -> list[bytes]:
        """Return the signed records of peers that were reached lately, or just called."""
        # Only those: dead addresses would spread for ever.
        peers, since = self._store.peers, self._node.clock() - REACHED_S
        known = [node for node in dict.fromkeys([*peers.reached(since), *self._greeted]) if node != asker]
        # By chance, or a new swarm would know the same few.
        chosen = self._node.rng.sample(known, min(NODES_MAX - 1, len(known)))
        found = (peers.get(node) for node in chosen)
        return [peer.record for peer in found if peer and peer.record]

    async def _reconcile(self, request: Request) -> Response:
        query = decode(request.body, ReconcileQuery, size_max=FRAME_SIZE_MAX)
        if not await refresh_maps(self._node, keys_max=REFRESHED_MAX):
            # What is not summed up yet looks as if it differed: a peer that has the same would be sent it once more.
            self._background.start_soon(refresh_maps_quietly, self._node)
            return _busy(SUMMING_UP_S)
        return Response(200, encode(await on_disk(compare, self._store, query)))

    async def _heads(self, request: Request) -> Response:
        query = decode(request.body, BucketsQuery, size_max=FRAME_SIZE_MAX)
        return Response(200, encode(await on_disk(heads_in, self._store, query)))

    async def _nodes(self, request: Request) -> Response:
        query = decode(request.body, BucketsQuery, size_max=FRAME_SIZE_MAX)
        return Response(200, encode(await on_disk(records_in, self._store, query)))

    async def _talk(self, request: Request) -> Response:
        now, limits = trio.current_time(), self._node.neighbours.limits
        # Before the signature is checked, which costs more than all before it.
        wait_s = limits.networks.take(cost_network(request.host), 1, now)
        if not wait_s:
            heard = open_talk(request.body, own=self._node.id, now=self._node.clock())
            wait_s = limits.nodes.take(heard.node, 1, now)
        if wait_s:
            return _busy(wait_s)
        return Response(200, encode(await hear(self._node, heard, request.host, self._background)))

    async def _head(self, request: Request, log_text: str) -> Response:
        found = await on_disk(shown_head, self._store, LogId.parse(log_text))
        return Response(200, encode(found)) if found else _text(404, "this log is not known here")

    async def _inventory(self, request: Request) -> Response:
        after = request.query.get("after", "")
        if not re.fullmatch(r"([0-9a-f]{64})?", after):
            return _text(400, "after is the id of a manifest")
        found = await on_disk(self._store.holdings.own, bytes.fromhex(after), INVENTORY_PAGE + 1)
        page = found[:INVENTORY_PAGE]
        refused = await on_disk(self._node.access.refused.withheld, request.caller, [manifest for manifest, _ in page])
        held = tuple(Held(manifest, share) for manifest, share in page if manifest not in refused)
        return Response(200, encode(Inventory(held, more=len(found) > INVENTORY_PAGE)))

    async def _identities(self, request: Request) -> Response:
        query = decode(request.body, IdentitiesQuery, size_max=FRAME_SIZE_MAX)
        shown = IdentitiesQuery(await self._shown_publishers(request.caller, query.namespaces))
        return Response(200, encode(await on_disk(identities_of, self._store, shown)))

    async def _fresh(self, request: Request) -> Response:
        query = decode(request.body, FreshQuery, size_max=FRAME_SIZE_MAX)
        shown = FreshQuery(await self._shown_publishers(request.caller, query.namespaces))
        return Response(200, encode(await on_disk(statements_of, self._store, shown)))

    async def _shown_publishers(self, caller: Caller, namespaces: tuple[NamespaceId, ...]) -> tuple[NamespaceId, ...]:
        """Return the publishers to look up: whose private repositories alone are here is nobody else's business."""
        return await on_disk(self._node.access.shown_publishers, caller, namespaces, self._node.following.own)

    async def _records(self, request: Request) -> Response:
        query = decode(request.body, RecordsQuery, size_max=FRAME_SIZE_MAX)
        return Response(200, encode(await on_disk(records_of, self._store, query)))

    async def _upstream(self, request: Request) -> Response:
        query = decode(request.body, UpstreamQuery, size_max=LARGE_QUERY_SIZE_MAX)
        link = await self._node.links.class_of(request.host, caller=request.caller)
        is_near = link not in EXPENSIVE
        return Response(200, encode(await mates.answer(self._node, request.caller, query, is_near=is_near)))

    async def _private_heads(self, request: Request) -> Response:
        query = decode(request.body, PrivateHeadsQuery, size_max=FRAME_SIZE_MAX)
        if request.caller.node is None:
            return _unproven("private logs are asked for by a signed request")
        return Response(200, encode(await on_disk(private_heads, self._node, request.caller, query)))

    async def _private_records(self, request: Request) -> Response:
        query = decode(request.body, RecordsQuery, size_max=FRAME_SIZE_MAX)
        if request.caller.node is None:
            return _unproven("private logs are asked for by a signed request")
        return Response(200, encode(await on_disk(private_records, self._node, request.caller, query)))

    async def _private_news(self, request: Request) -> Response:
        news = decode(request.body, PrivateNews, size_max=LARGE_QUERY_SIZE_MAX)
        if request.caller.node is None:
            return _unproven("private logs are told of by a signed request")
        limits, cost = self._node.neighbours.limits, 1 + len(news.entries)
        if wait_s := limits.wait_for_private_news_s(request.caller.node, request.host, cost):
            return _busy(wait_s)
        if wait_s := self._charge(request, (news.identity,) if news.identity else ()):
            return _busy(wait_s)
        answer = await hear_private(self._node, request.caller, news, request.host, self._background)
        return Response(200, encode(answer))

    async def _join_federation(self, request: Request) -> Response:
        try:
            return Response(200, encode(await answer_join(self._node, request.body)))
        except AccessDenied as exc:
            return _text(403, str(exc))

    async def _consistency(self, request: Request) -> Response:
        query = decode(request.body, ConsistencyQuery, size_max=FRAME_SIZE_MAX)
        found = await on_disk(consistency_of, self._store, query)
        return Response(200, encode(found)) if found else _text(404, "nothing proves this here")

    async def _fork(self, request: Request, log_text: str) -> Response:
        fork = await on_disk(self._store.forks.get, LogId.parse(log_text))
        return Response(200, encode(fork.proof)) if fork else _text(404, "this log is not known to have forked")

    async def _cosign(self, request: Request) -> Response:
        assert self._node.witness is not None
        answer = await on_disk(self._node.witness.answer, self._store, request.body, self._node.clock())
        if answer.forked is not None:
            # Others hear of the fork as of every other.
            self._node.note_news(answer.forked, 0)
        return Response(answer.status, answer.body, answer.content_type)

    async def _manifest(self, request: Request, digits: str) -> Response:
        def look() -> bytes | None:
            (revision,) = self._node.access.shown(request.caller, [ManifestId(bytes.fromhex(digits))])
            return self._store.manifests.data(revision)

        data = await on_disk(look)
        return Response(200, data) if data is not None else _text(404, "this manifest is not here")

    async def _have(self, request: Request) -> Response:
        query = decode(request.body, HaveQuery, size_max=LARGE_QUERY_SIZE_MAX)

        def look() -> tuple[list[ContentId], list[bool | bytes]]:
            shown = self._node.access.shown(request.caller, query.roots)
            found: list[bool | bytes] = []
            size = 0
            for held in self._held_maps(shown):
                found.append(held if isinstance(held, bool) else pack_bits(held))
                size += len(held) // 8 if isinstance(held, bytes) else 1
                if size > HAVE_ANSWER_SIZE:
                    break
            return shown, found

        shown, held = await on_disk(look)
        arriving = [self._node.arriving[root] for root in shown if root in self._node.arriving]
        if query.fetching:
            for note_mate in {file.note_mate for file in arriving}:
                note_mate(query.fetching)
        areas = [self._node.giving.areas(root, trio.current_time()) for root in shown[: len(held)]]
        given = tuple(pack_bits(flags) if flags else False for flags in areas) if any(areas) else ()
        return Response(200, encode(Have(tuple(held), given, fetching=bool(arriving))))

    def _held_maps(self, roots: Sequence[ContentId]) -> Iterator[bool | bytes]:
        """Return what of each file is here: all, nothing, or a byte (0 or 1) for each chunk."""
        arriving: dict[ContentId, bytes] = {}
        for root in roots:
            running = self._node.arriving.get(root)
            if running is not None and 0 in (have := bytes(running.have)):
                arriving[root] = have
        # The saved bitmap of a running download is behind; in a swarm this is asked often, and costs nothing then.
        saved = self._store.readables.held_maps([root for root in roots if root not in arriving])
        for root in roots:
            if root in arriving:
                yield arriving[root] if 1 in arriving[root] else False
            else:
                yield saved[root]

    async def _trees(self, request: Request) -> Response:
        query = decode(request.body, TreesQuery, size_max=LARGE_QUERY_SIZE_MAX)

        def look() -> Trees:
            pages = []
            size = 0
            shown = self._node.access.shown(request.caller, [ref.root for ref in query.pages])
            for begin in range(0, len(query.pages), LISTS_AT_ONCE):
                roots = shown[begin : begin + LISTS_AT_ONCE]
                lists = self._store.chunk_lists.find_all(set(roots))
                for root, ref in zip(roots, query.pages[begin : begin + LISTS_AT_ONCE], strict=True):
                    page = None
                    if root in lists:
                        with contextlib.suppress(InvalidData):
                            page = lists[root].page(ref.index)
                    size += len(page.chunks) if page else 0
                    pages.append(page)
                    if size > TREE_ANSWER_SIZE:
                        return Trees(tuple(pages))
            return Trees(tuple(pages))

        return Response(200, encode(await on_disk(look)))

    async def _tickets(self, request: Request) -> Response:
        query = decode(request.body, TicketsQuery, size_max=FRAME_SIZE_MAX)
        holder = caller_of(request.host)
        tickets = (self.tickets.issue(holder, request.caller) for _ in range(query.count))
        return Response(200, encode(Tickets(tuple(tickets))))

    async def _spans(self, request: Request) -> Response:
        query = decode(request.body, SpansQuery, size_max=LARGE_QUERY_SIZE_MAX)
        total = sum(span.length for span in query.spans)
        if total > SPAN_BYTES_MAX:
            return _text(400, f"{total} bytes in one request, the limit is {SPAN_BYTES_MAX}")
        links = self._node.links
        link = await links.class_of(request.host, caller=request.caller)
        turn = None
        with trio.move_on_after(SLOT_WAIT_S):
            turn = await links.take_turn(link, caller_of(request.host), background=query.background)
        if turn is None:
            self._sent_away_at = trio.current_time()
            return Response(429, b"all upload slots are taken", "text/plain", {"retry-after": str(RETRY_AFTER_S)})
        found: dict[ContentId, Readable] = {}
        files: dict[ContentId, int] = {}  # of these, what is open

        def release() -> None:
            for file in files.values():
                os.close(file)
            links.end_turn(turn)

        try:
            missing, is_restricted = await on_disk(self._look_up, request.caller, query.spans, found, files)
        except BaseException:
            release()
            raise
        if missing is not None:
            release()
            return _text(404, f"not all of {missing.root} that was asked for is here")
        now = trio.current_time()
        if query.first_copy and self._node.giving.is_given(query.spans, now):
            release()
            return _text(409, "some of this was given to another meanwhile")
        self._node.giving.note(query.spans, {root: file.size for root, file in found.items()}, now)
        self._node.uploaded += total
        where = {root: files.get(root, readable.reopen) for root, readable in found.items()}
        parts = [FilePart(where[span.root], span.offset, span.length) for span in query.spans]
        return Response(
            200,
            parts,
            "application/octet-stream",
            sending=links.sending(turn),
            release=release,
            guard=partial(self._guard, request.caller, found, is_restricted),
            others_wait=self._do_others_wait,
        )

    def _look_up(
        self,
        caller: Caller,
        spans: tuple[ByteRange, ...],
        found: dict[ContentId, Readable],
        files: dict[ContentId, int],
    ) -> tuple[ByteRange | None, bool]:
        """Do what `_find_spans` does; the second value says whether some of the files are not for everybody."""
        missing = self._find_spans(caller, spans, found, files)
        # What everybody may have cannot be lost by one.
        may_be_lost = missing is None and caller != ANYBODY
        return missing, may_be_lost and bool(self._node.access.withheld(ANYBODY, found))

    def _guard(
        self, caller: Caller, roots: Collection[bytes], is_restricted: bool, scope: trio.CancelScope
    ) -> contextlib.AbstractContextManager[None]:
        return self._node.open_answers.sending(caller, roots, is_restricted=is_restricted, scope=scope)

    def _do_others_wait(self) -> bool:
        """Say whether somebody was sent away lately for want of a slot."""
        return trio.current_time() - self._sent_away_at < RECEIVER_WINDOW_S

    def _find_spans(
        self,
        caller: Caller,
        spans: tuple[ByteRange, ...],
        found: dict[ContentId, Readable],
        files: dict[ContentId, int],
    ) -> ByteRange | None:
        """Find the files of `spans`, and keep the first ones open; returns the first span that is not here whole."""
        asked = list(dict.fromkeys(span.root for span in spans))
        shown = dict(zip(asked, self._node.access.shown(caller, asked), strict=True))
        held = self._store.blobs.find_all(shown.values())
        for span in spans:
            root = shown[span.root]
            readable = found.get(span.root)
            if readable is None:
                readable = self._store.readables.open_found(root, held.get(root))
                if readable is None:
                    return span
                found[span.root] = readable
                if len(files) < FILES_OPEN_MAX:
                    files[span.root] = readable.file
                else:
                    os.close(readable.file)
            if not readable.has(span.offset, span.length) and not self._has_arrived(span, readable):
                return span
        return None

    def _has_arrived(self, span: ByteRange, readable: Readable) -> bool:
        """Say whether a span of a running download is on disk, though its saved bitmap does not know it yet."""
        arriving = self._node.arriving.get(span.root)
        return arriving is not None and replace(readable, have=bytes(arriving.have)).has(span.offset, span.length)


def _busy(wait_s: float) -> Response:
    return Response(429, b"that is too much at once", "text/plain", {"retry-after": str(math.ceil(wait_s))})


def _unproven(text: str, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    return Response(401, text.encode(), "text/plain", {"www-authenticate": "p2phub", **headers})


def _text(status: int, text: str) -> Response:
    return Response(status, text.encode(), "text/plain")


def _reachable_endpoints(host: str, port: int) -> list[str]:
    """Return the endpoints at which a door bound to `host` can be called."""
    if host not in ("0.0.0.0", "::"):
        return [format_endpoint(host, port)]
    found = []
    # No packet is sent: connecting a datagram socket only asks for the route.
    for family, probe in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as route:
                route.connect((probe, 9))
                found.append(format_endpoint(route.getsockname()[0], port))
        except OSError:
            continue
    return found or [format_endpoint("127.0.0.1", port)]
