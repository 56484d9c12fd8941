"""What the records say, ready to be asked: branches, versions (spec/records.md §5, spec/store.md §5).

Each log has its own row for a branch or a version (`cataloguewriter.py`); reading chooses among the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from sqlite3 import Row
from typing import Any

from msgspec import Struct

from p2phub.core.ids import LogId, ManifestId, NamespaceId

from .database import Database
from .released import REPOSITORIES


class Claim(Struct, frozen=True):
    """What a branch or version name stands for, and who said so."""

    manifest: ManifestId | None  # None: the branch was deleted
    log: LogId
    index: int
    time: int  # seconds since 1970
    depth: int  # of the manifest, as its publisher says; 0 for a version
    conflicts: int  # other logs that say otherwise


class Catalogue:
    """The state that the logs add up to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ── names ───────────────────────────────────────────────────────────────

    def branch(self, namespace: NamespaceId, model: str, branch: str) -> Claim | None:
        """Return what `branch` stands for, None if no log ever spoke of it."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM branches WHERE namespace = ? AND model = ? AND branch = ?", (namespace, model, branch)
            ).fetchall()
        # More ancestors win, else the later time, else the hash: the same on every node.
        return _choose(rows, lambda row: (row["depth"], row["time"], row["leaf"]), newest=True)

    def version(self, namespace: NamespaceId, model: str, version: str) -> Claim | None:
        """Return what `version` stands for: the first word on it counts for ever."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM versions WHERE namespace = ? AND model = ? AND version = ?",
                (namespace, model, version),
            ).fetchall()
        return _choose(rows, lambda row: (row["time"], row["leaf"]), newest=False)

    def yanked(self, namespace: NamespaceId, model: str, version: str) -> str | None:
        """Return why `version` was yanked, None if it was not."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT message FROM yanks WHERE namespace = ? AND model = ? AND version = ?"
                " ORDER BY time DESC, leaf DESC LIMIT 1",
                (namespace, model, version),
            ).fetchone()
        return row["message"] if row else None

    def branches(self, namespace: NamespaceId, model: str) -> dict[str, Claim]:
        """Return the branches of a repository by name, deleted ones left out."""
        with self._database.read() as connection:
            names = connection.execute(
                "SELECT DISTINCT branch FROM branches WHERE namespace = ? AND model = ? ORDER BY branch",
                (namespace, model),
            ).fetchall()
        claims = {row["branch"]: self.branch(namespace, model, row["branch"]) for row in names}
        return {name: claim for name, claim in claims.items() if claim and claim.manifest}

    def versions(self, namespace: NamespaceId, model: str) -> dict[str, Claim]:
        """Return the versions of a repository by name."""
        with self._database.read() as connection:
            names = connection.execute(
                "SELECT version, min(time) AS first FROM versions WHERE namespace = ? AND model = ?"
                " GROUP BY version ORDER BY first, version",
                (namespace, model),
            ).fetchall()
        claims = {row["version"]: self.version(namespace, model, row["version"]) for row in names}
        return {name: claim for name, claim in claims.items() if claim}

    def kind(self, namespace: NamespaceId, model: str) -> str | None:
        """Return whether the repository is a model or a dataset, None if there is none."""
        # Of logs that do not agree the earliest word counts, whichever was heard first.
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT kind FROM releases WHERE namespace = ? AND model = ? ORDER BY time, leaf LIMIT 1",
                (namespace, model),
            ).fetchone()
        return row["kind"] if row else None

    def is_listed(self, namespace: NamespaceId, model: str) -> bool:
        """Say whether search may show a repository."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT 1 FROM identities JOIN repositories ON publisher = identities.number"
                " JOIN release_rows ON repository = repositories.number WHERE namespace = ? AND model = ? AND listed",
                (namespace, model),
            ).fetchone()
        return row is not None

    def listed(self, namespace: NamespaceId, count: int) -> list[str]:
        """Return the first `count` repositories of a publisher that search may show, by name."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT DISTINCT model FROM identities JOIN repositories ON publisher = identities.number"
                " JOIN release_rows ON repository = repositories.number WHERE namespace = ? AND listed"
                " ORDER BY model LIMIT ?",
                (namespace, count),
            ).fetchall()
        return [row["model"] for row in rows]

    def revisions(self, namespace: NamespaceId, model: str, prefix: str) -> list[ManifestId]:
        """Return the revisions of a repository whose hash begins with the hex digits `prefix`."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT DISTINCT manifest FROM releases WHERE namespace = ? AND model = ?", (namespace, model)
            ).fetchall()
        return [ManifestId(row["manifest"]) for row in rows if row["manifest"].hex().startswith(prefix)]

    def publishers_of(self, manifest: ManifestId) -> list[tuple[NamespaceId, str]]:
        """Return the repositories that published `manifest`, by namespace and model."""
        with self._database.read() as connection:
            rows = connection.execute(REPOSITORIES, (manifest,)).fetchall()
        return [(NamespaceId(row["namespace"]), row["model"]) for row in rows]

    def refusals(self, log: LogId) -> dict[int, str]:
        """Return why records of `log` do not count, by index."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT idx, reason FROM refusals WHERE log = ?", (log,)).fetchall()
        return {row["idx"]: row["reason"] for row in rows}


def _choose(rows: Iterable[Row], order: Callable[[Row], Any], *, newest: bool) -> Claim | None:
    ranked = sorted(rows, key=order, reverse=newest)
    if not ranked:
        return None
    best = ranked[0]
    manifest = ManifestId(best["manifest"]) if best["manifest"] is not None else None
    conflicts = sum(1 for row in ranked[1:] if row["manifest"] != best["manifest"])
    depth = best["depth"] if "depth" in best.keys() else 0  # noqa: SIM118 (a Row is no mapping)
    return Claim(manifest, LogId(best["log"]), best["idx"], best["time"], depth, conflicts)
