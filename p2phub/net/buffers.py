"""Large buffers, lent to whoever works now: a connection that rests holds none."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator

KEPT_MAX = 16  # buffers of a kind that are kept for the next one


class Buffers:
    """Buffers of one size. May be used from any thread."""

    def __init__(self, size: int) -> None:
        """size: bytes of each."""
        self._size = size
        self._free: list[memoryview] = []

    @contextlib.contextmanager
    def lend(self) -> Iterator[memoryview]:
        """Give a buffer, with anything in it, for the block."""
        try:
            buffer = self._free.pop()
        except IndexError:
            # Outside of Python's heap: what is never touched takes no memory, and all of it goes back.
            buffer = memoryview(mmap.mmap(-1, self._size))
        try:
            yield buffer
        finally:
            if len(self._free) < KEPT_MAX:
                self._free.append(buffer)
