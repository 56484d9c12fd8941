"""A receipt counts for what was accepted, signed by whoever accepted it, and for nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from p2phub.core import encoding, gates
from p2phub.core.access import ANYBODY, Caller
from p2phub.core.envelope import seal
from p2phub.core.errors import InvalidData, InvalidSignature, TooEarly
from p2phub.core.gates import Gate, Receipt, check_fits, is_of, open_receipt, read_receipt, sign_receipt
from p2phub.core.ids import NodeId
from p2phub.testing import values

ALICE, BOB = values.identity(), values.identity("bob")
NODE, OTHER = NodeId(values.key("node").public_key), NodeId(values.key("other node").public_key)
NOW = values.TIME


def gate(per: gates.GatePer = "institution") -> Gate:
    return Gate(ALICE.namespace, "parrot", bytes(range(32)), "Parrot-1.0", "Be kind to parrots.", per, "automatic", NOW)


def test_a_receipt_says_who_accepted_what() -> None:
    signed = sign_receipt(gate(), BOB.namespace, NODE, values.key("bob"), now=NOW)

    assert open_receipt(signed.data, BOB.publish_keys, now=NOW) == signed
    check_fits(signed.receipt, gate())
    assert is_of(signed.receipt, Caller(OTHER, frozenset({BOB.namespace})))
    assert len(signed.data) <= gates.RECEIPT_SIZE_MAX


def test_a_receipt_of_a_person_is_of_the_machine_it_was_given_on() -> None:
    signed = sign_receipt(gate("person"), BOB.namespace, NODE, values.key("bob"), now=NOW)

    check_fits(signed.receipt, gate("person"))
    assert is_of(signed.receipt, Caller(NODE))
    assert not is_of(signed.receipt, Caller(OTHER, frozenset({BOB.namespace})))


@pytest.mark.parametrize("caller", [ANYBODY, Caller(NODE), Caller(NODE, frozenset({ALICE.namespace}))])
def test_a_receipt_that_was_borrowed_is_worth_nothing(caller: Caller) -> None:
    signed = sign_receipt(gate(), BOB.namespace, NODE, values.key("bob"), now=NOW)

    assert not is_of(signed.receipt, caller)


def test_forged_receipts_are_refused() -> None:
    good = sign_receipt(gate(), BOB.namespace, NODE, values.key("bob"), now=NOW)
    by_another = sign_receipt(gate(), BOB.namespace, NODE, values.key("eve"), now=NOW)
    for_another = encoding.encode(seal(good.receipt, values.key("bob"), "record"))

    for data in (by_another.data, for_another, good.data[:-1] + bytes([good.data[-1] ^ 1])):
        with pytest.raises(InvalidSignature):
            open_receipt(data, BOB.publish_keys, now=NOW)
    with pytest.raises(InvalidData):
        open_receipt(good.data, ALICE.publish_keys, now=NOW)
    with pytest.raises(TooEarly):
        open_receipt(good.data, BOB.publish_keys, now=NOW - 601)
    with pytest.raises(InvalidData):
        read_receipt(good.data + b"\0")


def test_a_receipt_for_another_gate_or_text_or_kind_does_not_fit() -> None:
    receipt = sign_receipt(gate(), BOB.namespace, NODE, values.key("bob"), now=NOW).receipt
    change = msgspec.structs.replace
    wrong: list[tuple[Receipt, Gate]] = [
        (receipt, change(gate(), leaf=bytes(32))),
        (receipt, change(gate(), licence="Give me your parrots.")),
        (receipt, gate("person")),
        (change(receipt, node=NODE), gate()),
    ]

    for each, asked in wrong:
        with pytest.raises(InvalidData):
            check_fits(each, asked)


def test_the_receipt_of_the_vectors_is_good() -> None:
    cases = json.loads((Path(__file__).parents[2] / "spec/vectors/messages.json").read_text())["messages"]
    case = next(case for case in cases if case["type"] == "ReceiptsQuery")
    signed = open_receipt(bytes.fromhex(case["value"]["receipts"][0]), values.identity("other").publish_keys, now=NOW)

    assert signed.receipt.node == NODE
    assert signed.receipt.licence == gates.licence_hash("Be kind.\n")
