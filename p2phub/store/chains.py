"""Identities as the index keeps them: in a third of the bytes that they travel in (spec/store.md §5).

Nearly every chain is one document in which one key has all roles: the same words, and the same key four times.
"""

from __future__ import annotations

import zlib

from p2phub.core.encoding import decode
from p2phub.core.identity import Identity, open_identity, read_identity
from p2phub.protocol.messages import IdentityChain

from .journals import IDENTITY_SIZE_MAX

_PACKED = b"\0"  # before what is packed; a chain as it travels begins with another byte

# What deflate looks back to. A landed one is never changed: a new one gets another byte in front.
_USUAL = (
    b"\xa1idocuments\x81\xa2hdocumentX\xce\xa6droot\xa2dkeys\x81X ithreshold\x01efresh\xa2dkeys\x81X ithreshold\x01"
    b"fschema\x01gcreated\x1agpublish\xa2dkeys\x81X ithreshold\x01gversion\x01jsignatures\x81\xa2ckeyX isignatureX@"
)


def check_identity(chain: bytes) -> Identity:
    """Return the identity that an encoded IdentityChain proves. Raises InvalidData."""
    return open_identity(decode(chain, IdentityChain, size_max=IDENTITY_SIZE_MAX).documents)


def pack_chain(chain: bytes) -> bytes:
    """Return an encoded IdentityChain as the index keeps it."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=_USUAL)
    return _PACKED + packer.compress(chain) + packer.flush()


def unpack_chain(packed: bytes) -> bytes:
    """Return the encoded IdentityChain that `pack_chain` packed, or that the index of an older program kept.

    What the disk gave back wrong is returned as bytes that are no chain.
    """
    if not packed.startswith(_PACKED):
        return packed
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS, zdict=_USUAL)
    try:
        return unpacker.decompress(packed[len(_PACKED) :], IDENTITY_SIZE_MAX)
    except zlib.error:
        return b""


def unpack_identity(packed: bytes) -> Identity:
    """Return the identity that the index keeps; it was checked when it came."""
    return read_identity(decode(unpack_chain(packed), IdentityChain, size_max=IDENTITY_SIZE_MAX).documents)
