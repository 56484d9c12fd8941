"""What is known here of repositories of other hubs (spec/mirrors.md, spec/store.md §5).

    publishers' logs ──attest──▶ attestations     who says what stands for org/name@commit
    the upstream     ──────────▶ upstream_commits, upstream_names, upstream_content
    the owner        ──────────▶ mirrors, withheld

Only the attestations follow from the logs. The rest is what this node learnt by itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping
from sqlite3 import Connection, Row

from msgspec import Struct

from p2phub.core.choices import Kind, Profile
from p2phub.core.ids import ContentId, ManifestId, NamespaceId
from p2phub.core.jsonform import from_json, to_json
from p2phub.core.records import Attest
from p2phub.core.upstream import Foreign, Listing

from .database import PARAMETERS_MAX, Database, portions

_OF_REPOSITORY = "hub = ? AND kind = ? AND owner = ? AND model = ?"


class Attestation(Struct, frozen=True):
    """A publisher's word that a manifest holds a commit of a foreign repository."""

    namespace: NamespaceId
    commit: str
    manifest: ManifestId
    names: tuple[str, ...]  # that stood for the commit, then
    time: int  # seconds since 1970


class KnownName(Struct, frozen=True):
    """What a branch or tag of a foreign repository stood for when its hub was last asked."""

    commit: str
    time: int  # seconds since 1970


class UpstreamContent(Struct, frozen=True):
    """A file of a hub that came in and had the hash that was listed."""

    root: ContentId
    sha256: bytes
    profile: Profile  # how it was cut


class Mirror(Struct, frozen=True):
    """A revision of a foreign repository that the owner of this node wants kept."""

    repository: Foreign
    revision: str  # as it was asked for
    commit: str | None  # that is kept; None: none is whole yet
    manifest: ManifestId | None
    is_restricted: bool
    time: int  # when the hub was last asked, in seconds since 1970


