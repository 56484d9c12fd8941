"""Which release describes a repository, and whether the repository is there at all (spec/search.md §1)."""

from __future__ import annotations

from collections.abc import Iterator
from sqlite3 import Connection, Row

from .recalls import is_recalled


def described_by(connection: Connection, repository: int) -> Row | None:
    """Return the release that search shows, None if the repository is not there (spec/search.md §1)."""
    newest: Row | None = None
    for row in _releases(connection, repository):
        if is_recalled(connection, repository, row["manifest"]):
            continue
        newest = newest or row
        if row["version"] is None:
            return row if is_there(connection, repository) else None
        if not _is_yanked(connection, repository, row["version"]):
            return row
    return newest if newest is not None and is_there(connection, repository) else None


def _releases(connection: Connection, repository: int) -> Iterator[Row]:
    return connection.execute(
        "SELECT r.* FROM release_rows AS r JOIN logs ON logs.number = r.log_number WHERE r.repository = ?"
        " AND r.listed ORDER BY r.time DESC, r.idx DESC, logs.log DESC",
        (repository,),
    )


def first_release(connection: Connection, repository: int) -> Row | None:
    """Return the release that came first of those that may be seen, None if there is none."""
    row: Row | None = connection.execute(
        "SELECT r.* FROM release_rows AS r LEFT JOIN entry_rows AS e USING (log_number, idx) WHERE r.repository = ?"
        " AND r.listed ORDER BY r.time, e.leaf LIMIT 1",
        (repository,),
    ).fetchone()
    return row


def _is_yanked(connection: Connection, repository: int, version: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM yank_rows WHERE repository = ? AND version = ? LIMIT 1", (repository, version)
    )
    return found.fetchone() is not None


def is_there(connection: Connection, repository: int) -> bool:
    """Say whether a branch stands, or a version that was not yanked; what was recalled stands for nothing."""
    recalled = connection.execute("SELECT 1 FROM recall_rows WHERE repository = ? LIMIT 1", (repository,)).fetchone()
    if recalled is not None:
        return _is_something_left(connection, repository)
    found = connection.execute(
        "SELECT 1 FROM branch_rows WHERE repository = ?1 AND manifest IS NOT NULL UNION ALL"
        " SELECT 1 FROM version_rows AS v WHERE repository = ?1 AND NOT EXISTS"
        " (SELECT 1 FROM yank_rows AS y WHERE y.repository = ?1 AND y.version = v.version) LIMIT 1",
        (repository,),
    )
    return found.fetchone() is not None


def _is_something_left(connection: Connection, repository: int) -> bool:
    """Do what `is_there` does for a repository of which something was recalled."""
    kept = " NOT EXISTS (SELECT 1 FROM recall_rows AS c WHERE c.repository = ?1 AND c.manifest = {manifest})"
    found = connection.execute(
        "SELECT 1 FROM branch_rows AS b LEFT JOIN release_rows AS r USING (repository, log_number, idx)"
        " WHERE b.repository = ?1 AND b.manifest IS NOT NULL AND"
        + kept.format(manifest="CASE b.manifest WHEN x'' THEN r.manifest ELSE b.manifest END")
        + " UNION ALL SELECT 1 FROM version_rows AS v JOIN release_rows AS r USING (repository, log_number, idx)"
        " WHERE v.repository = ?1 AND NOT EXISTS"
        " (SELECT 1 FROM yank_rows AS y WHERE y.repository = ?1 AND y.version = v.version) AND"
        + kept.format(manifest="r.manifest")
        + " LIMIT 1",
        (repository,),
    )
    return found.fetchone() is not None
