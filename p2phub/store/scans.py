"""What was found in files that may be pickles, so that each is looked into once (spec/rules.md §4)."""

from __future__ import annotations

from p2phub.core.ids import ContentId
from p2phub.core.jsonform import from_json, to_json
from p2phub.core.picklenames import SCAN_VERSION, Scan

from .database import Database


class Scans:
    """Scans by file. A file never changes, so neither does what is in it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, root: ContentId) -> Scan | None:
        """Return what was found in a file, None if it was not looked into as it would be now."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT found FROM scans WHERE root = ? AND version = ?", (root, SCAN_VERSION)
            ).fetchone()
        return from_json(row["found"].encode(), Scan) if row else None

    def keep(self, root: ContentId, scan: Scan) -> None:
        """Keep what was found in a file."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO scans (root, version, found) VALUES (?, ?, ?)",
                (root, SCAN_VERSION, to_json(scan).decode()),
            )
