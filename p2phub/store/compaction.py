"""Give back the room of journals of which little counts any more (spec/store.md §4).

    full journal ──look──▶ much of it is superseded ──▶ what counts: to the newest journal ──later──▶ file deleted

A head is superseded by the next one, and an identity by its next version: so journals of publishers that say much
fill with what nobody needs. What counts is copied as everything is written: a batch, a sync, a commit. A crash
between any two steps leaves each record where the index says that it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from sqlite3 import Connection, Row

from p2phub.core.checkpoint import parse_head
from p2phub.core.encoding import decode
from p2phub.core.errors import InvalidData
from p2phub.core.identity import namespace_id
from p2phub.core.merkle import LOG_TREE
from p2phub.protocol.messages import IdentityChain

from .chains import unpack_chain
from .database import Database
from .journals import ENTRY, FRAME_SIZE, HEAD, IDENTITY_SIZE_MAX, Batch, Frame, Journals, Place

log = logging.getLogger(__name__)

LOOK_EACH_S = 24 * 3600  # seconds between looks into one journal; spec/store.md §4
COUNTING_SHARE = 2 / 3  # of its bytes: a journal of which so much counts stays as it is; spec/store.md §4
STAY_S = 600  # seconds that a journal stays in which nothing counts: who reads it now ends; spec/store.md §4
STEP_FRAMES = 2048  # in one transaction: writers wait for its end
STEP_BYTES = 8 * 1024 * 1024


class Compaction:
    """The journals of one home, to be made smaller. Several processes may do so at once."""

    def __init__(
        self,
        database: Database,
        journals: Journals,
        batch: Callable[[Connection], AbstractContextManager[Batch]],
    ) -> None:
        """batch: gives one that is written at the end of the block."""
        self._database = database
        self._journals = journals
        self._batch = batch

    def steps(self, now: float) -> Iterator[int]:
        """Look into the journals that are due; each step holds writers up for short only, and gives the bytes freed.

        now: seconds since 1970. Raises StoreError.
        """
        yield self._delete_emptied(now)
        while (number := self._next_due(now)) is not None:
            # First: one that cannot be read is not tried again at once.
            with self._database.write() as connection:
                connection.execute("UPDATE journals SET looked = ? WHERE number = ?", (int(now), number))
            if self._journals.path(number).exists():
                yield from self._look(number, now)

    def _look(self, number: int, now: float) -> Iterator[int]:
        """Empty a journal if little in it counts."""
        enough = COUNTING_SHARE * self._journals.path(number).stat().st_size
        with self._database.read() as connection:
            (counting,) = connection.execute(
                "SELECT coalesce(sum(length + ?), 0) FROM entry_rows WHERE journal = ?", (FRAME_SIZE, number)
            ).fetchone()
        for frames in self._others(number):
            with self._database.read() as connection:
                counting += sum(FRAME_SIZE + len(frame.data) for frame in frames if _counts(connection, frame))
            if counting >= enough:
                return
            yield 0
        yield from self._empty(number, now)

    def _empty(self, number: int, now: float) -> Iterator[int]:
        """Copy what counts in a journal to the newest one, and note that nothing in it does any more."""
        # Identities first: they prove what follows.
        for frames in self._others(number):
            with self._database.write() as connection, self._batch(connection) as batch:
                for frame in frames:
                    if _counts(connection, frame):
                        batch.add(frame.kind, frame.data)
            yield 0
        for rows in self._entries(number):
            with self._database.write() as connection, self._batch(connection) as batch:
                self._move(connection, batch, number, rows)
            yield 0
        with self._database.write_through() as connection:
            left = connection.execute("SELECT 1 FROM entry_rows WHERE journal = ? LIMIT 1", (number,)).fetchone()
            if left is None:
                connection.execute("UPDATE journals SET emptied = ? WHERE number = ?", (int(now), number))
        if left is not None:
            log.warning("the journal %s is damaged; `p2phub store rebuild` lets peers give again what it lost",
                        self._journals.path(number))  # fmt: skip
        yield 0

    def _move(self, connection: Connection, batch: Batch, number: int, rows: Sequence[Row]) -> None:
        """Copy the entries of `rows`, as far as they lie in the journal `number` still, as they were written."""
        for row in rows:
            key = (row["log_number"], row["idx"])
            here = connection.execute(
                "SELECT 1 FROM entry_rows WHERE log_number = ? AND idx = ? AND journal = ? AND offset = ?",
                (*key, number, row["offset"]),
            ).fetchone()
            data = self._journals.read(Place(number, row["offset"], row["length"]))
            if here is None or LOG_TREE.leaf(data) != row["leaf"]:
                continue
            place = batch.add(ENTRY, data)
            connection.execute(
                "UPDATE entry_rows SET journal = ?, offset = ? WHERE log_number = ? AND idx = ?",
                (place.journal, place.offset, *key),
            )

    def _delete_emptied(self, now: float) -> int:
        """Delete the journals in which nothing counts any more; returns the bytes freed."""
        freed = 0
        with self._database.write() as connection:
            for row in connection.execute(
                "SELECT number FROM journals WHERE abs(emptied - ?) >= ?", (int(now), STAY_S)
            ).fetchall():
                # Before the commit: a crash between them leaves a file that is looked for once more, and not there.
                freed += self._journals.delete(row["number"])
                connection.execute("DELETE FROM journals WHERE number = ?", (row["number"],))
        return freed

    # ── finding ─────────────────────────────────────────────────────────────

    def _next_due(self, now: float) -> int | None:
        """Return the journal that was not looked into for longest, if it is time; never the one that is written to."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT number FROM journals WHERE emptied IS NULL AND number < (SELECT max(number) FROM journals)"
                # Clocks may be set back.
                " AND (looked IS NULL OR abs(looked - ?) >= ?) ORDER BY looked IS NOT NULL, looked, number LIMIT 1",
                (int(now), LOOK_EACH_S),
            ).fetchone()
        return row["number"] if row else None

    def _others(self, number: int) -> Iterator[list[Frame]]:
        """Yield the frames of a journal that are no entries, some at a time."""
        frames: list[Frame] = []
        seen = size = 0
        for frame in self._journals.frames(number):
            frames += [frame] if frame.kind != ENTRY else []
            seen, size = seen + 1, size + len(frame.data)
            if seen >= STEP_FRAMES or size >= STEP_BYTES:
                yield frames
                frames, seen, size = [], 0, 0
        yield frames

    def _entries(self, number: int) -> Iterator[list[Row]]:
        """Yield where entries of logs lie in a journal, some at a time."""
        last = (-1, -1)
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    "SELECT log_number, idx, leaf, offset, length FROM entry_rows"
                    " WHERE (log_number, idx) > (?, ?) AND journal = ? ORDER BY log_number, idx LIMIT ?",
                    (*last, number, STEP_FRAMES),
                ).fetchall()
            if not rows:
                return
            last = (rows[-1]["log_number"], rows[-1]["idx"])
            yield rows


def _counts(connection: Connection, frame: Frame) -> bool:
    """Say whether a head or an identity is the newest that is here."""
    try:
        if frame.kind == HEAD:
            row = connection.execute(
                "SELECT 1 FROM logs WHERE log = ? AND head = ? AND bytes = 0", (parse_head(frame.data).log, frame.data)
            ).fetchone()
            return row is not None
        documents = decode(frame.data, IdentityChain, size_max=IDENTITY_SIZE_MAX).documents
    except InvalidData:
        return False
    if not documents:
        return False
    namespace = namespace_id(documents[0].document)
    row = connection.execute("SELECT chain FROM identities WHERE namespace = ?", (namespace,)).fetchone()
    return row is not None and unpack_chain(row["chain"]) == frame.data
