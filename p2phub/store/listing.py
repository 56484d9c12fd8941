"""What is known of one repository as a whole, for clients of other hubs (spec/hub-api.md §5)."""

from __future__ import annotations

from p2phub.core.ids import LogId, ManifestId, NamespaceId

from .database import Database
from .described import is_there
from .orders import NAME, ids_sql

_REPLICAS = (
    "SELECT namespace, replicas FROM models AS m JOIN repositories AS r ON r.number = m.repository"
    " JOIN identities AS i ON i.number = r.publisher"
)


class Listing:
    """Answers about the releases of a repository."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def kind(self, namespace: NamespaceId, model: str) -> str | None:
        """Return the kind of a repository, None if there is none or all of it was deleted."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT kind FROM releases WHERE namespace = ? AND model = ? ORDER BY time, leaf LIMIT 1",
                (namespace, model),
            ).fetchone()
            number = connection.execute(
                "SELECT repositories.number FROM identities JOIN repositories ON publisher = identities.number"
                " WHERE namespace = ? AND model = ?",
                (namespace, model),
            ).fetchone()
            return row["kind"] if row and number and is_there(connection, number[0]) else None

    def created(self, namespace: NamespaceId, model: str) -> int | None:
        """Return when a repository was first published, in seconds since 1970."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT min(time) AS first FROM releases WHERE namespace = ? AND model = ?", (namespace, model)
            ).fetchone()
        return row["first"] if row else None

    def replicas(self, namespace: NamespaceId, model: str) -> int:
        """Return how many nodes were seen to hold a repository."""
        with self._database.read() as connection:
            row = connection.execute(f"{_REPLICAS} WHERE namespace = ? AND m.model = ?", (namespace, model)).fetchone()
        return row["replicas"] if row else 0

    def most_held(self, model: str, *, but: NamespaceId) -> tuple[NamespaceId, int] | None:
        """Return whose repository of this name most nodes were seen to hold, and how many; `but` is left out."""
        with self._database.read() as connection:
            row = connection.execute(
                f"{_REPLICAS} WHERE m.id IN ({ids_sql('what = ?1 AND value = ?2')}) AND namespace != ?3"
                " AND replicas > 0 ORDER BY replicas DESC, namespace LIMIT 1",
                (NAME, model.lower(), but),
            ).fetchone()
        return (NamespaceId(row["namespace"]), row["replicas"]) if row else None

    def releases(self, namespace: NamespaceId, model: str) -> list[tuple[ManifestId, LogId, int]]:
        """Return the revisions of a repository with the log and index of their records, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT manifest, log, idx FROM releases WHERE namespace = ? AND model = ? ORDER BY time, leaf",
                (namespace, model),
            ).fetchall()
        return [(ManifestId(row["manifest"]), LogId(row["log"]), row["idx"]) for row in rows]
