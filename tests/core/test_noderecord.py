from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core import encoding
from p2phub.core.ages import describe_age
from p2phub.core.envelope import seal
from p2phub.core.errors import InvalidData, InvalidSignature
from p2phub.core.ids import NodeId
from p2phub.core.noderecord import PURPOSE, TTL_MAX_S, NodeRecord, SignedNodeRecord, open_node_record, sign_node_record
from p2phub.core.records import SKEW_MAX_S
from p2phub.testing import values
from p2phub.testing.values import TIME

KEY = values.key("node")
OTHER_KEY = values.key("other")
RECORD = values.node_record()
SIGNED = sign_node_record(RECORD, KEY)


def change(**fields: object) -> NodeRecord:
    return msgspec.structs.replace(RECORD, **fields)


def open_signed(record: NodeRecord, *, now: float = TIME) -> SignedNodeRecord:
    return open_node_record(sign_node_record(record, KEY).data, now=now)


def test_a_signed_node_record_opens_to_what_was_signed() -> None:
    assert open_node_record(SIGNED.data, now=TIME) == SIGNED
    assert SIGNED.record == RECORD


def test_a_node_may_have_no_address_and_no_labels() -> None:
    bare = change(addresses=(), cluster=None, site=None)

    assert open_signed(bare).record == bare


@given(st.integers(-SKEW_MAX_S, RECORD.ttl))
def test_it_is_valid_from_the_skew_before_its_time_to_the_end_of_its_ttl(age: int) -> None:
    assert open_node_record(SIGNED.data, now=TIME + age).record == RECORD


@given(st.integers(1, 10**9))
def test_it_is_refused_after_its_ttl_and_before_the_skew(beyond: int) -> None:
    with pytest.raises(InvalidData, match=f"expired: it is of {describe_age(RECORD.ttl + beyond)} ago"):
        open_node_record(SIGNED.data, now=TIME + RECORD.ttl + beyond)
    with pytest.raises(InvalidData, match=f"of {describe_age(SKEW_MAX_S + beyond)} from now"):
        open_node_record(SIGNED.data, now=TIME - SKEW_MAX_S - beyond)


def test_only_the_node_itself_can_sign_its_record() -> None:
    with pytest.raises(InvalidSignature):
        open_node_record(sign_node_record(RECORD, OTHER_KEY).data, now=TIME)
    with pytest.raises(InvalidSignature):
        open_signed(change(node=NodeId(OTHER_KEY.public_key)))


def test_a_signature_for_another_purpose_is_refused() -> None:
    with pytest.raises(InvalidSignature):
        open_node_record(encoding.encode(seal(RECORD, KEY, "record")), now=TIME)
    assert PURPOSE == "node"


@given(st.data())
def test_no_changed_byte_passes(data: st.DataObject) -> None:
    encoded = bytearray(SIGNED.data)
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(InvalidData):
        open_node_record(bytes(encoded), now=TIME)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_invalid_data(data: bytes) -> None:
    with pytest.raises(InvalidData):
        open_node_record(data, now=TIME)


REFUSED = {
    "another schema": change(schema=2),
    "a ttl of 0": change(ttl=0),
    "a ttl over a day": change(ttl=TTL_MAX_S + 1),
    "a time before 1970": change(time=-1),
    "too many addresses": change(addresses=("192.0.2.1:1",) * 17),
    "an address without a port": change(addresses=("192.0.2.1",)),
    "an address with port 0": change(addresses=("192.0.2.1:0",)),
    "an address with a scheme": change(addresses=("https://192.0.2.1:1",)),
    "an empty address": change(addresses=("",)),
    "an address that is too long": change(addresses=("a" * 271,)),
    "a certificate that is too long": change(certificate=bytes(1025)),
    "an empty label": change(site=""),
    "a label with a space": change(site="a b"),
    "a label with a line break": change(cluster="a\n"),
    "a label that is too long": change(cluster="a" * 65),
    "a node of small order": change(node=NodeId(bytes(32))),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_refuses(what: str) -> None:
    with pytest.raises(InvalidData):
        open_signed(REFUSED[what], now=max(TIME, 0))
