"""Inner nodes of the trees of logs, so that a root or a proof costs as little in a long log as in a short one.

    entry_rows (leaves) ──256 to 1──▶ log_blocks, level 1 ──256 to 1──▶ level 2 ──▶ …

Of each 256 records that stand together the root is kept, and of each 256 of these. So any block of
2^k records is computed from at most 256 hashes, and a proof, for records up to 2^63, from some thousands.
An index that an older version wrote has none of this; what is missing is computed, and kept with the next record.
"""

from __future__ import annotations

from sqlite3 import Connection

from p2phub.core import merkle
from p2phub.core.errors import NotFound
from p2phub.core.merkle import LOG_TREE, Frontier

STEP = 8  # levels of the tree between two that are kept
_FANOUT = 1 << STEP


class LogTree:
    """The tree of one log, as far as it is in the index."""

    def __init__(self, connection: Connection, number: int) -> None:
        """number: of the log in `logs`."""
        self._connection = connection
        self._number = number

    # ── reading ─────────────────────────────────────────────────────────────

    def root(self, size: int) -> bytes:
        """Return the root of the first `size` records. Raises NotFound if they are not all here."""
        return merkle.root_of_blocks(LOG_TREE, self._block, size)

    def frontier(self, size: int) -> Frontier:
        """Return the right edge of the tree of the first `size` records. Raises NotFound if they are not all here."""
        return Frontier(LOG_TREE, size, merkle.peaks_of_blocks(self._block, size))

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Return the proof that the tree of `new` records goes on from that of `old`, as `consistency_proof` does.

        Raises NotFound if they are not all here.
        """
        return merkle.consistency_of_blocks(LOG_TREE, self._block, old, new)

    # ── writing, in the transaction that changes the log ────────────────────

    def grow(self, size: int) -> None:
        """Keep what the first `size` records add to what is kept."""
        level = 1
        while (end := size >> STEP * level) > 0:
            begin = self._count(level)
            self._connection.executemany(
                "INSERT INTO log_blocks (log_number, level, idx, hash) VALUES (?, ?, ?, ?)",
                [(self._number, level, index, self._above(level, index)) for index in range(begin, end)],
            )
            level += 1

    def cut(self, size: int) -> None:
        """Forget what does not follow from the first `size` records alone."""
        self._connection.execute(
            "DELETE FROM log_blocks WHERE log_number = ? AND ((idx + 1) << (? * level)) > ?",
            (self._number, STEP, size),
        )

    # ── helpers ─────────────────────────────────────────────────────────────

    def _block(self, level: int, index: int) -> bytes:
        """Return the root of the 2^level records from index << level on."""
        kept, rest = divmod(level, STEP)
        return merkle.root(LOG_TREE, self._kept(kept, index << rest, 1 << rest))

    def _above(self, level: int, index: int) -> bytes:
        """Return a node of a level that is kept, from those that it stands on."""
        return merkle.root(LOG_TREE, self._kept(level - 1, index << STEP, _FANOUT))

    def _kept(self, level: int, begin: int, count: int) -> list[bytes]:
        """Return nodes of a level that is kept; 0: leaves."""
        if level == 0:
            rows = self._connection.execute(
                "SELECT leaf FROM entry_rows WHERE log_number = ? AND idx >= ? AND idx < ? ORDER BY idx",
                (self._number, begin, begin + count),
            )
            found = [row["leaf"] for row in rows]
            if len(found) < count:
                raise NotFound(f"records {begin} to {begin + count - 1} of the log are not all here")
            return found
        rows = self._connection.execute(
            "SELECT hash FROM log_blocks WHERE log_number = ? AND level = ? AND idx >= ? AND idx < ? ORDER BY idx",
            (self._number, level, begin, begin + count),
        )
        found = [row["hash"] for row in rows]
        return found + [self._above(level, index) for index in range(begin + len(found), begin + count)]

    def _count(self, level: int) -> int:
        """Return how many nodes of a level are kept: the first ones."""
        (count,) = self._connection.execute(
            "SELECT coalesce(max(idx) + 1, 0) FROM log_blocks WHERE log_number = ? AND level = ?",
            (self._number, level),
        ).fetchone()
        return int(count)
