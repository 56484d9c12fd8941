"""What is behind a gate goes to those who accepted what it asks for (spec/gates.md §4)."""

from __future__ import annotations

from collections.abc import Callable, Collection

from p2phub.core.access import Caller
from p2phub.core.gates import Gate
from p2phub.store.gates import KeptReceipt
from p2phub.store.store import Store


class GateRule:
    """Says which files a caller may not have, because he accepted nothing that lets him."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        """clock: says the time, in seconds since 1970."""
        self._gates = store.gates
        self._clock = clock

    def withheld(self, caller: Caller, identifiers: Collection[bytes]) -> set[bytes]:
        """Return those of the files and manifests that `caller` may not have; of manifests never any."""
        if not self._gates.has_any():
            return set()
        behind = self._gates.of_content(identifiers)
        gates = {gate.leaf: gate for each in behind.values() for gate in each}
        passed = {leaf for leaf, gate in gates.items() if self.lets(caller, gate)}
        return {root for root, each in behind.items() if not passed & {gate.leaf for gate in each}}

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
