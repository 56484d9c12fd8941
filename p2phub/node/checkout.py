"""Put the files of a manifest into a folder, sharing the bytes of the store (spec/store.md §4)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from p2phub.core.choices import LinkMode
from p2phub.core.errors import Conflict, NotFound, StoreError
from p2phub.core.ids import ContentId, ManifestId
from p2phub.core.manifest import FileEntry
from p2phub.store.blobs import Held
from p2phub.store.disk import disk_errors
from p2phub.store.ingest import Stamp, find_bad_chunks
from p2phub.store.links import Placer
from p2phub.store.ownfiles import OwnFiles
from p2phub.store.store import Store


class Contents(Protocol):
    """Where the bytes of files come from, and how they get to a path."""

    def find(self, files: Sequence[FileEntry]) -> None:
        """Look up what is known of `files`, before any of them is placed."""

    def stands(self, file: FileEntry, target: Path) -> bool:
        """Say whether `target` holds `file` already."""

    def place(self, file: FileEntry, target: Path) -> str:
        """Put `file` at `target`, replacing what is there; returns how. Raises NotFound if it is not in the store."""


class StoredContents:
    """Files of the store as they are."""

    def __init__(self, store: Store, mode: LinkMode) -> None:
        self._store = store
        self._placer = Placer(mode)
        self._held: dict[ContentId, Held] = {}

    def find(self, files: Sequence[FileEntry]) -> None:
        self._held = self._store.blobs.find_all({file.root for file in files})

    def stands(self, file: FileEntry, target: Path) -> bool:
        held = self._held.get(file.root)
        try:
            status = os.stat(target)
            if held and os.path.samestat(os.stat(held.name), status):
                return True
        except OSError:
            return False
        return status.st_size == file.size and not bad_chunks(self._store, file.root, target)

    def place(self, file: FileEntry, target: Path) -> str:
        source = self._held.get(file.root)
        if source is None:
            raise NotFound(f"{file.path} is not in the store")
        return place_held(self._store, self._placer, source, target)


def check_out(
    store: Store, folder: Path, manifest: ManifestId, files: Sequence[FileEntry], contents: Contents, *, force: bool
) -> str:
    """Put `files` of `manifest` from `contents` into `folder`; returns how ("hard", "copy", …).

    A file that stands there already is left alone if it is the same, replaced if it was
    put there by us and not changed since, and otherwise refused unless `force`.
    Raises Conflict, StoreError, InvalidData if a file would stand in the home.
    """
    _check_not_own(store, folder, files)
    # A folder is one folder, by whatever links and dots it was named.
    place_of_view = Path(os.path.realpath(folder))
    before = store.keeping.view(place_of_view)
    used: set[str] = set()
    contents.find(files)
    todo = list(files)
    stale: set[str] = set()
    # In a new folder nothing can stand in the way.
    if os.path.lexists(folder):
        todo = [file for file in files if not contents.stands(file, folder / file.path)]
        if before and before.manifest != manifest:
            stale = _stale(folder, before.files, {file.path for file in files})
        # Look before anything is written: a folder that would be refused stays as it is.
        for file in list(todo):
            try:
                _check_free(folder, file.path, before.files.get(file.path) if before else None, stale, force=force)
            except Conflict:
                # Another process may have put it there after it was looked at.
                if not contents.stands(file, folder / file.path):
                    raise
                todo.remove(file)
    # Before the rest: a file of the old revision may be a folder of the new one.
    _remove(folder, stale)
    for file in todo:
        used.add(contents.place(file, folder / file.path))
    paths = {file.path for file in files}
    if before and before.manifest == manifest:
        paths |= {path for path in before.files if (folder / path).exists()}
    store.keeping.note_view(place_of_view, manifest, sorted(paths))
    return "+".join(sorted(used)) or "kept"


def place_file(store: Store, root: ContentId, target: Path, mode: LinkMode, *, force: bool) -> str:
    """Put the single file `root` at `target`.

    Raises Conflict if something else stands there, InvalidData if that is in the home.
    """
    OwnFiles(store.layout).refuse(target)
    held = store.blobs.find(root)
    if held is None:
        raise NotFound(f"{root} is not in the store")
    if os.path.lexists(target) and not force:
        if target.exists() and not bad_chunks(store, root, target):
            return "kept"
        raise Conflict(f"{target} exists and holds something else", hint="--force replaces it")
    return place_held(store, Placer(mode), held, target)


def place_held(store: Store, placer: Placer, held: Held, target: Path) -> str:
    """Put a file of the store at `target`; returns how. Raises NotFound if it is another by now, StoreError."""
    if held.is_object:
        return placer.place(held.path, target, shared=True)
    readable = store.readables.open_found(held.root, held)
    if readable is None:
        raise NotFound(f"{held.path} is another file than it was")
    try:
        return placer.place(held.path, target, shared=False, file=readable.file)
    finally:
        os.close(readable.file)


def bad_chunks(store: Store, root: ContentId, path: Path) -> list[int]:
    """Return the chunks that the file at `path` does not hold as the file `root` should; all if it is gone."""
    chunks = store.chunk_lists.find(root)
    if chunks is None:
        raise NotFound(f"the chunk list of {root} is not here")
    if not path.exists():
        return list(range(max(1, len(chunks))))
    with disk_errors(path), open(path, "rb") as file:
        bad = find_bad_chunks(file.fileno(), chunks)
        size = os.fstat(file.fileno()).st_size
    if size != chunks.size and not bad:
        bad = [max(0, len(chunks) - 1)]
    return bad


def _check_not_own(store: Store, folder: Path, files: Sequence[FileEntry]) -> None:
    """Raise InvalidData if one of `files` in `folder` would be one of the home or the store."""
    own = OwnFiles(store.layout)
    own.refuse(folder)
    # Of the few folders alone that are around it: asking of thousands of files takes long.
    if own.is_in(folder):
        for file in files:
            own.refuse(folder / file.path)


def _check_free(folder: Path, path: str, known: Stamp | None, stale: set[str], *, force: bool) -> None:
    """Raise Conflict if something stands at `path` in `folder` that may not be replaced.

    known: how the file was when it was put there, if it was by us.
    """
    target = folder / path
    _check_inside(folder, target, stale)
    if target.is_dir() and not target.is_symlink():
        if not _holds_only(folder, target, stale):
            raise Conflict(f"{target} is a folder where a file should be")
    elif os.path.lexists(target) and not force and (known is None or known != Stamp.of(os.stat(target))):
        raise Conflict(
            f"{target} exists and holds something else", hint="--force replaces it, --to DIR uses another folder"
        )


def _check_inside(folder: Path, target: Path, stale: set[str]) -> None:
    """Refuse to write through a link that leads out of `folder`, or through a file that stays."""
    parent = target.parent
    while parent != folder:
        if parent.is_symlink() and parent.is_dir():
            raise StoreError(f"{parent} is a link; files are not written through it", path=str(parent))
        if os.path.lexists(parent) and not parent.is_dir() and parent.relative_to(folder).as_posix() not in stale:
            raise Conflict(f"{parent} is a file where a folder should be")
        parent = parent.parent


def _holds_only(folder: Path, target: Path, stale: set[str]) -> bool:
    """Say whether the folder `target` holds some of the files `stale` and nothing else."""
    held = {path.relative_to(folder).as_posix() for path in target.rglob("*") if path.is_symlink() or not path.is_dir()}
    return bool(held) and held <= stale


def _stale(folder: Path, before: dict[str, Stamp], now: set[str]) -> set[str]:
    """Return what an older revision left behind and nobody changed."""
    found = set()
    for path, stamp in before.items():
        with contextlib.suppress(OSError):
            if path not in now and Stamp.of(os.stat(folder / path)) == stamp:
                found.add(path)
    return found


def _remove(folder: Path, paths: set[str]) -> None:
    """Delete files, and the folders that become empty."""
    for path in paths:
        target = folder / path
        with contextlib.suppress(OSError):
            target.unlink()
            for parent in target.parents:
                if parent == folder:
                    break
                parent.rmdir()
