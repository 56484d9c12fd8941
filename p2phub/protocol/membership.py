"""Decide with whom a node keeps in touch (spec/gossip.md §2).

A node has a few *active* peers, its neighbours, which tell each other news, and remembers
more as candidates, for when neighbours leave. The machine holds both views and decides:

    know, heard, ask_came, answered, failed, … ──▶ Membership ──tick──▶ Ask │ Exchange │ Leave

Rule: nobody can choose a node's neighbours for it. Some of its places only it can fill, one
of them is given anew at random again and again, and candidates that it was told of never
displace those that it reached itself or that the user added.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from p2phub.core.ids import NodeId

ACTIVE_MAX = 6  # neighbours; spec/gossip.md §2
CHOSEN_MIN = 2  # of these places, only for those whom this node asked; spec/gossip.md §2
CLASS_MAX = 10  # candidates of each origin; spec/gossip.md §2
NETWORK_ACTIVE_MAX = 2  # neighbours in one network; spec/gossip.md §2
NETWORK_CLASS_MAX = 3  # candidates of one origin in one network; spec/gossip.md §2
ASKS_MAX = 2  # peers that are asked at once
ROTATE_S = 60.0  # seconds between neighbours chosen anew by chance; spec/gossip.md §2
EXCHANGE_S = 15.0  # seconds between exchanges of candidates; spec/gossip.md §2
URGENT_S = 10.0  # seconds between neighbours given up for one that asked urgently; spec/gossip.md §2
HOLD_S = 30.0  # seconds that a peer which refused, left or failed is not asked again, about; spec/gossip.md §2
HELD_MAX = 1000  # peers of which that is remembered

Origin = Literal["added", "reached", "heard"]
ORIGINS: tuple[Origin, ...] = ("added", "reached", "heard")  # in the order of trust


class Contact(Struct, frozen=True):
    """A peer, and the network whose addresses one owner is likely to have; None: an organisation's own, not counted."""

    node: NodeId
    network: str | None


class Ask(Struct, frozen=True):
    """Ask `node` to become a neighbour; report `accepted`, `refused` or `failed`."""

    node: NodeId
    urgent: bool  # this node has no other, or renews one


class Exchange(Struct, frozen=True):
    """Exchange candidates with `node`; report `answered` or `failed`."""

    node: NodeId


class Leave(Struct, frozen=True):
    """Tell `node` that it is no neighbour any more."""

    node: NodeId


Command = Ask | Exchange | Leave


class _Neighbour(Struct):
    contact: Contact
    origin: Origin  # as what it was known
    chosen: bool  # this node asked, not the other
    heard_at: float  # seconds, when it last answered or called


class _Asked(Struct):
    contact: Contact
    origin: Origin
    rotating: bool


