from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core import signing
from p2phub.core.errors import InvalidSignature
from p2phub.core.ids import PublicKey
from p2phub.core.signing import (
    SIGNATURE_SIZE,
    SigningKey,
    check_note_signature,
    check_public_key,
    check_signature,
    signed_message,
)

KEY = SigningKey(bytes(range(32)))
OTHER_KEY = SigningKey(b"o" * 32)
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493  # RFC 8032 §5.1
FIELD = 2**255 - 19

purposes = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)


@given(purpose=purposes, payload=st.binary(max_size=200))
def test_what_a_key_signed_is_valid_for_it(purpose: str, payload: bytes) -> None:
    signature = KEY.sign(purpose, payload)

    check_signature(KEY.public_key, purpose, payload, signature)
    assert len(signature) == SIGNATURE_SIZE


@given(payload=st.binary(max_size=50), other=st.binary(max_size=50))
def test_a_signature_is_valid_for_nothing_else(payload: bytes, other: bytes) -> None:
    signature = KEY.sign("record", payload)

    with pytest.raises(InvalidSignature, match="record signature is not by key"):
        check_signature(OTHER_KEY.public_key, "record", payload, signature)
    with pytest.raises(InvalidSignature):
        check_signature(KEY.public_key, "identity", payload, signature)
    with pytest.raises(InvalidSignature):
        check_signature(KEY.public_key, "record", payload + b"\0", signature)
    with pytest.raises(InvalidSignature):
        check_note_signature(KEY.public_key, payload, signature)
    if other != payload:
        with pytest.raises(InvalidSignature):
            check_signature(KEY.public_key, "record", other, signature)


