"""Where a file is cut into chunks: the chunk profiles (spec/content.md §5).

    fixed-1m    every 1 MiB
    cdc-1m      where the content says so, so that an insertion moves no other cut
    tensor-1m   at the tensors of safetensors and GGUF, so that a fine-tune shares
                the chunks of every unchanged tensor

A chunker looks at what follows the last cut and says how long the next chunk is.
The same bytes with the same profile give the same cuts everywhere: the constants
here are part of the format.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from . import gguf, safetensors
from .choices import Profile
from .errors import InvalidData
from .filetree import CHUNK_SIZE_MAX
from .tensors import Read

CHUNK_SIZE = 1024 * 1024  # bytes; spec/content.md §5
CDC_SIZE_MIN = 256 * 1024  # bytes; spec/content.md §5.2
CDC_WORD = 8  # bytes; spec/content.md §5.2
CDC_MULTIPLIER = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, odd; spec/content.md §5.2
CDC_BITS = 17  # a cut every 2^17 words, 1 MiB, on average; spec/content.md §5.2
CDC_PATTERN = 1  # not 0, or every run of zeros would be cut at the minimum; spec/content.md §5.2
TENSOR_LARGE = 256 * 1024  # bytes; a tensor of this size starts a chunk; spec/content.md §5.3
REST_MIN = 256 * 1024  # bytes; a shorter rest joins the chunk before it; spec/content.md §5.3

_SCAN_BLOCK = 128 * 1024  # bytes looked at in one go, so that the scratch arrays stay in the L2 cache


class Chunker(Protocol):
    """Says, chunk by chunk, where a file is cut."""

    def next_length(self, offset: int, window: memoryview) -> int:
        """Return the length of the chunk that begins at `offset`.

        window: the file's bytes from `offset` on: CHUNK_SIZE_MAX of them, or all up to the end.
        """


def chunker(profile: Profile, size: int, read: Read) -> Chunker:
    """Return the chunker of `profile` for a file of `size` bytes that `read(offset, size)` reads.

    Raises InvalidData if the profile is `tensor-1m` and the file is neither safetensors nor GGUF.
    """
    if profile == "fixed-1m":
        return _Fixed()
    if profile == "cdc-1m":
        return _ContentDefined()
    return _Listed(tensor_cuts(size, *_tensors(size, read)))


def profile_for(name: str, size: int, read: Read) -> Profile:
    """Return the profile that suits the file called `name`: tensors if it has them, else content."""
    if name.endswith((".safetensors", ".gguf")):
        try:
            _tensors(size, read)
        except InvalidData:
            return "cdc-1m"
        return "tensor-1m"
    return "cdc-1m"


def tensor_cuts(size: int, data_begin: int, begins: Sequence[int]) -> list[int]:
    """Return the ends of all chunks of a file of `size` bytes whose tensors begin at `begins`, in order.

    A new segment starts where the data begins, at each large tensor, and after it. So
    small tensors between two large ones share a segment. Each segment is cut every
    CHUNK_SIZE; a short rest joins the chunk before it.
    """
    # A tensor reaches to where the next one begins, padding included: so the cuts do
    # not depend on how well a reader knows the types of tensors.
    starts = {0, data_begin}
    after_large = False
    for begin, end in pairwise([*begins, size]):
        large = end - begin >= TENSOR_LARGE
        if large or after_large:
            starts.add(begin)
        after_large = large
    cuts: list[int] = []
    edges = [*sorted(start for start in starts if start < size), size]
    for start, end in pairwise(edges):
        inner = list(range(start + CHUNK_SIZE, end, CHUNK_SIZE))
        if inner and end - inner[-1] < REST_MIN:
            inner.pop()
        cuts += [*inner, end]
    return cuts


class _Fixed:
    def next_length(self, offset: int, window: memoryview) -> int:
        return min(CHUNK_SIZE, len(window))


class _Listed:
    """Cuts that are known beforehand."""

    def __init__(self, cuts: Sequence[int]) -> None:
        self._cuts = cuts

    def next_length(self, offset: int, window: memoryview) -> int:
        return self._cuts[bisect_right(self._cuts, offset)] - offset


class _ContentDefined:
    """Cuts after an aligned word whose product with a constant has a pattern in its top bits.

    One multiplication a word is all the hashing that is needed to choose places, and numpy does
    it at memory speed. The price: an insertion that is no multiple of 8 bytes moves the words,
    and later cuts with them.
    """

    def next_length(self, offset: int, window: memoryview) -> int:
        if len(window) <= CDC_SIZE_MIN:
            return len(window)
        import numpy as np  # slow to import, and most commands and small files do without

        # The word that ends at the minimum is the first that may end the chunk.
        at = CDC_SIZE_MIN - CDC_WORD
        end = min(len(window), CHUNK_SIZE_MAX)
        while at + CDC_WORD <= end:
            count = min(_SCAN_BLOCK, end - at) // CDC_WORD
            words = np.frombuffer(window, dtype="<u8", count=count, offset=at)
            top_bits = words * np.uint64(CDC_MULTIPLIER) >> np.uint64(64 - CDC_BITS)
            hits = np.flatnonzero(top_bits == CDC_PATTERN)
            if len(hits):
                return at + (int(hits[0]) + 1) * CDC_WORD
            at += count * CDC_WORD
        return end


def _tensors(size: int, read: Read) -> tuple[int, list[int]]:
    """Return where the data and where each tensor begins, of safetensors or GGUF."""
    if read(0, 4) == gguf.MAGIC:
        gguf_header = gguf.parse_header(read, size)
        begin, tensors = gguf_header.data_begin, gguf_header.tensors
    else:
        header = safetensors.parse_header(read, size)
        begin, tensors = header.header_size, header.tensors
    return begin, [tensor.begin for tensor in tensors]
