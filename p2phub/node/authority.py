"""Who asks this node: signed requests, and the delegations that a node has shown (spec/authority.md).

    Request ──signature, nonce──▶ node ──session──▶ namespaces it acts for ──▶ Request.caller

An unsigned request is anybody's. One that is signed and wrong is refused, whatever it asks
for: so the answer says nothing about what is here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from msgspec.structs import replace

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.delegation import Delegation, check_is_by, is_by, open_delegation, publishes
from p2phub.core.errors import HubError, InvalidData
from p2phub.core.httpsig import SKEW_MAX_S, Ask, Signed, open_ask
from p2phub.core.identity import Identity, PublishKeys, namespace_id, open_identity
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.net.door import Request
from p2phub.protocol.messages import (
    SESSION_FIELD,
    SESSION_OVER,
    SIGN_AFTER_FIELD,
    IdentityChain,
    SessionAnswer,
    SessionQuery,
)
from p2phub.protocol.nonces import Nonces
from p2phub.protocol.sessions import SESSION_TTL_S, Acting, Session, Sessions
from p2phub.store.store import Store

from .disk import on_disk
from .neighbours import cost_network

NOTED_S = 10  # seconds of which it is noted at once that signed requests are taken in them; spec/authority.md §1
SET_BACK_MAX_S = 3600  # a clock that was further ahead before the start was wrong then; spec/authority.md §1
AHEAD_MAX = 4096  # nodes with clocks ahead of ours, before it is looked which of them still are
CHECK_S = 2.0  # seconds for which the keys of a namespace are taken to be what they were


log = logging.getLogger(__name__)


class Unproven(HubError):
    """A request is not of whom it says that it is."""

    def __init__(self, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.headers = headers or {}


class Authority:
    """Says of requests who asks, and remembers for whom nodes act."""

    def __init__(self, own: NodeId, store: Store, clock: Callable[[], float], *, began: float) -> None:
        """clock: says the time, in seconds since 1970. began: when this node was started."""
        self._own = own
        self._store = store
        self._clock = clock
        self._nonces = Nonces()
        self._began = int(began)  # whole seconds, as requests have them
        # Up to which time requests came before, of nodes whose clocks are ahead.
        self._before = self._read_before()
        # The same of all: by this node's clock, which may have been set back since.
        self._set_back = self._before.pop(own, 0)
        self._noted = 0  # up to which time it is on disk that requests may have come
        self._ahead: dict[NodeId, int] = {}  # the same of those that came since, as far as it is on disk
        self._sessions = Sessions()

    async def identify(self, request: Request) -> Request:
        """Return `request` with its caller. Raises Unproven, TooManyRequests."""
        if request.caller != ANYBODY:
            # Of a bulk connection: what was proved for its ticket may be over by now.
            return replace(request, caller=await self.still(request.caller))
        now = self._clock()
        ask = Ask(request.method, request.path, request.raw_query, request.body)
        try:
            signed = open_ask(ask, request.headers, self._own, now=now)
            if signed is None:
                return request
            self._check_not_of_before(signed)
            until, network = signed.expires + SKEW_MAX_S, cost_network(request.host)
            self._nonces.note(signed.node, signed.nonce, until, now, network=network)
        except InvalidData as exc:
            raise Unproven(str(exc)) from exc
        if now > self._noted:
            await self._note_time(int(now) + NOTED_S)
        if signed.created > max(now, self._ahead.get(signed.node, 0)):
            await self._note_ahead(signed.node, signed.created, int(now))
        session = await self._session(signed.node, now)
        named = request.headers.get(SESSION_FIELD)
        if named is not None and (session is None or named != session.id.hex()):
            raise Unproven("this session is over: begin another", {SESSION_FIELD: SESSION_OVER})
        namespaces = session.namespaces(now) if session else frozenset()
        return replace(request, caller=Caller(signed.node, namespaces))

    def _check_not_of_before(self, signed: Signed) -> None:
        """Raise Unproven for what may have come before this node was started, and is remembered no more."""
        # The second in which it was started is one of those: it may have been stopped in it.
        after = max(self._began, self._set_back, self._before.get(signed.node, 0))
        if signed.created <= after:
            text = "the request was signed before this node was started: sign it again"
            if self._set_back > self._began + NOTED_S:
                until = datetime.fromtimestamp(self._set_back, UTC).strftime("%Y-%m-%d %H:%M:%S")
                text = f"the clock of this node was set back: it takes no request that was signed before {until} UTC"
            raise Unproven(text, {SIGN_AFTER_FIELD: str(after)})

    def _read_before(self) -> dict[NodeId, int]:
        """Return up to which time requests came: of nodes whose clocks are ahead, and of all by our clock then."""
        before = self._store.ahead.after(self._began)
        latest = max(before.values(), default=0)
        if latest <= self._began + SET_BACK_MAX_S:
            return before
        # Believed, it would keep everybody out until then.
        log.warning(
            "the clock was %d s ahead of what it is now: signed requests of then may come again", latest - self._began
        )
        self._store.ahead.forget_after(self._began + SET_BACK_MAX_S)
        return self._store.ahead.after(self._began)

    async def still(self, caller: Caller) -> Caller:
        """Return what is left now of what a caller proved before."""
        if caller.node is None or not caller.namespaces:
            return caller
        now = self._clock()
        session = await self._session(caller.node, now)
        return Caller(caller.node, caller.namespaces & (session.namespaces(now) if session else frozenset()))

    async def open_session(self, node: NodeId, query: SessionQuery, host: str) -> SessionAnswer:
        """Look at what `node` shows, which asks from `host`, and remember it instead of what it showed before."""
        now = self._clock()
        acting, unknown, refused = await on_disk(self._look_at, node, query, now)
        session = self._sessions.open(node, os.urandom(16), tuple(acting.values()), now, network=cost_network(host))
        return SessionAnswer(
            namespaces=tuple(sorted(acting)),
            unknown=tuple(sorted(unknown - acting.keys())),
            refused=tuple(refused),
            id=session.id if acting else None,
            ttl=SESSION_TTL_S,
        )

    def check(self, delegation: Delegation, shown: Identity) -> PublishKeys:
        """Return the keys that count of the namespace of a delegation, `shown` being its identity.

        Raises InvalidSignature unless it is by one of them.
        """
        keys = self.newest_keys(shown.publish_keys)
        check_is_by(delegation, keys)
        return keys

    def newest_keys(self, shown: PublishKeys) -> PublishKeys:
        """Return the keys of a namespace by the newest of its documents that was seen, be it the one that is shown.

        They are kept if it matters here who the namespace is, or a key that was retired could be shown as good again.
        May be asked from any thread but trio's.
        """
        namespace = shown.namespace
        identity = self._store.logs.identity(namespace)
        known = [identity.publish_keys if identity else None, self._store.publishing.get(namespace)]
        seen = [keys for keys in (*known, self._sessions.newest(namespace), shown) if keys]
        newest = max(seen, key=lambda keys: keys.version)
        if newest not in known:
            self._store.publishing.note(newest)
        return newest

    def remember(self, namespace: NamespaceId) -> None:
        """Keep what sessions have shown of a namespace, now that it matters here."""
        if (keys := self._sessions.newest(namespace)) is not None:
            self._store.publishing.note(keys)

    def nodes_for(self, namespaces: Collection[NamespaceId]) -> list[NodeId]:
        """Return the nodes that showed that they act for one of `namespaces`. May be asked from any thread."""
        return self._sessions.nodes_for(namespaces, self._clock())

    async def _note_time(self, until: int) -> None:
        """Keep that signed requests may be taken up to a time, before one is."""
        await on_disk(self._store.ahead.note, self._own, until, int(self._clock()))
        self._noted = until

    async def _note_ahead(self, node: NodeId, created: int, now: int) -> None:
        """Keep that a request bore a later time than `now`, before it is answered: so it is known after a restart."""
        await on_disk(self._store.ahead.note, node, created, now)
        if len(self._ahead) >= AHEAD_MAX:
            self._ahead = {each: until for each, until in self._ahead.items() if until > now}
        self._ahead[node] = created

    async def _session(self, node: NodeId, now: float) -> Session | None:
        """Return what `node` has shown, as far as it is good."""
        session = self._sessions.find(node, now)
        # Most nodes act for nobody: of them nothing can be lost.
        if session is None or not session.acting or now - session.checked < CHECK_S:
            return session
        left = await on_disk(self._good_of, session.acting)
        return self._sessions.check(node, session, left, now)

    def _look_at(
        self, node: NodeId, query: SessionQuery, now: float
    ) -> tuple[dict[NamespaceId, Acting], set[NamespaceId], list[str]]:
        """Return what is good of what `node` shows, the namespaces that are not known here, and what was refused."""
        # By what each claims to be: it is checked only if a delegation that is good needs it.
        shown = {namespace_id(chain.documents[0].document): chain for chain in query.identities}
        acting: dict[NamespaceId, Acting] = {}
        unknown: set[NamespaceId] = set()
        refused: list[str] = []
        for data in query.delegations:
            try:
                delegation = open_delegation(data, now=now)
                if delegation.node != node:
                    raise InvalidData(f"a delegation for {delegation.namespace} is for another node")
                identity = self._newest(delegation.namespace, shown.get(delegation.namespace))
                is_newer_needed = delegation.namespace not in shown and identity and not publishes(delegation, identity)
                if identity is None or is_newer_needed:
                    unknown.add(delegation.namespace)
                    continue
                keys = self.check(delegation, identity)
            except InvalidData as exc:
                refused.append(str(exc)[:200])
            else:
                acting[delegation.namespace] = Acting(delegation, keys)
        return acting, unknown, refused

    def _newest(self, namespace: NamespaceId, shown: IdentityChain | None) -> Identity | None:
        """Return the identity that counts: of one that is kept here the longer chain, else what was shown.

        A stranger's is not kept, but for his keys if he matters: anybody can make namespaces. Raises InvalidData if
        what was shown is wrong.
        """
        # What is shown is checked first, or what is said of it would tell whether the namespace is known here.
        identity = open_identity(shown.documents) if shown is not None else None
        known = self._store.logs.identity(namespace)
        if identity is None or (known is not None and len(identity.chain) <= len(known.chain)):
            return known
        if known is not None:
            self._store.logs.add_identity(identity)  # raises InvalidData if it is of another history
        return identity

    def _good_of(self, acting: tuple[Acting, ...]) -> tuple[Acting, ...]:
        """Return the delegations whose keys publish as yet."""
        return tuple(each for each in acting if is_by(each.delegation, self.newest_keys(each.keys)))