class Membership:
    """The neighbours and candidates of one node. Times are seconds of one clock."""

    def __init__(self, own: NodeId, rng: random.Random, now: float) -> None:
        self._own = own
        self._rng = rng
        self._active: dict[NodeId, _Neighbour] = {}
        # A node is in one class at most, and in none while it is a neighbour or asked.
        self._candidates: dict[Origin, dict[NodeId, Contact]] = {origin: {} for origin in ORIGINS}
        self._asked: dict[NodeId, _Asked] = {}
        # Until when, in seconds, a peer is not called at all, or is not asked to be a neighbour; the oldest first.
        self._holds: dict[NodeId, float] = {}
        self._declined: dict[NodeId, float] = {}
        self._renewed: NodeId | None = None  # the neighbour that the next chosen by chance replaces
        # Not at once: nodes that start together would do all together.
        self._rotate_at = now + ROTATE_S * rng.uniform(0.5, 1.5)
        self._exchange_at = now + EXCHANGE_S * rng.uniform(0.2, 1.0)
        self._exchanges = 0
        self._urgent_at = now  # when a neighbour may be given up for another

    # ── views ───────────────────────────────────────────────────────────────

    @property
    def active(self) -> tuple[NodeId, ...]:
        """The neighbours, the oldest first."""
        return tuple(self._active)

    def is_active(self, node: NodeId) -> bool:
        """Say whether `node` is a neighbour."""
        return node in self._active

    def candidates(self) -> list[NodeId]:
        """Return the candidates, those added first."""
        return [node for origin in ORIGINS for node in self._candidates[origin]]

    def sample(self, count: int, *, without: NodeId) -> list[NodeId]:
        """Return up to `count` peers to tell `without` of, by chance: neighbours, and candidates once reached."""
        known = [*self._active, *self._candidates["reached"]]
        self._rng.shuffle(known)
        return [node for node in known if node != without][:count]

    def partner(self, now: float) -> NodeId | None:
        """Return a peer to compare the whole catalogue with, by chance; None if there is nobody.

        Every other time it is no neighbour: what all neighbours withhold is found so.
        """
        neighbours, others = list(self._active), self._free(now)
        if neighbours and (not others or self._rng.random() < 0.5):
            return self._rng.choice(neighbours)
        return self._pick(others)[1].node if others else None

    # ── candidates ──────────────────────────────────────────────────────────

    def know(self, contact: Contact, origin: Origin) -> None:
        """Note a peer that can be asked: the user added it, it was reached before, or others told of it."""
        node = contact.node
        if node == self._own or node in self._active or node in self._asked:
            return
        current = next((each for each in ORIGINS if node in self._candidates[each]), None)
        if current is not None:
            if ORIGINS.index(origin) > ORIGINS.index(current):
                return
            del self._candidates[current][node]
        self._insert(contact, origin)

    def heard(self, contacts: Iterable[Contact]) -> None:
        """Take up what others told of."""
        for contact in contacts:
            self.know(contact, "heard")

    def answered(self, node: NodeId, now: float) -> None:
        """Note that `node` answered where it was called, so that it is who it was said to be."""
        self._holds.pop(node, None)
        if asked := self._asked.get(node):
            asked.origin = _proven(asked.origin)
        elif neighbour := self._active.get(node):
            neighbour.heard_at = now
            neighbour.origin = _proven(neighbour.origin)
        elif contact := self._candidates["heard"].pop(node, None):
            self._insert(contact, "reached")

    def called(self, node: NodeId, now: float) -> None:
        """Note that `node` called: a neighbour is still there."""
        if node in self._active:
            self._active[node].heard_at = now

    def forget(self, node: NodeId) -> None:
        """Let go of a peer altogether: it lied, or the user removed it."""
        self._drop(node)
        self._asked.pop(node, None)
        for known in self._candidates.values():
            known.pop(node, None)

    # ── neighbours ──────────────────────────────────────────────────────────

    def ask_came(self, contact: Contact, *, urgent: bool, now: float) -> tuple[bool, list[Command]]:
        """Decide whether a peer that asks becomes a neighbour; returns that, and what follows."""
        node = contact.node
        if node == self._own:
            return False, []
        if node in self._active:
            self.called(node, now)
            return True, []
        if self._in_network(contact) >= NETWORK_ACTIVE_MAX:
            return False, []
        leaving: list[Command] = []
        came = [each for each in self._active.values() if not each.chosen]
        if len(self._active) >= ACTIVE_MAX or len(came) >= ACTIVE_MAX - CHOSEN_MIN:
            # Only one that came by itself: else who calls often could displace all that this node chose.
            if not urgent or not came or now < self._urgent_at:
                return False, []
            self._urgent_at = now + URGENT_S
            leaving.append(Leave(self._give_up(self._rng.choice(came).contact.node, now)))
        self._add(contact, self._origin(node), chosen=False, now=now)
        return True, leaving

    def accepted(self, node: NodeId, now: float) -> list[Command]:
        """Note that a peer which was asked is a neighbour from now on."""
        asked = self._asked.pop(node, None)
        if asked is None:
            return []
        origin = _proven(asked.origin)
        leaving: list[Command] = []
        if self._in_network(asked.contact) >= NETWORK_ACTIVE_MAX:  # one of it asked meanwhile
            self._insert(asked.contact, origin)
            return [Leave(node)]
        if len(self._active) >= ACTIVE_MAX:
            given_up = self._renewed if self._renewed in self._active else self._rng.choice(list(self._active))
            assert given_up is not None
            leaving.append(Leave(self._give_up(given_up, now)))
        self._add(asked.contact, origin, chosen=True, now=now)
        if asked.rotating:
            self._renewed = node
        return leaving

    def refused(self, node: NodeId, now: float, hold_s: float = HOLD_S) -> None:
        """Note that a peer which was asked has no place; `hold_s` seconds are to pass until it is asked again."""
        asked = self._asked.pop(node, None)
        if asked is not None:
            self._insert(asked.contact, asked.origin)
            self._hold(self._declined, node, now, hold_s)

    def left(self, node: NodeId, now: float) -> None:
        """Note that a neighbour said it is none any more."""
        if node in self._active:
            self._give_up(node, now)

    def failed(self, node: NodeId, now: float, hold_s: float = HOLD_S) -> None:
        """Note that a peer did not answer, or did not prove to be who it was said to be.

        hold_s: seconds that it is not called again, about.
        """
        asked = self._asked.pop(node, None)
        dropped = self._drop(node)
        self._hold(self._holds, node, now, hold_s)
        if dropped is not None:
            self._insert(dropped.contact, dropped.origin)
        elif asked is not None and asked.origin != "heard":
            self._insert(asked.contact, asked.origin)
        # What others told of and is not there is forgotten.
        self._candidates["heard"].pop(node, None)

    def hold(self, node: NodeId, now: float) -> None:
        """Do not call a candidate for a while: it could not be used."""
        self._hold(self._holds, node, now, HOLD_S)

    def tick(self, now: float) -> list[Command]:
        """Return what is to be done now, and count it as begun."""
        commands: list[Command] = []
        while len(self._active) + len(self._asked) < ACTIVE_MAX and len(self._asked) < ASKS_MAX:
            ask = self._ask(now, rotating=False)
            if ask is None:
                break
            commands.append(ask)
        if now >= self._rotate_at:
            self._rotate_at = now + ROTATE_S * self._rng.uniform(0.7, 1.3)
            if len(self._active) >= ACTIVE_MAX and (ask := self._ask(now, rotating=True)):
                commands.append(ask)
        if now >= self._exchange_at:
            self._exchange_at = now + EXCHANGE_S * self._rng.uniform(0.7, 1.3)
            commands += self._exchange(now)
        return commands

    # ── helpers ─────────────────────────────────────────────────────────────

    def _exchange(self, now: float) -> list[Command]:
        """Ask the neighbour that was silent longest, which so is found to be gone; now and then a candidate too."""
        self._exchanges += 1
        commands: list[Command] = []
        if self._active:
            silent = min(self._active.values(), key=lambda each: (each.heard_at, each.contact.node))
            commands.append(Exchange(silent.contact.node))
        others = self._free(now)
        if others and (self._exchanges % 3 == 0 or not self._active):
            commands.append(Exchange(self._pick(others)[1].node))
        return commands

    def _ask(self, now: float, *, rotating: bool) -> Ask | None:
        free = {
            origin: fitting
            for origin, contacts in self._free(now).items()
            if (fitting := [each for each in contacts if self._may_be_asked(each, now)])
        }
        if not free:
            return None
        origin, contact = self._pick(free)
        del self._candidates[origin][contact.node]
        self._asked[contact.node] = _Asked(contact, origin, rotating)
        return Ask(contact.node, urgent=rotating or not self._active)

    def _may_be_asked(self, contact: Contact, now: float) -> bool:
        is_declined = now < self._declined.get(contact.node, now)
        return not is_declined and self._in_network(contact) < NETWORK_ACTIVE_MAX

    def _free(self, now: float) -> dict[Origin, list[Contact]]:
        """Return the candidates that may be called now, by origin; no origin without any."""
        found: dict[Origin, list[Contact]] = {}
        for origin in ORIGINS:
            free = [each for each in self._candidates[origin].values() if not self._is_held(each.node, now)]
            if free:
                found[origin] = free
        return found

    def _pick(self, free: dict[Origin, list[Contact]]) -> tuple[Origin, Contact]:
        """Choose by chance, first an origin: so many as others may tell of, they are chosen no more often."""
        origin = self._rng.choice(list(free))
        return origin, self._rng.choice(free[origin])

    def _in_network(self, contact: Contact) -> int:
        """Count the neighbours, and those asked, in the network of `contact`."""
        if contact.network is None:
            return 0
        others = [each.contact for each in self._active.values()] + [each.contact for each in self._asked.values()]
        return sum(each.network == contact.network and each.node != contact.node for each in others)

    def _insert(self, contact: Contact, origin: Origin) -> None:
        """Keep a candidate; in a full class one is forgotten by chance."""
        known = self._candidates[origin]
        alike = [
            node for node, each in known.items() if contact.network is not None and each.network == contact.network
        ]
        if len(alike) >= NETWORK_CLASS_MAX:
            del known[self._rng.choice(alike)]
        elif len(known) >= CLASS_MAX:
            del known[self._rng.choice(list(known))]
        known[contact.node] = contact

    def _add(self, contact: Contact, origin: Origin, *, chosen: bool, now: float) -> None:
        for known in self._candidates.values():
            known.pop(contact.node, None)
        self._asked.pop(contact.node, None)
        self._holds.pop(contact.node, None)
        self._declined.pop(contact.node, None)
        self._active[contact.node] = _Neighbour(contact, origin, chosen, now)

    def _origin(self, node: NodeId) -> Origin:
        """Return as what a neighbour that comes by itself is known."""
        if asked := self._asked.get(node):
            return asked.origin
        return next((origin for origin in ORIGINS if node in self._candidates[origin]), "heard")

    def _give_up(self, node: NodeId, now: float) -> NodeId:
        """Let a neighbour be a candidate again, not at once."""
        dropped = self._drop(node)
        assert dropped is not None
        self._insert(dropped.contact, dropped.origin)
        self._hold(self._declined, node, now, HOLD_S)
        return node

    def _drop(self, node: NodeId) -> _Neighbour | None:
        if self._renewed == node:
            self._renewed = None
        return self._active.pop(node, None)

    def _hold(self, holds: dict[NodeId, float], node: NodeId, now: float, hold_s: float) -> None:
        holds.pop(node, None)
        holds[node] = now + hold_s * self._rng.uniform(0.7, 1.3)
        if len(holds) > HELD_MAX:
            del holds[next(iter(holds))]

    def _is_held(self, node: NodeId, now: float) -> bool:
        return now < self._holds.get(node, now)


def _proven(origin: Origin) -> Origin:
    """Return the origin of a candidate once it answered."""
    return "reached" if origin == "heard" else origin
