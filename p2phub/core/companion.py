"""The companion key of a publisher: P-256, for what tools verify that do not know Ed25519 (spec/identity.md §5).

Nothing of ours is believed for its signature. It is named in the identity document,
so that whoever knows the namespace knows whose signature it is.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ec import derive_private_key as _derive
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .errors import InvalidSignature

PUBLIC_KEY_SIZE = 33  # bytes, compressed; SEC 1 §2.3.3
SECRET_SIZE = 32  # bytes, big-endian

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2 §2.4.2


class CompanionKey:
    """A secret P-256 key. Never shows its secret in text."""

    def __init__(self, secret: bytes) -> None:
        """secret: a number from 1 to the order of the curve less 1, 32 bytes. Raises ValueError if it is none."""
        number = int.from_bytes(secret, "big")
        # OpenSSL would say the same with the number in its message.
        if len(secret) != SECRET_SIZE or not 0 < number < _ORDER:
            raise ValueError("this is no secret key of P-256")
        self._key = _derive(number, SECP256R1())
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
    public_key(key)


@lru_cache(maxsize=1024)
def public_key(key: bytes) -> EllipticCurvePublicKey:
    """Return a public key as `cryptography` has it. Raises InvalidSignature if it is no compressed point of P-256."""
    try:
        if len(key) != PUBLIC_KEY_SIZE:
            raise ValueError
        return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), key)
    except ValueError as exc:
        raise InvalidSignature("the companion key is no compressed point of P-256") from exc
