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
from typing import TYPE_CHECKING, Protocol

import trio
from msgspec import Struct, field

from p2phub.core.access import Caller
from p2phub.core.certificate import certificate
from p2phub.core.errors import StoreError
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId, NodeId
from p2phub.core.labels import Labels
from p2phub.core.noderecord import TTL_MAX_S, NodeRecord, SignedNodeRecord, sign_node_record
from p2phub.core.signing import SigningKey
from p2phub.protocol.dialling import Dialling
from p2phub.store.keys import load_or_create_key
from p2phub.store.lazily import is_made, made_once
from p2phub.store.store import Store

from .acting import Acting
from .calls import Calls
from .disk import on_disk
from .identity import own_identity, own_namespace
from .links import Links, open_links
from .naming import Naming
from .neighbours import Neighbours
from .operations.swarm import SwarmProvider
from .promises import Promises, Wake
from .rules import Rulebook
from .settings import Settings

if TYPE_CHECKING:
    from .access import Access
    from .authority import Authority
    from .following import Following
    from .giving import Giving
    from .openanswers import OpenAnswers
    from .opened import OpenedLately
    from .upstream import Hub
    from .witness import Witness

log = logging.getLogger(__name__)


class SwarmState(Struct, frozen=True):
    """How a download goes."""

    rate: float  # bytes a second
    waiting_for: str | None
    providers: list[SwarmProvider]


class Running(Struct, eq=False):
    """A download of this node."""

    background: bool  # lets those in the foreground go first
    done: trio.Event = field(default_factory=trio.Event)


class Reader(Protocol):
    """Who reads a file that is not whole here."""

    def __hash__(self) -> int: ...

    def wake(self) -> None:
        """Say that what is read next is here."""


class Arriving(Struct, frozen=True):
    """A file that this node downloads now."""

    have: bytearray  # a byte for each chunk, 1 if it is on disk
    note_mate: Callable[[NodeId], None]  # to be told of a peer that downloads it too
    explain: Callable[[], SwarmState]  # says how the download goes
    note_reader: Callable[[Reader, int | None], None]  # to be told at which byte somebody reads it; None: gone


class Node:
    """An open node. Made by `open_node`.

    What only some commands need is made, and its code loaded, when it is first asked for.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        key: SigningKey,
        links: Links,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """Clock and rng are time and chance, so that a simulation can give its own."""
        self.settings = settings
        self.store = store
        self.key = key
        self.links = links
        self.clock = clock  # says the seconds since 1970
        self.rng = rng or random.Random()
        self.started = clock()
        self.endpoints: list[str] = []  # HOST:PORT where it serves
        self.downloads: dict[ContentId, Running] = {}  # by file
        self.arriving: dict[ContentId, Arriving] = {}  # of those, what has come
        # Who reads a file that is not whole here, by file, and at which byte: known before its download begins.
        self.readers: dict[ContentId, dict[Reader, int]] = {}
        self.acting = Acting()
        self.promises = Promises()
        self.federated = Wake()  # the task that tells members of federations
        self.dialling = Dialling()
        self.neighbours = Neighbours(self.id, self.rng)
        self.calls = Calls(key, clock)
        self.naming = Naming()
        self.witness: Witness | None = None  # if this node cosigns heads
        self.caught_up: set[LogId] = set()  # own logs that were written elsewhere, and are here now
        self.uploaded = 0  # bytes of content sent since the start
        self.refreshing = trio.Lock()  # held by who brings the maps up to date
        self.noted_record = b""  # the own record as the store has it
        self.delegation_problem = ""  # why it could not say that it acts for its publisher, when it last tried
        named = settings.policy_file
        self.rules = Rulebook(named or settings.layout.policy, self._pinned, required=named is not None)
        self.published = trio.Event()  # set when something of one's own is new
        self.learned: dict[NamespaceId, float] = {}  # when a peer was asked what a publisher stated
        self._record: SignedNodeRecord | None = None

    @made_once
    def authority(self) -> Authority:
        """Says who asks this node."""
        from .authority import Authority

        return Authority(self.id, self.store, self.clock, began=self.started)

    @made_once
    def access(self) -> Access:
        """Says who may have what."""
        from .access import Access

        return Access(self.store, self.clock, self.rules, self._pledged, lambda: own_namespace(self))

    @made_once
    def following(self) -> Following:
        """Says whose records are taken in."""
        from .federations import followed
        from .following import Following

        return Following(
            self.store,
            lambda: own_identity(self).namespace,
            lambda own: followed(self.store, own, self.clock()),
        )

    @made_once
    def hub(self) -> Hub:
        """Another hub that has what nobody here has."""
        from .upstream import Hub

        return Hub(self.settings)

    @made_once
    def giving(self) -> Giving:
        """What this node gives as the only one that has it."""
        from .giving import Giving

        return Giving()

    @made_once
    def opened(self) -> OpenedLately:
        """What was sealed and opened lately."""
        from .opened import OpenedLately

        return OpenedLately()

    @made_once
    def open_answers(self) -> OpenAnswers:
        """The answers that it is sending."""
        from .openanswers import OpenAnswers

        return OpenAnswers(self._has_lost)

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
        """Return this node's signed record, renewed when half of its time is over, or the clock was set back."""
        now = int(self.clock())
        # Nobody takes one of tomorrow.
        if self._record is None or not now - TTL_MAX_S // 2 <= self._record.record.time <= now:
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
        node = Node(settings, store, key, links, clock, rng)
        await on_disk(_agree_links, node)
        try:
            yield node
        finally:
            node.calls.close()
            if is_made(node, "hub"):
                node.hub.close()
            if node.witness is not None:
                node.witness.close()
    finally:
        store.close()


def _agree_links(node: Node) -> None:
    """Put in force what this home agreed on with others about links; most agreed on nothing."""
    if node.store.federations.all():
        from .federations import agreed_links

        node.links.agree(agreed_links(node.store, own_namespace(node), node.id, node.clock()))
