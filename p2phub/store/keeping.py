"""What the user of this machine wants kept, and where files were placed (spec/store.md §5)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from msgspec import Struct

from p2phub.core.ids import ManifestId

from .database import Database
from .disk import disk_errors
from .ingest import Stamp


class View(Struct, frozen=True):
    """A folder in which the files of a manifest were placed."""

    folder: Path
    manifest: ManifestId
    files: dict[str, Stamp]  # by path in the manifest, as they were when placed


class Keeping:
    """Pins and views of one home."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pin(self, manifest: ManifestId, reason: str) -> None:
        """Keep `manifest` and its content until it is unpinned."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO pins (manifest, time, reason) VALUES (?, ?, ?)",
                (manifest, int(time.time()), reason),
            )

    def unpin(self, manifest: ManifestId) -> bool:
        """Take a pin back; returns whether there was one."""
        with self._database.write() as connection:
            return connection.execute("DELETE FROM pins WHERE manifest = ?", (manifest,)).rowcount > 0

    def pins(self) -> dict[ManifestId, str]:
        """Return the pinned manifests with the reason, 'published', 'kept' or 'mirrored'."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT manifest, reason FROM pins").fetchall()
        return {ManifestId(row["manifest"]): row["reason"] for row in rows}

    def note_view(self, folder: Path, manifest: ManifestId, paths: list[str]) -> None:
        """Remember that the files `paths` of `manifest` stand in `folder` now."""
        files = {}
        for path in paths:
            target = f"{folder}/{path}"
            with disk_errors(target):
                stamp = Stamp.of(os.stat(target))
            files[path] = [stamp.size, stamp.mtime_ns, stamp.inode]
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO views (folder, manifest, files) VALUES (?, ?, ?)",
                (str(folder), manifest, json.dumps(files)),
            )

    def view(self, folder: Path) -> View | None:
        """Return what was placed in `folder`, None if nothing was."""
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM views WHERE folder = ?", (str(folder),)).fetchone()
        if row is None:
            return None
        files = {path: Stamp(*stamp) for path, stamp in json.loads(row["files"]).items()}
        return View(folder, ManifestId(row["manifest"]), files)

    def views_of(self, manifest: ManifestId) -> list[Path]:
        """Return the folders in which files of `manifest` were placed."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT folder FROM views WHERE manifest = ?", (manifest,)).fetchall()
        return [Path(row["folder"]) for row in rows]

    def forget_view(self, folder: Path) -> None:
        """Forget a folder; its files stay."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM views WHERE folder = ?", (str(folder),))
