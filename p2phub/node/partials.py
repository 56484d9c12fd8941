"""The partials of one download: which are open, which are finished, and small files that need none.

Worker threads write chunks, the trio task saves and finishes; a bounded number of
partials is open at a time, and none is closed while a thread uses it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from itertools import chain

from msgspec import Struct

from p2phub.core.errors import StoreError
from p2phub.core.filetree import ChunkList
from p2phub.core.ids import ContentId
from p2phub.store.chunkplaces import ChunkPlace
from p2phub.store.partial import FoundChunk, Partial
from p2phub.store.store import Store

from .dedup import KnownChunks

OPEN_PARTIALS_MAX = 64


class WantedFile(Struct, frozen=True):
    """A file to download, with its verified chunk list."""

    root: ContentId
    chunks: ChunkList


class Copied(Struct):
    """What came from other files here."""

    size: int = 0  # bytes
    shared: int = 0  # of these, that lie on disk once


class _OpenPartial(Struct):
    """A partial that is open, and how many threads use it now."""

    partial: Partial
    users: int = 0


class DownloadPartials:
    """The partials of one download, opened when they are written and a bounded number at a time."""

    def __init__(self, store: Store, files: Sequence[WantedFile]) -> None:
        self._store = store
        self._files = files
        self._lock = threading.Lock()
        # By place of the file, in the order of use, the oldest first.
        self._open: dict[int, _OpenPartial] = {}
        self._finished: set[int] = set()

    def recover(self) -> list[bytearray]:
        """Return for each file which chunks are here, a byte (0 or 1) each."""
        begun = self._store.partials.begun(file.root for file in self._files)
        return [
            self._store.partials.recover(file.root, file.chunks) if file.root in begun else bytearray(len(file.chunks))
            for file in self._files
        ]

    def copy_known(self, have: Sequence[bytearray], places: dict[bytes, ChunkPlace]) -> Copied:
        """Take missing chunks from other files here and note them in `have`; returns how much."""
        known = KnownChunks(self._store, places)
        copied = Copied()
        try:
            for place, flags in enumerate(have):
                fresh: list[int] = []
                found = self._found(place, flags, known, fresh)
                first = next(found, None)
                if first is None:
                    continue  # no partial is begun for nothing
                with self._use(place) as partial:
                    assert partial is not None, "nothing of this download is finished yet"
                    copied.shared += partial.take(chain([first], found))
                for index in fresh:
                    flags[index] = 1
                    copied.size += self._files[place].chunks.length(index)
        finally:
            known.close()
        return copied

    def _found(
        self, place: int, flags: bytearray, known: KnownChunks, fresh: list[int]
    ) -> Iterator[tuple[int, FoundChunk]]:
        """Give the missing chunks of file `place` that other files hold, and note them in `fresh`."""
        chunks = self._files[place].chunks
        for index, here in enumerate(flags):
            found = None if here else known.read(chunks.hash(index))
            if found is not None:
                fresh.append(index)
                yield index, found

    def add_small(self, files: Sequence[tuple[int, bytes]]) -> None:
        """Make objects of whole small files, by place."""
        self._store.blobs.add_small([(self._files[place].root, data, None) for place, data in files])
        with self._lock:
            self._finished.update(place for place, _ in files)

    def write(self, place: int, index: int, data: memoryview) -> None:
        """Write chunk `index` of file `place`; a file that is finished has it already."""
        with self._use(place) as partial:
            if partial is not None:
                partial.write(index, data)

    def finish(self, place: int) -> None:
        """Turn the complete file `place` into an object."""
        with self._use(place) as partial:
            if partial is None:
                return
            root = self._files[place].root
            if not partial.missing():
                self._store.blobs.finish(root, partial)
            elif self._store.blobs.find(root) is not None:
                # Another process finished the file while it was not open here, and what is open was begun anew.
                partial.discard()
            else:
                raise StoreError(f"{partial.path} was removed while it was written", path=str(partial.path))
            with self._lock:
                # From here on nobody may open it again: that would begin a new partial.
                self._finished.add(place)

    def save(self) -> None:
        """Save the bitmaps of what is open."""
        with self._lock:
            places = list(self._open)
        for place in places:
            with self._use(place) as partial:
                if partial is not None:
                    partial.save()

    def close(self) -> None:
        """Save and close everything."""
        with self._lock:
            for entry in self._open.values():
                entry.partial.close()
            self._open.clear()

    @contextlib.contextmanager
    def _use(self, place: int) -> Iterator[Partial | None]:
        """Give the partial of file `place`, open at least until the block ends; None if it is finished."""
        with self._lock:
            entry = self._open.pop(place, None)
            if entry is None and place not in self._finished:
                file = self._files[place]
                entry = _OpenPartial(self._store.partials.begin(file.root, file.chunks))
            if entry is not None:
                self._open[place] = entry
                entry.users += 1
        if entry is None or place in self._finished:
            yield None
        else:
            yield entry.partial
        # Not in a `finally`: after an error of the disk the download ends, and `close` closes all.
        if entry is not None:
            with self._lock:
                entry.users -= 1
                self._close_idle()

    def _close_idle(self) -> None:
        """Close what is finished, and the oldest of what is too many."""
        for place, entry in list(self._open.items()):
            if entry.users == 0 and (place in self._finished or len(self._open) > OPEN_PARTIALS_MAX):
                del self._open[place]
                entry.partial.close()
