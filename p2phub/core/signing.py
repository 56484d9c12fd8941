"""Ed25519 signatures with a purpose (spec/signing.md).

What is signed is `"p2phub/1" 0x00 purpose 0x00 length payload`, so that bytes
signed for one purpose are never valid for another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from cryptography.exceptions import InvalidSignature as _BadSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .errors import InvalidSignature
from .ids import PublicKey

SIGNATURE_SIZE = 64  # bytes; RFC 8032 §5.1.6
SEED_SIZE = 32  # bytes; RFC 8032 §5.1.5

_FIELD = 2**255 - 19  # RFC 8032 §5.1
_D = -121665 * pow(121666, -1, _FIELD) % _FIELD
_ORDER_8_Y = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# The y coordinates of the eight points whose order divides the cofactor.
_SMALL_ORDER_Y = frozenset({0, 1, _FIELD - 1, _ORDER_8_Y, _FIELD - _ORDER_8_Y})

# Says whether the third, a signature over the second, is by the key that is the first; what it refuses may be right.
_quick_check: Callable[[bytes, bytes, bytes], bool] | None = None


def signed_message(purpose: str, payload: bytes) -> bytes:
    """Return the bytes that a signature over `payload` for `purpose` covers."""
    return b"p2phub/1\0" + purpose.encode("ascii") + b"\0" + len(payload).to_bytes(8, "big") + payload


class Signer(Protocol):
    """Who signs with an Ed25519 key: the key itself, or a program that keeps it."""

    @property
    def public_key(self) -> PublicKey: ...

    def sign(self, purpose: str, payload: bytes) -> bytes:
        """Return the 64-byte signature over `payload` for `purpose`."""

    def sign_note(self, text: bytes) -> bytes:
        """Return the signature over a C2SP signed note's text, which has a domain of its own."""


class SigningKey:
    """A secret Ed25519 key. Never shows its secret in text."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = PublicKey(self._key.public_key().public_bytes_raw())

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for storing the key."""
        return self._key.private_bytes_raw()

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """The key as `cryptography` has it, for certificates."""
        return self._key

    def sign(self, purpose: str, payload: bytes) -> bytes:
        """Return the 64-byte signature over `payload` for `purpose`."""
        return self._key.sign(signed_message(purpose, payload))

    def sign_note(self, text: bytes) -> bytes:
        """Return the signature over a C2SP signed note's text, which has a domain of its own."""
        return self._key.sign(text)

    def sign_text(self, text: bytes) -> bytes:
        """Return the signature over lines of an HTTP request (RFC 9421), which begin with a quotation mark."""
        return self._key.sign(text)


def check_signature(key: PublicKey, purpose: str, payload: bytes, signature: bytes) -> None:
    """Raise InvalidSignature unless `signature` is of `payload` for `purpose` by `key`."""
    _check(key, signed_message(purpose, payload), signature, purpose)


def check_note_signature(key: PublicKey, text: bytes, signature: bytes) -> None:
    """Raise InvalidSignature unless `signature` is of the note text by `key`."""
    _check(key, text, signature, "note")


def check_text_signature(key: PublicKey, text: bytes, signature: bytes, what: str) -> None:
    """Raise InvalidSignature unless `signature` is of the lines `text` of an HTTP request by `key`."""
    _check(key, text, signature, what)


def quicken_checks() -> None:
    """Let this process check signatures in half of the time, which takes loading libsodium; spec/signing.md §1.

    What counts stays what OpenSSL says: libsodium checks by the same equation, and refuses a few odd keys and
    points besides, so what it accepts is right, and what it refuses is looked at again.
    """
    global _quick_check
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError

    def check(key: bytes, message: bytes, signature: bytes) -> bool:
        try:
            crypto_sign_open(signature + message, key)
        except (BadSignatureError, ValueError):
            return False
        return True

    _quick_check = check


# The same keys come again and again: one key often has all roles of an identity.
@lru_cache(maxsize=16384)
def check_public_key(key: bytes) -> None:
    """Raise InvalidSignature if `key` is not the canonical form of a point of large order.

    The identity point, for one, verifies a signature of anything.
    """
    y = int.from_bytes(key, "little") & (2**255 - 1)
    if len(key) != 32 or y >= _FIELD:
        raise InvalidSignature("public key is not in canonical form")
    if y in _SMALL_ORDER_Y:
        raise InvalidSignature("public key is a point of small order")
    # x^2 = (y^2 - 1) / (d y^2 + 1) must be a square (RFC 8032 §5.1.3), and so is the quotient if the product is.
    if _jacobi((y * y - 1) * (_D * y * y + 1), _FIELD) != 1:
        raise InvalidSignature("public key is no point of the curve")


def _jacobi(number: int, modulus: int) -> int:
    """Return the Jacobi symbol of `number` over the odd `modulus`: of a prime, 1 for the squares that are not 0.

    A quarter of the time that raising to the power (modulus - 1) / 2 takes.
    """
    sign = 1
    number %= modulus
    while number:
        zeros = (number & -number).bit_length() - 1
        number >>= zeros
        if zeros & 1 and modulus & 7 in (3, 5):
            sign = -sign
        if number & modulus & 3 == 3:
            sign = -sign
        number, modulus = modulus % number, number
    return sign if modulus == 1 else 0


def _check(key: PublicKey, message: bytes, signature: bytes, what: str) -> None:
    if _quick_check is not None and len(signature) == SIGNATURE_SIZE and _quick_check(key, message, signature):
        return
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (_BadSignature, ValueError) as exc:
        raise InvalidSignature(f"the {what} signature is not by key {key}") from exc
