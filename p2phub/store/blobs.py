"""Content as whole files: what is here, where it lies, and what the index says of it (spec/store.md §2).

    Intake: files of this machine ──▶ objects/ (or the file where it lies) ──note──▶ the index
    finish, add_small: downloads  ──▶ objects/                             ──note──▶

Rule: a row of `content` says that a file was verified when it had that size and
time of change. If either moved, the file is hashed again before it is believed. So
is one that was written in an earlier boot and not synced: `sync` is called once for
all that a publication or a download wrote.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from sqlite3 import Connection, Row

from msgspec import Struct
from msgspec.structs import replace

from p2phub.core.choices import Profile
from p2phub.core.errors import InvalidData, NotFound, StoreError
from p2phub.core.ids import ContentId

from .chunklists import ChunkLists
from .database import Database, rows_by_root
from .disk import NEW_FILE, boot_id, disk_errors, new_name, sync_file_system
from .ingest import Progress, Stamp, find_bad_chunks, scan
from .inplace import open_foreign
from .layout import Layout
from .ownfiles import OwnFiles
from .partial import Partial


class Held(Struct, frozen=True):
    """A whole file that is here and was verified."""

    root: ContentId
    size: int  # bytes
    name: str  # its path; of thousands of files, to make a Path of each takes longer than to look for it
    is_object: bool  # of the store, never written to; otherwise a file that somebody may change
    stamp: Stamp | None = None  # of such a file, as it was verified

    @property
    def path(self) -> Path:
        return Path(self.name)


class Blobs:
    """The whole files of one store."""

    def __init__(self, layout: Layout, database: Database, chunk_lists: ChunkLists) -> None:
        self._layout = layout
        self._database = database
        self._chunk_lists = chunk_lists

    # ── what is here ──────────────────────────────────────────────────────────

    def find(self, root: ContentId) -> Held | None:
        """Return the verified file `root`, or None if it is not here."""
        return self.find_all([root]).get(root)

    def find_all(self, roots: Collection[ContentId]) -> dict[ContentId, Held]:
        """Return those of the files `roots` that are here and verified, by root."""
        rows = rows_by_root(self._database, "SELECT * FROM content", roots)
        found = ((root, self._find(root, rows.get(root))) for root in roots)
        return {root: held for root, held in found if held}

    def find_sha256(self, digest: bytes) -> Held | None:
        """Return a verified file with this SHA-256, None if none is here whose SHA-256 is known."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT root FROM content WHERE sha256 = ? UNION ALL SELECT root FROM sources WHERE sha256 = ? LIMIT 1",
                (digest, digest),
            ).fetchone()
        return self.find(ContentId(row["root"])) if row else None

    def _find(self, root: ContentId, row: Row | None) -> Held | None:
        """Return the file `root`, listed in `row`, if it is here."""
        if row is None:
            return self._find_unlisted(root)
        if row["path"] is not None:
            return self._find_in_place(root, row) or self._find_unlisted(root)
        held = Held(root, row["size"], self._layout.object_name(root), is_object=True)
        try:
            stamp = Stamp.of(os.stat(held.name))
        except OSError:
            return None
        on_disk = row["boot"] is None or row["boot"] == boot_id()
        if stamp.size == row["size"] and stamp.mtime_ns == row["mtime_ns"] and on_disk:
            return held
        return held if not self.bad_chunks(held) else None

    def _find_in_place(self, root: ContentId, row: Row) -> Held | None:
        known = Stamp(row["size"], row["mtime_ns"], row["inode"])
        held = Held(root, row["size"], row["path"], is_object=False, stamp=known)
        try:
            # A link is another file than the one that was registered, whatever it leads to.
            is_same = Stamp.of(os.lstat(held.name)) == known
        except OSError:
            return None
        if is_same:
            return held
        bad, stamp = self._hash_again(held, None)
        return None if bad else replace(held, stamp=stamp)

    def _find_unlisted(self, root: ContentId) -> Held | None:
        """Find an object that another host, or an index that was lost, put into the store."""
        name = self._layout.object_name(root)
        try:
            stamp = Stamp.of(os.stat(name))
        except OSError:
            return None
        if self._chunk_lists.find(root) is None:
            return None
        held = Held(root, stamp.size, name, is_object=True)
        return held if not self.bad_chunks(held) else None

    def is_kept(self, root: ContentId, *, in_place: bool) -> bool:
        """Say whether the file `root` is here, as an object unless it need only be somewhere."""
        held = self.find(root)
        return held is not None and (in_place or held.is_object)

    def may_be_held(self, size: int) -> bool:
        """Say whether anything here has this size: only then can the same content be here."""
        with self._database.read() as connection:
            return connection.execute("SELECT 1 FROM content WHERE size = ? LIMIT 1", (size,)).fetchone() is not None

    def in_place(self) -> tuple[int, int]:
        """Return how many files are registered where they lie, and their bytes."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT count(*), coalesce(sum(size), 0) FROM content WHERE path IS NOT NULL"
            ).fetchone()
        return row[0], row[1]

    # ── what is not as it should be ───────────────────────────────────────────

    def bad_chunks(self, held: Held, *, progress: Progress | None = None) -> list[int]:
        """Hash the file again; returns the indices of chunks that are not as they should be.

        A file that is not as it should be is not held any more: an object of the store
        becomes a partial that keeps its good chunks, a file in place is forgotten.
        """
        return self._hash_again(held, progress)[0]

    def _hash_again(self, held: Held, progress: Progress | None) -> tuple[list[int], Stamp | None]:
        """Do what `bad_chunks` does; returns what the file was then, too, if there is one."""
        chunks = self._chunk_lists.find(held.root)
        if chunks is None:
            raise NotFound(f"the chunk list of {held.root} is not here")
        try:
            file = self._open_again(held)
            try:
                stamp: Stamp | None = Stamp.of(os.fstat(file))
                bad = find_bad_chunks(file, chunks, progress=progress)
            finally:
                os.close(file)
        except FileNotFoundError:
            stamp, bad = None, list(range(max(1, len(chunks))))
        except OSError as exc:
            # An error of the disk says nothing about the bytes: keep what we know.
            raise StoreError(f"cannot read {held.path}: {exc.strerror}", path=str(held.path)) from exc
        if stamp and not bad and stamp.size != chunks.size:
            bad = [max(0, len(chunks) - 1)]  # the file goes on where its last chunk should end
        if stamp and not bad:
            self.note(held.root, stamp, None, held.path if not held.is_object else None)
        else:
            self._demote(held)
        return bad, stamp

    def _open_again(self, held: Held) -> int:
        """Open a file that is to be hashed again. Raises OSError."""
        if held.is_object:
            return os.open(held.path, os.O_RDONLY | os.O_CLOEXEC)
        return open_foreign(held.path, OwnFiles(self._layout).has)

    def _demote(self, held: Held) -> None:
        """Hold a file that is not as it should be no longer."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM content WHERE root = ?", (held.root,))
            connection.execute("DELETE FROM sources WHERE root = ?", (held.root,))
        if held.is_object and held.path.exists():
            partial = self._layout.partial(held.root)
            with disk_errors(partial):
                partial.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    partial.with_suffix(".map").unlink()
                os.chmod(held.path, 0o644)
                os.replace(held.path, partial)

    # ── what comes in ─────────────────────────────────────────────────────────

    def finish(self, root: ContentId, partial: Partial) -> Held:
        """Turn a complete partial into an object. `sync` makes it outlive a crash of the machine."""
        target = self._layout.object(root)
        status = partial.finish(target)
        if status is not None:
            self.note(root, Stamp.of(status), None, None)
            return Held(root, status.st_size, str(target), is_object=True)
        held = self.find(root)
        if held is None:
            raise StoreError(f"another process left a damaged file at {target}", path=str(target))
        return held

    def add_small(self, files: Sequence[tuple[ContentId, bytes, bytes | None]]) -> None:
        """Make objects of small files whose bytes were verified; cheaper than a partial for each.

        files: root, bytes, and SHA-256 if that is known. `sync` makes them outlive a crash of the machine.
        """
        rows: list[tuple[ContentId, Stamp, bytes | None, Path | None]] = []
        for root, data, sha256 in files:
            target = self._layout.object_name(root)
            with disk_errors(target):
                temporary, file = _open_new(os.path.dirname(target))
                try:
                    if os.write(file, data) != len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    status = os.fstat(file)
                    if status.st_mode & 0o777 != 0o444:
                        os.fchmod(file, 0o444)  # the umask took something
                    os.replace(temporary, target)
                    rows.append((root, Stamp.of(status), sha256, None))
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(temporary)
                    raise
                finally:
                    os.close(file)
        self.note_all(rows)

    def sync(self) -> None:
        """Bring the objects that were added so far onto the disk for good."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT root FROM content WHERE boot = ?", (boot_id(),)).fetchall()
        if not rows:
            return
        sync_file_system(self._layout.store / "objects")
        with self._database.write() as connection:
            connection.executemany("UPDATE content SET boot = NULL WHERE root = ?", [(row["root"],) for row in rows])

    def note(self, root: ContentId, stamp: Stamp, sha256: bytes | None, path: Path | None) -> None:
        """Note one verified file, as `note_all` does."""
        self.note_all([(root, stamp, sha256, path)])

    def note_all(self, rows: Iterable[tuple[ContentId, Stamp, bytes | None, Path | None]]) -> None:
        """Note verified files: objects that may not be on disk yet, or files of somebody else at a path.

        rows: root, stamp, SHA-256 if it is known, and the path of a file of somebody else.
        """
        with self._database.write() as connection:
            connection.executemany(
                "INSERT INTO content (root, size, sha256, path, mtime_ns, inode, boot) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (root) DO UPDATE SET size = excluded.size, path = excluded.path,"
                " sha256 = coalesce(excluded.sha256, sha256), mtime_ns = excluded.mtime_ns,"
                " inode = excluded.inode, boot = excluded.boot",
                [
                    (root, stamp.size, sha256, str(path) if path else None, stamp.mtime_ns, stamp.inode,
                     None if path else boot_id())
                    for root, stamp, sha256, path in rows
                ],
            )  # fmt: skip

    # ── the index anew ────────────────────────────────────────────────────────

    def list_again(self, profiles: Mapping[ContentId, Profile]) -> tuple[int, int]:
        """Make the index say which objects are good; returns how many are, and how many on disk are not.

        profiles: how each object that any manifest needs was cut. Others stay on disk, unlisted.
        """
        with self._database.read() as connection:
            known = connection.execute(
                "SELECT root, mtime_ns, inode FROM content"
                " UNION ALL SELECT root, NULL, NULL FROM chunk_lists WHERE root NOT IN (SELECT root FROM content)"
            ).fetchall()
        gone = {row["root"]: (row["mtime_ns"], row["inode"]) for row in known}
        good = damaged = 0
        for root, profile in profiles.items():
            path = self._layout.object(root)
            try:
                with open(path, "rb") as file:
                    stamp = Stamp.of(os.fstat(file.fileno()))
                    result = scan(file.fileno(), path, profile)
            except FileNotFoundError:
                continue
            except (InvalidData, StoreError, OSError):
                damaged += 1
                continue
            if result.root == root:
                self._chunk_lists.save(root, result.chunks)
                self.note(root, stamp, result.sha256, None)
                gone.pop(root, None)
                good += 1
            else:
                damaged += 1
        # At the end, and not all that was known at the beginning: hashing a large store takes hours.
        # In that time, too, what was missing may have been fetched again: then it is another file.
        with self._database.write() as connection:
            connection.executemany(
                "DELETE FROM content WHERE root = ? AND mtime_ns = ? AND inode = ?",
                [(root, *file) for root, file in gone.items()],
            )
            connection.executemany(
                "DELETE FROM chunk_lists WHERE root = ?1 AND NOT EXISTS (SELECT 1 FROM content WHERE root = ?1)",
                [(root,) for root in gone],
            )
        return good, damaged

    def forget_in_place(self, connection: Connection) -> None:
        """Forget which files of others were registered, and what they hold."""
        connection.execute("DELETE FROM content WHERE path IS NOT NULL")
        connection.execute("DELETE FROM sources")


def _open_new(folder: str) -> tuple[str, int]:
    """Open a new read-only file in `folder`, which is made if it is missing; returns its path and descriptor."""
    temporary = new_name(folder)
    try:
        file = os.open(temporary, NEW_FILE, 0o444)
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        file = os.open(temporary, NEW_FILE, 0o444)
    return temporary, file
