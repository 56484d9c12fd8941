"""What the index says of private repositories, inside transactions (spec/private.md §5, spec/store.md §5).

    private logs ──▶ grants           who may read which repository
                └──▶ private_ids      manifests and files that are not for everybody ─▶ but for private_shared

A row of `private_ids` never goes away by itself: whatever happens to the logs, what was private stays so.
Anybody can grant this node a repository, and so claim any hash: what nobody here asked for yields to what others
publish, for all or for some.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from sqlite3 import Connection

from p2phub.core.identity import Identity
from p2phub.core.ids import LogId, ManifestId, NamespaceId, PublicKey
from p2phub.core.private import Granted, Grantee, granted_by
from p2phub.core.records import Grant, Ungrant

from .released import is_of

# Manifests that a public log names, as release, as what a branch stands for, or as what another hub has.
_PUBLIC_RELEASE = (
    "SELECT 1 FROM release_rows AS r JOIN repositories AS p ON p.number = r.repository"
    " JOIN identities AS i ON i.number = p.publisher JOIN logs AS l ON l.number = r.log_number"
    f" WHERE {is_of('m.manifest')}"
    " AND l.log NOT IN (SELECT log FROM private_logs)"
)
_PUBLIC_NAME = f"{_PUBLIC_RELEASE} UNION ALL SELECT 1 FROM attestations AS a WHERE a.manifest = m.manifest"
# Repositories of which logs are here, none of which anybody here asked for.
_UNASKED = (
    "(EXISTS (SELECT 1 FROM private_logs AS u WHERE u.namespace = p.namespace AND u.model = p.model)"
    " AND NOT EXISTS (SELECT 1 FROM private_logs AS u"
    " WHERE u.namespace = p.namespace AND u.model = p.model AND NOT u.unasked))"
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
    may_share = not is_unasked(connection, namespace, model)
    for each in ids:
        known = connection.execute("SELECT 1 FROM private_ids WHERE id = ? AND NOT yields", (each,)).fetchone()
        if may_share and known is None and _came_publicly(connection, each):
            _share(connection, each)
        connection.execute(
            "INSERT OR IGNORE INTO private_ids (id, namespace, model) VALUES (?, ?, ?)", (each, namespace, model)
        )
        _settle(connection, each)


def mark_asked(connection: Connection, namespace: NamespaceId, model: str) -> None:
    """Note that somebody here asked for a repository: from now on what it says is private yields to nobody else."""
    connection.execute("UPDATE private_logs SET unasked = 0 WHERE namespace = ? AND model = ?", (namespace, model))
    rows = connection.execute("SELECT id FROM private_ids WHERE namespace = ? AND model = ?", (namespace, model))
    ids = [row["id"] for row in rows.fetchall()]
    # As if it came now: what was here and public by then stays so.
    connection.execute("DELETE FROM private_ids WHERE namespace = ? AND model = ?", (namespace, model))
    mark_private(connection, namespace, model, ids)


def is_unasked(connection: Connection, namespace: NamespaceId, model: str) -> bool:
    """Say whether a repository is here only because its publisher let this node in."""
    row = connection.execute(
        f"SELECT 1 FROM (SELECT ? AS namespace, ? AS model) AS p WHERE {_UNASKED}", (namespace, model)
    ).fetchone()
    return row is not None


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
    """Note that a public log names a manifest: what its publisher had kept private of it is public now.

    What others claim of it whom nobody here asked does not count any more.
    """
    if connection.execute("SELECT 1 FROM private_ids LIMIT 1").fetchone() is None:
        return
    _settle(connection, manifest)
    for row in connection.execute("SELECT root FROM manifest_files WHERE manifest = ?", (manifest,)).fetchall():
        _settle(connection, row["root"])


def _settle(connection: Connection, each: bytes) -> None:
    """Let everybody have what its own publisher made public somewhere, and let claims yield that nobody asked for."""
    # Who claims what others keep private, and publishes it then, makes nothing public.
    row = connection.execute(
        f"SELECT 1 FROM {_MANIFESTS} WHERE EXISTS ({_PUBLIC_RELEASE}"
        f" AND i.namespace IN (SELECT p.namespace FROM private_ids AS p WHERE p.id = :id AND NOT {_UNASKED}))",
        {"id": each},
    ).fetchone()
    if row is not None:
        _share(connection, each)
    unasked = connection.execute(
        f"SELECT p.namespace AS namespace, p.model AS model FROM private_ids AS p"
        f" WHERE p.id = ? AND NOT p.yields AND {_UNASKED}",
        (each,),
    ).fetchall()
    if not unasked:
        return
    is_public = is_named_publicly(connection, each)
    for claim in unasked:
        if is_public or _is_kept_by_others(connection, each, NamespaceId(claim["namespace"])):
            connection.execute(
                "UPDATE private_ids SET yields = 1 WHERE id = ? AND namespace = ? AND model = ?",
                (each, claim["namespace"], claim["model"]),
            )


def _is_kept_by_others(connection: Connection, each: bytes, claimant: NamespaceId) -> bool:
    """Say whether a private repository that was asked for, of another publisher, has a manifest or file."""
    row = connection.execute(
        f"SELECT 1 FROM private_ids AS p WHERE p.id = ? AND p.namespace <> ? AND NOT {_UNASKED}", (each, claimant)
    ).fetchone()
    return row is not None


def _came_publicly(connection: Connection, each: bytes) -> bool:
    """Say whether a manifest or file is here already and of a public repository.

    What came from where not everybody may have it did not, whoever names it.
    """
    is_here = connection.execute(
        "SELECT 1 WHERE (EXISTS (SELECT 1 FROM content WHERE root = :id)"
        " OR EXISTS (SELECT 1 FROM manifests WHERE manifest = :id))"
        " AND NOT EXISTS (SELECT 1 FROM withheld WHERE id = :id)",
        {"id": each},
    ).fetchone()
    return is_here is not None and is_named_publicly(connection, each)


def is_named_publicly(connection: Connection, each: bytes) -> bool:
    """Say whether a public log that is here names a manifest, or one that lists the file."""
    row = connection.execute(f"SELECT 1 FROM {_MANIFESTS} WHERE EXISTS ({_PUBLIC_NAME})", {"id": each}).fetchone()
    return row is not None


def _share(connection: Connection, each: bytes) -> None:
    connection.execute("INSERT OR IGNORE INTO private_shared (id) VALUES (?)", (each,))
