"""Manifests as files by hash, and which content each needs (spec/store.md §1)."""

from __future__ import annotations

from functools import lru_cache
from sqlite3 import Connection

from p2phub.core import manifest as manifests
from p2phub.core.choices import Profile
from p2phub.core.errors import InvalidData, StoreError
from p2phub.core.ids import ContentId, ManifestId
from p2phub.core.manifest import Manifest, manifest_id

from .database import Database
from .disk import disk_errors, write_file
from .layout import Layout
from .privateindex import mark_manifest

DECODED_MAX = 8  # manifests that are kept decoded: one of the largest takes some 10 MB

# A client that loads a repository asks for its files one after the other, each time by the same manifest.
_decoded = lru_cache(maxsize=DECODED_MAX)(manifests.decode)


class Manifests:
    """The manifests that are here."""

    def __init__(self, layout: Layout, database: Database) -> None:
        self._layout = layout
        self._database = database

    def add(self, data: bytes) -> ManifestId:
        """Keep the manifest that `data` encodes. Raises InvalidData if it encodes none."""
        self.take(data)
        return manifest_id(data)

    def take(self, data: bytes) -> Manifest:
        """Do what `add` does, and return the manifest."""
        manifest = _decoded(data)
        identifier = manifest_id(data)
        if self.data(identifier) is None:
            write_file(self._layout.manifest(identifier), data)
        self._list(identifier, manifest)
        return manifest

    def data(self, identifier: ManifestId) -> bytes | None:
        """Return the bytes of a manifest, None if it is not here or what is here is damaged."""
        path = self._layout.manifest(identifier)
        try:
            with disk_errors(path):
                data = path.read_bytes()
        except StoreError as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                return None
            raise
        return data if manifest_id(data) == identifier else None

    def get(self, identifier: ManifestId) -> Manifest | None:
        """Return a manifest, None if it is not here."""
        data = self.data(identifier)
        return _decoded(data) if data is not None else None

    def find_prefix(self, prefix: str) -> list[ManifestId]:
        """Return the manifests here whose hash begins with the hex digits `prefix`."""
        low = bytes.fromhex(prefix.ljust(64, "0"))
        high = bytes.fromhex(prefix.ljust(64, "f"))
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT manifest FROM manifests WHERE manifest BETWEEN ? AND ?", (low, high)
            ).fetchall()
        return [ManifestId(row["manifest"]) for row in rows]

    def all(self) -> list[ManifestId]:
        """Return all manifests here."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT manifest FROM manifests ORDER BY manifest").fetchall()
        return [ManifestId(row["manifest"]) for row in rows]

    def remove(self, identifier: ManifestId) -> None:
        """Delete a manifest."""
        with self._database.write() as connection:
            _unlist(connection, identifier)
        path = self._layout.manifest(identifier)
        with disk_errors(path):
            path.unlink(missing_ok=True)

    def needed_content(self) -> set[ContentId]:
        """Return the content that any manifest here lists."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT DISTINCT root FROM manifest_files").fetchall()
        return {ContentId(row["root"]) for row in rows}

    def profiles(self) -> dict[ContentId, Profile]:
        """Return the chunk profile of all content that any manifest here lists."""
        found: dict[ContentId, Profile] = {}
        for identifier in self.all():
            manifest = self.get(identifier)
            if manifest:
                found.update((file.root, file.profile) for file in manifest.files)
        return found

    def list_again(self) -> int:
        """Make the index say which manifests are files; returns how many there are."""
        gone = set(self.all())
        count = 0
        for path in sorted((self._layout.store / "manifests").glob("??/*")):
            try:
                data = path.read_bytes()
                manifest = manifests.decode(data)
            except (InvalidData, OSError):
                continue
            if manifest_id(data).hex() == path.name:
                self._list(manifest_id(data), manifest)
                gone.discard(manifest_id(data))
                count += 1
        with self._database.write() as connection:
            for identifier in gone:
                _unlist(connection, identifier)
        return count

    def _list(self, identifier: ManifestId, manifest: Manifest) -> None:
        with self._database.write() as connection:
            _unlist(connection, identifier)
            connection.execute(
                "INSERT INTO manifests (manifest, kind, size) VALUES (?, ?, ?)",
                (identifier, manifest.kind, manifest.size),
            )
            connection.executemany(
                "INSERT OR IGNORE INTO manifest_files (manifest, root, size) VALUES (?, ?, ?)",
                [(identifier, file.root, file.size) for file in manifest.files],
            )
            mark_manifest(connection, identifier, [file.root for file in manifest.files])


def _unlist(connection: Connection, identifier: ManifestId) -> None:
    connection.execute("DELETE FROM manifests WHERE manifest = ?", (identifier,))
    connection.execute("DELETE FROM manifest_files WHERE manifest = ?", (identifier,))