class Mirrors:
    """The foreign repositories of one home."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ── attestations ────────────────────────────────────────────────────────

    def attestations(self, repository: Foreign, publishers: Collection[NamespaceId]) -> list[Attestation]:
        """Return what `publishers` attested of a repository, the newest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT * FROM attestations WHERE {_OF_REPOSITORY} ORDER BY time DESC, idx DESC, log DESC",
                _key(repository),
            ).fetchall()
        return [_attestation(row) for row in rows if row["namespace"] in publishers]

    def attested(self, repository: Foreign, publishers: Collection[NamespaceId], revision: str) -> Attestation | None:
        """Return the newest attestation of `publishers` that is about a revision: a commit, or a name it had then."""
        rows = self.attestations(repository, publishers)
        return next((row for row in rows if revision == row.commit or revision in row.names), None)

    def mirrored(
        self, hub: str, kind: Kind, publishers: Collection[NamespaceId], count_max: int
    ) -> list[tuple[Foreign, int]]:
        """Return the repositories of a hub that `publishers` attested, or of which a commit is or was whole here.

        With each, when something was last said of it, in seconds since 1970, the latest first.
        """
        some = sorted(publishers)[:PARAMETERS_MAX]
        marks = ", ".join("?" * len(some))
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT owner, model, max(time) AS said FROM ("
                " SELECT owner, model, time FROM attestations INDEXED BY attestations_by_namespace"
                f" WHERE namespace IN ({marks}) AND hub = ? AND kind = ? UNION ALL"
                " SELECT owner, model, time FROM upstream_commits JOIN upstream_names"
                " USING (hub, kind, owner, model) WHERE manifest IS NOT NULL AND hub = ? AND kind = ?"
                ") GROUP BY owner, model ORDER BY said DESC, owner, model LIMIT ?",
                (*some, hub, kind, hub, kind, count_max),
            ).fetchall()
        return [(Foreign(hub, kind, row["owner"], row["model"]), row["said"]) for row in rows]

    # ── what the upstream said ──────────────────────────────────────────────

    def keep_listing(self, repository: Foreign, listing: Listing) -> None:
        """Keep what the hub listed of a commit."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO upstream_commits (hub, kind, owner, model, commit_id, listing, restricted)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " listing = excluded.listing, restricted = excluded.restricted",
                (*_key(repository), listing.info.commit, to_json(listing), listing.info.is_restricted),
            )

    def listing(self, repository: Foreign, commit: str) -> Listing | None:
        """Return what the hub listed of a commit, None if that is not known here."""
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT listing FROM upstream_commits WHERE {_OF_REPOSITORY} AND commit_id = ?",
                (*_key(repository), commit),
            ).fetchone()
        return from_json(row["listing"], Listing) if row else None

    def is_listed(self, repository: Foreign, commit: str) -> bool:
        """Say whether it is known here what the hub listed of a commit."""
        with self._database.read() as connection:
            found = connection.execute(
                f"SELECT 1 FROM upstream_commits WHERE {_OF_REPOSITORY} AND commit_id = ?", (*_key(repository), commit)
            ).fetchone()
        return found is not None

    def is_restricted(self, repository: Foreign, commit: str) -> bool:
        """Say whether the hub gave a commit to the owner of this node, and not to everybody."""
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT restricted FROM upstream_commits WHERE {_OF_REPOSITORY} AND commit_id = ?",
                (*_key(repository), commit),
            ).fetchone()
        return bool(row and row["restricted"])

    def commits(self, repository: Foreign, prefix: str) -> list[str]:
        """Return the commits that the hub was asked about and that begin with the hex digits `prefix`."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT commit_id FROM upstream_commits WHERE {_OF_REPOSITORY} AND commit_id BETWEEN ? AND ?",
                (*_key(repository), prefix, prefix + "g"),
            ).fetchall()
        return [row["commit_id"] for row in rows]

    def set_manifest(self, repository: Foreign, commit: str, manifest: ManifestId) -> None:
        """Note that a commit is whole here, and is this manifest."""
        with self._database.write() as connection:
            connection.execute(
                f"UPDATE upstream_commits SET manifest = ? WHERE {_OF_REPOSITORY} AND commit_id = ?",
                (manifest, *_key(repository), commit),
            )

    def manifest(self, repository: Foreign, commit: str) -> ManifestId | None:
        """Return the manifest of a commit that was whole here, None if it never was."""
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT manifest FROM upstream_commits WHERE {_OF_REPOSITORY} AND commit_id = ?",
                (*_key(repository), commit),
            ).fetchone()
        return ManifestId(row["manifest"]) if row and row["manifest"] is not None else None

    def note_name(self, repository: Foreign, name: str, commit: str) -> None:
        """Note what a branch or tag stands for now, by the word of the hub."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO upstream_names (hub, kind, owner, model, name, commit_id, time)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*_key(repository), name, commit, int(time.time())),
            )

    def names(self, repository: Foreign) -> dict[str, KnownName]:
        """Return what branches and tags stood for when the hub was last asked."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT * FROM upstream_names WHERE {_OF_REPOSITORY} ORDER BY name", _key(repository)
            ).fetchall()
        return {row["name"]: KnownName(row["commit_id"], row["time"]) for row in rows}

    def note_content(self, identifier: bytes, content: UpstreamContent) -> None:
        """Note what the file with the hash `identifier` (SHA-256 or git's) is here."""
        self.note_contents({identifier: content})

    def note_contents(self, contents: Mapping[bytes, UpstreamContent]) -> None:
        """Note what files are here, by the hash that their hub lists."""
        with self._database.write() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO upstream_content (id, root, sha256, profile) VALUES (?, ?, ?, ?)",
                [(known, content.root, content.sha256, content.profile) for known, content in contents.items()],
            )

    def contents(self, identifiers: Iterable[bytes]) -> dict[bytes, UpstreamContent]:
        """Return what the files with these hashes are here; what is known need not be in the store any more."""
        found: dict[bytes, UpstreamContent] = {}
        with self._database.read() as connection:
            for some in portions(identifiers):
                marks = ", ".join("?" * len(some))
                rows = connection.execute(f"SELECT * FROM upstream_content WHERE id IN ({marks})", some)
                for row in rows:
                    found[row["id"]] = UpstreamContent(ContentId(row["root"]), row["sha256"], row["profile"])
        return found

    # ── what the owner wants ────────────────────────────────────────────────

    def track(self, repository: Foreign, revision: str) -> None:
        """Keep a revision of a repository from now on."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO mirrors (hub, kind, owner, model, revision, commit_id, restricted, time)"
                " VALUES (?, ?, ?, ?, ?, NULL, 0, 0)",
                (*_key(repository), revision),
            )

    def note_kept(self, repository: Foreign, revision: str, commit: str, *, is_restricted: bool) -> None:
        """Note which commit of a tracked revision is whole here now."""
        with self._database.write() as connection:
            connection.execute(
                f"UPDATE mirrors SET commit_id = ?, restricted = ?, time = ? WHERE {_OF_REPOSITORY} AND revision = ?",
                (commit, is_restricted, int(time.time()), *_key(repository), revision),
            )

    def untrack(self, repository: Foreign, revision: str) -> bool:
        """Forget a revision; returns whether it was tracked."""
        with self._database.write() as connection:
            count = connection.execute(
                f"DELETE FROM mirrors WHERE {_OF_REPOSITORY} AND revision = ?", (*_key(repository), revision)
            ).rowcount
        return count > 0

    def tracked(self) -> list[Mirror]:
        """Return the revisions that are kept."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT m.*, c.manifest FROM mirrors AS m LEFT JOIN upstream_commits AS c"
                " USING (hub, kind, owner, model, commit_id) ORDER BY hub, kind, owner, model, revision"
            ).fetchall()
        return [
            Mirror(
                Foreign(row["hub"], row["kind"], row["owner"], row["model"]),
                row["revision"],
                row["commit_id"],
                ManifestId(row["manifest"]) if row["manifest"] is not None else None,
                bool(row["restricted"]),
                row["time"],
            )
            for row in rows
        ]

    # ── what is not for others ──────────────────────────────────────────────

    def withhold(self, identifiers: Iterable[bytes]) -> None:
        """Give these files and manifests to nobody else from now on."""
        with self._database.write() as connection:
            connection.executemany("INSERT OR IGNORE INTO withheld (id) VALUES (?)", [(item,) for item in identifiers])

    def release(self, identifiers: Iterable[bytes]) -> None:
        """Let others have these files and manifests: they were published, or came from where all may have them."""
        with self._database.write() as connection:
            connection.executemany("DELETE FROM withheld WHERE id = ?", [(item,) for item in identifiers])

    def has_withheld(self) -> bool:
        """Say whether there is anything that nobody else may have: mostly not, and it is asked for every span."""
        with self._database.read() as connection:
            return connection.execute("SELECT 1 FROM withheld LIMIT 1").fetchone() is not None

    def withheld(self, identifiers: Collection[bytes]) -> set[bytes]:
        """Return those of the files and manifests that nobody else may have."""
        found: set[bytes] = set()
        with self._database.read() as connection:
            for some in portions(identifiers):
                marks = ", ".join("?" * len(some))
                found |= {
                    row["id"] for row in connection.execute(f"SELECT id FROM withheld WHERE id IN ({marks})", some)
                }
        return found


def apply_attestation(connection: Connection, record: Attest) -> None:
    """Take in what a publisher attests."""
    connection.execute(
        "INSERT OR REPLACE INTO attestations"
        " (log, idx, namespace, hub, kind, owner, model, commit_id, manifest, names, time)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (record.log, record.index, record.namespace, record.hub, record.kind, record.owner, record.model,
         record.commit, record.manifest, json.dumps(record.names), record.time),
    )  # fmt: skip


def forget_attestations(connection: Connection, namespace: NamespaceId) -> None:
    """Undo all that a publisher attested."""
    connection.execute("DELETE FROM attestations WHERE namespace = ?", (namespace,))


def _key(repository: Foreign) -> tuple[str, str, str, str]:
    return repository.hub, repository.kind, repository.owner, repository.model


def _attestation(row: Row) -> Attestation:
    names = tuple(json.loads(row["names"]))
    return Attestation(NamespaceId(row["namespace"]), row["commit_id"], ManifestId(row["manifest"]), names, row["time"])
