"""Chunks that files here hold already, to be copied into others instead of being fetched (spec/transfer.md §1)."""

from __future__ import annotations

import os

from msgspec import Struct

from p2phub.core.ids import ContentId

from .blobs import Blobs
from .chunklists import ChunkLists
from .database import Database, portions
from .disk import NEW_FILE, disk_errors, new_name
from .layout import Layout
from .links import reflink, reflink_range
from .readables import Readables


class ChunkPlace(Struct, frozen=True):
    """Where a chunk lies: `length` bytes of the file `root` from `offset` on."""

    root: ContentId
    offset: int
    length: int


class ChunkPlaces:
    """Where the chunks of one store's whole files lie."""

    def __init__(
        self, layout: Layout, database: Database, blobs: Blobs, chunk_lists: ChunkLists, readables: Readables
    ) -> None:
        self._layout = layout
        self._database = database
        self._blobs = blobs
        self._chunk_lists = chunk_lists
        self._readables = readables

    def find(self, wanted: set[bytes]) -> dict[bytes, ChunkPlace]:
        """Return where chunks with the `wanted` hashes lie in whole files here, by hash; unchecked.

        Looks through all chunk lists: 36 bytes for each megabyte of the store, and no index to keep.
        """
        with self._database.read() as connection:
            roots = [ContentId(row["root"]) for row in connection.execute("SELECT root FROM content")]
        places: dict[bytes, ChunkPlace] = {}
        for some in portions(roots):
            for root, chunks in self._chunk_lists.find_all(some).items():
                for index in chunks.find(wanted):
                    places.setdefault(chunks.hash(index), ChunkPlace(root, chunks.offset(index), chunks.length(index)))
            if len(places) == len(wanted):
                break
        return places

    def open(self, root: ContentId) -> tuple[int, bool] | None:
        """Open a whole file whose chunks are to be copied, None if it is not here; the caller closes the descriptor.

        The second value says that nobody can change its bytes: it is an object, or a clone of
        a file in place, made for this. Such a clone has no name and goes when it is closed.
        """
        held = self._blobs.find(root)
        readable = self._readables.open_found(root, held) if held else None
        if held is None or readable is None:
            return None
        if held.is_object:
            return readable.file, True
        try:
            clone = self._clone(readable.file)
        except BaseException:
            os.close(readable.file)
            raise
        if clone is None:
            return readable.file, False
        os.close(readable.file)
        return clone, True

    def _clone(self, file: int) -> int | None:
        """Return a nameless file that shares the extents of an open one, None where that cannot be."""
        clone = self._open_nameless()
        try:
            with disk_errors(self._layout.store):
                if reflink(file, clone):
                    return clone
        except BaseException:
            os.close(clone)
            raise
        os.close(clone)
        return None

    def shared_block(self) -> int | None:
        """Return the size of the blocks that files of the store can share on disk, None if they cannot."""
        file = self._open_nameless()
        try:
            with disk_errors(self._layout.store):
                block = os.fstatvfs(file).f_bsize
                os.ftruncate(file, 2 * block)
                return block if reflink_range(file, 0, file, block, block) else None
        finally:
            os.close(file)

    def _open_nameless(self) -> int:
        """Open a new file of the store that goes when it is closed."""
        folder = self._layout.store / "objects"
        with disk_errors(folder):
            temporary = new_name(folder)
            file = os.open(temporary, NEW_FILE, 0o600)
            os.unlink(temporary)
        return file
