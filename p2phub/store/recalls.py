"""Manifests that their publishers took back (spec/records.md §5).

    publishers' logs ──recall──▶ recall_rows

A recall is the word of whoever published the manifest. Another publisher of the same one is not bound
by it: or anybody could publish what others made, take it back, and so take it away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import islice
from sqlite3 import Connection

from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.records import Recall

from .database import Database

PARAMETERS_MAX = 500  # in one statement of SQL

RefusedOf = Callable[[Collection[bytes]], set[bytes]]  # those of some manifests that must not be used

# Manifests of which all who published them took them back; ?: which are asked about.
_TAKEN_BACK = (
    "SELECT c.manifest FROM recall_rows AS c JOIN release_rows AS r ON r.repository = c.repository"
    " AND r.manifest = c.manifest WHERE c.manifest IN ({marks}) AND NOT EXISTS"
    " (SELECT 1 FROM release_rows AS o WHERE substr(o.manifest, 1, 8) = substr(c.manifest, 1, 8)"
    " AND o.manifest = c.manifest AND NOT EXISTS (SELECT 1 FROM recall_rows AS d"
    " WHERE d.repository = o.repository AND d.manifest = o.manifest))"
)


class Recalls:
    """What was taken back, as far as this node knows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def message(self, manifest: ManifestId, namespace: NamespaceId | None, model: str | None) -> str | None:
        """Return why a manifest must not be used any more, None if nothing is known against it.

        namespace, model: the repository that it was asked for by; without one, all who published it must agree.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT identities.namespace, model, message FROM recall_rows AS c"
                " JOIN repositories ON repositories.number = c.repository"
                " JOIN identities ON identities.number = publisher JOIN logs ON logs.number = c.log_number"
                " WHERE manifest = ? ORDER BY c.time DESC, c.idx DESC, logs.log DESC",
                (manifest,),
            ).fetchall()
            if not rows:
                return None
            if namespace is not None:
                own = [row for row in rows if (row["namespace"], row["model"]) == (namespace, model)]
                return own[0]["message"] if own else None
            return rows[0]["message"] if taken_back(connection, [manifest]) else None

    def withheld(
        self, identifiers: Collection[bytes], kept: Callable[[], Collection[bytes]], also: RefusedOf | None = None
    ) -> set[bytes]:
        """Return those of the files and manifests that were taken back: of files, those that nothing else lists.

        kept: says which manifests stay, whatever their publishers say. also: says what else must not be used of what
        it is given.
        """
        with self._database.read() as connection:
            # Mostly there is nothing of the kind, and this is asked for every span that is sent.
            if also is None and connection.execute("SELECT 1 FROM recall_rows LIMIT 1").fetchone() is None:
                return set()

            def refused(some: Collection[bytes]) -> set[bytes]:
                back = taken_back(connection, some)
                return (back - set(kept()) if back else back) | (also(some) if also else set())

            return refused(identifiers) | lost_files(connection, identifiers, refused)


def taken_back(connection: Connection, manifests: Iterable[bytes]) -> set[bytes]:
    """Return those of `manifests` that all who published them took back."""
    found: set[bytes] = set()
    for some in _portions(manifests):
        marks = ", ".join("?" * len(some))
        found |= {row["manifest"] for row in connection.execute(_TAKEN_BACK.format(marks=marks), some)}
    return found


def lost_files(connection: Connection, files: Iterable[bytes], refused: RefusedOf) -> set[bytes]:
    """Return those of `files` that are listed here, and by manifests only which `refused` returns."""
    lists: dict[bytes, set[bytes]] = {}
    for some in _portions(files):
        marks = ", ".join("?" * len(some))
        rows = connection.execute(f"SELECT root, manifest FROM manifest_files WHERE root IN ({marks})", some)
        for row in rows:
            lists.setdefault(row["root"], set()).add(row["manifest"])
    bad = refused({manifest for manifests in lists.values() for manifest in manifests})
    return {root for root, manifests in lists.items() if manifests <= bad}


def is_recalled(connection: Connection, repository: int, manifest: bytes) -> bool:
    """Say whether a manifest of a repository was taken back there."""
    found = connection.execute(
        "SELECT 1 FROM recall_rows WHERE repository = ? AND manifest = ? LIMIT 1", (repository, manifest)
    )
    return found.fetchone() is not None


def apply_recall(connection: Connection, record: Recall, repository: int, log_number: int) -> None:
    """Take in that a publisher took a manifest back."""
    connection.execute(
        "INSERT OR REPLACE INTO recall_rows (repository, manifest, log_number, idx, message, time)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (repository, record.manifest, log_number, record.index, record.message, record.time),
    )


def _portions(items: Iterable[bytes]) -> Iterable[tuple[bytes, ...]]:
    left = iter(items)
    while some := tuple(islice(left, PARAMETERS_MAX)):
        yield some
