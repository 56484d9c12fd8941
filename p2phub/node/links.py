"""Which link each peer is on, and what may be used of each class of links now (spec/links.md).

address, labels ──▶ class ──▶ limits up and down, slots, whether it yields
                                 ▲
settings of the owner ───────────┘  read at the start, and again when they changed
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

import trio
from msgspec import Struct
from msgspec.structs import replace

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.choices import LINK_CLASSES, LinkClass
from p2phub.core.errors import InvalidData, StoreError
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.core.labels import Labels
from p2phub.core.limits import Limit, LinkSettings
from p2phub.core.links import IPAddress, IPNetwork, classify, parse_ip
from p2phub.core.noderecord import labels_of
from p2phub.net.interfaces import own_subnets
from p2phub.net.pacing import Pacer, RateLimit
from p2phub.net.sending import Sending
from p2phub.protocol.bucket import BACKGROUND_RATE
from p2phub.protocol.slots import Slots, Turn, slots_at
from p2phub.store.peers import Peer
from p2phub.store.store import Store

from .disk import on_disk

log = logging.getLogger(__name__)

SETTING = "links"  # name in the index
REFRESH_S = 2.0  # seconds until what another process of this home set is noticed
SUBNETS_S = 60.0  # seconds between looks at the interfaces
LABELS_S = 30.0  # seconds between looks at the labels that peers have
RESOLVE_TIMEOUT_S = 2.0  # for the address of a name
NAMES_S = 300.0  # seconds until names are resolved anew
NAMES_MAX = 1000  # names whose addresses are remembered
BESIDE_SHARE = 4  # background answers get one part of so many beside the foreground; spec/links.md §4


class Agreed(Struct, frozen=True):
    """What all memberships together say of links."""

    links: Mapping[NodeId, LinkClass]  # of nodes that other members named
    members: Mapping[NamespaceId, LinkClass]  # of nodes that prove to act for them
    rates: Mapping[LinkClass, tuple[int | None, int | None]]  # bytes a second up and down, at most; None: no limit


class _Class:
    """One class of links."""

    def __init__(self) -> None:
        self.up = RateLimit()
        self.down = RateLimit()
        self.beside = RateLimit()  # for background answers, while the foreground sends too
        self.turns = trio.CapacityLimiter(math.inf)  # requests of ours that are answered at once
        self.background = False


class Links:
    """The links of one node. Used from trio's thread; made by `open_links`."""

    def __init__(self, store: Store, own: Labels, settings: LinkSettings) -> None:
        self._store = store
        self._own = own
        self._classes: dict[LinkClass, _Class] = {link: _Class() for link in LINK_CLASSES}
        self._slots = Slots()
        self._turned = trio.Event()
        self._refreshed = trio.current_time()
        self._looking = trio.Lock()  # whoever comes meanwhile waits for what is found
        self._subnets: list[IPNetwork] = []
        self._labels: dict[IPAddress, Labels] = {}
        self._agreed = Agreed({}, {}, {})
        self._members: dict[IPAddress, LinkClass] = {}  # where nodes of other members of federations are
        self._names: dict[str, IPAddress | None] = {}
        self._subnets_at = self._labels_at = self._names_at = -math.inf  # seconds
        self._apply(settings)

    # ── settings ────────────────────────────────────────────────────────────

    async def change(self, change: Callable[[LinkSettings], LinkSettings]) -> LinkSettings:
        """Put what `change` makes of the settings in force at once, and keep it; returns it."""
        settings = self._store.settings
        made = await on_disk(lambda: settings.change(SETTING, LinkSettings, lambda old: change(old or LinkSettings())))
        self._apply(made)
        return made

    async def refresh(self) -> LinkSettings:
        """Take over what another process of this home set meanwhile; returns the settings in force."""
        if trio.current_time() - self._refreshed > REFRESH_S:
            self._refreshed = trio.current_time()
            try:
                stored = await on_disk(lambda: self._store.settings.get(SETTING, LinkSettings))
            except StoreError as exc:
                log.warning("cannot look whether the limits changed: %s", exc)
            else:
                self._apply(stored or LinkSettings())
        return self.settings

    def agree(self, agreed: Agreed) -> None:
        """Put in force at once what members of federations agreed on."""
        if agreed != self._agreed:
            self._agreed = agreed
            self._labels_at = -math.inf
            self._apply(self.settings)

    @property
    def in_force(self) -> list[Limit]:
        """What may be used of each class now, by settings and by agreements; classes without a limit are left out."""
        limits = [self._limit(self.settings, link) for link in LINK_CLASSES]
        return [limit for limit in limits if limit != Limit(limit.link)]

    def _limit(self, settings: LinkSettings, link: LinkClass) -> Limit:
        """Return what may be used of `link`: what its owner and what others agreed on, whichever is less."""
        limit = settings.limit(link)
        up, down = self._agreed.rates.get(link, (None, None))
        return replace(limit, up=_least(limit.up, up), down=_least(limit.down, down))

    def _apply(self, settings: LinkSettings) -> None:
        self.settings = settings
        for link, limits in self._classes.items():
            limit = self._limit(settings, link)
            limits.background = limit.background
            limits.up.set_rate(limit.up)
            limits.down.set_rate(limit.down)
            limits.turns.total_tokens = math.inf if limit.down is None else slots_at(limit.down)
            self._slots.set_limit(link, slots_at(limit.up))
        self._start_turns()

    # ── classes ─────────────────────────────────────────────────────────────

    async def class_of(self, who: Peer | str, host: str | None = None, caller: Caller = ANYBODY) -> LinkClass:
        """Return the class of the link to a peer, or to whoever is at an address or name.

        host: where the peer is called; if it is not said, the first of its endpoints.
        caller: who is at the address, as far as that was proved.
        """
        await self.refresh()
        if isinstance(who, Peer):
            address = await self._address(host or (who.endpoints[0][0] if who.endpoints else ""))
            labels, agreed = _labels(who.record), self._agreed.links.get(who.node)
        else:
            address = await self._address(who)
            labels = await self._labels_of(address)
            agreed = self._agreed_with(caller) if caller.node else self._members.get(address) if address else None
        subnets = await self._own_subnets()
        return classify(address, labels, own=self._own, subnets=subnets, rules=self.settings, agreed=agreed)

    def _agreed_with(self, caller: Caller) -> LinkClass | None:
        """Return the class that was agreed on for links to a node that a member named, or that acts for one."""
        if caller.node is not None and caller.node in self._agreed.links:
            return self._agreed.links[caller.node]
        return next(
            (self._agreed.members[each] for each in sorted(caller.namespaces & self._agreed.members.keys())), None
        )

    async def _own_subnets(self) -> list[IPNetwork]:
        async with self._looking:
            if trio.current_time() - self._subnets_at > SUBNETS_S:
                self._subnets = await on_disk(own_subnets)
                self._subnets_at = trio.current_time()
        return self._subnets

    async def _labels_of(self, address: IPAddress | None) -> Labels:
        """Return the labels of a known peer at `address`; whoever calls shows no record."""
        if not self._own and not self.settings.labels and not self._agreed.links:
            return Labels()  # they would make no difference
        async with self._looking:
            if trio.current_time() - self._labels_at > LABELS_S:
                self._labels, self._members = await on_disk(self._known_by_address)
                self._labels_at = trio.current_time()
        return self._labels.get(address, Labels()) if address else Labels()

    def _known_by_address(self) -> tuple[dict[IPAddress, Labels], dict[IPAddress, LinkClass]]:
        """Return the labels of known peers, and the classes agreed on for members of federations, by where they are."""
        labels_at: dict[IPAddress, Labels] = {}
        members: dict[IPAddress, LinkClass] = {}
        for peer in self._store.peers.all():
            labels, agreed = _labels(peer.record), self._agreed.links.get(peer.node)
            for host, _ in peer.endpoints if labels or agreed else ():
                if address := parse_ip(host):
                    if labels:
                        labels_at.setdefault(address, labels)
                    if agreed:
                        members.setdefault(address, agreed)
        return labels_at, members

    async def _address(self, host: str) -> IPAddress | None:
        """Return the address of `host`, None if it has none or that takes too long to find out."""
        if not host or (address := parse_ip(host)):
            return address if host else None
        if host not in self._names:
            if len(self._names) >= NAMES_MAX or trio.current_time() - self._names_at > NAMES_S:
                self._names.clear()
                self._names_at = trio.current_time()
            with trio.move_on_after(RESOLVE_TIMEOUT_S), contextlib.suppress(OSError, UnicodeError):
                found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
                self._names[host] = parse_ip(str(found[0][4][0]))
        return self._names.get(host)

    # ── use ─────────────────────────────────────────────────────────────────

    def is_background(self, link: LinkClass) -> bool:
        """Say whether all that goes over `link` yields."""
        return self._classes[link].background

    def downloading(self, link: LinkClass) -> Pacer:
        """Return what one connection over `link` asks before it reads on."""
        return Pacer((self._classes[link].down,))

    def turn_to_ask(self, link: LinkClass) -> AbstractAsyncContextManager[None]:
        """Wait, where a limit is low, until few are asked at once: so that each answer arrives in time."""
        return self._classes[link].turns

    @property
    def uploads(self) -> int:
        """How many answers with content are sent now."""
        return self._slots.count

    async def take_turn(self, link: LinkClass, asker: str, *, background: bool) -> Turn:
        """Wait until another answer may be sent to `asker` over `link`; give it to `end_turn` when it is done."""
        turn = self._slots.ask(link, asker, background=background or self.is_background(link))
        try:
            self._start_turns()
            while not turn.running:
                await self._turned.wait()
        except BaseException:
            self.end_turn(turn)
            raise
        return turn

    def end_turn(self, turn: Turn) -> None:
        """Let another answer be sent instead of this one."""
        self._slots.leave(turn)
        self._start_turns()

    def sending(self, turn: Turn) -> Sending:
        """Return how an answer that has its turn is sent."""
        limits = self._classes[turn.link]
        if turn.background:
            return Sending((limits.up, limits.beside), yields_to=BACKGROUND_RATE)
        return Sending((limits.up,))

    def _start_turns(self) -> None:
        if self._slots.start():
            self._turned.set()
            self._turned = trio.Event()
        for link, limits in self._classes.items():
            behind = self._slots.running(link, background=True)
            if behind and self._slots.running(link, background=False):
                limits.beside.set_rate(max(behind * BACKGROUND_RATE, limits.up.peak() // BESIDE_SHARE))
            else:
                limits.beside.set_rate(None)


async def open_links(store: Store, own: Labels) -> Links:
    """Return the links of the node that `store` belongs to, whose own labels are `own`."""
    settings = await on_disk(lambda: store.settings.get(SETTING, LinkSettings))
    return Links(store, own, settings or LinkSettings())


def _least(one: int | None, other: int | None) -> int | None:
    limits = [each for each in (one, other) if each is not None]
    return min(limits, default=None)


def _labels(record: bytes | None) -> Labels:
    try:
        return labels_of(record) if record else Labels()
    except InvalidData:  # of a time with other rules
        return Labels()
