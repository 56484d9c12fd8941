"""Take chunks from files that are here already instead of fetching them (spec/transfer.md §2).

A fine-tune shares most chunks with its base. What is wanted is looked up in the chunk
lists of all whole files here; what is found is read, verified like a peer's, and
written where it belongs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from blake3 import blake3

from p2phub.core.errors import StoreError
from p2phub.core.filetree import ChunkList
from p2phub.core.ids import ContentId
from p2phub.store.blobs import Blobs, ChunkPlace


def find_known(blobs: Blobs, lists: Sequence[ChunkList], have: Sequence[bytearray]) -> dict[bytes, ChunkPlace]:
    """Return where chunks that are missing can be found in whole files here, by hash.

    lists: of the wanted files; have: what of them is here, a byte (0 or 1) for each chunk.
    """
    wanted = {
        chunks.hash(index)
        for chunks, flags in zip(lists, have, strict=True)
        for index, here in enumerate(flags)
        if not here
    }
    return blobs.find_chunks(wanted) if wanted else {}


def count_known(lists: Sequence[ChunkList], have: Sequence[bytearray], places: dict[bytes, ChunkPlace]) -> int:
    """Return how many missing bytes `places` covers."""
    return sum(
        chunks.length(index)
        for chunks, flags in zip(lists, have, strict=True)
        for index, here in enumerate(flags)
        if not here and chunks.hash(index) in places
    )


class KnownChunks:
    """Reads verified chunks from the files that hold them; keeps those files open until `close`."""

    def __init__(self, blobs: Blobs, places: dict[bytes, ChunkPlace]) -> None:
        self._blobs = blobs
        self._places = places
        self._files: dict[ContentId, int | None] = {}

    def read(self, chunk_hash: bytes) -> bytes | None:
        """Return the chunk, None if no file here has it (any more)."""
        place = self._places.get(chunk_hash)
        if place is None:
            return None
        if place.root not in self._files:
            self._files[place.root] = self._open(place.root)
        file = self._files[place.root]
        if file is None:
            return None
        try:
            data = os.pread(file, place.length, place.offset)
        except OSError:
            return None  # the disk cannot read it: a peer can send it
        return data if blake3(data).digest() == chunk_hash else None

    def close(self) -> None:
        for file in self._files.values():
            if file is not None:
                os.close(file)
        self._files.clear()

    def _open(self, root: ContentId) -> int | None:
        try:
            readable = self._blobs.open_readable(root)
        except StoreError:
            return None
        return readable.file if readable else None
