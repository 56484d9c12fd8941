"""What publishers stated to be newest, and the largest head that each ever stated (spec/fresh.md §3).

    statement ──checked──▶ kept if it is newer ──▶ stated heads: only ever larger
                                      └── a head of the same size and another root: two histories

A statement of somebody who has heard less may be newer than one of somebody who has heard more;
so heads are remembered by themselves, and none is taken back.
"""

from __future__ import annotations

from sqlite3 import Connection, Row

from msgspec import Struct

from p2phub.core.checkpoint import Head, parse_head
from p2phub.core.encoding import encode, read
from p2phub.core.fresh import Behind, Freshness, OpenFresh, SignedFresh
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId, NamespaceId

from .database import Database
from .released import is_of

PROVEN_KEPT = 1000  # heads of which is remembered whether logs go on from them
PUBLISHERS_MAX = 1000  # of what is here, that are asked about


class StatedHead(Struct, frozen=True):
    """The largest head of a log that its publisher stated."""

    log: LogId
    head: Head  # with the lines of witnesses that came with it
    cosigned: Head | None  # the largest one with such lines


class Statements:
    """The newest statement of each publisher. Times are seconds since 1970."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Whether a log with a root had, at a smaller size, another one; asked again for each file of a repository.
        self.proven: dict[tuple[bytes, int, bytes], bool] = {}

    def keep(self, opened: OpenFresh) -> tuple[bool, list[tuple[Head, Head]]]:
        """Keep a checked statement if it is newer than what is here.

        Returns whether it is, and pairs of heads of one size and two roots: the log of each forked.
        """
        fresh = opened.fresh
        with self._database.write() as connection:
            known = connection.execute(
                "SELECT time, records, statement FROM fresh_statements WHERE namespace = ?", (fresh.namespace,)
            ).fetchone()
            data, records = encode(opened.signed), sum(head.size for head in opened.heads)
            # Of two of one second the one with more; of two that say as much all keep the same.
            if known is not None and tuple(known) >= (fresh.time, records, data):
                return False, []
            connection.execute(
                "INSERT OR REPLACE INTO fresh_statements (namespace, time, expires, version, records, statement)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (fresh.namespace, fresh.time, fresh.expires, fresh.version, records, data),
            )
            forks = [_note_head(connection, fresh.namespace, head) for head in opened.heads]
        return True, [pair for pair in forks if pair is not None]

    def note_proven(self, question: tuple[bytes, int, bytes], answer: bool) -> None:
        """Remember whether a log with the first root had the second one at a size."""
        if len(self.proven) >= PROVEN_KEPT:
            self.proven.clear()
        self.proven[question] = answer

    def forget(self, namespace: NamespaceId) -> None:
        """Forget the statement of a publisher: it is not right by a newer identity. What it stated stays."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM fresh_statements WHERE namespace = ?", (namespace,))

    def get(self, namespace: NamespaceId) -> SignedFresh | None:
        """Return the statement of a publisher, checked when it came; None if none is here."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT statement FROM fresh_statements WHERE namespace = ?", (namespace,)
            ).fetchone()
        return read(row["statement"], SignedFresh) if row else None

    def stated(self, namespace: NamespaceId) -> list[StatedHead]:
        """Return the largest heads that a publisher ever stated, sorted by log."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM stated_heads WHERE namespace = ? ORDER BY log", (namespace,)
            ).fetchall()
        return [_stated(row) for row in rows]

    def stated_head(self, log: LogId) -> StatedHead | None:
        """Return the largest head of `log` that its publisher stated, None if he stated none."""
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM stated_heads WHERE log = ?", (log,)).fetchone()
        return _stated(row) if row else None

    def is_newer(self, namespace: NamespaceId, since: float) -> bool:
        """Say whether a publisher stated something after `since`, in seconds since 1970."""
        with self._database.read() as connection:
            row = connection.execute("SELECT time FROM fresh_statements WHERE namespace = ?", (namespace,)).fetchone()
        return row is not None and row["time"] > since

    def publishers_of_what_is_here(self) -> list[NamespaceId]:
        """Return the publishers of manifests that are pinned or in the store, those of pinned ones first.

        Private repositories are left out: nobody is asked about them, and no statement tells of them.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT identities.namespace, min(pins.manifest IS NULL) AS loose FROM manifests"
                " LEFT JOIN pins ON pins.manifest = manifests.manifest"
                f" JOIN release_rows AS r ON {is_of('manifests.manifest')}"
                " JOIN repositories ON repositories.number = r.repository"
                " JOIN identities ON identities.number = repositories.publisher"
                " WHERE NOT EXISTS (SELECT 1 FROM private_logs AS p"
                " WHERE p.namespace = identities.namespace AND p.model = repositories.model)"
                " GROUP BY identities.namespace ORDER BY loose, identities.namespace LIMIT ?",
                (PUBLISHERS_MAX,),
            ).fetchall()
        return [NamespaceId(row["namespace"]) for row in rows]

    def note_lines(self, namespace: NamespaceId, head: Head) -> None:
        """Note a head of the own log with lines of witnesses, to be stated next."""
        with self._database.write() as connection:
            _note_head(connection, namespace, head)

    def freshness(self, identity: Identity) -> Freshness:
        """Return how new what is here of a publisher is, by the newest statement and all heads ever stated."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT time, expires, version FROM fresh_statements WHERE namespace = ?", (identity.namespace,)
            ).fetchone()
            heads = connection.execute(
                "SELECT stated_heads.log, stated_heads.size, coalesce(logs.size, 0) AS here FROM stated_heads"
                " LEFT JOIN logs ON logs.log = stated_heads.log WHERE stated_heads.namespace = ?"
                " AND NOT EXISTS (SELECT 1 FROM fork_proofs WHERE fork_proofs.log = stated_heads.log)"
                " AND NOT EXISTS (SELECT 1 FROM forks WHERE forks.log = stated_heads.log) ORDER BY stated_heads.log",
                (identity.namespace,),
            ).fetchall()
        # What stands behind the end of a log does not count, whoever stated it.
        counted = [(LogId(head["log"]), head["size"], head["here"]) for head in heads if head["log"] in identity.logs]
        behind = [Behind(log, identity.counted(log, size), here) for log, size, here in counted]
        version = row["version"] if row and row["version"] > identity.current.version else None
        return Freshness(
            identity.namespace,
            row["time"] if row else None,
            row["expires"] if row else 0,
            tuple(each for each in behind if each.here < each.stated),
            version,
        )


def _note_head(connection: Connection, namespace: NamespaceId, head: Head) -> tuple[Head, Head] | None:
    """Keep a head that was stated if it is the largest; returns it with another of its size, if they contradict."""
    row = connection.execute("SELECT * FROM stated_heads WHERE log = ?", (head.log,)).fetchone()
    known = _stated(row) if row else None
    if known is not None and head.size == known.head.size and head.root != known.head.root:
        return known.head, head
    largest = head if known is None or head.size >= known.head.size else known.head
    with_lines = [each for each in (head, known.cosigned if known else None) if each and len(each.lines) > 1]
    # The first of equals: the lines that came last may be newer.
    cosigned = max(with_lines, key=lambda each: each.size, default=None)
    connection.execute(
        "INSERT OR REPLACE INTO stated_heads (log, namespace, size, note, cosigned) VALUES (?, ?, ?, ?, ?)",
        (head.log, namespace, largest.size, largest.text, cosigned.text if cosigned else b""),
    )
    return None


def _stated(row: Row) -> StatedHead:
    cosigned = parse_head(row["cosigned"]) if row["cosigned"] else None
    return StatedHead(LogId(row["log"]), parse_head(row["note"]), cosigned)
