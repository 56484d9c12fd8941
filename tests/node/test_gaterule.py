"""Whose gates a node keeps: its own, those it passed itself, and others where nobody has the content openly."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.gates import Gate, sign_receipt
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.core.private import Repository
from p2phub.node.gaterule import GateRule
from p2phub.store.gates import KeptReceipt, Place
from p2phub.testing import values

ALICE, BOB, EVE, READER = (values.identity(name).namespace for name in ("publisher", "bob", "eve", "reader"))
NODE = NodeId(values.key("node").public_key)
ROOT = bytes(32)


def gate(publisher: NamespaceId, number: int) -> Gate:
    return Gate(publisher, "parrot", bytes([number]) * 32, "Parrot-1.0", "Be kind.", "institution", "automatic", 0)


ALICES, EVES = gate(ALICE, 1), gate(EVE, 2)


class FakeGates:
    """A store in which some repositories have one file."""

    def __init__(
        self, places: list[Place], accepted: set[tuple[NamespaceId, str]], given: list[Gate], *, mirrored: bool
    ) -> None:
        self._places, self._accepted, self._given, self._mirrored = places, accepted, given, mirrored

    def has_any(self) -> bool:
        return True

    def of_content(self, roots: object) -> dict[bytes, list[Place]]:
        return {ROOT: self._places} if self._places else {}

    def accepted(self) -> set[tuple[NamespaceId, str]]:
        return self._accepted

    def mirrored(self, roots: object) -> set[bytes]:
        return {ROOT} if self._mirrored else set()

    def decision(self, gate: Gate, receipt: bytes) -> None:
        return None

    def receipts_of(self, gate: Gate, caller: Caller) -> list[KeptReceipt]:
        """The reader has given receipts for some gates."""
        if gate not in self._given or READER not in caller.namespaces:
            return []
        signed = sign_receipt(gate, READER, NODE, values.key("reader"), now=0)
        return [KeptReceipt(signed.hash, gate.leaf, READER, None, signed.data, NODE, 0)]


def is_given(
    places: list[Place],
    caller: Caller,
    *,
    accepted: tuple[Gate, ...] = (),
    own: NamespaceId | None = None,
    given: tuple[Gate, ...] = (),
    mirrored: bool = False,
    readable: Mapping[Caller, set[Repository]] = MappingProxyType({}),
) -> bool:
    rule = GateRule.__new__(GateRule)
    rule._gates = FakeGates(places, {(each.publisher, each.model) for each in accepted}, list(given), mirrored=mirrored)  # type: ignore[assignment]
    rule._clock, rule._own, rule._readable = lambda: 0.0, lambda: own, lambda caller: readable.get(caller, set())
    return not rule.withheld(caller, [ROOT])


CLOSED, CHEAP = Place(ALICE, "parrot", ALICES), Place(EVE, "parrot", EVES)
OPEN, ALSO_OPEN = Place(EVE, "free", None), Place(ALICE, "old", None)
CALLER = Caller(NODE, frozenset({READER}))


@pytest.mark.parametrize("caller", [ANYBODY, CALLER, Caller(NODE)])
def test_what_is_behind_a_gate_alone_goes_to_who_passed_it(caller: Caller) -> None:
    assert not is_given([CLOSED], caller)
    assert is_given([CLOSED], CALLER, given=(ALICES,))
    assert is_given([CLOSED], Caller(NODE, frozenset({ALICE})))


def test_a_stranger_s_gate_closes_nothing_that_another_has_openly() -> None:
    assert is_given([OPEN, CLOSED], ANYBODY)
    assert is_given([CLOSED], ANYBODY, mirrored=True)
    assert is_given([CLOSED, ALSO_OPEN], ANYBODY, accepted=(ALICES,))
    assert is_given([], ANYBODY)


def test_who_passed_a_gate_keeps_it_whatever_others_say() -> None:
    for places in ([CLOSED, OPEN], [CLOSED, CHEAP], [CLOSED]):
        assert not is_given(places, CALLER, accepted=(ALICES,), given=(EVES,))
        assert not is_given(places, CALLER, own=ALICE, given=(EVES,))
        assert not is_given(places, CALLER, own=ALICE, given=(EVES,), mirrored=True)
        assert is_given(places, CALLER, accepted=(ALICES,), given=(ALICES,))


def test_a_node_that_owes_nobody_anything_asks_for_one_of_the_gates() -> None:
    assert is_given([CLOSED, CHEAP], CALLER, own=BOB, given=(EVES,))
    assert not is_given([CLOSED, CHEAP], CALLER, own=BOB)


@pytest.mark.parametrize("publisher", [ALICE, EVE])
@pytest.mark.parametrize("owner", [ALICE, BOB])
def test_what_is_open_in_private_is_open_to_those_who_may_read_that(publisher: NamespaceId, owner: NamespaceId) -> None:
    staging = Place(publisher, "staging", None, is_private=True)
    readable = {CALLER: {Repository(publisher, "staging")}, ANYBODY: {Repository(BOB, "staging")}}
    assert not is_given([CLOSED, staging], ANYBODY, own=owner, readable=readable)
    assert is_given([CLOSED, staging], CALLER, own=owner if publisher == ALICE else BOB, readable=readable)
    assert is_given([staging], ANYBODY, own=owner)


def test_a_gate_in_private_is_kept() -> None:
    hidden = Place(ALICE, "parrot", ALICES, is_private=True)
    assert not is_given([hidden], ANYBODY, own=ALICE)
    assert not is_given([hidden, OPEN], ANYBODY, own=ALICE)
