"""Remember for whom the nodes act that said so (spec/authority.md §3).

A node shows its delegations once; afterwards its signed requests name the session. What
is forgotten costs one more question: the node shows them again. Of too many, those from the
network that fills the most go first: to come with ever more keys costs nobody else his session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from msgspec import Struct

from p2phub.core.delegation import Delegation
from p2phub.core.identity import PublishKeys
from p2phub.core.ids import NamespaceId, NodeId

SESSIONS_MAX = 4096  # nodes remembered; spec/authority.md §3
SESSION_TTL_S = 24 * 3600  # seconds; spec/authority.md §3
MEMORY_MAX = 32 * 2**20  # bytes of all together, about; spec/authority.md §3
SESSION_SIZE, ACTING_SIZE, KEY_SIZE = 1024, 2048, 128  # bytes that each takes, about


class Acting(Struct, frozen=True):
    """A delegation that was checked."""

    delegation: Delegation
    keys: PublishKeys  # by which it was: of the identity nothing else is kept, which may be half a megabyte


class Session(Struct, frozen=True):
    """What one node has shown."""

    id: bytes
    until: float  # seconds since 1970
    checked: float  # when the keys that signed what it has shown were last looked at
    acting: tuple[Acting, ...]
    network: str = ""  # from where it was begun

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return SESSION_SIZE + sum(ACTING_SIZE + KEY_SIZE * len(each.keys.keys) for each in self.acting)

    def namespaces(self, now: float) -> frozenset[NamespaceId]:
        """Return for whom the node acts at the time `now`."""
        return frozenset(
            acting.delegation.namespace for acting in self.acting if now < min(acting.delegation.expires, self.until)
        )


class Sessions:
    """The sessions of those that asked one node. Times are seconds since 1970."""

    def __init__(self, *, sessions_max: int = SESSIONS_MAX, memory_max: int = MEMORY_MAX) -> None:
        self._max = sessions_max
        self._memory_max = memory_max  # bytes
        self._by_node: dict[NodeId, Session] = {}  # the least lately used first
        self._of_network: Counter[str] = Counter()  # bytes
        self._size = 0  # bytes of all
        # The newest that a session was begun by, as long as any acts for the namespace, and how many do.
        self._newest: dict[NamespaceId, tuple[PublishKeys, int]] = {}

    def open(
        self, node: NodeId, identifier: bytes, acting: tuple[Acting, ...], now: float, *, network: str = ""
    ) -> Session:
        """Remember what `node` has shown, instead of what it showed before.

        identifier: of a new session. The old one goes on if the node shows the same again: it
        may be several processes, none of which is to end what another began.
        """
        before = self._by_node.get(node)
        if before is not None and before.until > now and before.acting == acting and before.id:
            identifier = before.id
        session = Session(identifier, now + SESSION_TTL_S, now, acting, network)
        self._put(node, session)
        while len(self._by_node) > self._max or self._size > self._memory_max:
            most, _ = self._of_network.most_common(1)[0]
            self._take(next(each for each, other in self._by_node.items() if other.network == most))
        return session

    def find(self, node: NodeId, now: float) -> Session | None:
        """Return the session of `node`, None if there is none."""
        session = self._by_node.pop(node, None)
        if session is None:
            return None
        self._by_node[node] = session
        if session.until <= now:
            self._take(node)
            return None
        return session

    def check(self, node: NodeId, session: Session, left: tuple[Acting, ...], now: float) -> Session | None:
        """Note that of what a session has shown only `left` is good now; returns the session of `node`."""
        # It may have been opened anew meanwhile.
        if self._by_node.get(node) is session:
            # With less under an id that nobody names: so the node learns of it, and shows what it has now.
            identifier = session.id if len(left) == len(session.acting) else b""
            self._put(node, Session(identifier, session.until, now, left, session.network))
        return self.find(node, now)

    def nodes_for(self, namespaces: Collection[NamespaceId], now: float) -> list[NodeId]:
        """Return the nodes that act for one of `namespaces`. May be asked from any thread."""
        wanted = frozenset(namespaces)
        return [node for node, session in list(self._by_node.items()) if session.namespaces(now) & wanted]

    def newest(self, namespace: NamespaceId) -> PublishKeys | None:
        """Return the newest keys of a namespace that any session was begun by. May be asked from any thread."""
        found = self._newest.get(namespace)
        return found[0] if found else None

    def __len__(self) -> int:
        return len(self._by_node)

    def _put(self, node: NodeId, session: Session) -> None:
        """Remember a session instead of the one that the node had."""
        before = self._by_node.pop(node, None)
        self._by_node[node] = session
        # The new one first: what was newest stays known as long as anybody acts for the namespace.
        self._count(session)
        if before is not None:
            self._discount(before)

    def _take(self, node: NodeId) -> None:
        self._discount(self._by_node.pop(node))

    def _count(self, session: Session) -> None:
        self._size += session.size
        self._of_network[session.network] += session.size
        for each in session.acting:
            keys, count = self._newest.get(each.keys.namespace, (each.keys, 0))
            newest = each.keys if each.keys.version > keys.version else keys
            self._newest[each.keys.namespace] = newest, count + 1

    def _discount(self, session: Session) -> None:
        self._size -= session.size
        self._of_network[session.network] -= session.size
        if not self._of_network[session.network]:
            del self._of_network[session.network]
        for each in session.acting:
            keys, count = self._newest.pop(each.keys.namespace)
            if count > 1:
                self._newest[each.keys.namespace] = keys, count - 1
