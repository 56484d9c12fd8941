from __future__ import annotations

import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, derive_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.companion import CompanionKey, check_companion_key
from p2phub.core.errors import InvalidSignature
from p2phub.testing import values

SECRET = values.content("a companion", 32)
FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1  # SEC 2 §2.4.2
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# RFC 6979 §A.2.5
RFC_SECRET = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
RFC_X = 0x60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6
RFC_Y = 0x7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299


def test_a_secret_gives_the_point_of_the_published_example() -> None:
    key = CompanionKey(RFC_SECRET.to_bytes(32, "big"))

    assert key.public_key == bytes([2 + RFC_Y % 2]) + RFC_X.to_bytes(32, "big")
    check_companion_key(key.public_key)


def test_a_key_that_was_stored_is_the_same() -> None:
    key = CompanionKey(SECRET)

    assert key.secret == SECRET
    assert CompanionKey(key.secret).public_key == key.public_key


@pytest.mark.parametrize("number", [0, ORDER, ORDER + 1, 2**256 - 1])
def test_a_number_that_is_no_secret_is_refused_and_not_shown(number: int) -> None:
    with pytest.raises(ValueError, match="no secret key") as caught:
        CompanionKey(number.to_bytes(32, "big"))
    assert str(number) not in str(caught.value)
    with pytest.raises(ValueError, match="no secret key"):
        CompanionKey(SECRET[:31])


def not_on_the_curve() -> bytes:
    """Return the compressed form that an x would have of which there is no point."""
    for x in range(1, 100):
        data = b"\2" + x.to_bytes(32, "big")
        try:
            EllipticCurvePublicKey.from_encoded_point(SECP256R1(), data)
        except ValueError:
            return data
    raise AssertionError


def refused() -> dict[str, bytes]:
    point = derive_private_key(5, SECP256R1()).public_key()
    good = CompanionKey(SECRET).public_key
    # An x below 2^256 - FIELD has a second spelling.
    small = next(x for x in range(100) if pow(x**3 - 3 * x + _B, (FIELD - 1) // 2, FIELD) == 1)
    return {
        "uncompressed": point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        "uncompressed, cut": point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[:33],
        "the point at infinity": bytes(33),
        "one byte": b"\0",
        "another form": b"\5" + good[1:],
        "a hybrid form": b"\6" + good[1:],
        "a byte short": good[:-1],
        "a byte long": good + b"\0",
        "no point": not_on_the_curve(),
        "x that is not below the prime": b"\2" + (small + FIELD).to_bytes(32, "big"),
        "the largest x": b"\2" + b"\xff" * 32,
    }


_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


@pytest.mark.parametrize("what", refused())
def test_it_refuses(what: str) -> None:
    with pytest.raises(InvalidSignature, match="no compressed point of P-256"):
        check_companion_key(refused()[what])


def test_a_secret_is_in_no_text() -> None:
    key = CompanionKey(SECRET)
    shown = [str(key), repr(key), str(vars(key)), repr(key.private_key), repr({"key": key})]
    with pytest.raises(TypeError):
        pickle.dumps(key)

    for text in shown:
        assert SECRET.hex() not in text.lower()
        assert repr(SECRET) not in text
        assert str(int.from_bytes(SECRET, "big")) not in text


@given(st.binary(min_size=33, max_size=33), st.sampled_from((2, 3, 4, 0)))
def test_a_key_is_taken_if_and_only_if_it_is_a_point_for_openssl_too(data, first):
    key = bytes([first]) + data[1:]
    try:
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), key)
        is_point = True
    except ValueError:
        is_point = False

    if is_point:
        check_companion_key(key)
    else:
        with pytest.raises(InvalidSignature):
            check_companion_key(key)
