"""A file as chunks under one root (spec/content.md).

    bytes ──cut──▶ chunks ──BLAKE3──▶ chunk list ──Merkle──▶ file root

The chunk list is packed, 36 bytes a chunk, so that a file of a terabyte needs
36 MB and no object per chunk. It travels in pages, each with a proof against
the file root, so that no reader has to believe a list it has not seen whole.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Set
from functools import cached_property
from itertools import accumulate
from typing import Annotated

from blake3 import blake3
from msgspec import Meta, Struct

from . import merkle
from .errors import HashMismatch, InvalidData
from .ids import ContentId

CHUNK_SIZE_MAX = 2 * 1024 * 1024  # bytes; spec/content.md §1
PACKED_SIZE = 36  # bytes a chunk in a chunk list: length u32 big-endian, hash; spec/content.md §2
PAGE_CHUNKS = 4096  # chunks in a page, a power of two; spec/content.md §4
FILE_SIZE_MAX = 2**41  # bytes (2 TiB), so that a bitmap of its chunks fits an answer; spec/content.md §1
CHUNK_SIZE_MEAN_MIN = 128 * 1024  # bytes; more chunks than this allows are refused; spec/content.md §1
PROOF_HASHES_MAX = 32  # more than log2 of the pages of the largest file

_ROOT_CONTEXT = "p2phub 1 file root"  # spec/content.md §3

_LENGTH = struct.Struct(">I32x")
_HASH = struct.Struct("4x32s")

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]


class TreePage(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of a file's chunk list, with what proves it against the file root."""

    size: Annotated[int, Meta(ge=0, le=FILE_SIZE_MAX)]  # bytes of the file
    count: Annotated[int, Meta(ge=0, le=FILE_SIZE_MAX)]  # chunks of the file
    index: Annotated[int, Meta(ge=0, le=FILE_SIZE_MAX)]  # of the page, 0-based
    chunks: Annotated[bytes, Meta(max_length=PAGE_CHUNKS * PACKED_SIZE)]  # packed
    proof: Annotated[tuple[Hash, ...], Meta(max_length=PROOF_HASHES_MAX)]  # from the page up, nearest first


class ChunkList:
    """The chunks of one file, in order: lengths, hashes, and where each begins."""

    def __init__(self, packed: bytes) -> None:
        """Take the packed form. Raises InvalidData if a length is 0 or over the limit."""
        if len(packed) % PACKED_SIZE:
            raise InvalidData(f"a chunk list has {PACKED_SIZE} bytes a chunk, not {len(packed)} in all")
        self.packed = packed
        lengths = [length for (length,) in _LENGTH.iter_unpack(packed)]
        if lengths and (min(lengths) < 1 or max(lengths) > CHUNK_SIZE_MAX):
            raise InvalidData(f"a chunk has 1 to {CHUNK_SIZE_MAX} bytes")
        self._ends = array("Q", accumulate(lengths))

    def __len__(self) -> int:
        return len(self._ends)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChunkList) and self.packed == other.packed

    def __hash__(self) -> int:
        return hash(self.packed)

    @property
    def size(self) -> int:
        """The bytes of the whole file."""
        return self._ends[-1] if self._ends else 0

    def offset(self, index: int) -> int:
        """Return where chunk `index` begins, in bytes; `len(self)` gives the size."""
        return self._ends[index - 1] if index else 0

    def length(self, index: int) -> int:
        """Return the bytes of chunk `index`."""
        at = index * PACKED_SIZE
        return int.from_bytes(self.packed[at : at + 4], "big")

    def hash(self, index: int) -> bytes:
        """Return the BLAKE3 hash of chunk `index`."""
        at = index * PACKED_SIZE
        return self.packed[at + 4 : at + PACKED_SIZE]

    def index_at(self, offset: int) -> int:
        """Return the index of the chunk that holds byte `offset` (below the size)."""
        return bisect_right(self._ends, offset)

    def find(self, hashes: Set[bytes]) -> list[int]:
        """Return the indices of the chunks whose hash is in `hashes`."""
        return [index for index, (chunk_hash,) in enumerate(_HASH.iter_unpack(self.packed)) if chunk_hash in hashes]

    def root(self) -> ContentId:
        """Return the file root."""
        # A page is a subtree of its own, so the tree over the pages is the tree over the chunks.
        return root_of(self.size, len(self), merkle.root(merkle.FILE_TREE, self._page_roots))

    def page(self, index: int) -> TreePage:
        """Return page `index`; a file without chunks has one empty page."""
        pages = page_count(len(self))
        if not 0 <= index < pages:
            raise InvalidData(f"no page {index} in a chunk list of {pages}")
        proof = merkle.inclusion_proof(merkle.FILE_TREE, self._page_roots, index)
        return TreePage(self.size, len(self), index, self._packed_page(index), proof)

    @cached_property
    def _page_roots(self) -> list[bytes]:
        return [_tree_root(self._packed_page(index)) for index in range(page_count(len(self)))]

    def _packed_page(self, index: int) -> bytes:
        page_size = PAGE_CHUNKS * PACKED_SIZE
        return self.packed[index * page_size : (index + 1) * page_size]


