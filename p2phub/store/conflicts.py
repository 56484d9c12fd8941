"""Names about which the keys of one publisher do not agree (spec/records.md §5)."""

from __future__ import annotations

from sqlite3 import Connection

from msgspec import Struct

from p2phub.core.ids import LogId, ManifestId, NamespaceId

from .database import Database


class Disagreement(Struct, frozen=True):
    """A version or branch about which the logs of a namespace do not say the same."""

    kind: str  # version or branch
    namespace: NamespaceId
    model: str
    name: str  # of the version or branch
    claims: dict[LogId, ManifestId | None]  # what each log says; None: the branch is deleted


class Refusal(Struct, frozen=True):
    """A record that has no effect, because the same log said otherwise before."""

    namespace: NamespaceId
    log: LogId
    index: int
    reason: str


class Conflicts:
    """The conflicts of a whole catalogue, or of one namespace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def disagreements(self, namespace: NamespaceId | None = None) -> list[Disagreement]:
        """Return the versions and branches that are claimed in more than one way."""
        with self._database.read() as connection:
            return [
                *_find(connection, "version", "versions", namespace),
                *_find(connection, "branch", "branches", namespace),
            ]

    def refusals(self, namespace: NamespaceId | None = None) -> list[Refusal]:
        """Return the records that have no effect."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT namespace, log, idx, reason FROM refusals JOIN logs USING (log)"
                " WHERE ?1 IS NULL OR namespace = ?1 ORDER BY log, idx",
                (namespace,),
            ).fetchall()
        return [Refusal(NamespaceId(row["namespace"]), LogId(row["log"]), row["idx"], row["reason"]) for row in rows]


def _find(connection: Connection, kind: str, table: str, namespace: NamespaceId | None) -> list[Disagreement]:
    # Of the rows alone first, because few names are claimed by two logs at all.
    candidates = connection.execute(
        "SELECT identities.namespace, repositories.model, claims.name FROM ("
        f"SELECT repository, {kind} AS name FROM {kind}_rows GROUP BY repository, {kind} HAVING count(*) > 1"
        ") AS claims"
        " JOIN repositories ON repositories.number = claims.repository"
        " JOIN identities ON identities.number = repositories.publisher"
        " WHERE ?1 IS NULL OR identities.namespace = ?1 ORDER BY identities.namespace, repositories.model, claims.name",
        (namespace,),
    ).fetchall()
    found = []
    for row in candidates:
        claims = connection.execute(
            f"SELECT log, manifest FROM {table} WHERE namespace = ? AND model = ? AND {kind} = ? ORDER BY log",
            (row["namespace"], row["model"], row["name"]),
        ).fetchall()
        said = {LogId(claim["log"]): ManifestId(claim["manifest"]) if claim["manifest"] else None for claim in claims}
        if len(set(said.values())) > 1:
            found.append(Disagreement(kind, NamespaceId(row["namespace"]), row["model"], row["name"], said))
    return found
