"""Read files while they are still being fetched, every byte verified (spec/hub-api.md §4).

    reader ──read, pour──▶ chunk here and right? ──yes──▶ its bytes
                              │ no         ▲
                              ▼            │ wake
                        one download of the file for all its readers, and of small files beside it

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

from p2phub.core import sealing
from p2phub.core.errors import HubError, InvalidData, NotFound, StoreError
from p2phub.core.filetree import CHUNK_SIZE_MAX, ChunkList
from p2phub.core.ids import ContentId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.net.asgi import Put
from p2phub.net.buffers import Buffers
from p2phub.store.disk import disk_errors
from p2phub.store.readables import Readable
from p2phub.store.store import Store

from .bring import bring_files
from .disk import on_disk
from .events import ignore
from .node import Node
from .opened import Opened
from .origins import of_repository

log = logging.getLogger(__name__)

LINGER_S = 15.0  # seconds that a download goes on after its last reader left: clients come back after a pause
DOWNLOADS_MAX = 3  # that succeed, and leave a chunk that is not right
PIECE_SIZE_MAX = 4 * 1024 * 1024  # bytes read at once, and held for one reader
TURN_SIZE = 64 * 1024 * 1024  # bytes that a reader pours until others have their turn
# What is fetched with a small file that is read: clients that want one mostly want the next.
SMALL_SIZE_MAX = 256 * 1024  # bytes of such a file; spec/hub-api.md §4
BATCH_SIZE_MAX = 8 * 1024 * 1024  # bytes of all of them; spec/hub-api.md §4
BATCH_FILES_MAX = 500  # spec/hub-api.md §4

_buffers = Buffers(CHUNK_SIZE_MAX)


class Readings:
    """The files that are being read on one node, and the downloads that this takes."""

    def __init__(self, node: Node, nursery: trio.Nursery, *, may_fetch: bool = True) -> None:
        """nursery: where downloads go on when a reader goes away. may_fetch: what is not here is fetched."""
        self._may_fetch = may_fetch
        self._node = node
        self._nursery = nursery
        # By file, so that readers of one file share a download.
        self._downloads: dict[ContentId, _Download] = {}

    @asynccontextmanager
    async def open(self, file: FileEntry, content: Manifest | Opened) -> AsyncIterator[Reading]:
        """Give a reader of `file`, which is one of `content`. Nothing is fetched before it reads.

        What is sealed is opened as it is read, and fetched and shared as it is kept.
        """
        source: _Source | _SealedSource
        files: Sequence[FileEntry]
        origin_urls: Sequence[str]
        if isinstance(content, Opened):
            (each,) = content.of([file])
            file, files, origin_urls = each.sealed, [other.sealed for other in content.files], ()
            source = _SealedSource(_Source(self._node.store, file), content.key.file(each.file_id, each.file.size))
        else:
            files, origin_urls = content.files, content.origin_urls
            source = _Source(self._node.store, file)
        download: _Download | None = None

        def start() -> _Download:
            nonlocal download
            if not self._may_fetch:
                raise NotFound(f"{file.path} is not here")
            if download is None or download.is_over:
                download = self._downloads.get(file.root)
                if download is None:
                    download = _Download()
                    batch = self._batch(file, files)
                    self._downloads |= dict.fromkeys((file.root for file in batch), download)
                    self._nursery.start_soon(self._run, batch, origin_urls, download)
                download.enter(reading)
            return download

        reading = Reading(self._node, file, source, start)
        try:
            yield reading
        finally:
            reading.note_place(None)
            source.close()
            if download is not None:
                download.leave(reading)

    def _batch(self, file: FileEntry, files: Sequence[FileEntry]) -> list[FileEntry]:
        """Return what is downloaded for a reader of `file`: it, and if it is small, those that it comes with.

        Whichever file is asked for first, the small ones of `files` come with the same others: many readers at
        once would otherwise begin a batch each, and leave remnants between them.
        """
        if file.size > SMALL_SIZE_MAX:
            return [file]
        batch: dict[ContentId, FileEntry] = {}
        size = 0
        for other in files:
            if not 0 < other.size <= SMALL_SIZE_MAX or other.root in batch:
                continue
            if len(batch) == BATCH_FILES_MAX or size + other.size > BATCH_SIZE_MAX:
                if file.root in batch:
                    break
                batch, size = {}, 0
            batch[other.root] = other
            size += other.size
        return [file, *(other for root, other in batch.items() if root != file.root and root not in self._downloads)]

    async def _run(self, files: list[FileEntry], origin_urls: Sequence[str], download: _Download) -> None:
        """Bring `files`, of which the first one must come, and others may be here."""

        async def bring(some: list[FileEntry]) -> None:
            await bring_files(self._node, some, ignore, origins=of_repository(some, (), origin_urls))

        try:
            with download.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(download.end_unread)
                    held = await on_disk(self._node.store.blobs.find_all, [file.root for file in files[1:]])
                    wanted = [file for file in files if file.root not in held]
                    try:
                        await bring(wanted)
                    except HubError as exc:
                        if len(wanted) == 1:
                            raise
                        log.info("cannot fetch %d files together: %s", len(wanted), exc)
                        await bring(files[:1])
                    nursery.cancel_scope.cancel()
        except* HubError as group:
            download.failure = _first(group)
        except* Exception:
            log.exception("cannot fetch %s", files[0].path)
            download.failure = HubError("the node met a bug of its own; its log says more")
        finally:
            for file in files:
                del self._downloads[file.root]
            download.end()


class Reading:
    """One reader of a file. Made by `Readings.open`."""

    def __init__(
        self, node: Node, file: FileEntry, source: _Source | _SealedSource, start: Callable[[], _Download]
    ) -> None:
        """file: what is kept and fetched; source: what is read of it."""
        self.file = file
        self._node = node
        self._source = source
        self._start = start
        self._is_noted = False
        self._news = trio.Event()  # the chunk that is waited for is here, or the download is over

    async def read(self, offset: int, size: int) -> bytes:
        """Return verified bytes from `offset` on: at least one and at most `size`.

        Waits until the chunk that holds `offset` (below the file's size) is here.
        Raises HubError if it cannot be had.
        """
        download: _Download | None = None
        tried = 0
        while True:
            is_over = download is not None and download.is_over
            data = await on_disk(self._source.read, offset, min(size, PIECE_SIZE_MAX))
            if data:
                if self._is_noted:
                    self.note_place(offset + len(data))
                return data
            if download is not None and is_over:
                tried += 1
                if download.failure:
                    raise download.failure
            if tried == DOWNLOADS_MAX:
                raise StoreError(
                    f"{self.file.path} was fetched {tried} times, and each time the disk gave other bytes",
                    path=self.file.path,
                )
            self._news = trio.Event()
            if download is None or is_over:
                # Before the download begins, so that its first requests are for what is read.
                self.note_place(offset)
                download = self._start()
            # Otherwise the chunk came and is not right: only another download can help.
            await self._news.wait()

    def pour(self, offset: int, end: int, put: Put) -> bool:
        """Put verified bytes from `offset` on, up to `end` at most, as far as they are here and are taken.

        Works in the caller's thread. Returns False if it stopped at a chunk that is not here.
        """
        return self._source.pour(offset, min(end, offset + TURN_SIZE), put)

    def wake(self) -> None:
        """Let it look again."""
        self._news.set()

    def note_place(self, offset: int | None) -> None:
        """Tell the download of the file, running or to come, at which byte this reader is; None: nowhere any more."""
        readers = self._node.readers.setdefault(self.file.root, {})
        if offset is not None:
            offset = self._source.place(offset)
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
    """A download for readers: who they are, and how it ended."""

    def __init__(self) -> None:
        self.is_over = False
        self.failure: HubError | None = None
        self.scope = trio.CancelScope()
        self._readers: set[Reading] = set()
        self._changed = trio.Event()

    def enter(self, reading: Reading) -> None:
        self._readers.add(reading)
        self._note()

    def leave(self, reading: Reading) -> None:
        self._readers.discard(reading)
        self._note()

    def end(self) -> None:
        self.is_over = True
        for reading in self._readers:
            reading.wake()

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

    def __init__(self, store: Store, file: FileEntry) -> None:
        self._store = store
        self._file = file
        self._chunks: ChunkList | None = None
        self._open: Readable | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Return verified bytes from `offset` on, at most `size`; none if the chunk at `offset` is not here."""
        pieces: list[bytes] = []
        with _buffers.lend() as buffer:
            # Whole chunks, as far as they fit: half a chunk would be hashed twice.
            while size > 0 and (not pieces or self._length_at(offset) <= size):
                data = self._chunk_at(offset, buffer)[:size]
                if not data:
                    break
                pieces.append(bytes(data))
                offset += len(data)
                size -= len(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def pour(self, offset: int, end: int, put: Put) -> bool:
        """Put verified bytes; see `Reading.pour`."""
        with _buffers.lend() as buffer:
            return _pour(lambda place: self._chunk_at(place, buffer), offset, end, put)

    def place(self, offset: int) -> int:
        """Return where byte `offset` lies in what is fetched."""
        return offset

    def close(self) -> None:
        if self._open is not None:
            os.close(self._open.file)
            self._open = None

    def _length_at(self, offset: int) -> int:
        """Return the length of the chunk that holds `offset`, 0 at the end of the file."""
        assert self._chunks is not None
        return self._chunks.length(self._chunks.index_at(offset)) if offset < self._chunks.size else 0

    def _chunk_at(self, offset: int, buffer: memoryview) -> memoryview:
        """Return the verified bytes from `offset` to the end of its chunk, in `buffer`; none if they are not here.

        A whole file that is not as it should be is taken out of the store, so that it can be fetched again.
        """
        if self._chunks is None:
            self._chunks = self._store.chunk_lists.find(self._file.root)
            if self._chunks is None:
                return buffer[:0]
            if self._chunks.size != self._file.size:
                raise InvalidData(
                    f"the manifest says {self._file.path} has {self._file.size} bytes, and it has {self._chunks.size}"
                )
        index = self._chunks.index_at(offset)
        skip = offset - self._chunks.offset(index)
        if data := self._verified(self._chunks, index, buffer):
            return data[skip:]
        # A download may have begun anew, or ended in another file than the one that is open.
        was_whole = self._open is not None and self._open.chunks is None
        self.close()
        if was_whole and (held := self._store.blobs.find(self._file.root)):
            self._store.blobs.bad_chunks(held)
        self._open = self._store.readables.open(self._file.root)
        return self._verified(self._chunks, index, buffer)[skip:]

    def _verified(self, chunks: ChunkList, index: int, buffer: memoryview) -> memoryview:
        """Return the bytes of a chunk as they lie on the disk, none if they are not right."""
        if self._open is None:
            return buffer[:0]
        begin, length = chunks.offset(index), chunks.length(index)
        data = buffer[:length]
        with disk_errors(self._file.path):
            # Of a partial most is not here yet.
            if self._open.chunks is not None and not _is_written(self._open.file, begin):
                return buffer[:0]
            count = os.preadv(self._open.file, [data], begin)
        return data if count == length and blake3(data).digest() == chunks.hash(index) else buffer[:0]


def _pour(piece_at: Callable[[int], memoryview], offset: int, end: int, put: Put) -> bool:
    """Put the pieces from `offset` to `end`, until `put` takes less than it is given; see `Reading.pour`."""
    while offset < end:
        piece = piece_at(offset)[: end - offset]
        if not piece:
            return False
        taken = put(piece)
        offset += taken
        if taken < len(piece):
            break
    return True


class _SealedSource:
    """What is here of one sealed file, opened chunk by chunk. Used by one thread at a time."""

    def __init__(self, kept: _Source, file: sealing.SealedFile) -> None:
        self._kept = kept
        self._file = file
        self._last: tuple[int, bytes] = (-1, b"")  # the chunk that was read last: pieces begin and end in chunks

    def read(self, offset: int, size: int) -> bytes:
        """Do what `_Source.read` does. Raises InvalidData if a chunk is not what was sealed there."""
        pieces: list[memoryview] = []
        while size > 0 and offset < self._file.size and (part := self._part(offset)):
            pieces.append(part[:size])
            offset += len(pieces[-1])
            size -= len(pieces[-1])
        return b"".join(pieces)

    def pour(self, offset: int, end: int, put: Put) -> bool:
        """Put opened bytes; see `Reading.pour`."""
        return _pour(self._part, offset, end, put)

    def place(self, offset: int) -> int:
        """Return where the chunk that holds byte `offset` begins in what is fetched."""
        if offset >= self._file.size:
            return sealing.sealed_size(self._file.size)
        return offset // sealing.CHUNK_SIZE * (sealing.CHUNK_SIZE + sealing.TAG_SIZE)

    def close(self) -> None:
        self._kept.close()

    def _part(self, offset: int) -> memoryview:
        """Return the bytes from `offset` to the end of its chunk, none if they are not all here."""
        index = offset // sealing.CHUNK_SIZE
        if self._last[0] != index:
            begin, left = self.place(offset), self._file.length(index) + sealing.TAG_SIZE
            data = b""
            while left and (piece := self._kept.read(begin + len(data), left)):
                data += piece
                left -= len(piece)
            if left:
                return memoryview(b"")
            self._last = index, self._file.open(index, data)
        return memoryview(self._last[1])[offset - index * sealing.CHUNK_SIZE :]


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
