"""The recipient key of a publisher: X25519, to which others encrypt what only he is to read (spec/identity.md §5)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .errors import InvalidSignature

PUBLIC_KEY_SIZE = 32  # bytes; RFC 7748 §5
SECRET_SIZE = 32  # bytes

_FIELD = 2**255 - 19  # RFC 7748 §4.1
# The u of the points of small order, of the curve and of its twist: with any secret key they give zeros.
SMALL_ORDER_U = frozenset(
    {
        0,
        1,
        _FIELD - 1,
        0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
        0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
    }
)


class RecipientKey:
    """A secret X25519 key. Never shows its secret in text."""

    def __init__(self, secret: bytes) -> None:
        """secret: 32 bytes. Raises ValueError if they are not so many."""
        self._key = X25519PrivateKey.from_private_bytes(secret)
        self.public_key = self._key.public_key().public_bytes_raw()

    @property
    def secret(self) -> bytes:
        """The 32 secret bytes, for storing the key."""
        return self._key.private_bytes_raw()

    @property
    def private_key(self) -> X25519PrivateKey:
        """The key as `cryptography` has it, to agree on keys with."""
        return self._key


def check_recipient_key(key: bytes) -> None:
    """Raise InvalidSignature if `key` is not the canonical form of a point of large order.

    What is encrypted to a point of small order, everybody can read.
    """
    u = int.from_bytes(key, "little")
    if len(key) != PUBLIC_KEY_SIZE or u >= _FIELD:
        raise InvalidSignature("the recipient key is not in canonical form")
    if u in SMALL_ORDER_U:
        raise InvalidSignature("the recipient key is a point of small order")
