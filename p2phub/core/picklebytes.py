"""Read files that may hold pickles, a block at a time and within limits (spec/rules.md §4).

A `Window` goes forwards through a file, one in memory or a member of a zip, and looks ahead in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import RawIOBase
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from .facts import ReadableFile

UNPACKED_MAX = 256 * 1024 * 1024  # bytes that are decompressed of one file; spec/rules.md §4
BLOCK = 64 * 1024  # bytes read at once


class Unclear(Exception):
    """It cannot be known what a file does. The text is a sentence for a person."""


class Unpacked:
    """How much of one file was decompressed."""

    def __init__(self) -> None:
        self._size = 0  # bytes

    def count(self, size: int) -> None:
        """Count so many bytes more. Raises Unclear if they are too many."""
        self._size += size
        if self._size > UNPACKED_MAX:
            raise Unclear(f"it unpacks to more than {UNPACKED_MAX // 1024 // 1024} MiB")


class Bytes:
    """Bytes in memory, as a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


class Member:
    """A file in a zip, which is read forwards only, and no more of it than may be unpacked."""

    def __init__(self, file: IO[bytes], size: int, unpacked: Unpacked) -> None:
        self._file = file
        self._unpacked = unpacked
        self._place = 0
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        assert offset >= self._place
        while self._place < offset and self._take(min(BLOCK, offset - self._place)):
            pass
        return self._take(size)

    def _take(self, size: int) -> bytes:
        self._unpacked.count(size)
        data = self._file.read(size)
        self._place += len(data)
        return data


class Window:
    """A file that is read from a place on, a block at a time."""

    def __init__(self, file: ReadableFile) -> None:
        self._file = file
        self._block = b""
        self._begin = 0  # of the block
        self.size = file.size
        self.place = 0

    def seek(self, place: int) -> None:
        self.place = place

    def peek(self, size: int) -> bytes:
        return self.read_at(self.place, size)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return what stands at `offset`, less than `size` bytes at the end of the file."""
        end, known = min(self.size, offset + size), self._begin + len(self._block)
        if not self._begin <= offset <= known:
            self._begin, self._block, known = offset, b"", offset
        if end > known:
            # What is known already is not read again: some files can only be read forwards.
            rest = self._block[offset - self._begin :]
            more = self._pieces(known, min(self.size, max(end, offset + BLOCK)))
            self._begin, self._block = offset, b"".join((rest, *more))
        return self._block[offset - self._begin : end - self._begin]

    def _pieces(self, offset: int, end: int) -> Iterator[bytes]:
        while offset < end and (data := self._file.read(offset, end - offset)):
            yield data
            offset += len(data)

    def read(self, size: int) -> bytes:
        data = self.read_at(self.place, size)
        self.place += len(data)
        return data

    def line(self, size_max: int) -> bytes:
        """Return what comes up to the end of the line, or `size_max` bytes of it."""
        data = self.read_at(self.place, size_max)
        end = data.find(b"\n")
        line = data[: end + 1] if end >= 0 else data
        self.place += len(line)
        return line


class Seekable(RawIOBase):
    """A file as zipfile reads it."""

    def __init__(self, source: Window) -> None:
        self._source = source
        self._place = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = max(0, offset + (0, self._place, self._source.size)[whence])
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = self._source.size - self._place
        wanted = left if size < 0 else min(size, left)
        if wanted > UNPACKED_MAX:
            raise Unclear(f"its list of files has more than {UNPACKED_MAX // 1024 // 1024} MiB")
        data = self._source.read_at(self._place, wanted)
        self._place += len(data)
        return data
