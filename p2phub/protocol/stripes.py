"""Which chunks of a download are rare, and the order in which they are taken (spec/transfer.md §3.1).

Chunks that follow each other travel in one request, so the order is one of stripes: runs
of chunks of at most one request. At first it is random, so that a new node soon has
something to give; then the stripe goes first that has the rarest free chunk.

Rule: an order is sorted once, and stays good while chunks are taken, since within an
epoch a stripe only gets less rare. What makes chunks rarer or frees them begins a new epoch.
"""

from __future__ import annotations

import heapq
import random
from array import array
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

from .flags import changes

STRIPE_SIZE_MAX = 16 * 1024 * 1024  # bytes, and of nearly all requests; spec/transfer.md §3
REQUEST_CHUNKS_MAX = 1000  # chunks in one request: at most as many byte ranges; spec/peer-protocol.md §7
NUMPY_CHUNKS = 4096  # chunks of a download for which numpy is worth its import, which takes 0.1 s

MISSING, ASKED, DONE = 0, 1, 2  # states of a chunk; one that is missing is free: it is asked of nobody

# Rarities of a stripe: of one that need not be asked for, and of one at a time when that does not count.
_NOT_WANTED, _ANY_RARITY = 2**31 - 1, -1
# The key of a stripe: the rarity of its rarest free chunk, then its rank. One number, as that sorts fast.
_RANK_BITS = 32


class Order(Struct):
    """A heap of the stripes in which something is left to ask for, as keys; stale if the epoch went on."""

    heap: list[int] = field(default_factory=list)
    epoch: int = -1


