"""What was found in files that may be pickles, so that each is looked into once (spec/rules.md §4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from p2phub.core.ids import ContentId
from p2phub.core.jsonform import from_json, to_json
from p2phub.core.picklenames import SCAN_VERSION, Scan

from .database import Database, portions


class Scans:
    """Scans by file. A file never changes, so neither does what is in it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, root: ContentId) -> Scan | None:
        """Return what was found in a file, None if it was not looked into as it would be now."""
        return self.get_all([root]).get(root)

    def get_all(self, roots: Iterable[ContentId]) -> dict[ContentId, Scan]:
        """Return what was found in those of the files `roots` that were looked into as they would be now."""
        found = {}
        with self._database.read() as connection:
            for some in portions(roots):
                marks = ", ".join("?" * len(some))
                query = f"SELECT root, found FROM scans WHERE version = ? AND root IN ({marks})"
                for row in connection.execute(query, (SCAN_VERSION, *some)):
                    found[ContentId(row["root"])] = from_json(row["found"].encode(), Scan)
        return found

    def keep(self, root: ContentId, scan: Scan) -> None:
        """Keep what was found in a file."""
        self.keep_all({root: scan})

    def keep_all(self, scans: Mapping[ContentId, Scan]) -> None:
        """Keep what was found in each of some files."""
        if not scans:
            return
        with self._database.write() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO scans (root, version, found) VALUES (?, ?, ?)",
                [(root, SCAN_VERSION, to_json(scan).decode()) for root, scan in scans.items()],
            )
