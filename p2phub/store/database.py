"""The SQLite index: one file, one connection a thread, one transaction a verb (spec/store.md §5).

Most of it can be rebuilt from the files of the store; the page says what cannot.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from p2phub.core.errors import InvalidData, NoSpace, StoreError

from . import kept as keeping
from . import schema
from .disk import disk_errors, free_bytes, write_file
from .migrations import MIGRATIONS

PARAMETERS_MAX = 500  # in one statement of SQL
LOCK_POLL_S = 0.002  # seconds between looks whether another's transaction is over
# Bytes on disk without which the index cannot be opened: SQLite then says that input or output failed, and not why.
OPEN_SIZE = 64 * 1024
BUSY_TIMEOUT_S = 30.0  # seconds to wait for another process's transaction


T = TypeVar("T")

Ending = tuple[Callable[[sqlite3.Connection], None], Callable[[], None]]


def portions(values: Iterable[T]) -> Iterator[tuple[T, ...]]:
    """Yield `values` in portions that one statement takes as parameters; none of them is empty."""
    left = iter(values)
    while some := tuple(islice(left, PARAMETERS_MAX)):
        yield some


def rows_by_root(database: Database, select: str, roots: Iterable[bytes]) -> dict[bytes, sqlite3.Row]:
    """Return the rows of a table that is keyed by root for those of `roots` that it has.

    select: a statement without a condition, which gives the column `root` too.
    """
    rows: dict[bytes, sqlite3.Row] = {}
    with database.read() as connection:
        for some in portions(roots):
            marks = ", ".join("?" * len(some))
            rows.update((row["root"], row) for row in connection.execute(f"{select} WHERE root IN ({marks})", some))
    return rows


class _Open:
    """A connection that is closed when nobody refers to it; by itself one waits for the garbage collector."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class Database:
    """The index file. Safe to use from several threads and processes at once."""

    def __init__(self, path: Path, kept: Path | None = None) -> None:
        """Open `path`, make it if it is missing, and bring it up to the newest version.

        kept: the file of what the index alone knows, from which a new one is filled; None: there is none.
        """
        self.path = path
        self._kept = kept
        self._local = threading.local()
        # Weak: what a thread has open goes with the thread.
        self._open: weakref.WeakSet[_Open] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._migrate()

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for statements that change nothing."""
        with self._errors():
            yield self._connection()

    def at_end(self, commit: Callable[[sqlite3.Connection], None], rolled_back: Callable[[], None]) -> None:
        """Call one of these when the transaction of this thread ends: the first while it can still write."""
        self._local.endings = [*self._endings(), (commit, rolled_back)]

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give a connection inside a transaction, committed at the end and rolled back on an error."""
        with self._errors():
            connection = self._connection()
            _begin(connection)
            try:
                yield connection
                self._before_commit(connection)
                self._write_kept(connection)
                connection.execute("COMMIT")
            except BaseException:
                # Where there is no room, SQLite has done so.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                for _, rolled_back in self._endings():
                    rolled_back()
                raise
            finally:
                self._local.endings = []

    def commit_now(self, connection: sqlite3.Connection) -> None:
        """Commit what the transaction of this thread has done, which is about to end with an error."""
        self._before_commit(connection)
        self._write_kept(connection)
        connection.execute("COMMIT")
        self._local.endings = []

    @contextlib.contextmanager
    def write_through(self) -> Iterator[sqlite3.Connection]:
        """Do what `write` does; when it ends, all that was ever committed outlives a crash of the machine too."""
        with self._errors():
            connection = self._connection()
            connection.execute("PRAGMA synchronous = FULL")
        try:
            with self.write() as connection:
                yield connection
        finally:
            connection.execute("PRAGMA synchronous = NORMAL")

    def _endings(self) -> list[Ending]:
        endings: list[Ending] = getattr(self._local, "endings", [])
        return endings

    def _before_commit(self, connection: sqlite3.Connection) -> None:
        for commit, _ in self._endings():
            commit(connection)

    def _write_kept(self, connection: sqlite3.Connection) -> None:
        """Write what the index alone knows, if it changed: inside the transaction, so that nobody writes older."""
        if self._kept is not None and keeping.is_due(connection):
            write_file(self._kept, keeping.gather(connection), mode=0o600)

    def _put_back(self, connection: sqlite3.Connection) -> None:
        """Fill a new index with what the one before alone knew."""
        if self._kept is None or not self._kept.exists():
            return
        with disk_errors(self._kept):
            data = self._kept.read_bytes()
        try:
            keeping.put_back(connection, data)
        except InvalidData as exc:
            raise StoreError(
                f"{self._kept}, from which a new index is filled, is damaged: {exc}",
                path=str(self._kept),
                hint="move it away; names, pins, settings, federations and what is not for others are lost then",
            ) from exc

    def keep_pages(self, size: int) -> None:
        """Let the connection of this thread keep `size` bytes of pages in memory: it writes much."""
        with self.read() as connection:
            connection.execute(f"PRAGMA cache_size = {-size // 1024}")

    def let_log_grow(self, pages: int) -> None:
        """Let the connection of this thread bring pages to their places when SQLite's log has so many.

        A page that many transactions change is then copied from the log once, but readers search the log for each page.
        """
        with self.read() as connection:
            connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            for opened in list(self._open):
                opened.connection.close()
            self._open.clear()
        self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        known: _Open | None = getattr(self._local, "opened", None)
        if known is None:
            connection = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            known = _Open(connection)
            connection.row_factory = sqlite3.Row
            if not self.path.stat().st_size:
                # A new index has nothing to lose, and its first checkpoint syncs it whole: five syncs fewer.
                connection.execute("PRAGMA synchronous = OFF")
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA cache_size = -8000")
            self._local.opened = known
            with self._lock:
                self._open.add(known)
        return known.connection

    def _migrate(self) -> None:
        with self.write() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"the index {self.path} is of version {version}, made by a newer p2phub",
                    path=str(self.path),
                    hint="upgrade p2phub, or move the index away and run `p2phub store rebuild`",
                )
            if version == 0:
                for statement in schema.statements():
                    connection.execute(statement)
            else:
                for step in MIGRATIONS[version:]:
                    for statement in _statements(step):
                        connection.execute(statement)
            if version == 0:
                self._put_back(connection)
                keeping.note_written(connection)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as exc:
            text = str(exc)
            if "full" in text or (_is_of_the_disk(exc) and free_bytes(self.path.parent) < OPEN_SIZE):
                raise NoSpace(
                    f"no space left for the index {self.path}",
                    path=str(self.path),
                    hint="make a little room on its disk by hand; then `p2phub store gc` frees what nothing needs",
                ) from exc
            if "malformed" in text or "not a database" in text:
                raise StoreError(
                    f"the index {self.path} is damaged: {text}",
                    path=str(self.path),
                    hint="move it away and run `p2phub store rebuild`",
                ) from exc
            if isinstance(exc, sqlite3.OperationalError):
                if not os.access(self.path.parent, os.W_OK):
                    raise StoreError(
                        f"cannot use the index {self.path}: nothing can be written there",
                        path=str(self.path),
                        hint="P2PHUB_HOME needs a place that can be written to; P2PHUB_STORE may be one that cannot",
                    ) from exc
                raise StoreError(f"cannot use the index {self.path}: {text}", path=str(self.path)) from exc
            raise


def _is_of_the_disk(exc: sqlite3.DatabaseError) -> bool:
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR


def _begin(connection: sqlite3.Connection) -> None:
    """Begin a transaction that writes, as soon as no other does."""
    end = time.monotonic() + BUSY_TIMEOUT_S
    # SQLite itself would look only every 100 ms, and one that writes all the time leaves gaps of some ms.
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                # IMMEDIATE: a transaction that reads first and writes later could not be
                # completed if another process wrote in between.
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as exc:
                if "locked" not in str(exc) or time.monotonic() > end:
                    raise
            time.sleep(random.uniform(0.5, 1.5) * LOCK_POLL_S)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the index to WAL mode, unless it is already."""
    end = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            # For this one lock SQLite does not wait: another process makes the index just now.
            if "locked" not in str(exc) or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements; `executescript` would commit the transaction it runs in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
