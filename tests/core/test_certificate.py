from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.certificate import certificate, certified_node
from p2phub.core.ids import NodeId
from p2phub.core.signing import SigningKey
from p2phub.testing import values

KEY = values.key("node")
CERTIFICATE = certificate(KEY)
SIGNATURE_SIZE = 64


@given(st.binary(min_size=32, max_size=32))
def test_a_certificate_tells_whose_it_is(seed: bytes) -> None:
    key = SigningKey(seed)

    assert certified_node(certificate(key)) == NodeId(key.public_key)


def test_only_the_one_form_tells_it() -> None:
    """All but the signature follows from the key, so that nothing else can stand in its place."""
    for at in range(len(CERTIFICATE) - SIGNATURE_SIZE):
        changed = bytearray(CERTIFICATE)
        changed[at] ^= 1

        assert certified_node(bytes(changed)) is None


@given(st.binary(max_size=400))
def test_what_is_no_certificate_is_of_no_node(data: bytes) -> None:
    assert certified_node(data) is None
    assert certified_node(data + CERTIFICATE) in (None, NodeId(KEY.public_key) if not data else None)
    assert certified_node(CERTIFICATE[: len(data)]) is None
