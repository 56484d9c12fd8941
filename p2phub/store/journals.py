"""Files that hold the records of many logs, one batch after the other (spec/store.md §4).

A node follows more logs than it can have files, and a sync for each would take most of the
time. So what comes of other publishers goes to the end of one file, in frames:

    kind (1 byte) │ length (u32, big-endian) │ payload

A frame says by itself what it belongs to: a record and a head name their log, an identity
its namespace. Each batch begins with a mark, by which a reader finds its way again behind
damage. A file only grows: what a crash left at its end stays, and the next batch follows it.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from sqlite3 import Connection

from msgspec import Struct

from p2phub.core.checkpoint import HEAD_SIZE_MAX
from p2phub.core.envelope import ENVELOPE_SIZE_MAX
from p2phub.core.errors import StoreError

from .disk import FileWriter, disk_errors, sync_folder

ENTRY, HEAD, IDENTITY = b"e", b"h", b"i"  # kinds of frames; spec/store.md §4
JOURNAL_SIZE = 256 * 1024 * 1024  # bytes; a batch that begins behind them begins a new file
MARK = b"\np2phub batch 1\n"  # before each batch; spec/store.md §4
IDENTITY_SIZE_MAX = 4 * 1024 * 1024  # bytes of a chain; spec/peer-protocol.md §1

_FRAME = struct.Struct(">cI")
FRAME_SIZE = _FRAME.size  # bytes before the data of a frame
_SIZES_MAX = {ENTRY: ENVELOPE_SIZE_MAX, HEAD: HEAD_SIZE_MAX, IDENTITY: IDENTITY_SIZE_MAX}
_NAME = re.compile(r"[0-9]{8}")
READ_SIZE = 4 * 1024 * 1024  # bytes read at once
BESIDE_SIZE = 256 * 1024  # bytes of a batch, from which on a thread brings it onto the disk


class Place(Struct, frozen=True):
    """Where bytes lie."""

    journal: int  # number of the file; 0: the log's own file
    offset: int  # bytes into it
    length: int  # bytes


class Frame(Struct, frozen=True):
    """Something that a journal holds; whether it is right nobody checked."""

    kind: bytes
    data: bytes
    place: Place  # of `data`


class Batch:
    """Frames that are to be written together."""

    def __init__(self, number: int, start: int) -> None:
        self.number = number
        self.start = start  # byte of the file at which the batch will stand
        self._pieces = [MARK]
        self._end = start + len(MARK)

    def add(self, kind: bytes, data: bytes) -> Place:
        """Add a frame; returns where `data` will lie."""
        header = _FRAME.pack(kind, len(data))
        place = Place(self.number, self._end + len(header), len(data))
        self._pieces += (header, data)
        self._end += len(header) + len(data)
        return place

    @property
    def data(self) -> bytes:
        """All frames; empty if there are none."""
        return b"".join(self._pieces) if len(self._pieces) > 1 else b""


class _Open:
    """A file that is open for reading until nobody reads it any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def is_deleted(self) -> bool:
        return os.fstat(self.file).st_nlink == 0

    def __del__(self) -> None:
        # Not if there was no such file.
        if hasattr(self, "file"):
            os.close(self.file)


