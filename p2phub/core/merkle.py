"""Merkle trees in the shape of RFC 6962 §2.1, over any pair of hash functions.

Logs use SHA-256 as RFC 6962 does; files use BLAKE3 with one derive-key context
for leaves and one for nodes, so that a leaf can never pose as a node. Everything
here works on leaf hashes: what a leaf is, `filetree` and `records` say.

Rule: a tree of n leaves splits at the largest power of two below n. So an aligned
block of 2^k leaves is one subtree, which lets a log grow and a chunk list be
served in pages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from blake3 import blake3
from msgspec import Struct, field

from .errors import HashMismatch


class TreeHash(Struct, frozen=True):
    """The two functions a tree is made with, and the root of the tree without leaves."""

    leaf: Callable[[bytes], bytes]
    node: Callable[[bytes, bytes], bytes]
    empty: bytes


LOG_TREE = TreeHash(
    leaf=lambda data: hashlib.sha256(b"\0" + data).digest(),
    node=lambda left, right: hashlib.sha256(b"\1" + left + right).digest(),
    empty=hashlib.sha256(b"").digest(),
)

_LEAF_CONTEXT = "p2phub 1 file leaf"  # spec/content.md §3
_NODE_CONTEXT = "p2phub 1 file node"  # spec/content.md §3

FILE_TREE = TreeHash(
    leaf=lambda data: blake3(data, derive_key_context=_LEAF_CONTEXT).digest(),
    node=lambda left, right: blake3(left + right, derive_key_context=_NODE_CONTEXT).digest(),
    empty=blake3(b"", derive_key_context=_NODE_CONTEXT).digest(),
)


# Gives the root of 2^level leaves: those from index << level on.
Block = Callable[[int, int], bytes]


class Frontier(Struct):
    """The right edge of a growing tree: enough to append leaves and to give the root.

    peaks: the roots of the complete subtrees, largest first; one for each set bit of `size`.
    """

    tree: TreeHash
    size: int = 0
    peaks: list[bytes] = field(default_factory=list)

    def append(self, leaf_hash: bytes) -> None:
        """Add one leaf on the right."""
        node, size = leaf_hash, self.size
        while size & 1:
            node = self.tree.node(self.peaks.pop(), node)
            size >>= 1
        self.peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of the tree of all leaves so far."""
        if not self.peaks:
            return self.tree.empty
        node = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            node = self.tree.node(peak, node)
        return node


def root(tree: TreeHash, leaf_hashes: Iterable[bytes]) -> bytes:
    """Return the root over `leaf_hashes` (32 bytes each, in order; may be none)."""
    frontier = Frontier(tree)
    for leaf_hash in leaf_hashes:
        frontier.append(leaf_hash)
    return frontier.root()


