"""What the index says of private repositories, inside transactions (spec/private.md §5, spec/store.md §5).

    private logs ──▶ grants           who may read which repository
                └──▶ private_ids      manifests and files that are not for everybody ─▶ but for private_shared

A row of `private_ids` never goes away by itself: whatever happens to the logs, what was private stays so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from sqlite3 import Connection

from p2phub.core.identity import Identity
from p2phub.core.ids import LogId, ManifestId, NamespaceId, PublicKey
from p2phub.core.private import Granted, Grantee, granted_by
from p2phub.core.records import Grant, Ungrant

# Manifests that a public log names, as release or as what a branch stands for; with ids of 8 bytes as in the index.
_PUBLIC_RELEASE = (
    "SELECT 1 FROM release_rows AS r JOIN repositories AS p ON p.number = r.repository"
    " JOIN identities AS i ON i.number = p.publisher JOIN logs AS l ON l.number = r.log_number"
    " WHERE substr(r.manifest, 1, 8) = substr(m.manifest, 1, 8) AND r.manifest = m.manifest"
    " AND l.log NOT IN (SELECT log FROM private_logs)"
)
# Manifests that are here or known: the id itself, and those that list it as a file.
_MANIFESTS = "(SELECT :id AS manifest UNION SELECT manifest FROM manifest_files WHERE root = :id) AS m"


def private_model(connection: Connection, log: LogId) -> str | None:
    """Return the one repository that a private log is about, None if the log is public."""
    row = connection.execute("SELECT model FROM private_logs WHERE log = ?", (log,)).fetchone()
    return row["model"] if row else None


def private_logs_of(connection: Connection, identity: Identity) -> dict[LogId, PublicKey]:
    """Return the private logs of a namespace that are here and whose key it still names, or did."""
    rows = connection.execute("SELECT log, key FROM private_logs WHERE namespace = ?", (identity.namespace,)).fetchall()
    named = {*identity.current.publish.keys, *(retired.key for retired in identity.current.retired)}
    return {LogId(row["log"]): PublicKey(row["key"]) for row in rows if row["key"] in named}


def apply_grant(connection: Connection, record: Grant | Ungrant) -> None:
    """Take in what a private log says of a grantee."""
    said = granted_by(record)
    connection.execute(
        "INSERT OR REPLACE INTO grants (namespace, model, kind, grantee, log, idx, until, time, renewed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (record.namespace, record.model, said.grantee.kind, said.grantee.id, record.log, record.index, said.until,
         said.time, said.renewed),
    )  # fmt: skip


def forget_grants(connection: Connection, namespace: NamespaceId) -> None:
    """Undo what the private logs of a publisher say of grantees."""
    connection.execute("DELETE FROM grants WHERE namespace = ?", (namespace,))


def grants_of(connection: Connection, namespace: NamespaceId, model: str) -> list[Granted]:
    """Return the last word of each log on each grantee of a repository."""
    rows = connection.execute("SELECT * FROM grants WHERE namespace = ? AND model = ?", (namespace, model)).fetchall()
    return [
        Granted(
            Grantee(row["kind"], row["grantee"]),
            row["until"],
            row["time"],
            row["idx"],
            LogId(row["log"]),
            bool(row["renewed"]),
        )
        for row in rows
    ]


def mark_private(connection: Connection, namespace: NamespaceId, model: str, ids: Iterable[bytes]) -> None:
    """Note that these manifests and files are of a private repository.

    What was here before, and is of a public one, stays public: another's private log could take it away.
    """
    for each in ids:
        known = connection.execute("SELECT 1 FROM private_ids WHERE id = ?", (each,)).fetchone()
        if known is None and _came_publicly(connection, each):
            _share(connection, each)
        connection.execute(
            "INSERT OR IGNORE INTO private_ids (id, namespace, model) VALUES (?, ?, ?)", (each, namespace, model)
        )
        _settle(connection, each)


def mark_manifest(connection: Connection, manifest: ManifestId, roots: Collection[bytes]) -> None:
    """Note which files a manifest lists that came in now: those of a private one are private."""
    if connection.execute("SELECT 1 FROM private_ids LIMIT 1").fetchone() is None:
        return
    rows = connection.execute("SELECT namespace, model FROM private_ids WHERE id = ?", (manifest,)).fetchall()
    for row in rows:
        mark_private(connection, NamespaceId(row["namespace"]), row["model"], roots)
    for root in roots:
        _settle(connection, root)


def mark_released(connection: Connection, manifest: ManifestId) -> None:
    """Note that a public log names a manifest: what its publisher had kept private of it is public now."""
    if connection.execute("SELECT 1 FROM private_ids LIMIT 1").fetchone() is None:
        return
    _settle(connection, manifest)
    for row in connection.execute("SELECT root FROM manifest_files WHERE manifest = ?", (manifest,)).fetchall():
        _settle(connection, row["root"])


def _settle(connection: Connection, each: bytes) -> None:
    """Let everybody have what its own publisher made public somewhere."""
    row = connection.execute(
        f"SELECT 1 FROM {_MANIFESTS} WHERE EXISTS ({_PUBLIC_RELEASE}"
        " AND i.namespace IN (SELECT namespace FROM private_ids WHERE id = :id))",
        {"id": each},
    ).fetchone()
    if row is not None:
        _share(connection, each)


def _came_publicly(connection: Connection, each: bytes) -> bool:
    """Say whether a manifest or file is here already and of a public repository."""
    is_here = connection.execute(
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM content WHERE root = :id)"
        " OR EXISTS (SELECT 1 FROM manifests WHERE manifest = :id)",
        {"id": each},
    ).fetchone()
    return is_here is not None and is_named_publicly(connection, each)


def is_named_publicly(connection: Connection, each: bytes) -> bool:
    """Say whether a public log that is here names a manifest, or one that lists the file."""
    row = connection.execute(f"SELECT 1 FROM {_MANIFESTS} WHERE EXISTS ({_PUBLIC_RELEASE})", {"id": each}).fetchone()
    return row is not None


def _share(connection: Connection, each: bytes) -> None:
    connection.execute("INSERT OR IGNORE INTO private_shared (id) VALUES (?)", (each,))
