"""A file that is being downloaded: a sparse file and a bitmap of its verified chunks (spec/store.md §3).

Rule: the bitmap never claims what could be missing after a crash. It names the boot
of the machine that wrote it: while that boot lasts, what was written before the
bitmap is in the page cache or on disk, even if the writing process was killed. After
another boot, or on another host, the claimed chunks are hashed again before they are
believed. So no write waits for the disk.

Several processes may write one partial at once: all of them write only verified
bytes, so they write the same. No lock is needed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3
from msgspec import Struct

from p2phub.core.errors import StoreError
from p2phub.core.filetree import CHUNK_SIZE_MAX, ChunkList
from p2phub.core.ids import ContentId

from .disk import FileWriter, boot_id, disk_errors
from .layout import Layout
from .sharing import ExtentSharer

_MAGIC = b"p2phub partial 1"  # 16 bytes; spec/store.md §3
_BOOT_SIZE = 16  # bytes
_SYNCED = bytes(_BOOT_SIZE)  # instead of a boot: the data were synced first


class FoundChunk(Struct, frozen=True):
    """A verified chunk that another open file holds."""

    data: memoryview
    file: int  # descriptor
    offset: int  # in that file
    stays: bool  # nobody can change these bytes of the file any more, so that they may be shared


class Partial:
    """The open partial of one file. Methods may be called from several threads."""

    def __init__(self, path: Path, chunks: ChunkList) -> None:
        """Open the partial at `path` (its sparse file), or begin one."""
        self.path = path
        self.chunks = chunks
        self._map_path = path.with_suffix(".map")
        self._lock = threading.Lock()
        self.have = bytearray(len(chunks))  # 1 for each chunk that is here
        with disk_errors(path), contextlib.ExitStack() as opened:
            path.parent.mkdir(parents=True, exist_ok=True)
            # First: a bitmap that outlived its file, in a crash between their removals, speaks of nothing.
            if not path.exists():
                self._map_path.unlink(missing_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            opened.callback(os.close, self._file)
            self._writer = FileWriter(self._file)
            self._map = os.open(self._map_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            opened.callback(os.close, self._map)
            if os.fstat(self._file).st_size != chunks.size:
                os.ftruncate(self._map, 0)
                os.ftruncate(self._file, chunks.size)
            self._recover()
            opened.pop_all()

    def missing(self) -> list[int]:
        """Return the indices of the chunks that are not here."""
        return [index for index, here in enumerate(self.have) if not here]

    def write(self, index: int, data: memoryview) -> None:
        """Write chunk `index`; `data` was verified by the caller."""
        offset = self.chunks.offset(index)
        with disk_errors(self.path):
            self._writer.write(data, offset)
        self.have[index] = 1

    def take(self, found: Iterable[tuple[int, FoundChunk]]) -> int:
        """Fill in chunks, by index, that other files hold; returns how many bytes share the place on disk with them."""
        indices = []
        with disk_errors(self.path):
            sharer = ExtentSharer(self._writer)
            for index, chunk in found:
                if chunk.stays:
                    sharer.put(chunk.data, self.chunks.offset(index), chunk.file, chunk.offset)
                else:
                    self._writer.write(chunk.data, self.chunks.offset(index))
                indices.append(index)
            sharer.flush()
        for index in indices:
            self.have[index] = 1
        return sharer.shared

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on; the caller knows that they are here."""
        with disk_errors(self.path):
            return os.pread(self._file, size, offset)

    def save(self) -> None:
        """Note in the bitmap what has been written, so that a killed process loses nothing."""
        with self._lock, disk_errors(self._map_path):
            self._merge_others()
            self._write_map(bytes.fromhex(boot_id()))

    def finish(self, target: Path) -> os.stat_result | None:
        """Make the complete file the read-only `target`; returns its status. Nothing is synced.

        Returns None if what stands there is a file of another process, which was not verified here.
        """
        assert all(self.have), "a partial is finished when it is complete"
        with self._lock, disk_errors(self.path):
            os.fchmod(self._file, 0o444)
            target.parent.mkdir(parents=True, exist_ok=True)
            # The name may have gone (another process) or be a new file (another process
            # that began again): only the file that was verified here may take the name.
            ours = os.fstat(self._file)
            moved = False
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self.path), ours):
                    os.replace(self.path, target)
                    moved = True
            if moved:
                self._map_path.unlink(missing_ok=True)
            elif not target.exists():
                raise StoreError(f"{self.path} was removed while it was written", path=str(self.path))
            status = os.stat(target)
            # Another process may have come between the look and the move, too.
            return status if os.path.samestat(status, ours) else None

    def discard(self) -> None:
        """Remove what was begun here: the file is in the store, whole, by another way."""
        with self._lock, disk_errors(self.path), contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self.path), os.fstat(self._file)):
                os.unlink(self.path)
                self._map_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Save what is here and close the files."""
        with contextlib.suppress(StoreError):
            if self._map_path.exists():
                self.save()
        os.close(self._file)
        os.close(self._map)

    def _recover(self) -> None:
        """Find out which chunks are here: believe the bitmap if it may be believed, and hash the rest."""
        claimed, believed = self._read_map()
        # Chunks written after the bitmap was saved lie in the file all the same.
        buffer = memoryview(bytearray(CHUNK_SIZE_MAX))
        for begin, end in _extents(self._file):
            index = self.chunks.index_at(begin)
            while index < len(self.chunks) and self.chunks.offset(index) < end:
                length = self.chunks.length(index)
                offset = self.chunks.offset(index)
                # What reaches into a hole was never written, whatever the bitmap of another file says.
                is_written = begin <= offset and offset + length <= end
                self.have[index] = (believed and claimed[index] and is_written) or self._is_right(index, buffer)
                index += 1

    def _is_right(self, index: int, buffer: memoryview) -> bool:
        view = buffer[: self.chunks.length(index)]
        count = os.preadv(self._file, [view], self.chunks.offset(index))
        return count == len(view) and blake3(view).digest() == self.chunks.hash(index)

    def _read_map(self) -> tuple[bytearray, bool]:
        """Return what the bitmap claims, a byte a chunk, and whether it can be believed."""
        with disk_errors(self._map_path):
            return _parse_map(os.pread(self._map, _map_size(len(self.chunks)) + 1, 0), len(self.chunks))

    def _merge_others(self) -> None:
        """Take over what another process noted since."""
        claimed, believed = self._read_map()
        if believed:
            for index, here in enumerate(claimed):
                if here:
                    self.have[index] = 1

    def _write_map(self, boot: bytes) -> None:
        os.pwrite(self._map, _MAGIC + boot + pack_bits(self.have), 0)


class Partials:
    """The partials of one store."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def begun(self, roots: Iterable[ContentId]) -> set[ContentId]:
        """Return those of the files `roots` of which an earlier download left a part here."""
        return {root for root in self._layout.perhaps_in("partial", list(roots)) if self._layout.partial(root).exists()}

    def recover(self, root: ContentId, chunks: ChunkList) -> bytearray:
        """Return which chunks of the file `root` an earlier download left here, a byte (0 or 1) each."""
        if not self._layout.partial(root).exists():
            return bytearray(len(chunks))
        partial = self.begin(root, chunks)
        try:
            return partial.have
        finally:
            partial.close()

    def begin(self, root: ContentId, chunks: ChunkList) -> Partial:
        """Open the partial of the file `root`, made now if there is none. The caller closes it."""
        return Partial(self._layout.partial(root), chunks)


