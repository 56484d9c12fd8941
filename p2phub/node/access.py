"""Who may have what of this node: the one place that every answer with content asks.

    caller, ids ──▶ each Rule ──▶ what he may not have

A rule that withholds something makes it look absent: who asks learns no more than from what was never here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol, TypeVar

from blake3 import blake3

from p2phub.core.access import Caller
from p2phub.core.ids import Id, NamespaceId
from p2phub.core.private import Repository
from p2phub.store.store import Store

from .gaterule import GateRule
from .refused import Refused
from .rules import Rulebook

AnyId = TypeVar("AnyId", bound=Id)


class Rule(Protocol):
    """Says what of content is not for everybody."""

    def withheld(self, caller: Caller, identifiers: Collection[bytes]) -> set[bytes]:
        """Return those of the files and manifests that `caller` may not have."""


class Restricted:
    """What came from where not everybody may have it is for those alone whom the owner of the node lets in.

    He does so by publishing it in private (spec/mirrors.md §5). What others publish of it lets in nobody.
    """

    def __init__(
        self,
        store: Store,
        own: Callable[[], NamespaceId | None],
        readable: Callable[[Caller], Collection[Repository]],
    ) -> None:
        """own: as whom this home publishes. readable: says which private repositories a caller may read."""
        self._store = store
        self._own = own
        self._readable = readable

    def withheld(self, caller: Caller, identifiers: Collection[bytes]) -> set[bytes]:
        if not self._store.mirrors.has_withheld():
            return set()
        withheld = self._store.mirrors.withheld(identifiers)
        # By who asks, not by what is found: what is private too is to take as long as what is not here.
        readable = self._readable(caller)
        if readable:
            own = self._own()
            own_ones = [each for each in readable if each.namespace == own]
            withheld -= self._store.private.within(identifiers, own_ones)
        return withheld


class PrivateRepositories:
    """What is of private repositories alone is for those whom the publisher lets in (spec/private.md §5)."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def readable(self, caller: Caller) -> set[Repository]:
        """Return the private repositories that `caller` may read now."""
        return self._store.private.readable(caller, self._clock())

    def hidden_publishers(self, caller: Caller, namespaces: Collection[NamespaceId]) -> set[NamespaceId]:
        """Return the publishers of whom only private repositories are here, none of which `caller` may read."""
        return self._store.private.known_secretly(namespaces) - {each.namespace for each in self.readable(caller)}

    def withheld(self, caller: Caller, identifiers: Collection[bytes]) -> set[bytes]:
        # What he may read is found first, whatever he asks for, so that it takes as long for what is not here.
        return self._store.private.hidden(identifiers, self.readable(caller))


class Access:
    """What the node lets others have."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        rulebook: Rulebook,
        pledged: Callable[[], Collection[bytes]] = frozenset,
        own: Callable[[], NamespaceId | None] = lambda: None,
    ) -> None:
        """clock: says the time, in seconds since 1970. pledged: what stays reachable though it was recalled.

        own: as whom this home publishes.
        """
        self.private = PrivateRepositories(store, clock)
        self.gates = GateRule(store, clock, own, self.private.readable)
        self.refused = Refused(store, rulebook, pledged, own, self.private.readable)
        self.rules: list[Rule] = [Restricted(store, own, self.private.readable), self.private, self.refused, self.gates]
        self._decoy_key = secrets.token_bytes(32)

    def withheld(self, caller: Caller, identifiers: Collection[bytes]) -> set[bytes]:
        """Return those of the files and manifests that `caller` may not have."""
        return set().union(*(rule.withheld(caller, identifiers) for rule in self.rules))

    def shown(self, caller: Caller, identifiers: Iterable[AnyId]) -> list[AnyId]:
        """Return what is to be looked up for `caller` instead of each of the ids: itself, or one that nothing has.

        So an answer about what is withheld comes the same way, and takes the same time, as one about what is not here.
        """
        asked: Sequence[AnyId] = list(identifiers)
        withheld = self.withheld(caller, asked)
        # Both are made of each, so that it takes as long.
        return [(each, decoy)[each in withheld] for each, decoy in ((each, self._decoy(each)) for each in asked)]

    def shown_publishers(
        self, caller: Caller, namespaces: Iterable[NamespaceId], own: NamespaceId | None
    ) -> tuple[NamespaceId, ...]:
        """Return whom to look up for `caller` instead of each publisher: himself, or one whom nobody knows.

        own: the publisher of this home, whom all may know.
        """
        asked = tuple(namespaces)
        hidden = self.private.hidden_publishers(caller, asked) - {own}
        return tuple(self._decoy(each) if each in hidden else each for each in asked)

    def _decoy(self, identifier: AnyId) -> AnyId:
        return type(identifier)(blake3(identifier, key=self._decoy_key).digest())
