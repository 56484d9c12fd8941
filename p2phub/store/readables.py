"""What is here of a file, whole or in part, and how it is opened for reading (spec/store.md §2, §3)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection

from msgspec import Struct

from p2phub.core.errors import StoreError
from p2phub.core.filetree import ChunkList
from p2phub.core.ids import ContentId

from .blobs import Blobs, Held
from .chunklists import ChunkLists
from .disk import disk_errors
from .inplace import open_same
from .layout import Layout
from .partial import Partials, saved_chunks


class Readable(Struct, frozen=True):
    """An open file, whole or partial."""

    name: str  # its path
    file: int  # descriptor
    size: int  # bytes of the whole file
    chunks: ChunkList | None  # None: the file is whole
    have: bytes  # a byte (0 or 1) for each chunk of a partial
    reopen: Callable[[], int]  # opens the same file again, where that is the one that is there. Raises OSError

    def has(self, offset: int, length: int) -> bool:
        """Say whether all of these bytes are here."""
        if offset + length > self.size:
            return False
        if self.chunks is None:
            return True
        first, last = self.chunks.index_at(offset), self.chunks.index_at(offset + length - 1)
        return all(self.have[first : last + 1])


class Readables:
    """Everything of one store that can be read."""

    def __init__(self, layout: Layout, blobs: Blobs, chunk_lists: ChunkLists, partials: Partials) -> None:
        self._layout = layout
        self._blobs = blobs
        self._chunk_lists = chunk_lists
        self._partials = partials

    def held_map(self, root: ContentId) -> bool | bytes:
        """Return what of the file `root` is here: all, nothing, or a byte (0 or 1) for each chunk."""
        return self.held_maps([root])[root]

    def held_maps(self, roots: Collection[ContentId]) -> dict[ContentId, bool | bytes]:
        """Return what of each of the files `roots` is here, as `held_map` does."""
        found = self._blobs.find_all(roots)
        maps: dict[ContentId, bool | bytes] = {root: root in found for root in roots}
        for root in self._partials.begun(root for root in roots if root not in found):
            chunks = self._chunk_lists.find(root)
            have = saved_chunks(self._layout.partial(root), chunks) if chunks else b""
            maps[root] = bytes(have) if any(have) else False
        return maps

    def open(self, root: ContentId) -> Readable | None:
        """Open what is here of the file `root` for reading, None if nothing is. The caller closes it."""
        return self.open_found(root, self._blobs.find(root))

    def open_found(self, root: ContentId, held: Held | None) -> Readable | None:
        """Do what `open` does for a file of which `find_all` has just told."""
        try:
            if held:
                reopen = functools.partial(_open_verified, held)
                return Readable(held.name, reopen(), held.size, None, b"", reopen)
            chunks = self._chunk_lists.find(root)
            path = self._layout.partial(root)
            if chunks is None or not path.exists():
                return None
            reopen = functools.partial(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
            file = reopen()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StoreError(f"cannot read {root}: {exc.strerror}", path=str(root)) from exc
        return Readable(str(path), file, chunks.size, chunks, bytes(saved_chunks(path, chunks)), reopen)

    def read_small(self, root: ContentId, size_max: int) -> bytes | None:
        """Return what the whole file `root` holds, None if it is not here or has more than `size_max` bytes."""
        held = self._blobs.find(root)
        readable = self.open_found(root, held) if held and held.size <= size_max else None
        if readable is None:
            return None
        with disk_errors(readable.name), open(readable.file, "rb") as file:
            return file.read(size_max)


def _open_verified(held: Held) -> int:
    """Open a file that was found just now; one in place only as it was verified. Raises OSError."""
    if held.stamp is None:
        return os.open(held.name, os.O_RDONLY | os.O_CLOEXEC)
    return open_same(held.path, held.stamp)
