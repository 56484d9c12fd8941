"""What is behind a gate goes to those who accepted what it asks for (spec/gates.md §4).

Anybody can publish a manifest that somebody else made: openly, or behind a gate of his own.
And who has it openly in private lets in nobody but those who may read that.
So a node asks itself first whose word it has to keep: its own publisher's, and that of those
whose gates it passed itself. Only where it owes nobody anything, what all say counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from p2phub.core.access import Caller
from p2phub.core.gates import Gate
from p2phub.core.ids import NamespaceId
from p2phub.core.private import Repository
from p2phub.store.gates import KeptReceipt, Place
from p2phub.store.store import Store


class GateRule:
    """Says which files a caller may not have, because he accepted nothing that lets him."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        own: Callable[[], NamespaceId | None],
        readable: Callable[[Caller], Collection[Repository]],
    ) -> None:
        """clock: says the time, in seconds since 1970. own: as whom this home publishes.

        readable: says which private repositories a caller may read.
        """
        self._gates = store.gates
        self._clock = clock
        self._own = own
        self._readable = readable

    def withheld(self, caller: Caller, identifiers: Collection[bytes]) -> set[bytes]:
        """Return those of the files and manifests that `caller` may not have; of manifests never any."""
        if not self._gates.has_any():
            return set()
        readable = self._readable(caller)
        places = {
            root: [place for place in each if _counts(place, readable)]
            for root, each in self._gates.of_content(identifiers).items()
        }
        gated = {root: each for root, each in places.items() if any(place.gate for place in each)}
        if not gated:
            return set()
        gates = {place.gate.leaf: place.gate for each in gated.values() for place in each if place.gate}
        passed = {leaf for leaf, gate in gates.items() if self.lets(caller, gate)}
        accepted, own, mirrored = self._gates.accepted(), self._own(), self._gates.mirrored(gated)
        found = set()
        for root, each in gated.items():
            owed = _owed(each, accepted, own)
            if owed:
                is_let = {gate.leaf for gate in owed} <= passed
            else:
                leaves = {place.gate.leaf if place.gate else None for place in each}
                is_let = root in mirrored or None in leaves or bool(leaves & passed)
            if not is_let:
                found.add(root)
        return found

    def lets(self, caller: Caller, gate: Gate) -> bool:
        """Say whether `caller` has passed `gate`."""
        if gate.publisher in caller.namespaces:
            return True
        if caller.node is None:
            return False
        return any(self.state(gate, receipt) == "good" for receipt in self._gates.receipts_of(gate, caller))

    def state(self, gate: Gate, receipt: KeptReceipt) -> str:
        """Return what a receipt is worth at `gate`: "good", "waiting" for the publisher's word, or "refused" by it."""
        decision = self._gates.decision(gate, receipt.hash)
        if decision is None:
            return "good" if gate.approval == "automatic" else "waiting"
        is_over = decision.until is not None and decision.until <= self._clock()
        return "good" if decision.is_approved and not is_over else "refused"


def _counts(place: Place, readable: Collection[Repository]) -> bool:
    """Say whether a place is one for whoever may read the private repositories `readable`; a gate always is."""
    if place.gate is not None or not place.is_private:
        return True
    return Repository(place.publisher, place.model) in readable


def _owed(
    places: Sequence[Place], accepted: Collection[tuple[NamespaceId, str]], own: NamespaceId | None
) -> list[Gate]:
    """Return the gates that this node has to keep for some content, all of them.

    Its own, and those of repositories of which it passed a gate: other terms since bind it too.
    """
    found = []
    for place in places:
        gate = place.gate
        if gate is None or not (place.publisher == own or (place.publisher, place.model) in accepted):
            continue
        # Who has it openly as well does not mean it to be closed.
        if not any(other.gate is None and other.publisher == gate.publisher for other in places):
            found.append(gate)
    return found
