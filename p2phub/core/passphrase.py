"""Lock bytes with a passphrase: scrypt makes a key of it, AES-256-GCM locks (spec/identity.md §9).

What the passphrase costs to try is in the header, bounded when it is read: a file cannot ask for more memory
than a machine has.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Meta, Struct
from msgspec.structs import replace

from .encoding import decode, encode
from .errors import WrongPassphrase

SALT_SIZE = 16  # bytes
COST = 17  # log2 of N: 128 MiB and about half a second; spec/identity.md §9
COST_MAX = 20  # 1 GiB
PASSPHRASE_MIN = 8  # characters of a new passphrase
LOCKED_SIZE_MAX = 8 * 1024 * 1024  # bytes

_BLOCK_SIZE = 8  # r; RFC 7914 §2
_NONCE = bytes(12)  # the key is used once: each file has a salt of its own


class Locked(Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes that a passphrase opens."""

    schema: Literal[1]
    cost: Annotated[int, Meta(ge=10, le=COST_MAX)]  # log2 of N of scrypt; r is 8, p is 1
    salt: Annotated[bytes, Meta(min_length=SALT_SIZE, max_length=SALT_SIZE)]
    box: Annotated[bytes, Meta(min_length=16, max_length=LOCKED_SIZE_MAX)]  # encrypted, with the tag behind


def lock(data: bytes, passphrase: str, *, salt: bytes, cost: int = COST) -> bytes:
    """Return `data` locked with `passphrase`. salt: 16 random bytes that were never used before."""
    header = Locked(1, cost, salt, b"")
    box = AESGCM(_key(passphrase, header)).encrypt(_NONCE, data, encode(header))
    return encode(replace(header, box=box))


def unlock(data: bytes, passphrase: str) -> bytes:
    """Return what `lock` locked. Raises InvalidEncoding if that is none, WrongPassphrase if this does not open it."""
    locked = decode(data, Locked, size_max=LOCKED_SIZE_MAX + 256)
    try:
        return AESGCM(_key(passphrase, locked)).decrypt(_NONCE, locked.box, encode(replace(locked, box=b"")))
    except InvalidTag:
        raise WrongPassphrase("the passphrase does not open it, or it was changed") from None


def _key(passphrase: str, header: Locked) -> bytes:
    # In one form, whichever keyboard composed it.
    normal = unicodedata.normalize("NFC", passphrase)
    return Scrypt(header.salt, 32, 2**header.cost, _BLOCK_SIZE, 1).derive(normal.encode())
