"""A node: its keys, its store, and what runs in the background while it serves.

A command that runs alone opens a node that does not serve; the daemon opens one that
does. Both do the same work through the same functions.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import trio

from p2phub.core.access import Caller
from p2phub.core.certificate import certificate
from p2phub.core.errors import StoreError
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId, NodeId
from p2phub.core.labels import Labels
from p2phub.core.noderecord import TTL_MAX_S, NodeRecord, SignedNodeRecord, sign_node_record
from p2phub.core.signing import SigningKey
from p2phub.protocol.dialling import Dialling
from p2phub.store.keys import load_or_create_key
from p2phub.store.store import Store

from . import federations
from .access import Access
from .acting import Acting
from .authority import Authority
from .calls import Calls
from .disk import on_disk
from .following import Following
from .giving import Giving
from .identity import own_identity, own_namespace
from .links import Links, open_links
from .naming import Naming
from .neighbours import Neighbours
from .openanswers import OpenAnswers
from .opened import OpenedLately
from .promises import Promises, Wake
from .results import SwarmProvider
from .rules import Rulebook
from .settings import Settings
from .upstream import Hub
from .witness import Witness

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SwarmState:
    """How a download goes."""

    rate: float  # bytes a second
    waiting_for: str | None
    providers: list[SwarmProvider]


@dataclass(eq=False)
class Running:
    """A download of this node."""

    background: bool  # lets those in the foreground go first
    done: trio.Event = field(default_factory=trio.Event)


class Reader(Protocol):
    """Who reads a file that is not whole here."""

    def __hash__(self) -> int: ...

    def wake(self) -> None:
        """Say that what is read next is here."""


@dataclass(frozen=True)
class Arriving:
    """A file that this node downloads now."""

    have: bytearray  # a byte for each chunk, 1 if it is on disk
    note_mate: Callable[[NodeId], None]  # to be told of a peer that downloads it too
    explain: Callable[[], SwarmState]  # says how the download goes
    note_reader: Callable[[Reader, int | None], None]  # to be told at which byte somebody reads it; None: gone


@dataclass
class Node:
    """An open node. Made by `open_node`."""

    settings: Settings
    store: Store
    key: SigningKey
    links: Links
    # Time and chance, so that a simulation can give its own.
    clock: Callable[[], float] = time.time  # seconds since 1970
    rng: random.Random = field(default_factory=random.Random)
    endpoints: list[str] = field(default_factory=list)  # HOST:PORT where it serves
    downloads: dict[ContentId, Running] = field(default_factory=dict)  # by file
    arriving: dict[ContentId, Arriving] = field(default_factory=dict)  # of those, what has come
    # Who reads a file that is not whole here, by file, and at which byte: known before its download begins.
    readers: dict[ContentId, dict[Reader, int]] = field(default_factory=dict)
    acting: Acting = field(default_factory=Acting)
    giving: Giving = field(default_factory=Giving)
    calls: Calls = field(init=False)
    opened: OpenedLately = field(default_factory=OpenedLately)
    promises: Promises = field(default_factory=Promises)
    federated: Wake = field(default_factory=Wake)  # the task that tells members of federations
    started: float = field(init=False)  # seconds since 1970
    dialling: Dialling = field(default_factory=Dialling)
    neighbours: Neighbours = field(init=False)
    following: Following = field(init=False)
    authority: Authority = field(init=False)
    access: Access = field(init=False)
    naming: Naming = field(init=False)
    open_answers: OpenAnswers = field(init=False)
    witness: Witness | None = None  # if this node cosigns heads
    caught_up: set[LogId] = field(default_factory=set)  # own logs that were written elsewhere, and are here now
    rules: Rulebook = field(init=False)
    uploaded: int = 0  # bytes of content sent since the start
    refreshing: trio.Lock = field(default_factory=trio.Lock)  # held by who brings the maps up to date
    noted_record: bytes = b""  # the own record as the store has it
    delegation_problem: str = ""  # why it could not say that it acts for its publisher, when it last tried
    _record: SignedNodeRecord | None = None

    def __post_init__(self) -> None:
        self.started = self.clock()
        self.neighbours = Neighbours(self.id, self.rng)
        self.calls = Calls(self.key, self.clock)
        self.authority = Authority(self.id, self.store, self.clock)
        self.following = Following(
            self.store,
            lambda: own_identity(self).namespace,
            lambda own: federations.followed(self.store, own, self.clock()),
        )
        named = self.settings.policy_file
        self.rules = Rulebook(named or self.settings.layout.policy, self._pinned, required=named is not None)
        self.access = Access(self.store, self.clock, self.rules, self._pledged, lambda: own_namespace(self))
        self.naming = Naming()
        self.open_answers = OpenAnswers(self._has_lost)
        self.hub = Hub(self.settings)  # another hub that has what nobody here has
        self.published = trio.Event()  # set when something of one's own is new
        self.learned: dict[NamespaceId, float] = {}  # when a peer was asked what a publisher stated

    def _pinned(self, name: str) -> NamespaceId | None:
        binding = self.store.bindings.get(name)
        return binding.namespace if binding else None

    def _pledged(self) -> set[ManifestId]:
        from .pledging import pledged_manifests  # made of nodes itself

        return pledged_manifests(self)

    @property
    def id(self) -> NodeId:
        return NodeId(self.key.public_key)

    @property
    def addresses(self) -> list[str]:
        """Where this node can be reached, as people write it."""
        return [f"p2phub://{self.id}@{endpoint}" for endpoint in self.endpoints]

    def record(self) -> bytes:
        """Return this node's signed record, renewed when half of its time is over."""
        now = int(self.clock())
        if self._record is None or self._record.record.time + TTL_MAX_S // 2 < now:
            self._record = sign_node_record(
                NodeRecord(
                    schema=1,
                    node=self.id,
                    addresses=tuple(self.endpoints[:16]),
                    certificate=certificate(self.key),
                    time=now,
                    ttl=TTL_MAX_S,
                    cluster=self.settings.cluster,
                    site=self.settings.site,
                ),
                self.key,
            )
        return self._record.data

    def serve_at(self, endpoints: list[str]) -> None:
        """Note where this node can be reached from now on."""
        self.endpoints = endpoints
        self._record = None

    async def _has_lost(self, caller: Caller, identifiers: Collection[bytes]) -> bool:
        """Say whether a caller may not have all of some files any more."""
        try:
            return bool(await on_disk(self.access.withheld, await self.authority.still(caller), identifiers))
        except StoreError as exc:
            log.warning("cannot look whether an answer may go on, so it ends: %s", exc)
            return True

    def is_held(self, download: Running) -> bool:
        """Say whether a download is to wait for another one."""
        return download.background and any(not other.background for other in self.downloads.values())

    def note_news(self, log: LogId, start: int, source: NodeId | None = None) -> None:
        """Note that a log came further than `start` records, to be told to others but for the peer that brought it."""
        self.neighbours.note_news(log, start, source)
        self.promises.wake()
        if source is None:
            self.wake_publisher()

    def wake_publisher(self) -> None:
        """Let whoever states what is newest of one's own look."""
        self.published.set()
        self.published = trio.Event()


@asynccontextmanager
async def open_node(
    settings: Settings, *, clock: Callable[[], float] = time.time, rng: random.Random | None = None
) -> AsyncIterator[Node]:
    """Give a node that serves nobody: for one command.

    clock: says the time, in seconds since 1970. rng: its chance.
    """
    store = await on_disk(Store, settings.layout)
    try:
        key = await on_disk(load_or_create_key, settings.layout.keys / "node.key")
        links = await open_links(store, Labels(settings.cluster, settings.site))
        node = Node(settings, store, key, links, clock, rng or random.Random())
        links.agree(await on_disk(_agreed_links, node))
        try:
            yield node
        finally:
            node.calls.close()
            node.hub.close()
            if node.witness is not None:
                node.witness.close()
    finally:
        store.close()


def _agreed_links(node: Node) -> federations.Agreed:
    """Return what this home agreed on with others about links; most agreed on nothing."""
    if not node.store.federations.all():
        return federations.Agreed({}, {}, {})
    return federations.agreed_links(node.store, own_namespace(node), node.id, node.clock())
