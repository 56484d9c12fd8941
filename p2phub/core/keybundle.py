"""Secret keys on their way to another place: a recovery key, an export, the key of a publishing robot.

Source: spec/identity.md §9.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from .checkpoint import HEAD_SIZE_MAX
from .encoding import decode, encode
from .errors import InvalidData
from .identity import CHAIN_MAX, Identity, SignedDocument, open_identity
from .joining import Secret, Secrets, check_secrets
from .signing import SigningKey

BUNDLE_SIZE_MAX = 5 * 1024 * 1024  # bytes
KEYS_MAX = 16  # spec/identity.md §9


class KeyBundle(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Secret keys, and what they are for."""

    schema: Literal[1]
    seeds: Annotated[tuple[Secret, ...], Meta(max_length=KEYS_MAX)]  # of Ed25519 keys
    chain: Annotated[tuple[SignedDocument, ...], Meta(max_length=CHAIN_MAX)] = ()  # of the namespace that they sign for
    secrets: Secrets | None = None
    heads: Annotated[tuple[Annotated[bytes, Meta(max_length=HEAD_SIZE_MAX)], ...], Meta(max_length=KEYS_MAX)] = ()

    def __repr__(self) -> str:
        # The one of a Struct would show the seeds.
        return f"KeyBundle of {len(self.seeds)} keys"

    @property
    def signers(self) -> list[SigningKey]:
        """The keys to sign with."""
        return [SigningKey(seed) for seed in self.seeds]

    @property
    def identity(self) -> Identity | None:
        """The identity that came with the keys, None if none did."""
        return open_identity(self.chain) if self.chain else None


def encode_bundle(bundle: KeyBundle) -> bytes:
    """Return the one encoding of a bundle."""
    return encode(bundle)


def decode_bundle(data: bytes) -> KeyBundle:
    """Return the bundle that `data` encodes, checked. Raises InvalidData, which says nothing of the keys."""
    try:
        bundle = decode(data, KeyBundle, size_max=BUNDLE_SIZE_MAX)
    except InvalidData:
        # What a decoder says may repeat what it read.
        raise InvalidData("these are no keys of p2phub") from None
    identity = bundle.identity
    if bundle.secrets is not None and identity is not None:
        check_secrets(bundle.secrets, identity)
    elif bundle.secrets is not None:
        raise InvalidData("there are keys for other purposes, and no identity that names them")
    return bundle