def pack(length: int, chunk_hash: bytes) -> bytes:
    """Return one entry of a chunk list: `length` bytes with this BLAKE3 hash."""
    return length.to_bytes(4, "big") + chunk_hash


def check_chunk(data: bytes | bytearray | memoryview, chunk_hash: bytes) -> None:
    """Raise HashMismatch unless `data` has the BLAKE3 hash `chunk_hash`."""
    if blake3(data).digest() != chunk_hash:
        raise HashMismatch("bytes are not those of the chunk")


def page_count(count: int) -> int:
    """Return how many pages the list of `count` chunks has; one at least."""
    return max(1, -(-count // PAGE_CHUNKS))


def check_page(page: TreePage, root: ContentId) -> None:
    """Raise InvalidData unless `page` is a page of the chunk list of the file `root`.

    All fields are checked: the root commits to size and count, the proof to the chunks.
    """
    if page.size > page.count * CHUNK_SIZE_MAX or page.count > 3 + page.size // CHUNK_SIZE_MEAN_MIN:
        raise InvalidData(f"{page.count} chunks are too few or too many for {page.size} bytes")
    pages = page_count(page.count)
    if page.index >= pages:
        raise InvalidData(f"no page {page.index} in a chunk list of {pages}")
    expected = min(PAGE_CHUNKS, page.count - page.index * PAGE_CHUNKS)
    if len(page.chunks) != expected * PACKED_SIZE:
        raise InvalidData(f"page {page.index} has {len(page.chunks)} bytes, not {expected * PACKED_SIZE}")
    chunks = ChunkList(page.chunks)
    if chunks.size > page.size or (pages == 1 and chunks.size != page.size):
        raise InvalidData("the chunks of the page do not fit the size of the file")
    node = _tree_root(page.chunks)
    top = merkle.root_from_inclusion(merkle.FILE_TREE, node, page.index, pages, page.proof)
    if root_of(page.size, page.count, top) != root:
        raise HashMismatch(f"page {page.index} is not of the file {root}")


def join_pages(pages: list[TreePage], root: ContentId) -> ChunkList:
    """Return the chunk list that checked `pages`, all of them and in order, make up."""
    chunks = ChunkList(b"".join(page.chunks for page in pages))
    if chunks.size != pages[0].size or len(chunks) != pages[0].count:
        raise HashMismatch(f"the chunk lengths do not add up to the size of the file {root}")
    return chunks


def root_of(size: int, count: int, tree_root: bytes) -> ContentId:
    """Return the file root: it commits to size and chunk count beside the tree."""
    fields = size.to_bytes(8, "big") + count.to_bytes(8, "big") + tree_root
    return ContentId(blake3(fields, derive_key_context=_ROOT_CONTEXT).digest())


def _tree_root(packed: bytes) -> bytes:
    leaves = range(0, len(packed), PACKED_SIZE)
    leaf = merkle.FILE_TREE.leaf
    return merkle.root(merkle.FILE_TREE, (leaf(packed[at : at + PACKED_SIZE]) for at in leaves))
