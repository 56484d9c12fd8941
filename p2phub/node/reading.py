"""Read files while they are still being fetched, every byte verified (spec/hub-api.md §4).

    reader ──read(offset)──▶ chunk here and right? ──yes──▶ its bytes
                                   │ no
                                   ▼
                             one download of the file for all its readers

Rule: a chunk is hashed when it is read, each time. So it does not matter how far a
download is, who writes it, or whether the disk went bad since: what is not right is not
here, and what is not here is fetched.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from blake3 import blake3

from p2phub.core.errors import HubError, InvalidData, StoreError
from p2phub.core.filetree import ChunkList
from p2phub.core.ids import ContentId
from p2phub.core.manifest import FileEntry
from p2phub.store.blobs import Blobs, Readable
from p2phub.store.disk import disk_errors

from .bring import bring_files
from .disk import on_disk
from .events import ignore
from .node import Node
from .origins import of_repository

log = logging.getLogger(__name__)

POLL_S = 0.03  # seconds between looks for a chunk that is awaited
LINGER_S = 15.0  # seconds that a download goes on after its last reader left: clients come back after a pause
DOWNLOADS_MAX = 3  # that succeed, and leave a chunk that is not right
PIECE_SIZE_MAX = 4 * 1024 * 1024  # bytes read at once, and held for one reader


class Readings:
    """The files that are being read on one node, and the downloads that this takes."""

    def __init__(self, node: Node, nursery: trio.Nursery) -> None:
        """nursery: where downloads go on when a reader goes away."""
        self._node = node
        self._nursery = nursery
        # By file, so that readers of one file share a download.
        self._downloads: dict[ContentId, _Download] = {}

    @asynccontextmanager
    async def open(self, file: FileEntry, origin_urls: Sequence[str]) -> AsyncIterator[Reading]:
        """Give a reader of `file`. Nothing is fetched before it reads.

        origin_urls: where the manifest of `file` says it can be fetched, besides peers.
        """
        source = _Source(self._node.store.blobs, file)
        download: _Download | None = None

        def start() -> _Download:
            nonlocal download
            if download is None or download.over.is_set():
                download = self._downloads.get(file.root)
                if download is None:
                    download = self._downloads[file.root] = _Download()
                    self._nursery.start_soon(self._run, file, origin_urls, download)
                download.enter()
            return download

        reading = Reading(self._node, file, source, start)
        try:
            yield reading
        finally:
            reading.note_place(None)
            source.close()
            if download is not None:
                download.leave()

    async def _run(self, file: FileEntry, origin_urls: Sequence[str], download: _Download) -> None:
        try:
            with download.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(download.end_unread)
                    await bring_files(self._node, [file], ignore, origins=of_repository([file], (), origin_urls))
                    nursery.cancel_scope.cancel()
        except* HubError as group:
            download.failure = _first(group)
        except* Exception:
            log.exception("cannot fetch %s", file.path)
            download.failure = HubError("the node met a bug of its own; its log says more")
        finally:
            del self._downloads[file.root]
            download.over.set()


class Reading:
    """One reader of a file. Made by `Readings.open`."""

    def __init__(self, node: Node, file: FileEntry, source: _Source, start: Callable[[], _Download]) -> None:
        self.file = file
        self._node = node
        self._source = source
        self._start = start
        self._is_noted = False

    async def read(self, offset: int, size: int) -> bytes:
        """Return verified bytes from `offset` on: at least one and at most `size`.

        Waits until the chunk that holds `offset` (below the file's size) is here.
        Raises HubError if it cannot be had.
        """
        download: _Download | None = None
        tried = 0
        while True:
            over = download is not None and download.over.is_set()
            data = await on_disk(self._source.read, offset, min(size, PIECE_SIZE_MAX))
            if data:
                if download is not None or self._is_noted:
                    self.note_place(offset + len(data))
                return data
            # Before the download begins, so that its first requests are for what is read.
            self.note_place(offset)
            if over and download is not None:
                tried += 1
                if download.failure:
                    raise download.failure
            if tried == DOWNLOADS_MAX:
                raise StoreError(
                    f"{self.file.path} was fetched {tried} times, and each time the disk gave other bytes",
                    path=self.file.path,
                )
            download = self._start()
            with trio.move_on_after(POLL_S):
                await download.over.wait()

    def note_place(self, offset: int | None) -> None:
        """Tell the download of the file, running or to come, at which byte this reader is; None: nowhere any more."""
        readers = self._node.readers.setdefault(self.file.root, {})
        if offset is None:
            readers.pop(self, None)
        else:
            readers[self] = offset
        if not readers:
            del self._node.readers[self.file.root]
        self._is_noted = offset is not None
        arriving = self._node.arriving.get(self.file.root)
        if arriving is not None:
            arriving.note_reader(self, offset)


class _Download:
    """A download for readers: how many there are, and how it ended."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.failure: HubError | None = None
        self.scope = trio.CancelScope()
        self._readers = 0
        self._changed = trio.Event()

    def enter(self) -> None:
        self._readers += 1
        self._note()

    def leave(self) -> None:
        self._readers -= 1
        self._note()

    async def end_unread(self) -> None:
        """Cancel the download when nobody has read for a while; what it brought stays."""
        while True:
            changed = self._changed
            with trio.move_on_after(LINGER_S) as waiting:
                await changed.wait()
            if waiting.cancelled_caught and not self._readers:
                self.failure = HubError("the download was given up, because nobody read it")
                self.scope.cancel()
                return

    def _note(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class _Source:
    """What is here of one file, open for reading. Used by one thread at a time."""

    def __init__(self, blobs: Blobs, file: FileEntry) -> None:
        self._blobs = blobs
        self._file = file
        self._chunks: ChunkList | None = None
        self._open: Readable | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Return verified bytes from `offset` on, at most `size`; none if the chunk at `offset` is not here.

        A whole file that is not as it should be is taken out of the store, so that it can be fetched again.
        """
        if self._chunks is None:
            self._chunks = self._blobs.chunk_list(self._file.root)
            if self._chunks is None:
                return b""
            if self._chunks.size != self._file.size:
                raise InvalidData(
                    f"the manifest says {self._file.path} has {self._file.size} bytes, and it has {self._chunks.size}"
                )
        data = self._read(self._chunks, offset, size)
        if data:
            return data
        # A download may have begun anew, or ended in another file than the one that is open.
        was_whole = self._open is not None and self._open.chunks is None
        self.close()
        if was_whole and (held := self._blobs.find(self._file.root)):
            self._blobs.bad_chunks(held)
        self._open = self._blobs.open_readable(self._file.root)
        return self._read(self._chunks, offset, size)

    def close(self) -> None:
        if self._open is not None:
            os.close(self._open.file)
            self._open = None

    def _read(self, chunks: ChunkList, offset: int, size: int) -> bytes:
        """Return the verified bytes of consecutive chunks that are here, from `offset` on and at most `size`."""
        if self._open is None:
            return b""
        pieces: list[bytes | memoryview] = []
        index = chunks.index_at(offset)
        left = size
        while left > 0 and index < len(chunks):
            data = self._chunk(chunks, index, self._open.file)
            if data is None:
                break
            skip = max(0, offset - chunks.offset(index))
            piece = memoryview(data)[skip : skip + left]
            pieces.append(data if len(piece) == len(data) else piece)
            left -= len(piece)
            index += 1
            # Whole chunks, as far as they fit: half a chunk would be hashed twice.
            if index < len(chunks) and chunks.length(index) > left:
                break
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def _chunk(self, chunks: ChunkList, index: int, file: int) -> bytes | None:
        begin, length = chunks.offset(index), chunks.length(index)
        with disk_errors(self._file.path):
            if not _is_written(file, begin):
                return None
            data = os.pread(file, length, begin)
        return data if len(data) == length and blake3(data).digest() == chunks.hash(index) else None


def _is_written(file: int, offset: int) -> bool:
    """Say whether `offset` lies in no hole of a sparse file: only then is a look at the bytes worth it."""
    try:
        return os.lseek(file, offset, os.SEEK_DATA) == offset
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # nothing but a hole up to the end
            return False
        if exc.errno == errno.EINVAL:  # a file system that does not tell
            return True
        raise


def _first(group: BaseExceptionGroup[HubError]) -> HubError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, HubError)
    return error