class Stripes:
    """The stripes of one download, and how rare each chunk is."""

    def __init__(self, sizes: Sequence[int], states: bytearray, rng: random.Random) -> None:
        """sizes: bytes of each chunk; states: MISSING, ASKED or DONE for each, which the caller goes on changing."""
        self._states = states
        self._stripes = _cut(sizes, states)
        self._ranks = list(range(len(self._stripes)))
        rng.shuffle(self._ranks)
        self._stripe_of_rank = dict(zip(self._ranks, self._stripes, strict=True))
        self._arrays: tuple[Any, Any] | None = None  # starts of stripes and their ranks, for numpy
        # How many partial providers offer each chunk, and how many whole ones gave it to somebody;
        # that the whole ones offer it makes no difference.
        # None while that is 0 for all.
        self._rarity: array[int] | None = None
        self._is_random = True
        self._epoch = 0

    def rarity(self, chunk: int) -> int:
        """Return how many are known to hold `chunk`, beside those who hold all."""
        return 0 if self._rarity is None else self._rarity[chunk]

    def recount(self, before: bytes | None, after: bytes | None) -> None:
        """Count what a provider offers or gave now instead of what it did before; None counts for nothing."""
        before, after = (row or bytes(len(self._states)) for row in (before, after))
        if before == after:
            return
        if self._rarity is None:
            self._rarity = array("i", [0]) * len(self._states)
        if len(self._states) < NUMPY_CHUNKS:
            for chunk in changes(before, after):
                self._rarity[chunk] += after[chunk] - before[chunk]
        else:
            import numpy as np

            rarity = np.frombuffer(self._rarity, dtype=np.int32)
            rarity += np.frombuffer(after, dtype=np.int8) - np.frombuffer(before, dtype=np.int8)
        self._epoch += 1

    def rarest_first(self) -> None:
        """Let the rarest go first from now on."""
        self._is_random = False
        self._epoch += 1

    def note_freed(self) -> None:
        """Note that a chunk is free again: its stripe may have left the orders."""
        self._epoch += 1

    def is_free(self, chunk: int, reach: bytes | None) -> bool:
        """Say whether `chunk` is asked of nobody and among what may be asked for (a byte a chunk; None: all)."""
        return self._states[chunk] == MISSING and (reach is None or reach[chunk] == 1)

    def first(self, order: Order, reach: bytes | None) -> tuple[int, range] | None:
        """Return the chunk to ask for next, and its stripe; None if nothing of `reach` is free.

        order: of the stripes for this reach, brought up to date here.
        """
        if order.epoch != self._epoch:
            order.heap, order.epoch = self._sorted(reach), self._epoch
        heap = order.heap
        while heap:
            rarity, rank = heap[0] >> _RANK_BITS, heap[0] & (1 << _RANK_BITS) - 1
            stripe = self._stripe_of_rank[rank]
            free = [chunk for chunk in stripe if self.is_free(chunk, reach)]
            if not free:
                # Nothing comes back into it: what is given up later makes all orders stale.
                heapq.heappop(heap)
                continue
            # Not the first: the provider of a rare chunk may leave before it comes to it.
            rarest = min(free, key=self.rarity)
            if rarity == _ANY_RARITY or rarity == self.rarity(rarest):
                return rarest, stripe
            # What made it rare was asked for; within an epoch a stripe only gets less rare.
            heapq.heapreplace(heap, self.rarity(rarest) << _RANK_BITS | rank)
        return None

    def _sorted(self, reach: bytes | None) -> list[int]:
        """Return the keys of the stripes with something free, in order: the rarest first, else at random."""
        if self._rarity is None and reach is None:
            # In the order of their ranks: sorted, so it is a heap.
            free = (rank for rank, stripe in self._stripe_of_rank.items() if has_missing(self._states, stripe))
            return sorted(free)
        if len(self._states) < NUMPY_CHUNKS:
            return self._sorted_few(reach)
        if not self._stripes:
            return []
        import numpy as np

        if self._arrays is None:
            starts = np.array([stripe.start for stripe in self._stripes], dtype=np.int64)
            self._arrays = starts, np.array(self._ranks, dtype=np.int64)
        starts, ranks = self._arrays
        wanted = np.frombuffer(self._states, dtype=np.uint8) == MISSING
        if reach is not None:
            wanted &= np.frombuffer(reach, dtype=np.uint8) == 1
        known = np.zeros(len(self._states), dtype=np.int32)
        if self._rarity is not None:
            known = np.frombuffer(self._rarity, dtype=np.int32)
        rarity = np.full_like(known, _ANY_RARITY) if self._is_random else known
        # Chunks between two stripes were here from the start, so they are not wanted.
        rarest = np.minimum.reduceat(np.where(wanted, rarity, _NOT_WANTED), starts).astype(np.int64)
        keys = (rarest << _RANK_BITS | ranks)[rarest != _NOT_WANTED]
        keys.sort()
        heap: list[int] = keys.tolist()  # sorted, so it is one
        return heap

    def _sorted_few(self, reach: bytes | None) -> list[int]:
        """Return what `_sorted` does, for few chunks without numpy."""
        keys = []
        for rank, stripe in self._stripe_of_rank.items():
            free = [chunk for chunk in stripe if self._states[chunk] == MISSING and (reach is None or reach[chunk])]
            if free:
                rarest = _ANY_RARITY if self._is_random else min(map(self.rarity, free))
                keys.append(rarest << _RANK_BITS | rank)
        keys.sort()
        return keys


def has_missing(states: bytearray, chunks: range) -> bool:
    """Say whether one of `chunks` is missing and asked of nobody."""
    return states.find(MISSING, chunks.start, chunks.stop) >= 0


def _cut(sizes: Sequence[int], states: bytearray) -> list[range]:
    """Cut the missing chunks into runs of at most one request."""
    stripes = []
    start, size = None, 0
    for chunk, chunk_size in enumerate(sizes):
        if start is not None:
            full = size + chunk_size > STRIPE_SIZE_MAX or chunk - start >= REQUEST_CHUNKS_MAX
            if full or states[chunk] != MISSING:
                stripes.append(range(start, chunk))
                start = None
        if states[chunk] == MISSING:
            if start is None:
                start, size = chunk, 0
            size += chunk_size
    if start is not None:
        stripes.append(range(start, len(sizes)))
    return stripes
