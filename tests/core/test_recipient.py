from __future__ import annotations

import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.errors import InvalidSignature
from p2phub.core.recipient import SMALL_ORDER_U, RecipientKey, check_recipient_key
from p2phub.testing import values

SECRET = values.content("a recipient", 32)
FIELD = 2**255 - 19
RFC_SECRET = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
RFC_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"


def agreed(public_key: bytes) -> bytes | None:
    """Return what a stranger's key and `public_key` agree on, None if it is zeros."""
    try:
        return X25519PrivateKey.from_private_bytes(SECRET).exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError:
        return None


def test_a_secret_gives_the_key_of_the_published_example() -> None:
    # RFC 7748 §6.1, Alice
    key = RecipientKey(bytes.fromhex(RFC_SECRET))

    assert key.public_key.hex() == RFC_PUBLIC
    check_recipient_key(key.public_key)


def test_a_key_that_was_stored_is_the_same() -> None:
    assert RecipientKey(SECRET).secret == SECRET


@pytest.mark.parametrize("u", sorted(SMALL_ORDER_U))
def test_a_point_of_small_order_is_refused(u: int) -> None:
    key = u.to_bytes(32, "little")

    assert agreed(key) is None
    with pytest.raises(InvalidSignature, match="small order"):
        check_recipient_key(key)


@pytest.mark.parametrize("u", [FIELD, FIELD + 1, FIELD + 9, 2**255 - 1, 2**255, 2**255 + 9, 2**256 - 1])
def test_a_second_spelling_is_refused(u: int) -> None:
    with pytest.raises(InvalidSignature, match="canonical"):
        check_recipient_key(u.to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_another_length_is_refused(size: int) -> None:
    with pytest.raises(InvalidSignature):
        check_recipient_key(bytes([9]) * size)


@given(st.binary(min_size=32, max_size=32))
def test_what_is_accepted_agrees_on_a_secret(key: bytes) -> None:
    try:
        check_recipient_key(key)
    except InvalidSignature:
        return
    assert agreed(key) is not None


@given(st.binary(min_size=32, max_size=32))
def test_every_key_that_is_made_is_accepted(secret: bytes) -> None:
    check_recipient_key(RecipientKey(secret).public_key)


def test_a_secret_is_in_no_text() -> None:
    key = RecipientKey(SECRET)
    shown = [str(key), repr(key), str(vars(key)), repr(key.private_key), repr({"key": key})]
    with pytest.raises(TypeError):
        pickle.dumps(key)

    for text in shown:
        assert SECRET.hex() not in text.lower()
        assert repr(SECRET) not in text
