from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from p2phub.core.encoding import decode, encode
from p2phub.core.envelope import ENVELOPE_SIZE_MAX, PAYLOAD_SIZE_MAX, Envelope, seal
from p2phub.core.errors import InvalidEncoding, InvalidSignature
from p2phub.core.signing import SigningKey

KEY = SigningKey(b"k" * 32)
OTHER_KEY = SigningKey(b"o" * 32)


class Statement(Struct, frozen=True, forbid_unknown_fields=True):
    text: str


@given(st.text(max_size=200))
def test_a_sealed_value_opens_to_itself(text: str) -> None:
    data = encode(seal(Statement(text), KEY, "record"))

    envelope = decode(data, Envelope, size_max=ENVELOPE_SIZE_MAX)
    envelope.check(KEY.public_key, "record")

    assert decode(envelope.payload, Statement, size_max=PAYLOAD_SIZE_MAX) == Statement(text)


def test_another_key_or_purpose_is_refused() -> None:
    envelope = seal(Statement("hello"), KEY, "record")

    with pytest.raises(InvalidSignature):
        envelope.check(OTHER_KEY.public_key, "record")
    with pytest.raises(InvalidSignature):
        envelope.check(KEY.public_key, "node")


@given(st.data())
def test_no_changed_byte_passes(data: st.DataObject) -> None:
    encoded = bytearray(encode(seal(Statement("hello"), KEY, "record")))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises((InvalidEncoding, InvalidSignature)):
        decode(bytes(encoded), Envelope, size_max=ENVELOPE_SIZE_MAX).check(KEY.public_key, "record")


def test_the_largest_payload_fits_the_largest_envelope() -> None:
    data = encode(Envelope(bytes(PAYLOAD_SIZE_MAX), bytes(64)))

    assert decode(data, Envelope, size_max=ENVELOPE_SIZE_MAX).payload == bytes(PAYLOAD_SIZE_MAX)


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope(bytes(PAYLOAD_SIZE_MAX + 1), bytes(64)),
        Envelope(b"", bytes(63)),
        Envelope(b"", bytes(65)),
    ],
    ids=["payload over the limit", "short signature", "long signature"],
)
def test_an_envelope_is_bounded(envelope: Envelope) -> None:
    with pytest.raises(InvalidEncoding):
        decode(encode(envelope), Envelope, size_max=ENVELOPE_SIZE_MAX)
