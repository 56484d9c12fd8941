"""A signed document on the wire: the exact bytes that were signed, beside the signatures.

The payload travels as the bytes it was signed as. It is decoded only after the
signature was checked, but for a payload that names its own key.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from .encoding import encode
from .ids import PublicKey
from .signing import SIGNATURE_SIZE, Signer, check_signature

PAYLOAD_SIZE_MAX = 64 * 1024  # bytes; spec/signing.md §3
ENVELOPE_SIZE_MAX = PAYLOAD_SIZE_MAX + 128  # bytes

Signature = Annotated[bytes, Meta(min_length=SIGNATURE_SIZE, max_length=SIGNATURE_SIZE)]


class Envelope(Struct, frozen=True, forbid_unknown_fields=True):
    """A payload with one signature."""

    payload: Annotated[bytes, Meta(max_length=PAYLOAD_SIZE_MAX)]
    signature: Signature

    def check(self, key: PublicKey, purpose: str) -> None:
        """Raise InvalidSignature unless `key` signed the payload for `purpose`."""
        check_signature(key, purpose, self.payload, self.signature)


def seal(value: Struct, key: Signer, purpose: str) -> Envelope:
    """Return `value`, encoded and signed by `key` for `purpose`."""
    payload = encode(value)
    return Envelope(payload, key.sign(purpose, payload))
