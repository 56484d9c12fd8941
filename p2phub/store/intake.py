"""Take files of this machine in, hashed as they are read (spec/store.md §2).

    publish ──ingest──▶ objects/ (or the file where it lies)
    what came whole and unverified ──adopt, take──▶ objects/

Rule: what was hashed is what is kept. A file that may go on changing is cloned or copied
while it is read, or linked to where nobody can write to it, and hashed as it lies then.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from p2phub.core.choices import Profile
from p2phub.core.errors import InvalidData, StoreError
from p2phub.core.ids import ContentId

from .blobs import Blobs
from .chunklists import ChunkLists
from .database import Database
from .disk import NEW_FILE, disk_errors, new_name
from .ingest import Progress, Scan, Stamp, scan
from .layout import Layout
from .links import link_read_only, reflink
from .unverified import Unverified

# A file changed within this time of being hashed could change again unseen.
FRESH_S = 2.0


class Ingested(Struct, frozen=True):
    """A file that was taken into the store."""

    root: ContentId
    size: int  # bytes
    sha256: bytes
    written: int  # bytes written to disk for it


class Intake:
    """The way into one store for files of this machine."""

    def __init__(self, layout: Layout, database: Database, blobs: Blobs, chunk_lists: ChunkLists) -> None:
        self._layout = layout
        self._database = database
        self._blobs = blobs
        self._chunk_lists = chunk_lists

    def ingest(
        self, path: Path, profile: Profile, *, in_place: bool = False, progress: Progress | None = None
    ) -> Ingested:
        """Take the file at `path` (absolute) into the store, or register it where it lies.

        Nothing is written for content that is here already. `sync` makes it outlive a crash
        of the machine. Raises StoreError if the
        file cannot be read or changes meanwhile, InvalidData if `profile` does not fit it.
        """
        with disk_errors(path):
            # Opening a pipe would wait for somebody to write to it.
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(source)
            if not stat.S_ISREG(status.st_mode):
                raise StoreError(f"{path} is no regular file", path=str(path))
            stamp = Stamp.of(status)
            known = self._known_source(path, profile, stamp)
            if known and self._blobs.is_kept(known[0], in_place=in_place):
                if progress:
                    progress(stamp.size)
                return Ingested(known[0], stamp.size, known[1], written=0)
            result = None
            if in_place or self._blobs.may_be_held(stamp.size):
                result = scan(source, path, profile, progress=progress)
                progress = None  # a second reading does not count
            written = 0
            if result is None or not (in_place or self._blobs.is_kept(result.root, in_place=False)):
                result, written = self._copy_in(source, path, profile, progress)
            elif in_place and not self._blobs.find(result.root):
                self._chunk_lists.save(result.root, result.chunks)
                self._blobs.note(result.root, stamp, result.sha256, path)
            if Stamp.of(os.fstat(source)) == stamp:
                self._remember_source(path, profile, stamp, result)
            return Ingested(result.root, result.chunks.size, result.sha256, written)
        finally:
            os.close(source)

    def take(self, path: Path, profile: Profile, is_right: Callable[[Scan], bool]) -> Ingested | None:
        """Make the file at `path`, which nobody else uses, an object if `is_right` says so of what it holds.

        `sync` makes it outlive a crash of the machine.
        """
        with disk_errors(path):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            result = scan(file, path, profile)
            if not is_right(result):
                return None
            written = 0
            if not self._blobs.is_kept(result.root, in_place=False):
                self._adopt(file, path, result)
                written = result.chunks.size
            return Ingested(result.root, result.chunks.size, result.sha256, written)
        finally:
            os.close(file)

    def begin_unverified(self) -> Unverified:
        """Open a file for what comes whole and unverified. The caller closes it."""
        return Unverified(self._layout.store / "objects")

    def adopt(
        self, file: Unverified, root: ContentId, profiles: Sequence[Profile], *, progress: Progress | None = None
    ) -> bool:
        """Make `file` the object `root` if one of `profiles` cuts it so; returns whether that is the case.

        `sync` makes it outlive a crash of the machine.
        """
        for profile in profiles:
            try:
                result = scan(file.file, file.path, profile, progress=progress)
            except InvalidData:
                continue  # it has no tensors
            if result.root == root:
                break
        else:
            return False
        self._adopt(file.file, file.path, result)
        return True

    def _adopt(self, file: int, path: Path, result: Scan) -> None:
        target = self._layout.object(result.root)
        with disk_errors(target):
            os.fchmod(file, 0o444)
            self._chunk_lists.save(result.root, result.chunks)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
            self._blobs.note(result.root, Stamp.of(os.fstat(file)), result.sha256, None)

    def _copy_in(self, source: int, path: Path, profile: Profile, progress: Progress | None) -> tuple[Scan, int]:
        """Make an object of the open file `source`: share its extents, else link to it, else copy it."""
        folder = self._layout.store / "objects"
        with disk_errors(folder):
            temporary = Path(new_name(folder))
            target = os.open(temporary, NEW_FILE, 0o600)
        try:
            with disk_errors(temporary):
                if reflink(source, target):
                    # Hash the clone: the file may go on changing.
                    result, written = scan(target, path, profile, progress=progress), 0
                elif link_read_only(source, path, temporary):
                    result, written = scan(source, path, profile, progress=progress), 0
                else:
                    result = scan(source, path, profile, copy_to=target, progress=progress)
                    written = result.chunks.size
                # Not by name: a file that was linked to keeps the mode that its owner gave it.
                os.fchmod(target, 0o444)
                self._chunk_lists.save(result.root, result.chunks)
                final = self._layout.object(result.root)
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(temporary, final)
                self._blobs.note(result.root, Stamp.of(os.stat(final)), result.sha256, None)
            return result, written
        finally:
            os.close(target)
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()

    def _known_source(self, path: Path, profile: Profile, stamp: Stamp) -> tuple[ContentId, bytes] | None:
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT root, sha256 FROM sources"
                " WHERE path = ? AND profile = ? AND size = ? AND mtime_ns = ? AND inode = ?",
                (str(path), profile, stamp.size, stamp.mtime_ns, stamp.inode),
            ).fetchone()
        return (ContentId(row["root"]), row["sha256"]) if row else None

    def _remember_source(self, path: Path, profile: Profile, stamp: Stamp, result: Scan) -> None:
        if time.time() - stamp.mtime_ns / 1e9 < FRESH_S:
            return
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO sources (path, profile, size, mtime_ns, inode, root, sha256)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (str(path), profile, stamp.size, stamp.mtime_ns, stamp.inode, result.root, result.sha256),
            )
