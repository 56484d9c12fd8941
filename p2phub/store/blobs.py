"""Content as whole files: what is here, where it lies, and how it gets in (spec/store.md §2).

    publish ──ingest──▶ objects/ (or the file where it lies)
    fetch ──partial──▶ objects/

Rule: a row of `content` says that a file was verified when it had that size and
time of change. If either moved, the file is hashed again before it is believed. So
is one that was written in an earlier boot and not synced: `sync` is called once for
all that a publication or a download wrote.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from sqlite3 import Connection, Row

from msgspec import Struct
from msgspec.structs import replace

from p2phub.core.choices import Profile
from p2phub.core.errors import InvalidData, InvalidName, NotFound, StoreError
from p2phub.core.filetree import ChunkList
from p2phub.core.ids import ContentId

from .database import Database, portions
from .disk import NEW_FILE, boot_id, disk_errors, new_name, sync_file_system, write_file
from .ingest import Progress, Scan, Stamp, find_bad_chunks, scan
from .inplace import open_foreign, open_same
from .layout import FOLDERS, Layout
from .links import link_read_only, reflink, reflink_range
from .ownfiles import OwnFiles
from .partial import Partial, saved_chunks
from .unverified import Unverified

INLINE_SIZE_MAX = 64 * 1024  # bytes of a chunk list that the index holds itself; spec/store.md §2
FEW = 16  # files that are looked for in less time than their folder is listed
LONG_LISTS_MAX = 8  # long chunk lists kept in memory, 36 bytes a chunk: to check one takes 2 s a million chunks
# A file changed within this time of being hashed could change again unseen.
FRESH_S = 2.0


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


class Ingested(Struct, frozen=True):
    """A file that was taken into the store."""

    root: ContentId
    size: int  # bytes
    sha256: bytes
    written: int  # bytes written to disk for it


class Readable(Struct, frozen=True):
    """An open file, whole or partial."""

    name: str  # its path
    file: int  # descriptor
    size: int  # bytes of the whole file
    chunks: ChunkList | None  # None: the file is whole
    have: bytes  # a byte (0 or 1) for each chunk of a partial
    reopen: Callable[[], int]  # opens the same file again, where that is the one that is there. Raises OSError

    def has(self, offset: int, length: int) -> bool:
        """Say whether all of these bytes are here."""
        if offset + length > self.size:
            return False
        if self.chunks is None:
            return True
        first, last = self.chunks.index_at(offset), self.chunks.index_at(offset + length - 1)
        return all(self.have[first : last + 1])


class ChunkPlace(Struct, frozen=True):
    """Where a chunk lies: `length` bytes of the file `root` from `offset` on."""

    root: ContentId
    offset: int
    length: int


class Blobs:
    """The whole files and partials of one store."""

    def __init__(self, layout: Layout, database: Database) -> None:
        self._layout = layout
        self._database = database
        self._long_lists: OrderedDict[ContentId, ChunkList] = OrderedDict()  # checked; the last used last
        self._lock = threading.Lock()

    # ── what is here ────────────────────────────────────────────────────────

    def find(self, root: ContentId) -> Held | None:
        """Return the verified file `root`, or None if it is not here."""
        return self.find_all([root]).get(root)

    def find_all(self, roots: Collection[ContentId]) -> dict[ContentId, Held]:
        """Return those of the files `roots` that are here and verified, by root."""
        rows = self._rows("SELECT * FROM content", roots)
        found = ((root, self._find(root, rows.get(root))) for root in roots)
        return {root: held for root, held in found if held}

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

    def bad_chunks(self, held: Held, *, progress: Progress | None = None) -> list[int]:
        """Hash the file again; returns the indices of chunks that are not as they should be.

        A file that is not as it should be is not held any more: an object of the store
        becomes a partial that keeps its good chunks, a file in place is forgotten.
        """
        return self._hash_again(held, progress)[0]

    def _hash_again(self, held: Held, progress: Progress | None) -> tuple[list[int], Stamp | None]:
        """Do what `bad_chunks` does; returns what the file was then, too, if there is one."""
        chunks = self.chunk_list(held.root)
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
            self._list(held.root, stamp, None, held.path if not held.is_object else None)
        else:
            self._demote(held)
        return bad, stamp

    def _open_again(self, held: Held) -> int:
        """Open a file that is to be hashed again. Raises OSError."""
        if held.is_object:
            return os.open(held.path, os.O_RDONLY | os.O_CLOEXEC)
        return open_foreign(held.path, OwnFiles(self._layout).has)

    def chunk_list(self, root: ContentId) -> ChunkList | None:
        """Return the chunk list of the file `root`, or None if it is not here."""
        return self.chunk_lists([root]).get(root)

    def chunk_lists(self, roots: Collection[ContentId]) -> dict[ContentId, ChunkList]:
        """Return the chunk lists of those of the files `roots` for which one is here."""
        rows = self._rows("SELECT root, packed FROM chunk_lists", roots)
        lists = {}
        for root in roots:
            if root in rows and (packed := rows[root]["packed"]) is not None:
                lists[root] = ChunkList(packed)
        for root in self._sharded("trees", [root for root in roots if root not in lists]):
            if (chunks := self._long_list(root)) is not None:
                lists[root] = chunks
        return lists

    def _long_list(self, root: ContentId) -> ChunkList | None:
        """Return the chunk list of the file `root` that is a file of its own, None if there is none."""
        with self._lock:
            if root in self._long_lists:
                self._long_lists.move_to_end(root)
                return self._long_lists[root]
        path = self._layout.tree(root)
        with disk_errors(path):
            try:
                with open(path, "rb") as file:
                    packed = file.read()
            except FileNotFoundError:
                return None  # as of nearly all: most lists are short, and lie in the index
        try:
            chunks = ChunkList(packed)
        except InvalidData:
            return None
        # Wrong hashes would make liars of honest peers, and rot of good chunks.
        if chunks.root() != root:
            return None
        with self._lock:
            self._long_lists[root] = chunks
            if len(self._long_lists) > LONG_LISTS_MAX:
                self._long_lists.popitem(last=False)
        return chunks

    def save_chunk_list(self, root: ContentId, chunks: ChunkList) -> None:
        """Keep the verified chunk list of the file `root`."""
        self.save_chunk_lists({root: chunks})

    def save_chunk_lists(self, lists: Mapping[ContentId, ChunkList]) -> None:
        """Keep verified chunk lists, by file root."""
        rows: list[tuple[ContentId, bytes | None]] = []
        for root, chunks in lists.items():
            inline = len(chunks.packed) <= INLINE_SIZE_MAX
            if not inline:
                write_file(self._layout.tree(root), chunks.packed)
            rows.append((root, chunks.packed if inline else None))
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO chunk_lists (root, packed) VALUES (?, ?)", rows)

    def find_chunks(self, wanted: set[bytes]) -> dict[bytes, ChunkPlace]:
        """Return where chunks with the `wanted` hashes lie in whole files here, by hash; unchecked.

        Looks through all chunk lists: 36 bytes for each megabyte of the store, and no index to keep.
        """
        with self._database.read() as connection:
            roots = [ContentId(row["root"]) for row in connection.execute("SELECT root FROM content")]
        places: dict[bytes, ChunkPlace] = {}
        for some in portions(roots):
            for root, chunks in self.chunk_lists(some).items():
                for index in chunks.find(wanted):
                    places.setdefault(chunks.hash(index), ChunkPlace(root, chunks.offset(index), chunks.length(index)))
            if len(places) == len(wanted):
                break
        return places

    def find_sha256(self, digest: bytes) -> Held | None:
        """Return a verified file with this SHA-256, None if none is here whose SHA-256 is known."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT root FROM content WHERE sha256 = ? UNION ALL SELECT root FROM sources WHERE sha256 = ? LIMIT 1",
                (digest, digest),
            ).fetchone()
        return self.find(ContentId(row["root"])) if row else None

    def held_map(self, root: ContentId) -> bool | bytes:
        """Return what of the file `root` is here: all, nothing, or a byte (0 or 1) for each chunk."""
        return self.held_maps([root])[root]

    def held_maps(self, roots: Collection[ContentId]) -> dict[ContentId, bool | bytes]:
        """Return what of each of the files `roots` is here, as `held_map` does."""
        found = self.find_all(roots)
        maps: dict[ContentId, bool | bytes] = {root: root in found for root in roots}
        for root in self.partials(root for root in roots if root not in found):
            chunks = self.chunk_list(root)
            have = saved_chunks(self._layout.partial(root), chunks) if chunks else b""
            maps[root] = bytes(have) if any(have) else False
        return maps

    def open_readable(self, root: ContentId) -> Readable | None:
        """Open what is here of the file `root` for reading, None if nothing is. The caller closes it."""
        return self.open_found(root, self.find(root))

    def open_found(self, root: ContentId, held: Held | None) -> Readable | None:
        """Do what `open_readable` does for a file of which `find_all` has just told."""
        try:
            if held:
                reopen = functools.partial(_open_verified, held)
                return Readable(held.name, reopen(), held.size, None, b"", reopen)
            chunks = self.chunk_list(root)
            path = self._layout.partial(root)
            if chunks is None or not path.exists():
                return None
            reopen = functools.partial(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
            file = reopen()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StoreError(f"cannot read {root}: {exc.strerror}", path=str(root)) from exc
        return Readable(str(path), file, chunks.size, chunks, bytes(saved_chunks(path, chunks)), reopen)

    def read_small(self, root: ContentId, size_max: int) -> bytes | None:
        """Return what the whole file `root` holds, None if it is not here or has more than `size_max` bytes."""
        held = self.find(root)
        readable = self.open_found(root, held) if held and held.size <= size_max else None
        if readable is None:
            return None
        with disk_errors(readable.name), open(readable.file, "rb") as file:
            return file.read(size_max)

    def open_source(self, root: ContentId) -> tuple[int, bool] | None:
        """Open a whole file whose chunks are to be copied, None if it is not here; the caller closes the descriptor.

        The second value says that nobody can change its bytes: it is an object, or a clone of
        a file in place, made for this. Such a clone has no name and goes when it is closed.
        """
        held = self.find(root)
        readable = self.open_found(root, held) if held else None
        if held is None or readable is None:
            return None
        if held.is_object:
            return readable.file, True
        try:
            clone = self._clone(readable.file)
        except BaseException:
            os.close(readable.file)
            raise
        if clone is None:
            return readable.file, False
        os.close(readable.file)
        return clone, True

    def _clone(self, file: int) -> int | None:
        """Return a nameless file that shares the extents of an open one, None where that cannot be."""
        clone = self._open_nameless()
        try:
            with disk_errors(self._layout.store):
                if reflink(file, clone):
                    return clone
        except BaseException:
            os.close(clone)
            raise
        os.close(clone)
        return None

    def shared_block(self) -> int | None:
        """Return the size of the blocks that files of the store can share on disk, None if they cannot."""
        file = self._open_nameless()
        try:
            with disk_errors(self._layout.store):
                block = os.fstatvfs(file).f_bsize
                os.ftruncate(file, 2 * block)
                return block if reflink_range(file, 0, file, block, block) else None
        finally:
            os.close(file)

    def _open_nameless(self) -> int:
        """Open a new file of the store that goes when it is closed."""
        folder = self._layout.store / "objects"
        with disk_errors(folder):
            temporary = new_name(folder)
            file = os.open(temporary, NEW_FILE, 0o600)
            os.unlink(temporary)
        return file

    # ── what comes in ───────────────────────────────────────────────────────

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
            if known and self._is_kept(known[0], in_place=in_place):
                if progress:
                    progress(stamp.size)
                return Ingested(known[0], stamp.size, known[1], written=0)
            result = None
            if in_place or self._may_be_held(stamp.size):
                result = scan(source, path, profile, progress=progress)
                progress = None  # a second reading does not count
            written = 0
            if result is None or not (in_place or self._is_kept(result.root, in_place=False)):
                result, written = self._copy_in(source, path, profile, progress)
            elif in_place and not self.find(result.root):
                self.save_chunk_list(result.root, result.chunks)
                self._list(result.root, stamp, result.sha256, path)
            if Stamp.of(os.fstat(source)) == stamp:
                self._remember_source(path, profile, stamp, result)
            return Ingested(result.root, result.chunks.size, result.sha256, written)
        finally:
            os.close(source)

    def partials(self, roots: Iterable[ContentId]) -> set[ContentId]:
        """Return those of the files `roots` of which an earlier download left a part here."""
        return {root for root in self._sharded("partial", list(roots)) if self._layout.partial(root).exists()}

    def recover(self, root: ContentId, chunks: ChunkList) -> bytearray:
        """Return which chunks of the file `root` an earlier download left here, a byte (0 or 1) each."""
        if not self._layout.partial(root).exists():
            return bytearray(len(chunks))
        partial = self.begin(root, chunks)
        try:
            return partial.have
        finally:
            partial.close()

    def begin(self, root: ContentId, chunks: ChunkList) -> Partial:
        """Open the partial of the file `root`, made now if there is none. The caller closes it."""
        return Partial(self._layout.partial(root), chunks)

    def finish(self, root: ContentId, partial: Partial) -> Held:
        """Turn a complete partial into an object. `sync` makes it outlive a crash of the machine."""
        target = self._layout.object(root)
        status = partial.finish(target)
        if status is not None:
            self._list(root, Stamp.of(status), None, None)
            return Held(root, status.st_size, str(target), is_object=True)
        held = self.find(root)
        if held is None:
            raise StoreError(f"another process left a damaged file at {target}", path=str(target))
        return held

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
            if not self._is_kept(result.root, in_place=False):
                self._adopt(file, path, result)
                written = result.chunks.size
            return Ingested(result.root, result.chunks.size, result.sha256, written)
        finally:
            os.close(file)

    def _adopt(self, file: int, path: Path, result: Scan) -> None:
        target = self._layout.object(result.root)
        with disk_errors(target):
            os.fchmod(file, 0o444)
            self.save_chunk_list(result.root, result.chunks)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
            self._list(result.root, Stamp.of(os.fstat(file)), result.sha256, None)

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
        self._list_many(rows)

    def sync(self) -> None:
        """Bring the objects that were added so far onto the disk for good."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT root FROM content WHERE boot = ?", (boot_id(),)).fetchall()
        if not rows:
            return
        sync_file_system(self._layout.store / "objects")
        with self._database.write() as connection:
            connection.executemany("UPDATE content SET boot = NULL WHERE root = ?", [(row["root"],) for row in rows])

    # ── what goes out ───────────────────────────────────────────────────────

    def remove(self, root: ContentId) -> int:
        """Forget the file `root` and delete what the store owns of it; returns the bytes freed."""
        freed = 0
        partial = self._layout.partial(root)
        for path in (self._layout.object(root), partial, partial.with_suffix(".map"), self._layout.tree(root)):
            with disk_errors(path), contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                # Bytes that a checkout still links to are not freed.
                freed += status.st_blocks * 512 if status.st_nlink == 1 else 0
                path.unlink()
        with self._lock:
            self._long_lists.pop(root, None)
        with self._database.write() as connection:
            for table in ("content", "chunk_lists", "sources"):
                connection.execute(f"DELETE FROM {table} WHERE root = ?", (root,))
        return freed

    def remove_leftovers(self, *, age_s: float) -> int:
        """Delete files that were begun more than `age_s` seconds ago and never got a name; returns the bytes freed."""
        freed = 0
        for folder in set(FOLDERS) - {"views"}:
            for pattern in (".new-*", "??/.new-*"):
                for path in (self._layout.store / folder).glob(pattern):
                    with disk_errors(path), contextlib.suppress(FileNotFoundError):
                        status = os.stat(path)
                        # A link to an old file has the file's time, but was made only now.
                        if max(status.st_mtime, status.st_ctime) < time.time() - age_s:
                            path.unlink()
                            freed += status.st_blocks * 512 if status.st_nlink == 1 else 0
        return freed

    def roots(self) -> list[ContentId]:
        """Return all content of which anything is here, on disk or in the index."""
        with self._database.read() as connection:
            found = {ContentId(row["root"]) for row in connection.execute("SELECT root FROM content")}
        for folder in ("objects", "partial", "trees"):
            for path in (self._layout.store / folder).glob("??/*"):
                with contextlib.suppress(ValueError, InvalidName):
                    found.add(ContentId(bytes.fromhex(path.stem)))
        return sorted(found)

    def in_place(self) -> tuple[int, int]:
        """Return how many files are registered where they lie, and their bytes."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT count(*), coalesce(sum(size), 0) FROM content WHERE path IS NOT NULL"
            ).fetchone()
        return row[0], row[1]

    def last_change(self, root: ContentId) -> float:
        """Return when anything of `root` last changed on disk, in seconds since 1970; 0 if nothing is there."""
        newest = 0.0
        for path in (self._layout.object(root), self._layout.partial(root)):
            with contextlib.suppress(OSError):
                newest = max(newest, os.stat(path).st_mtime)
        return newest

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
                self.save_chunk_list(root, result.chunks)
                self._list(root, stamp, result.sha256, None)
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

    # ── helpers ─────────────────────────────────────────────────────────────

    def _rows(self, select: str, roots: Collection[ContentId]) -> dict[bytes, Row]:
        """Return the rows of a table that is keyed by root for those of `roots` that it has."""
        rows: dict[bytes, Row] = {}
        with self._database.read() as connection:
            for some in portions(roots):
                marks = ", ".join("?" * len(some))
                rows.update((row["root"], row) for row in connection.execute(f"{select} WHERE root IN ({marks})", some))
        return rows

    def _sharded(self, folder: str, roots: Sequence[ContentId]) -> Sequence[ContentId]:
        """Return those of `roots` of which something may lie in a folder of the store."""
        if len(roots) <= FEW:
            return roots
        path = self._layout.store / folder
        with disk_errors(path):
            # Mostly next to nothing lies there, and a look at each of thousands of names takes long.
            shards = set(os.listdir(path))
        return [root for root in roots if root.hex()[:2] in shards]

    def _find_unlisted(self, root: ContentId) -> Held | None:
        """Find an object that another host, or an index that was lost, put into the store."""
        name = self._layout.object_name(root)
        try:
            stamp = Stamp.of(os.stat(name))
        except OSError:
            return None
        if self.chunk_list(root) is None:
            return None
        held = Held(root, stamp.size, name, is_object=True)
        return held if not self.bad_chunks(held) else None

    def _list(self, root: ContentId, stamp: Stamp, sha256: bytes | None, path: Path | None) -> None:
        self._list_many([(root, stamp, sha256, path)])

    def _list_many(self, rows: Iterable[tuple[ContentId, Stamp, bytes | None, Path | None]]) -> None:
        """Note verified files: objects that may not be on disk yet, or files of somebody else at a path."""
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

    def _demote(self, held: Held) -> None:
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

    def _is_kept(self, root: ContentId, *, in_place: bool) -> bool:
        """Say whether the file `root` is here, as an object unless it need only be somewhere."""
        held = self.find(root)
        return held is not None and (in_place or held.is_object)

    def _may_be_held(self, size: int) -> bool:
        """Say whether anything here has this size: only then can the same content be here."""
        with self._database.read() as connection:
            return connection.execute("SELECT 1 FROM content WHERE size = ? LIMIT 1", (size,)).fetchone() is not None

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
                self.save_chunk_list(result.root, result.chunks)
                final = self._layout.object(result.root)
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(temporary, final)
                self._list(result.root, Stamp.of(os.stat(final)), result.sha256, None)
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


def _open_verified(held: Held) -> int:
    """Open a file that was found just now; one in place only as it was verified. Raises OSError."""
    if held.stamp is None:
        return os.open(held.name, os.O_RDONLY | os.O_CLOEXEC)
    return open_same(held.path, held.stamp)


def _open_new(folder: str) -> tuple[str, int]:
    """Open a new read-only file in `folder`, which is made if it is missing; returns its path and descriptor."""
    temporary = new_name(folder)
    try:
        file = os.open(temporary, NEW_FILE, 0o444)
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        file = os.open(temporary, NEW_FILE, 0o444)
    return temporary, file