def saved_chunks(path: Path, chunks: ChunkList) -> bytearray:
    """Return which chunks the bitmap of the partial at `path` claims, a byte (0 or 1) each, if it can be believed.

    Looks at the bitmap only: what `Partial` would find by hashing is left out.
    """
    map_path = path.with_suffix(".map")
    try:
        with disk_errors(map_path):
            data = map_path.read_bytes()
    except StoreError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            return bytearray(len(chunks))
        raise
    claimed, believed = _parse_map(data, len(chunks))
    return claimed if believed else bytearray(len(chunks))


def _map_size(count: int) -> int:
    return len(_MAGIC) + _BOOT_SIZE + -(-count // 8)


def _parse_map(data: bytes, count: int) -> tuple[bytearray, bool]:
    if len(data) != _map_size(count) or not data.startswith(_MAGIC):
        return bytearray(count), False
    boot = data[len(_MAGIC) : len(_MAGIC) + _BOOT_SIZE]
    return unpack_bits(data[len(_MAGIC) + _BOOT_SIZE :], count), boot in (_SYNCED, bytes.fromhex(boot_id()))


def pack_bits(flags: bytes | bytearray) -> bytes:
    """Return one bit for each byte of `flags` (0 or 1): flag i at bit i % 8 of byte i // 8."""
    if not flags:
        return b""
    packed = int(bytes(flags[::-1]).translate(_TO_DIGIT), 2)
    return packed.to_bytes(-(-len(flags) // 8), "little")


def unpack_bits(bits: bytes, count: int) -> bytearray:
    """Return the first `count` bits of `bits`, a byte (0 or 1) each; the inverse of `pack_bits`."""
    digits = f"{int.from_bytes(bits, 'little'):0{8 * len(bits)}b}".encode()[::-1]
    return bytearray(digits[:count].translate(_FROM_DIGIT))


_TO_DIGIT = bytes.maketrans(b"\0\1", b"01")
_FROM_DIGIT = bytes.maketrans(b"01", b"\0\1")


def _extents(file: int) -> list[tuple[int, int]]:
    """Return the parts of a sparse file that hold data, as (begin, end) in bytes."""
    size = os.fstat(file).st_size
    extents = []
    at = 0
    while at < size:
        try:
            begin = os.lseek(file, at, os.SEEK_DATA)
            end = os.lseek(file, begin, os.SEEK_HOLE)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # nothing but a hole up to the end
                break
            return [(0, size)]  # a file system that does not tell
        extents.append((begin, end))
        at = end
    return extents