class Journals:
    """The journal files of one home. Safe to use from several threads and processes at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[int, _Open] = {}  # by number
        self._lock = threading.Lock()
        self._syncing: ThreadPoolExecutor | None = None

    # ── writing, inside a write transaction of the index ────────────────────

    def begin(self, connection: Connection) -> Batch:
        """Return an empty batch, which will stand behind everything that was ever written."""
        number, known = self._current(connection)
        return Batch(number, max(known, self._size(number)))

    def write(self, connection: Connection, batch: Batch) -> Callable[[], None]:
        """Write a batch, and begin to bring it onto the disk; returns what waits until it is there.

        To be waited for before the transaction is committed, and after it was rolled back too: nothing else may be
        written meanwhile. Raises StoreError, as what waits does; then nothing of the batch is there.
        """
        data = batch.data
        if not data:
            return _do_nothing
        path = self.path(batch.number)
        connection.execute("UPDATE journals SET bytes = ? WHERE number = ?", (batch.start + len(data), batch.number))
        with disk_errors(path):
            file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                FileWriter(file).write(memoryview(data), batch.start)
            except BaseException:
                _take_back(file, batch.start)
                raise
        bring = partial(_bring_onto_disk, file, path, batch.start)
        if len(data) >= BESIDE_SIZE:
            return self._beside(bring).result
        bring()
        return _do_nothing

    def tail(self, connection: Connection) -> list[Frame]:
        """Return what the newest file holds behind what the index knows: a crash came before the commit."""
        row = connection.execute("SELECT number, bytes FROM journals ORDER BY number DESC LIMIT 1").fetchone()
        if row is None or self._size(row["number"]) <= row["bytes"]:
            return []
        return list(self.frames(row["number"], row["bytes"]))

    def adopt(self, connection: Connection, number: int, size: int) -> None:
        """Let the index know a file, up to its first `size` bytes."""
        connection.execute("INSERT OR IGNORE INTO journals (number, bytes) VALUES (?, ?)", (number, size))

    def delete(self, number: int) -> int:
        """Delete a file of which nothing is needed any more; returns the bytes freed."""
        path = self.path(number)
        with self._lock:
            self._files.pop(number, None)
        with disk_errors(path):
            try:
                size = path.stat().st_blocks * 512
                path.unlink()
            except FileNotFoundError:
                return 0
        return size

    def usable(self, connection: Connection) -> set[int]:
        """Return the numbers of the files that the index may speak of: those that are there, and stay."""
        emptied = connection.execute("SELECT number FROM journals WHERE emptied IS NOT NULL").fetchall()
        return set(self.numbers()) - {row["number"] for row in emptied}

    # ── reading ─────────────────────────────────────────────────────────────

    def path(self, number: int) -> Path:
        return self._folder / f"{number:08}"

    def numbers(self) -> list[int]:
        """Return the numbers of the files that are there, sorted."""
        with disk_errors(self._folder):
            try:
                names = os.listdir(self._folder)
            except FileNotFoundError:
                return []
            return sorted(int(name) for name in names if _NAME.fullmatch(name))

    def read(self, place: Place) -> bytes:
        """Return the bytes at a place; fewer if they are not there. Raises StoreError."""
        # A search reads tens: a path is put together only for a file that is not open yet.
        file = self._files.get(place.journal) or self._reader(place.journal)
        if file is None:
            return b""
        with disk_errors(file.path):
            return os.pread(file.file, place.length, place.offset)

    def frames(self, number: int, start: int = 0) -> Iterator[Frame]:
        """Yield what the file `number` holds from byte `start` on; what is damaged is passed over."""
        path = self.path(number)
        parser = _Parser(number, start)
        with disk_errors(path), open(path, "rb") as file:
            file.seek(start)
            while data := file.read(READ_SIZE):
                yield from parser.feed(data)
        yield from parser.end()

    def close(self) -> None:
        """Close the files that are open for reading, and end the thread."""
        with self._lock:
            self._files.clear()
            syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.shutdown()

    # ── helpers ─────────────────────────────────────────────────────────────

    def _current(self, connection: Connection) -> tuple[int, int]:
        """Return number and known size of the file that is written to, a new one if there is none or it is full."""
        row = connection.execute("SELECT number, bytes FROM journals ORDER BY number DESC LIMIT 1").fetchone()
        if row is not None and row["bytes"] < JOURNAL_SIZE and self.path(row["number"]).exists():
            return row["number"], row["bytes"]
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        # Files that an index which was lost knew are for a rebuild to read, and are not written to.
        number = max([0, *self.numbers(), row["number"] if row is not None else 0]) + 1
        path = self.path(number)
        with disk_errors(path):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        sync_folder(self._folder)
        connection.execute("INSERT INTO journals (number, bytes) VALUES (?, 0)", (number,))
        return number, 0

    def _beside(self, bring: Callable[[], None]) -> Future[None]:
        with self._lock:
            if self._syncing is None:
                # Only now: most commands write no large batch.
                self._syncing = ThreadPoolExecutor(1, "sync journal")
            return self._syncing.submit(bring)

    def _size(self, number: int) -> int:
        try:
            return self.path(number).stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as exc:
            raise StoreError(f"cannot use {self.path(number)}: {exc.strerror}", path=str(self.path(number))) from exc

    def _reader(self, number: int) -> _Open | None:
        """Return a file, open for reading; None if it is not there. Raises StoreError."""
        path = self.path(number)
        with self._lock, disk_errors(path):
            if number not in self._files:
                # Another process may have deleted some, and an open file keeps its room.
                self._files = {each: known for each, known in self._files.items() if not known.is_deleted}
                try:
                    self._files[number] = _Open(path)
                except FileNotFoundError:
                    return None
            return self._files[number]


def _bring_onto_disk(file: int, path: Path, start: int) -> None:
    """Let what was written from byte `start` on outlive a crash, and close the file. Raises StoreError."""
    with disk_errors(path):
        try:
            os.fdatasync(file)
        except BaseException:
            _take_back(file, start)
            raise
        os.close(file)


def _take_back(file: int, start: int) -> None:
    """Drop what was written from byte `start` on, and close the file."""
    with contextlib.suppress(OSError):
        os.ftruncate(file, start)
    os.close(file)


def _do_nothing() -> None:
    pass


class _Parser:
    """Finds the frames in a journal that comes piece by piece."""

    def __init__(self, number: int, start: int) -> None:
        self._number = number
        self._at = start  # byte of the journal at which `_data` stands
        self._data = b""
        self._is_lost = False  # behind damage: nothing can be made out until the next mark

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are whole with `data`, which follows what was fed before."""
        self._data += data
        yield from self._parse(is_end=False)

    def end(self) -> Iterator[Frame]:
        """Yield the frames that are left when nothing follows."""
        yield from self._parse(is_end=True)

    def _parse(self, *, is_end: bool) -> Iterator[Frame]:
        data, position = self._data, 0
        # While more may come, a mark is not to be taken for damage because it is cut.
        while len(data) - position >= (1 if is_end else len(MARK)):
            if self._is_lost:
                position = data.find(MARK, position)
                if position < 0:
                    position = len(data) if is_end else len(data) - len(MARK) + 1
                    break
                self._is_lost = False
            if data.startswith(MARK, position):
                position += len(MARK)
                continue
            start = position + _FRAME.size
            kind, length = _FRAME.unpack_from(data, position) if start <= len(data) else (b"", 0)
            if length > _SIZES_MAX.get(kind, -1) or (is_end and start + length > len(data)):
                self._is_lost = True
                position += 1
            elif start + length > len(data):
                break
            else:
                position = start + length
                yield Frame(kind, data[start:position], Place(self._number, self._at + start, length))
        self._at, self._data = self._at + position, data[position:]
