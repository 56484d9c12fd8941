"""Take chunks from files that are here already instead of fetching them (spec/transfer.md §1).

A fine-tune shares most chunks with its base. What is wanted is looked up in the chunk
lists of all whole files here; what is found is read, verified like a peer's, and
put where it belongs: shared on disk where the file system can, else written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from blake3 import blake3

from p2phub.core.errors import StoreError
from p2phub.core.filetree import ChunkList
from p2phub.core.ids import ContentId
from p2phub.store.chunkplaces import ChunkPlace
from p2phub.store.partial import FoundChunk
from p2phub.store.store import Store


def find_known(store: Store, lists: Sequence[ChunkList], have: Sequence[bytearray]) -> dict[bytes, ChunkPlace]:
    """Return where chunks that are missing can be found in whole files here, by hash.

    lists: of the wanted files; have: what of them is here, a byte (0 or 1) for each chunk.
    """
    wanted = {
        chunks.hash(index)
        for chunks, flags in zip(lists, have, strict=True)
        for index, here in enumerate(flags)
        if not here
    }
    return store.chunk_places.find(wanted) if wanted else {}


def count_known(lists: Sequence[ChunkList], have: Sequence[bytearray], places: dict[bytes, ChunkPlace]) -> int:
    """Return how many missing bytes `places` covers."""
    return sum(
        chunks.length(index)
        for chunks, flags in zip(lists, have, strict=True)
        for index, here in enumerate(flags)
        if not here and chunks.hash(index) in places
    )


def count_shareable(store: Store, lists: Sequence[ChunkList]) -> int:
    """Return how many bytes of whole new files could lie on disk once with what is here, about."""
    block = store.chunk_places.shared_block()
    if block is None:
        return 0
    places = find_known(store, lists, [bytearray(len(chunks)) for chunks in lists])
    return sum(
        chunks.length(index)
        for chunks in lists
        for index in range(len(chunks))
        if (place := places.get(chunks.hash(index))) and (place.offset - chunks.offset(index)) % block == 0
    )


class KnownChunks:
    """Reads verified chunks from the files that hold them; keeps those files open until `close`."""

    def __init__(self, store: Store, places: dict[bytes, ChunkPlace]) -> None:
        self._store = store
        self._places = places
        self._files: dict[ContentId, tuple[int, bool] | None] = {}

    def read(self, chunk_hash: bytes) -> FoundChunk | None:
        """Return the chunk, None if no file here has it (any more)."""
        place = self._places.get(chunk_hash)
        if place is None:
            return None
        if place.root not in self._files:
            self._files[place.root] = self._open(place.root)
        source = self._files[place.root]
        if source is None:
            return None
        file, stays = source
        try:
            data = os.pread(file, place.length, place.offset)
        except OSError:
            return None  # the disk cannot read it: a peer can send it
        # Of a file that somebody may change these bytes are right now, and only these.
        return FoundChunk(memoryview(data), file, place.offset, stays) if blake3(data).digest() == chunk_hash else None

    def close(self) -> None:
        for source in self._files.values():
            if source is not None:
                os.close(source[0])
        self._files.clear()

    def _open(self, root: ContentId) -> tuple[int, bool] | None:
        try:
            return self._store.chunk_places.open(root)
        except StoreError:
            return None
