"""Put verified bytes that another file here holds into a partial, on one piece of disk (spec/store.md §3).

A file system with reflinks shares whole blocks, and only between places that lie the same
way in their blocks. So what follows each other in both files is joined to runs: the
blocks of a run are shared, and what reaches into the blocks at its two ends is written.
"""

from __future__ import annotations

import os

from .disk import FileWriter
from .links import reflink_range


class ExtentSharer:
    """Fills one open file from others. What was put is there for certain after `flush`."""

    def __init__(self, target: FileWriter) -> None:
        self._target = target
        self._block = os.fstatvfs(target.file).f_bsize
        self._apart: set[int] = set()  # files that cannot share with the target
        self._run: tuple[int, int] | None = None  # the file that is copied from, and how far before its bytes go
        self._end = 0  # of the run, in the target
        self._tail = b""  # verified bytes before `_end` that are not written: the beginning of a block
        self.shared = 0  # bytes

    def put(self, data: memoryview, offset: int, source: int, source_offset: int) -> None:
        """Put `data` at `offset`. It is verified, and what the open file `source` has at `source_offset` for ever."""
        shift = source_offset - offset
        if self._run != (source, shift) or self._end != offset:
            self.flush()
            self._run, self._end = (source, shift), offset
        if not self._join(data, source, shift):
            self.flush()
            self._target.write(data, offset)
        self._end = offset + len(data)

    def flush(self) -> None:
        """Write what waits for the rest of its block."""
        if self._tail:
            self._target.write(memoryview(self._tail), self._end - len(self._tail))
            self._tail = b""

    def _join(self, data: memoryview, source: int, shift: int) -> bool:
        """Share the blocks that `data` fills at the end of the run; returns whether that is possible."""
        if shift % self._block or source in self._apart:
            return False
        # What waits begins with its block.
        begin, end = self._end - len(self._tail), self._end + len(data)
        first, last = -(-begin // self._block) * self._block, end // self._block * self._block
        head = data[: max(0, first - begin)]
        if last > first:
            if not reflink_range(source, first + shift, self._target.file, first, last - first):
                self._apart.add(source)
                return False
            self.shared += last - first
            self._tail = bytes(data[last - self._end :])
        else:
            self._tail += data[len(head) :]
        self._target.write(head, self._end)
        return True
