"""Fingerprints of a large map, so that two nodes find where theirs differ (spec/replication.md §1).

A map goes from a key of 32 bytes to a digest of what stands there: from a log to the digest
of its state, from a node to that of its record. The keys under a prefix, counted in hex
digits, have one fingerprint: that of its sixteen children or, where there are few, of the
items themselves. So equal maps have equal fingerprints, however they came about, and one
item that changes, changes those on its way to the root alone.

Hashes of hashes, because sums and XORs of items could be made to collide by who chooses the items.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from blake3 import blake3
from msgspec import Struct

BUCKET_MAX = 16  # items under a prefix that has no children; spec/replication.md §1
DEPTH_MAX = 64  # hex digits of a key
SHORT_SIZE = 4  # bytes of a short fingerprint; spec/replication.md §2
SALT_SIZE = 32  # bytes; spec/replication.md §2
DIGITS = "0123456789abcdef"

_PREFIX_CONTEXT = "p2phub 1 prefix"  # spec/replication.md §1
_BUCKET_CONTEXT = "p2phub 1 bucket"  # spec/replication.md §1
_LOG_CONTEXT = "p2phub 1 log state"  # spec/replication.md §3
_NODE_CONTEXT = "p2phub 1 node state"  # spec/replication.md §3

Item = tuple[bytes, bytes]  # key and digest, 32 bytes each


class Branch(Struct, frozen=True):
    """What stands under a prefix: how many items, and their fingerprint."""

    count: int
    fingerprint: bytes  # 32 bytes

    @property
    def is_bucket(self) -> bool:
        """Whether it has no children."""
        return self.count <= BUCKET_MAX


def of_bucket(items: Sequence[Item]) -> bytes:
    """Return the fingerprint of a few items, sorted by key."""
    return blake3(b"".join(key + digest for key, digest in items), derive_key_context=_BUCKET_CONTEXT).digest()


def of_children(fingerprints: Sequence[bytes]) -> bytes:
    """Return the fingerprint of a prefix with many items, from those of its 16 children in order."""
    return blake3(b"".join(fingerprints), derive_key_context=_PREFIX_CONTEXT).digest()


EMPTY = Branch(0, of_bucket(()))


def branch_of(items: Sequence[Item], depth: int) -> Branch:
    """Return what `items`, sorted by key, make under the prefix of `depth` digits that they share."""
    if len(items) <= BUCKET_MAX:
        return Branch(len(items), of_bucket(items)) if items else EMPTY
    fingerprints = [child.fingerprint for child in children_of(items, depth)]
    return Branch(len(items), of_children(fingerprints))


def children_of(items: Sequence[Item], depth: int) -> list[Branch]:
    """Return the 16 children of the prefix of `depth` digits that `items`, sorted by key, share."""
    return [branch_of(part, depth + 1) for part in _split(items, depth)]


def range_of(prefix: str) -> tuple[bytes, bytes]:
    """Return the first and the last key, of 32 bytes, that begin with the hex digits `prefix`."""
    return bytes.fromhex(prefix.ljust(DEPTH_MAX, "0")), bytes.fromhex(prefix.ljust(DEPTH_MAX, "f"))


def short(fingerprint: bytes, salt: bytes) -> bytes:
    """Return 4 bytes that stand for a fingerprint in one question and its answer.

    salt: 32 bytes that the asker chose by chance. So nobody can prepare two states of a map
    whose short fingerprints are the same; and where chance makes them so, the next question differs.
    """
    return blake3(fingerprint, key=salt).digest(SHORT_SIZE)


def short_item(item: Item, salt: bytes) -> bytes:
    """Return 4 bytes that stand for one item in one question."""
    key, digest = item
    return short(key + digest, salt)


def log_digest(version: int, size: int, root: bytes) -> bytes:
    """Return the digest of a log that goes on, or was closed.

    version: of the newest identity document of its namespace. size and root (32 bytes): of its head.
    """
    data = version.to_bytes(4, "big") + b"\0" + size.to_bytes(8, "big") + root
    return blake3(data, derive_key_context=_LOG_CONTEXT).digest()


def forked_digest(version: int, common: int, held: int) -> bytes:
    """Return the digest of a log that is frozen at its first `common` records, of which `held` are here."""
    data = version.to_bytes(4, "big") + b"\1" + common.to_bytes(8, "big") + held.to_bytes(8, "big")
    return blake3(data, derive_key_context=_LOG_CONTEXT).digest()


def node_digest(record: bytes) -> bytes:
    """Return the digest of a node's signed record."""
    return blake3(record, derive_key_context=_NODE_CONTEXT).digest()


def _split(items: Sequence[Item], depth: int) -> Iterator[Sequence[Item]]:
    """Yield the items under each of the 16 digits that can stand at `depth`."""
    digits = [key[depth // 2] >> 4 if depth % 2 == 0 else key[depth // 2] & 15 for key, _ in items]
    begin = 0
    for digit in range(16):
        end = bisect_left(digits, digit + 1, begin)
        yield items[begin:end]
        begin = end
