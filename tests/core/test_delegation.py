from __future__ import annotations

import pytest

from p2phub.core.delegation import TTL_MAX_S, Delegation, check_delegation, open_delegation, sign_delegation
from p2phub.core.encoding import encode
from p2phub.core.envelope import Envelope, seal
from p2phub.core.errors import InvalidData, InvalidSignature
from p2phub.core.identity import new_document, open_identity, sign_document
from p2phub.core.ids import NodeId
from p2phub.core.records import SKEW_MAX_S
from p2phub.testing import values

KEY = values.key("publisher")
OTHER = values.key("other")
NODE = NodeId(values.key("node").public_key)
NOW = values.TIME
IDENTITY = open_identity([sign_document(new_document(KEY.public_key, created=NOW), [KEY])])
DAY_S = 86400


def signed(ttl_s: int = DAY_S, now: int = NOW) -> bytes:
    return sign_delegation(IDENTITY.namespace, NODE, KEY, now=now, ttl_s=ttl_s)


def test_a_delegation_says_which_node_acts_for_whom_and_until_when() -> None:
    found = open_delegation(signed(), now=NOW + 10)

    assert found == Delegation(1, IDENTITY.namespace, KEY.public_key, NODE, NOW, NOW + DAY_S)
    check_delegation(found, IDENTITY)


def test_it_ends_at_its_time() -> None:
    open_delegation(signed(), now=NOW + DAY_S - 1)
    with pytest.raises(InvalidData, match="has expired"):
        open_delegation(signed(), now=NOW + DAY_S)


@pytest.mark.parametrize("ttl_s", [0, TTL_MAX_S + 1])
def test_it_lasts_at_most_30_days(ttl_s: int) -> None:
    with pytest.raises(InvalidData, match="at most 30 days"):
        open_delegation(signed(ttl_s), now=NOW)


def test_it_does_not_come_from_the_future() -> None:
    open_delegation(signed(now=NOW + SKEW_MAX_S), now=NOW)
    with pytest.raises(InvalidData, match="ahead of the clock"):
        open_delegation(signed(now=NOW + SKEW_MAX_S + 1), now=NOW)


def test_it_is_signed_by_the_key_that_it_names() -> None:
    delegation = Delegation(1, IDENTITY.namespace, KEY.public_key, NODE, NOW, NOW + DAY_S)

    with pytest.raises(InvalidSignature):
        open_delegation(encode(seal(delegation, OTHER, "delegate")), now=NOW)


def test_a_signature_for_another_purpose_delegates_nothing() -> None:
    delegation = encode(Delegation(1, IDENTITY.namespace, KEY.public_key, NODE, NOW, NOW + DAY_S))

    with pytest.raises(InvalidSignature):
        open_delegation(encode(Envelope(delegation, KEY.sign("record", delegation))), now=NOW)


def test_only_a_publishing_key_of_the_namespace_delegates() -> None:
    data = sign_delegation(IDENTITY.namespace, NODE, OTHER, now=NOW, ttl_s=DAY_S)
    stranger = open_identity([sign_document(new_document(OTHER.public_key, created=NOW), [OTHER])])

    with pytest.raises(InvalidSignature, match="does not publish"):
        check_delegation(open_delegation(data, now=NOW), IDENTITY)
    # Nor does a key of another namespace.
    with pytest.raises(InvalidSignature, match="does not publish"):
        check_delegation(open_delegation(data, now=NOW), stranger)