def inclusion_proof(tree: TreeHash, leaf_hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the sibling hashes from leaf `index` (0-based) up to the root, nearest first.

    The result has at most ceil(log2(len(leaf_hashes))) hashes. Source: RFC 9162 §2.1.3.1.
    """
    count = len(leaf_hashes)
    if not 0 <= index < count:
        raise IndexError(f"no leaf {index} in a tree of {count}")
    if count == 1:
        return ()
    split = _split(count)
    if index < split:
        return (*inclusion_proof(tree, leaf_hashes[:split], index), root(tree, leaf_hashes[split:]))
    return (*inclusion_proof(tree, leaf_hashes[split:], index - split), root(tree, leaf_hashes[:split]))


def root_from_inclusion(tree: TreeHash, leaf_hash: bytes, index: int, count: int, proof: Sequence[bytes]) -> bytes:
    """Return the root of the tree of `count` leaves in which `proof` puts `leaf_hash` at `index`.

    Raises HashMismatch if no proof of this length fits. Source: RFC 9162 §2.1.3.2.
    """
    if not 0 <= index < count:
        raise HashMismatch(f"no leaf {index} in a tree of {count}")
    node, first, last = leaf_hash, index, count - 1
    for sibling in proof:
        if last == 0:
            raise HashMismatch("inclusion proof is too long")
        if first & 1 or first == last:
            node = tree.node(sibling, node)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            node = tree.node(node, sibling)
        first >>= 1
        last >>= 1
    if last:
        raise HashMismatch("inclusion proof is too short")
    return node


def consistency_proof(tree: TreeHash, leaf_hashes: Sequence[bytes], old_count: int) -> tuple[bytes, ...]:
    """Return the proof that the tree over the first `old_count` leaves is a prefix of the tree over all.

    Empty if `old_count` is 0 or all. Source: RFC 9162 §2.1.4.1.
    """

    def block(level: int, index: int) -> bytes:
        return root(tree, leaf_hashes[index << level : index + 1 << level])

    return consistency_of_blocks(tree, block, old_count, len(leaf_hashes))


def root_of_blocks(tree: TreeHash, block: Block, count: int) -> bytes:
    """Return the root of a tree of `count` leaves, of which one need not have the leaves."""
    return _range_root(tree, block, 0, count)


def peaks_of_blocks(block: Block, count: int) -> list[bytes]:
    """Return the peaks of a `Frontier` of `count` leaves."""
    return [block(level, index) for level, index in _blocks(0, count)]


def consistency_of_blocks(tree: TreeHash, block: Block, old_count: int, count: int) -> tuple[bytes, ...]:
    """Return what `consistency_proof` does, of a tree of which one need not have the leaves.

    It takes at most one block for each bit of `count` and of what the proof has, at most 64 hashes.
    """
    if not 0 <= old_count <= count:
        raise IndexError(f"no prefix of {old_count} in a tree of {count}")
    if old_count in (0, count):
        return ()
    begin, end = 0, count
    proof: list[bytes] = []
    # From the root down to the right edge of the old tree: what stands beside the way.
    while begin < old_count < end:
        split = begin + _split(end - begin)
        if old_count <= split:
            proof.append(_range_root(tree, block, split, end))
            end = split
        else:
            proof.append(_range_root(tree, block, begin, split))
            begin = split
    if begin:
        # Where the edge is a block, its root is not the old one, which whoever checks has.
        proof.append(_range_root(tree, block, begin, end))
    return tuple(reversed(proof))


def check_consistency(
    tree: TreeHash, old_count: int, old_root: bytes, count: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise HashMismatch unless `proof` shows the old tree to be a prefix of the new one.

    Source: RFC 9162 §2.1.4.2.
    """
    if not 0 <= old_count <= count:
        raise HashMismatch("the old tree is larger than the new one")
    if old_count in (0, count):
        expected = tree.empty if old_count == 0 else new_root
        if proof or old_root != expected:
            raise HashMismatch("consistency proof does not fit")
        return
    hashes = list(proof)
    if old_count & (old_count - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        raise HashMismatch("consistency proof is too short")
    first, last = old_count - 1, count - 1
    while first & 1:
        first >>= 1
        last >>= 1
    old_node = new_node = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise HashMismatch("consistency proof is too long")
        if first & 1 or first == last:
            old_node = tree.node(sibling, old_node)
            new_node = tree.node(sibling, new_node)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            new_node = tree.node(new_node, sibling)
        first >>= 1
        last >>= 1
    if last or old_node != old_root or new_node != new_root:
        raise HashMismatch("the new tree does not extend the old one")


def _range_root(tree: TreeHash, block: Block, begin: int, end: int) -> bytes:
    """Return the root over the leaves from `begin`, which is 0 or a multiple of more than they are, up to `end`."""
    peaks = [block(level, index) for level, index in _blocks(begin, end)]
    return Frontier(tree, end - begin, peaks).root()


def _blocks(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield level and index of the largest blocks that make up the leaves from `begin` up to `end`."""
    while begin < end:
        level = (end - begin).bit_length() - 1
        yield level, begin >> level
        begin += 1 << level


def _split(count: int) -> int:
    """Return the largest power of two below `count` (two or more)."""
    return int(1 << ((count - 1).bit_length() - 1))
