"""Tell the files of one home and its store from those of its user (spec/store.md §1).

Who runs inside a node must not open these: SQLite's locks belong to the process, and end when any file of the
database is closed in it, by whoever opened it. Another process then takes away the log under the node.

    the home, the store                     own
    objects/ and views/ of the store        not own: content, that users read and publish

The innermost of these folders that a path lies in, links followed, decides: a home may lie in its store, or beside it.
"""

from __future__ import annotations

import contextlib
import os

from p2phub.core.errors import InvalidData

from .layout import Layout

_BESIDE_DATABASE = ("", "-wal", "-shm", "-journal")  # what SQLite adds to a database's name


class OwnFiles:
    """Which files are of one home and its store, as they lie now."""

    def __init__(self, layout: Layout) -> None:
        content = {os.path.realpath(layout.store / name): False for name in ("objects", "views")}
        folders = content | {os.path.realpath(path): True for path in (layout.home, layout.store)}
        # The longest first: of folders that a path lies in, that is the innermost.
        self._folders = sorted(folders.items(), key=lambda item: len(item[0]), reverse=True)
        # A hard link to a database, or a mount of it, has another path.
        self._databases: set[tuple[int, int]] = set()
        for database in (layout.index, layout.cosigned):
            for suffix in _BESIDE_DATABASE:
                with contextlib.suppress(OSError):
                    status = os.stat(os.path.realpath(database) + suffix)
                    self._databases.add((status.st_dev, status.st_ino))

    def has(self, path: os.PathLike[str] | str) -> bool:
        """Say whether a file or folder is one of the home or the store. It is not opened."""
        real = os.path.realpath(path)
        for folder, is_own in self._folders:
            if real == folder or real.startswith(folder.rstrip(os.sep) + os.sep):
                if is_own:
                    return True
                break
        with contextlib.suppress(OSError):
            status = os.stat(real)
            return (status.st_dev, status.st_ino) in self._databases
        return False

    def is_in(self, folder: os.PathLike[str] | str) -> bool:
        """Say whether the home or the store lies in a folder."""
        around = os.path.realpath(folder).rstrip(os.sep) + os.sep
        return any(is_own and own.startswith(around) for own, is_own in self._folders)

    def refuse(self, path: os.PathLike[str] | str) -> None:
        """Raise InvalidData if a file or folder is one of the home or the store."""
        if self.has(path):
            raise InvalidData(
                f"{os.fspath(path)} belongs to p2phub itself: keys, the index and what they need lie there",
                hint="name another file or folder, which has nothing of the home and the store in it",
            )
