"""What a witness has cosigned: the one thing that it must never forget (spec/witness.md §4).

It lies beside the witness's key and not in the index: the index may be lost and filled again, and a
witness that forgot what it signed would sign a second history. Whatever is cosigned is on the disk
before the signature is made: a crash at any point leaves a head that may be cosigned again, and
never one that was told and is not known.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from p2phub.core.errors import NoSpace, StoreError
from p2phub.core.ids import PublicKey
from p2phub.core.signing import SigningKey
from p2phub.protocol.witnessing import Cosigned, Refusal

from .keys import load_or_create_key

BUSY_TIMEOUT_S = 10.0
HINT = "to go on as another witness, move both away: who counted on this one must be told the new key"

_TABLES = """
    CREATE TABLE IF NOT EXISTS witness (key BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS cosigned (
        origin  TEXT PRIMARY KEY,    -- first line of the heads of a log
        size    INTEGER NOT NULL,    -- entries
        root    BLOB NOT NULL,
        note    BLOB NOT NULL        -- the head as its log signed it
    ) STRICT, WITHOUT ROWID;
"""


def open_witness(key_path: Path, path: Path) -> tuple[SigningKey, CosignedHeads]:
    """Return the key of this home's witness and what it cosigned, made now if it never was one.

    Raises StoreError if one of the two files is missing or does not belong to the other.
    """
    if key_path.exists() and not path.exists():
        raise StoreError(
            f"there is a witness's key {key_path}, but not what it signed: {path}", path=str(path), hint=HINT
        )
    # The key comes second: what a crash leaves in between signed nothing.
    heads = CosignedHeads(path)
    try:
        key = load_or_create_key(key_path)
        heads.belong_to(key.public_key)
    except BaseException:
        heads.close()
        raise
    return key, heads


class CosignedHeads:
    """The newest head of each log that was cosigned. Safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        """Open the file `path`, made now if it is missing."""
        self._path = path
        self._lock = threading.Lock()
        with self._errors():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            # Each commit is on the disk when it returns, the last one too.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_TABLES)
        path.chmod(0o600)

    def belong_to(self, key: PublicKey) -> None:
        """Note whose heads these are. Raises StoreError if they are another witness's."""
        with self._transaction() as connection:
            row = connection.execute("SELECT key FROM witness").fetchone()
            if row is None:
                connection.execute("INSERT INTO witness (key) VALUES (?)", (key,))
            elif row["key"] != key:
                raise StoreError(f"{self._path} is of another witness's key", path=str(self._path), hint=HINT)

    def advance(
        self, origin: str, new: Cosigned, check: Callable[[Cosigned | None], Refusal | None]
    ) -> tuple[Refusal | None, Cosigned | None]:
        """Keep `new` as the head of the log `origin` that was cosigned last, if `check` finds nothing against it.

        check: is told what was cosigned last. Returns what it says, and what it was told.
        """
        with self._transaction() as connection:
            known = _cosigned(connection.execute("SELECT * FROM cosigned WHERE origin = ?", (origin,)).fetchone())
            refusal = check(known)
            if refusal is None:
                connection.execute(
                    "INSERT OR REPLACE INTO cosigned (origin, size, root, note) VALUES (?, ?, ?, ?)",
                    (origin, new.size, new.root, new.note),
                )
        return refusal, known

    def get(self, origin: str) -> Cosigned | None:
        """Return the head of the log `origin` that was cosigned last, None if none was."""
        with self._lock, self._errors():
            return _cosigned(self._connection.execute("SELECT * FROM cosigned WHERE origin = ?", (origin,)).fetchone())

    def count(self) -> int:
        """Return how many logs have a head that was cosigned."""
        with self._lock, self._errors():
            (count,) = self._connection.execute("SELECT count(*) FROM cosigned").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as exc:
            if "full" in str(exc):
                raise NoSpace(f"no space left for {self._path}", path=str(self._path)) from exc
            raise StoreError(f"cannot use {self._path}: {exc}", path=str(self._path)) from exc


def _cosigned(row: sqlite3.Row | None) -> Cosigned | None:
    return Cosigned(row["size"], row["root"], row["note"]) if row else None
