"""The companion key of a publisher: P-256, for what tools verify that do not know Ed25519 (spec/identity.md §5).

Nothing of ours is believed for its signature. It is named in the identity document,
so that whoever knows the namespace knows whose signature it is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from .errors import InvalidSignature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

PUBLIC_KEY_SIZE = 33  # bytes, compressed; SEC 1 §2.3.3
SECRET_SIZE = 32  # bytes, big-endian

# The curve is y² = x³ − 3x + b modulo a prime; SEC 2 §2.4.2.
_FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2 §2.4.2


class CompanionKey:
    """A secret P-256 key. Never shows its secret in text."""

    def __init__(self, secret: bytes) -> None:
        """secret: a number from 1 to the order of the curve less 1, 32 bytes. Raises ValueError if it is none."""
        # Loaded when it is first needed: most commands sign nothing with it.
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        number = int.from_bytes(secret, "big")
        # OpenSSL would say the same with the number in its message.
        if len(secret) != SECRET_SIZE or not 0 < number < _ORDER:
            raise ValueError("this is no secret key of P-256")
        self._key = derive_private_key(number, SECP256R1())
        self.public_key = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)

    @property
    def secret(self) -> bytes:
        """The 32 secret bytes, for storing the key."""
        return self._key.private_numbers().private_value.to_bytes(SECRET_SIZE, "big")

    @property
    def private_key(self) -> EllipticCurvePrivateKey:
        """The key as `cryptography` has it, to sign with."""
        return self._key


def check_companion_key(key: bytes) -> None:
    """Raise InvalidSignature if `key` is not the compressed form of a point of P-256."""
    x = int.from_bytes(key[1:], "big")
    is_point = len(key) == PUBLIC_KEY_SIZE and key[0] in (2, 3) and x < _FIELD and _is_square(x**3 - 3 * x + _B)
    if not is_point:
        raise InvalidSignature("the companion key is no compressed point of P-256")


def public_key(key: bytes) -> EllipticCurvePublicKey:
    """Return a public key as `cryptography` has it. Raises InvalidSignature if it is no compressed point of P-256."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

    check_companion_key(key)
    return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), key)


@lru_cache(maxsize=1024)
def _is_square(value: int) -> bool:
    """Say whether a number has a root modulo the prime of the field: then a point has this as its y²."""
    return pow(value, (_FIELD - 1) // 2, _FIELD) in (0, 1)
