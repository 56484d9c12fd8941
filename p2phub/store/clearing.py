"""Remove content, and what was begun and never ended (spec/store.md §7)."""

from __future__ import annotations

import contextlib
import os

from p2phub.core.errors import InvalidName
from p2phub.core.ids import ContentId

from .chunklists import ChunkLists
from .database import Database
from .disk import disk_errors, freed_by_removing, remove_older
from .layout import FOLDERS, Layout


class Clearing:
    """What lies in one store, to be removed when nothing needs it."""

    def __init__(self, layout: Layout, database: Database, chunk_lists: ChunkLists) -> None:
        self._layout = layout
        self._database = database
        self._chunk_lists = chunk_lists

    def roots(self) -> list[ContentId]:
        """Return all content of which anything is here, on disk or in the index."""
        with self._database.read() as connection:
            found = {ContentId(row["root"]) for row in connection.execute("SELECT root FROM content")}
        for folder in ("objects", "partial", "trees"):
            for path in (self._layout.store / folder).glob("??/*"):
                with contextlib.suppress(ValueError, InvalidName):
                    found.add(ContentId(bytes.fromhex(path.stem)))
        return sorted(found)

    def last_change(self, root: ContentId) -> float:
        """Return when anything of `root` last changed on disk, in seconds since 1970; 0 if nothing is there."""
        newest = 0.0
        for path in (self._layout.object(root), self._layout.partial(root)):
            with contextlib.suppress(OSError):
                newest = max(newest, os.stat(path).st_mtime)
        return newest

    def remove(self, root: ContentId) -> int:
        """Forget the file `root` and delete what the store owns of it; returns the bytes freed."""
        freed = 0
        partial = self._layout.partial(root)
        for path in (self._layout.object(root), partial, partial.with_suffix(".map"), self._layout.tree(root)):
            with disk_errors(path), contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                freed += freed_by_removing(status)
                path.unlink()
        self._chunk_lists.forget(root)
        with self._database.write() as connection:
            for table in ("content", "chunk_lists", "sources"):
                connection.execute(f"DELETE FROM {table} WHERE root = ?", (root,))
        return freed

    def remove_leftovers(self, *, age_s: float) -> int:
        """Delete files that were begun more than `age_s` seconds ago and never got a name; returns the bytes freed."""
        freed = 0
        for folder in set(FOLDERS) - {"views"}:
            for pattern in (".new-*", "??/.new-*"):
                freed += remove_older((self._layout.store / folder).glob(pattern), age_s)
        return freed
