"""Manifests that their publishers took back (spec/records.md §5).

    publishers' logs ──recall──▶ recall_rows

A recall is the word of whoever published the manifest, or attested that it is a mirror. Whoever else did is
not bound by it: or anybody could publish what others made, take it back, and so take it away. What a private
log says counts for those who may read it alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from sqlite3 import Connection

from msgspec import Struct

from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.private import Repository
from p2phub.core.records import Recall

from .database import Database, portions
from .released import is_of

RefusedOf = Callable[[Collection[bytes]], set[bytes]]  # those of some manifests that must not be used

# That a publisher took a manifest back in a repository of his; hidden: numbers of logs that do not count.
_BY_PUBLISHER = (
    "SELECT 1 FROM recall_rows AS d JOIN repositories AS p ON p.number = d.repository"
    " JOIN identities AS i ON i.number = p.publisher"
    " WHERE d.manifest = c.manifest AND d.log_number NOT IN hidden AND i.namespace = {namespace}"
)
# Manifests of some that anybody took back; in the end: log numbers.
_NAMED = (
    "SELECT DISTINCT manifest FROM recall_rows WHERE manifest IN ({marks})"
    " AND log_number NOT IN (SELECT value FROM json_each(?))"
)
# Manifests that all who stand behind them took back; ?1: log numbers, ?2: as whom this home publishes, rest: which.
_TAKEN_BACK = (
    "WITH hidden AS (SELECT value FROM json_each(?1))"
    " SELECT DISTINCT c.manifest FROM recall_rows AS c JOIN repositories AS q ON q.number = c.repository"
    " JOIN identities AS j ON j.number = q.publisher"
    " WHERE c.manifest IN ({marks}) AND c.log_number NOT IN hidden"
    # Whose it never was has nothing to take back.
    " AND (EXISTS (SELECT 1 FROM release_rows AS r WHERE r.repository = c.repository"
    " AND r.manifest = c.manifest AND r.log_number NOT IN hidden)"
    " OR EXISTS (SELECT 1 FROM attestations AS a WHERE a.manifest = c.manifest AND a.namespace = j.namespace))"
    f" AND NOT EXISTS (SELECT 1 FROM release_rows AS o WHERE {is_of('c.manifest', row='o')}"
    " AND o.log_number NOT IN hidden AND NOT EXISTS (SELECT 1 FROM recall_rows AS d"
    " WHERE d.repository = o.repository AND d.manifest = o.manifest AND d.log_number NOT IN hidden))"
    " AND NOT EXISTS (SELECT 1 FROM attestations AS a WHERE a.manifest = c.manifest"
    f" AND NOT EXISTS ({_BY_PUBLISHER.format(namespace='a.namespace')}))"
    # What this node took from another hub itself, nobody else can take back here.
    f" AND (EXISTS ({_BY_PUBLISHER.format(namespace='?2')})"
    " OR NOT EXISTS (SELECT 1 FROM upstream_commits AS u WHERE u.manifest = c.manifest))"
)


class Voices(Struct, frozen=True):
    """Whose recalls of a manifest count for the owner of this home, who asks for it, and whose reasons he is shown."""

    repository: Repository | None = None  # by whose name he asks
    vouchers: Collection[NamespaceId] | None = None  # who say that it is what another hub has, if he asks by its name
    own: Callable[[], NamespaceId | None] = lambda: None  # as whom this home publishes
    trusted: Callable[[], Collection[NamespaceId]] = tuple


class Recalls:
    """What was taken back, as far as this node knows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def message(self, manifest: ManifestId, voices: Voices) -> str | None:
        """Return why a manifest must not be used any more, None if it may be; no characters for no reason.

        Of what is asked for by its hash alone all who stand behind it must agree. Whoever published a copy is one of
        them, and is not believed what he writes: the reason is that of somebody trusted.
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
            if voices.repository is not None:
                asked = voices.repository.namespace, voices.repository.model
                said = [row["message"] for row in rows if (row["namespace"], row["model"]) == asked]
            elif voices.vouchers is not None:
                said = [row["message"] for row in rows if row["namespace"] in voices.vouchers]
            elif taken_back(connection, [manifest], voices.own, ()):
                trusted = voices.trusted()
                said = [*(row["message"] for row in rows if row["namespace"] in trusted), ""]
            else:
                said = []
            return said[0] if said else None

    def withheld(
        self,
        identifiers: Collection[bytes],
        kept: Callable[[], Collection[bytes]],
        also: RefusedOf | None = None,
        *,
        hidden: RefusedOf = lambda some: set(),
        readable: Callable[[], Collection[Repository]] = tuple,
        own: Callable[[], NamespaceId | None] = lambda: None,
    ) -> set[bytes]:
        """Return those of the files and manifests that were taken back: of files, those that nothing else lists.

        kept: says which manifests stay, whatever their publishers say. also: says what else must not be used of what
        it is given. hidden: says which manifests are not there for whoever asks. readable: says which private
        repositories he may read. own: says as whom this home publishes.
        """
        with self._database.read() as connection:
            # Mostly there is nothing of the kind, and this is asked for every span that is sent.
            if also is None and connection.execute("SELECT 1 FROM recall_rows LIMIT 1").fetchone() is None:
                return set()
            closed = _closed_logs(connection, readable())

            def refused(some: Collection[bytes]) -> set[bytes]:
                back = taken_back(connection, some, own, closed)
                return (back - set(kept()) if back else back) | (also(some) if also else set())

            return refused(identifiers) | lost_files(connection, identifiers, refused, hidden)


def taken_back(
    connection: Connection,
    manifests: Iterable[bytes],
    own: Callable[[], NamespaceId | None],
    closed: Collection[int],
) -> set[bytes]:
    """Return those of `manifests` that all who stand behind them took back.

    own: says as whom this home publishes. closed: numbers of logs that do not count.
    """
    found: set[bytes] = set()
    numbers = json.dumps(sorted(closed))
    for some in portions(manifests):
        marks = ", ".join("?" * len(some))
        named = connection.execute(_NAMED.format(marks=marks), (*some, numbers)).fetchall()
        if named:  # else as whom this home publishes is not looked up, which takes longer than the rest
            marks = ", ".join(f"?{number}" for number in range(3, 3 + len(named)))
            values = (numbers, own(), *(row["manifest"] for row in named))
            found |= {row["manifest"] for row in connection.execute(_TAKEN_BACK.format(marks=marks), values)}
    return found


def lost_files(connection: Connection, files: Iterable[bytes], refused: RefusedOf, hidden: RefusedOf) -> set[bytes]:
    """Return those of `files` that are listed here, and only by manifests that `refused` returns.

    hidden: returns the manifests that do not count.
    """
    lists: dict[bytes, set[bytes]] = {}
    for some in portions(files):
        marks = ", ".join("?" * len(some))
        rows = connection.execute(f"SELECT root, manifest FROM manifest_files WHERE root IN ({marks})", some)
        for row in rows:
            lists.setdefault(row["root"], set()).add(row["manifest"])
    listing = {manifest for manifests in lists.values() for manifest in manifests}
    bad, absent = refused(listing), hidden(listing)
    seen = {root: manifests - absent for root, manifests in lists.items()}
    return {root for root, manifests in seen.items() if manifests and manifests <= bad}


def _closed_logs(connection: Connection, readable: Collection[Repository]) -> list[int]:
    """Return the numbers of the private logs that are about none of the repositories `readable`."""
    rows = connection.execute(
        "SELECT number, p.namespace, model FROM private_logs AS p JOIN logs ON logs.log = p.log"
    ).fetchall()
    return [row["number"] for row in rows if Repository(NamespaceId(row["namespace"]), row["model"]) not in readable]


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
