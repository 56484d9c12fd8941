"""What the peer door answers (spec/peer-protocol.md): who asks, which answer it is, and the facts that are asked for.

Hellos are answered in `greetings`, questions about content in `contentdoor`, about private logs in `privatedoor`.
Nothing a peer sends is believed here: heads and records go to `replicate`, which
verifies them, and everything sent out is checked by the receiver.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from functools import partial

import trio
from msgspec.structs import replace

from p2phub.core.access import Caller
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import AccessDenied, HubError, InvalidData, InvalidName
from p2phub.core.httpsig import SKEW_MAX_S
from p2phub.core.ids import LogId, NamespaceId
from p2phub.core.names import format_endpoint
from p2phub.net.bulkdoor import serve_bulk
from p2phub.net.door import Handler, Request, Response, serve_peers
from p2phub.net.tls import server_context
from p2phub.protocol.lease import EXPENSIVE
from p2phub.protocol.messages import (
    FRAME_SIZE_MAX,
    INVENTORY_PAGE,
    LARGE_QUERY_SIZE_MAX,
    BucketsQuery,
    ConsistencyQuery,
    FreshQuery,
    Held,
    IdentitiesQuery,
    IdentityChain,
    Inventory,
    ReceiptsQuery,
    ReconcileQuery,
    RecordsQuery,
    SessionQuery,
    UpstreamQuery,
)
from p2phub.protocol.nonces import TooManyRequests
from p2phub.protocol.privatetalk import PrivateHeadsQuery, PrivateNews
from p2phub.protocol.talk import open_talk

from . import mates
from .authority import Unproven
from .contentdoor import ContentDoor
from .disk import on_disk
from .federationtalk import answer_join
from .fresh import statements_of
from .gossip import hear
from .greetings import Greetings
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
from .neighbours import cost_network
from .node import Node
from .privatedoor import private_heads, private_records
from .privatenews import hear_private
from .receipts import take_receipts
from .shortanswers import busy, text, unproven

log = logging.getLogger(__name__)

SUMMING_UP_S = 10  # seconds after which to ask again a node that has much to sum up; spec/replication.md §2


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
        content = ContentDoor(node)
        self.tickets = content.tickets
        background.start_soon(node.open_answers.watch)
        self._routes: list[tuple[str, str, Callable[..., Awaitable[Response]]]] = [
            ("POST", r"/v1/hello", Greetings(node).hello),
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
            ("GET", r"/v1/manifest/([0-9a-f]{64})", content.manifest),
            ("POST", r"/v1/have", content.have),
            ("POST", r"/v1/trees", content.trees),
            ("POST", r"/v1/spans", content.spans),
            ("POST", r"/v1/upstream", self._upstream),
            ("POST", r"/v1/private/heads", self._private_heads),
            ("POST", r"/v1/private/records", self._private_records),
            ("POST", r"/v1/private/news", self._private_news),
            ("POST", r"/v1/federation/join", self._join_federation),
        ]
        if not node.settings.plain:
            self._routes.append(("POST", r"/v1/tickets", content.issue_tickets))
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
            return busy(wait_s)
        try:
            request = await self._node.authority.identify(request)
        except Unproven as exc:
            return unproven(str(exc), exc.headers)
        except TooManyRequests:
            return busy(SKEW_MAX_S)
        except HubError as exc:
            log.warning("cannot say who asks: %s", exc)
            return text(500, "this node has a problem of its own")
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
                return text(400, str(exc))
            except HubError as exc:
                log.warning("cannot answer %s: %s", request.path, exc)
                return text(500, "this node has a problem of its own")
        return text(405, "this method is not for this path") if path_known else text(404, "there is nothing here")

    async def _session(self, request: Request) -> Response:
        query = decode(request.body, SessionQuery, size_max=LARGE_QUERY_SIZE_MAX)
        if request.caller.node is None:
            return unproven("a session is begun by a signed request")
        if wait_s := self._charge(request, query.identities, len(query.delegations)):
            return busy(wait_s)
        return Response(200, encode(await self._node.authority.open_session(request.caller.node, query, request.host)))

    async def _receipts(self, request: Request) -> Response:
        query = decode(request.body, ReceiptsQuery, size_max=LARGE_QUERY_SIZE_MAX)
        if request.caller.node is None:
            return unproven("receipts are shown by a signed request")
        if wait_s := self._charge(request, query.identities, len(query.receipts)):
            return busy(wait_s)
        return Response(200, encode(await on_disk(take_receipts, self._node, request.caller, query)))

    def _charge(self, request: Request, chains: Iterable[IdentityChain], others: int = 0) -> float:
        """Count the signatures that a request lets us check; returns 0, or the seconds to wait if they are too many.

        others: how many there are besides those of the identities.
        """
        signatures = sum(len(document.signatures) for chain in chains for document in chain.documents)
        limit = self._node.neighbours.limits.networks
        return limit.take(cost_network(request.host), 1 + others + signatures, trio.current_time())

    async def _reconcile(self, request: Request) -> Response:
        query = decode(request.body, ReconcileQuery, size_max=FRAME_SIZE_MAX)
        if not await refresh_maps(self._node, keys_max=REFRESHED_MAX):
            # What is not summed up yet looks as if it differed: a peer that has the same would be sent it once more.
            self._background.start_soon(refresh_maps_quietly, self._node)
            return busy(SUMMING_UP_S)
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
            return busy(wait_s)
        return Response(200, encode(await hear(self._node, heard, request.host, self._background)))

    async def _head(self, request: Request, log_text: str) -> Response:
        found = await on_disk(shown_head, self._store, LogId.parse(log_text))
        return Response(200, encode(found)) if found else text(404, "this log is not known here")

    async def _inventory(self, request: Request) -> Response:
        after = request.query.get("after", "")
        if not re.fullmatch(r"([0-9a-f]{64})?", after):
            return text(400, "after is the id of a manifest")
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
            return unproven("private logs are asked for by a signed request")
        return Response(200, encode(await on_disk(private_heads, self._node, request.caller, query)))

    async def _private_records(self, request: Request) -> Response:
        query = decode(request.body, RecordsQuery, size_max=FRAME_SIZE_MAX)
        if request.caller.node is None:
            return unproven("private logs are asked for by a signed request")
        return Response(200, encode(await on_disk(private_records, self._node, request.caller, query)))

    async def _private_news(self, request: Request) -> Response:
        news = decode(request.body, PrivateNews, size_max=LARGE_QUERY_SIZE_MAX)
        if request.caller.node is None:
            return unproven("private logs are told of by a signed request")
        limits, cost = self._node.neighbours.limits, 1 + len(news.entries)
        if wait_s := limits.wait_for_private_news_s(request.caller.node, request.host, cost):
            return busy(wait_s)
        if wait_s := self._charge(request, (news.identity,) if news.identity else ()):
            return busy(wait_s)
        answer = await hear_private(self._node, request.caller, news, request.host, self._background)
        return Response(200, encode(answer))

    async def _join_federation(self, request: Request) -> Response:
        try:
            return Response(200, encode(await answer_join(self._node, request.body)))
        except AccessDenied as exc:
            return text(403, str(exc))

    async def _consistency(self, request: Request) -> Response:
        query = decode(request.body, ConsistencyQuery, size_max=FRAME_SIZE_MAX)
        found = await on_disk(consistency_of, self._store, query)
        return Response(200, encode(found)) if found else text(404, "nothing proves this here")

    async def _fork(self, request: Request, log_text: str) -> Response:
        fork = await on_disk(self._store.forks.get, LogId.parse(log_text))
        return Response(200, encode(fork.proof)) if fork else text(404, "this log is not known to have forked")

    async def _cosign(self, request: Request) -> Response:
        assert self._node.witness is not None
        answer = await on_disk(self._node.witness.answer, self._store, request.body, self._node.clock())
        if answer.forked is not None:
            # Others hear of the fork as of every other.
            self._node.note_news(answer.forked, 0)
        return Response(answer.status, answer.body, answer.content_type)


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