@given(st.integers(0, SIGNATURE_SIZE * 8 - 1))
def test_no_changed_bit_of_a_signature_passes(bit: int) -> None:
    signature = bytearray(KEY.sign("record", b"payload"))
    signature[bit // 8] ^= 1 << bit % 8

    with pytest.raises(InvalidSignature):
        check_signature(KEY.public_key, "record", b"payload", bytes(signature))


@pytest.mark.parametrize("size", [0, 1, 63, 65, 128])
def test_a_signature_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(InvalidSignature):
        check_signature(KEY.public_key, "record", b"payload", bytes(size))


def test_a_signature_has_no_second_spelling() -> None:
    signature = KEY.sign("record", b"payload")
    scalar = int.from_bytes(signature[32:], "little") + GROUP_ORDER

    with pytest.raises(InvalidSignature):
        check_signature(KEY.public_key, "record", b"payload", signature[:32] + scalar.to_bytes(32, "little"))


def test_the_signed_message_is_that_of_the_spec() -> None:
    assert signed_message("record", b"abc") == b"p2phub/1\0record\0\0\0\0\0\0\0\0\3abc"


@given(purposes, st.binary(max_size=40), purposes, st.binary(max_size=40))
def test_two_messages_are_equal_only_if_purpose_and_payload_are(
    purpose: str, payload: bytes, other_purpose: str, other_payload: bytes
) -> None:
    equal = (purpose, payload) == (other_purpose, other_payload)

    assert (signed_message(purpose, payload) == signed_message(other_purpose, other_payload)) == equal


def test_a_key_is_that_of_its_seed() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")  # RFC 8032 §7.1

    key = SigningKey(seed)

    assert key.seed == seed
    assert key.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign_note(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")


def test_the_secret_is_in_no_text() -> None:
    assert KEY.seed.hex() not in f"{KEY!r} {KEY}"
    assert repr(KEY.seed) not in f"{KEY!r} {KEY}"


@given(st.binary(min_size=32, max_size=32))
def test_every_key_of_a_seed_is_sound(seed: bytes) -> None:
    check_public_key(SigningKey(seed).public_key)


# The points whose order divides 8, in all encodings that a lax reader would take
# (https://eprint.iacr.org/2020/1244, table 1).
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_a_point_of_small_order_is_no_public_key(key: str) -> None:
    with pytest.raises(InvalidSignature, match=r"small order|canonical"):
        check_public_key(bytes.fromhex(key))


def test_the_identity_point_would_verify_anything() -> None:
    # Why the keys above are refused where a document is read: the library takes them.
    identity = bytes.fromhex(SMALL_ORDER[0])
    forged = identity + bytes(32)

    Ed25519PublicKey.from_public_bytes(identity).verify(forged, b"anything")


@given(st.integers(FIELD, 2**255 - 1), st.booleans())
def test_a_coordinate_that_is_not_reduced_is_no_public_key(y: int, sign: bool) -> None:
    with pytest.raises(InvalidSignature, match="canonical"):
        check_public_key((y | sign << 255).to_bytes(32, "little"))


@given(st.binary(max_size=40).filter(lambda key: len(key) != 32))
def test_a_public_key_has_32_bytes(key: bytes) -> None:
    with pytest.raises(InvalidSignature, match="canonical"):
        check_public_key(key)


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_accepted_only_if_it_is_on_the_curve(key: bytes) -> None:
    # By brute calculation: is there an x with -x^2 + y^2 = 1 + d x^2 y^2 (RFC 8032 §5.1)?
    y = int.from_bytes(key, "little") % 2**255
    d = 37095705934669439343138083508754565189542113879843219016388785533085940283555
    square = (y * y - 1) * pow(d * y * y + 1, FIELD - 2, FIELD) % FIELD
    x = pow(square, (FIELD + 3) // 8, FIELD)
    on_curve = (x * x - square) % FIELD == 0 or (x * x + square) % FIELD == 0

    if y < FIELD and on_curve and key.hex() not in SMALL_ORDER:
        check_public_key(key)
    else:
        with pytest.raises(InvalidSignature):
            check_public_key(key)


def test_a_public_key_is_named_in_its_text_form() -> None:
    with pytest.raises(InvalidSignature, match=str(OTHER_KEY.public_key)):
        check_signature(OTHER_KEY.public_key, "record", b"", KEY.sign("record", b""))


def test_a_key_that_is_no_point_verifies_nothing() -> None:
    with pytest.raises(InvalidSignature):
        check_signature(PublicKey(b"\x02" + bytes(31)), "record", b"", bytes(64))


# ── odd signatures, on which libraries do not agree ─────────────────────────

Point = tuple[int, int]  # affine

CURVE_D = -121665 * pow(121666, -1, FIELD) % FIELD
IDENTITY: Point = (0, 1)


def add(p: Point, q: Point) -> Point:
    product = CURVE_D * p[0] * q[0] * p[1] * q[1]
    x = (p[0] * q[1] + q[0] * p[1]) * pow(1 + product, -1, FIELD)
    y = (p[1] * q[1] + p[0] * q[0]) * pow(1 - product, -1, FIELD)
    return x % FIELD, y % FIELD


def multiply(number: int, point: Point) -> Point:
    found = IDENTITY
    while number:
        if number & 1:
            found = add(found, point)
        point = add(point, point)
        number >>= 1
    return found


def from_y(y: int) -> Point:
    square = (y * y - 1) * pow(CURVE_D * y * y + 1, -1, FIELD) % FIELD
    x = pow(square, (FIELD + 3) // 8, FIELD)
    if (x * x - square) % FIELD:
        x = x * pow(2, (FIELD - 1) // 4, FIELD) % FIELD
    assert (x * x - square) % FIELD == 0
    return (x if x % 2 == 0 else FIELD - x), y


def as_bytes(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


BASE = from_y(4 * pow(5, -1, FIELD) % FIELD)
ORDER_8 = from_y(0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826)
TORSION = [multiply(number, ORDER_8) for number in range(8)]


def odd_signature(key_torsion: int, r_torsion: int, payload: bytes, *, r: int = 4711) -> tuple[PublicKey, bytes]:
    """Return a signature that is right if both sides are multiplied by the cofactor, and its key."""
    secret = 1234567890123456789
    key = as_bytes(add(multiply(secret, BASE), TORSION[key_torsion]))
    point = as_bytes(add(multiply(r, BASE), TORSION[r_torsion]))
    k = int.from_bytes(hashlib.sha512(point + key + signed_message("record", payload)).digest(), "little")
    return PublicKey(key), point + ((r + k * secret) % GROUP_ORDER).to_bytes(32, "little")


def is_right(key: PublicKey, payload: bytes, signature: bytes) -> bool:
    try:
        check_signature(key, "record", payload, signature)
    except InvalidSignature:
        return False
    return True


@given(st.integers(0, 7), st.integers(0, 7), st.binary(max_size=8), st.sampled_from([0, 1, 4711]))
def test_checks_that_are_quicker_accept_the_same_odd_signatures(
    key_torsion: int, r_torsion: int, payload: bytes, r: int
) -> None:
    key, signature = odd_signature(key_torsion, r_torsion, payload, r=r)
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + signed_message("record", payload)).digest(), "little")
    # Without the cofactor: what is left of R + kA must be nothing.
    expected = TORSION[(r_torsion + k % GROUP_ORDER * key_torsion) % 8] == IDENTITY

    assert is_right(key, payload, signature) == expected
    with quick_checks():
        assert is_right(key, payload, signature) == expected


@given(st.binary(max_size=8), st.integers(0, 15))
def test_checks_that_are_quicker_refuse_the_same_large_s(payload: bytes, times: int) -> None:
    signature = KEY.sign("record", payload)
    s = int.from_bytes(signature[32:], "little") + times * GROUP_ORDER
    changed = signature[:32] + (s % 2**256).to_bytes(32, "little")

    with quick_checks():
        assert is_right(KEY.public_key, payload, changed) == (times == 0)


def test_libsodium_accepts_nothing_that_openssl_refuses() -> None:
    quick = quick_check()
    accepted = 0
    for key_torsion in range(8):
        for r_torsion in range(8):
            for r in (0, 4711):
                for number in range(8):
                    payload = bytes([number])
                    key, signature = odd_signature(key_torsion, r_torsion, payload, r=r)
                    if quick(key, signed_message("record", payload), signature):
                        assert is_right(key, payload, signature)
                        accepted += 1
    assert accepted  # or nothing was compared


@given(st.binary(max_size=200), st.binary(max_size=100))
def test_checks_that_are_quicker_refuse_what_is_no_signature(payload: bytes, signature: bytes) -> None:
    with quick_checks():
        assert is_right(KEY.public_key, payload, KEY.sign("record", payload))
        assert not is_right(KEY.public_key, payload, signature)


def quick_check() -> Callable[[bytes, bytes, bytes], bool]:
    with quick_checks():
        assert signing._quick_check is not None
        return signing._quick_check


@contextmanager
def quick_checks() -> Iterator[None]:
    signing.quicken_checks()
    try:
        yield
    finally:
        signing._quick_check = None
