"""Open sealed repositories for whoever may read them (spec/sealing.md).

    sealed manifest ──whose key is here?──▶ RepositoryKey ──index──▶ the manifest of the files, and what each is kept as

The store keeps what was fetched as it came, so that this node can give it to others. What
is opened goes to where it was asked for, and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from p2phub.core import sealing
from p2phub.core.errors import AccessDenied, HashMismatch, InvalidData, NotFound
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.core.picklenames import Scan
from p2phub.core.sealing import OpenedFile, RepositoryKey
from p2phub.store.disk import NEW_FILE, FileWriter, disk_errors, new_name
from p2phub.store.store import Store

from .bring import bring_files
from .disk import on_disk
from .download import DownloadReport
from .events import Tell
from .identity import own_recipients
from .node import Node
from .opened import Opened
from .origins import Origins
from .rules import Scanner, scan_named

NEWS_TIMEOUT_S = 10.0  # to ask peers whether a key was given to us


class FoundKey(Struct, frozen=True):
    """The key of a sealed repository."""

    key: RepositoryKey
    is_public: bool


def find_key(node: Node, revision: ManifestId, manifest: Manifest) -> FoundKey | None:
    """Return the key of a sealed revision: one that everybody has, or one that was wrapped for this home."""
    assert manifest.sealed
    publishers = {namespace for namespace, _ in node.store.catalogue.publishers_of(revision)}
    return find_key_called(node, manifest.sealed.key, publishers)


def find_key_called(node: Node, identifier: bytes, publishers: Collection[NamespaceId]) -> FoundKey | None:
    """Return the key called `identifier`, as far as `publishers` told it to everybody, or it was wrapped for this home.

    publishers: none for a revision that nobody here published.
    """
    told = node.store.seals.told(identifier, publishers)
    if told is not None:
        return FoundKey(told, is_public=True)
    # Those of before, too: what was sealed for them goes on to be.
    own = {key.public_key: key.private_key for key in own_recipients(node)}
    for each in node.store.seals.recipients(identifier):
        if each.wrapped.recipient in own:
            with contextlib.suppress(InvalidData):
                private = own[each.wrapped.recipient]
                key = sealing.unwrap(each.wrapped, private, identifier, each.publisher, each.model)
                return FoundKey(key, is_public=False)
    return None


def sealing_key(node: Node, namespace: NamespaceId, model: str, branch: str) -> bytes | None:
    """Return the id of the key under which the next revision on a branch is sealed by default, None if it is open.

    As the branch's tip is; on a new branch, as the repository was last. A key that everybody has counts for nothing.
    """
    claim = node.store.catalogue.branch(namespace, model, branch)
    if claim and claim.manifest:
        tip = node.store.manifests.get(claim.manifest)
        keys = [tip.sealed.key] if tip and tip.sealed else []
    else:
        keys = node.store.seals.keys_of(namespace, model)[:1]
    return next((key for key in keys if node.store.seals.told(key, [namespace]) is None), None)


def find_opened(node: Node, revision: ManifestId, manifest: Manifest) -> Opened | None:
    """Return a sealed revision opened, None if its key is not here. Raises NotFound if its index is not."""
    known = node.opened.get(revision)
    # Who has it can keep it; but whether everybody may have it changes.
    if known is not None and known.is_public:
        return known
    found = find_key(node, revision, manifest)
    if found is None:
        return None
    if known is None:
        index = b"".join(read_opened(node.store, _index_of(manifest), found.key))
        inner, files = sealing.read_index(index, found.key, manifest)
    else:
        inner, files = known.manifest, list(known.files)
    opened = Opened(found.key, found.is_public, inner, tuple(files))
    node.opened.keep(revision, opened)
    return opened


async def open_sealed(
    node: Node,
    revision: ManifestId,
    manifest: Manifest,
    tell: Tell,
    *,
    origins: Origins | None = None,
    refresh: bool = False,
) -> tuple[Opened | None, DownloadReport]:
    """Return a sealed revision opened, its index fetched if need be, and how that went; None if its key is not here.

    refresh: ask peers for news if the key is not here.
    Raises as `bring_files` does.
    """
    found = await on_disk(find_key, node, revision, manifest)
    if found is None and refresh and not node.settings.offline:
        # The key may have been given to us since.
        from .syncing import ask_for_news  # loads all that takes records over

        await ask_for_news(node, tell, timeout_s=NEWS_TIMEOUT_S)
        found = await on_disk(find_key, node, revision, manifest)
    if found is None:
        return None, DownloadReport()
    report, _ = await bring_files(node, [sealing.index_entry(manifest)], tell, origins=origins or Origins())
    return await on_disk(find_opened, node, revision, manifest), report


async def require_opened(
    node: Node,
    revision: ManifestId,
    manifest: Manifest,
    tell: Tell,
    *,
    origins: Origins | None = None,
    refresh: bool = False,
) -> tuple[Opened, DownloadReport]:
    """Do what `open_sealed` does. Raises AccessDenied if this home may not open it."""
    opened, report = await open_sealed(node, revision, manifest, tell, origins=origins, refresh=refresh)
    if opened is None:
        raise await on_disk(not_for_us, node, revision, manifest)
    return opened, report


def not_for_us(node: Node, revision: ManifestId, manifest: Manifest) -> AccessDenied:
    """Return the error for whoever has no key of a sealed revision."""
    assert manifest.sealed
    names = sorted({str(each.wrapped.namespace) for each in node.store.seals.recipients(manifest.sealed.key)})
    whom = ", ".join(f"{name[:12]}…" for name in names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
    return AccessDenied(
        f"this is sealed{f', for {whom}' if names else ''}: there is no key here that opens it",
        hint="`p2phub id` shows who you are; `fetch --sealed` keeps it for others, unread",
    )


def read_opened(store: Store, each: OpenedFile, key: RepositoryKey) -> Iterator[bytes]:
    """Give the bytes of a sealed file that is whole in the store, opened, chunk by chunk.

    Raises NotFound if it is not, InvalidData if a chunk is not what was sealed there, and HashMismatch at the end if
    all of it is not the file that the index names.
    """
    readable = store.readables.open(each.sealed.root)
    if readable is None:
        raise NotFound(f"{each.file.path or 'the index'} is not in the store")
    try:
        if readable.chunks is not None:
            raise NotFound(f"{each.file.path or 'the index'} is not whole in the store")
        file = key.file(each.file_id, each.file.size)
        whole = sha256()
        step = sealing.CHUNK_SIZE + sealing.TAG_SIZE
        for index in range(file.count):
            with disk_errors(readable.name):
                data = os.pread(readable.file, file.length(index) + sealing.TAG_SIZE, index * step)
            opened = file.open(index, data)
            whole.update(opened)
            yield opened
        # The index is named by what it holds already.
        if each.file.path and whole.digest() != each.file.sha256:
            raise HashMismatch(f"{each.file.path} was sealed as another file than its publisher says")
    finally:
        os.close(readable.file)


def _index_of(manifest: Manifest) -> OpenedFile:
    """Return the index of a sealed manifest as a file that can be opened."""
    assert manifest.sealed
    entry = sealing.index_entry(manifest)
    plain = FileEntry("", sealing.opened_size(entry.size), entry.root, bytes(32), "other", "fixed-1m")
    return OpenedFile(plain, entry, manifest.sealed.index)


def scan_opened(store: Store, opened: Opened) -> Scanner:
    """Return what looks into the files of an opened repository."""
    known = {each.file.path: each for each in opened.files}

    def scan_one(file: FileEntry) -> Scan:
        reader = OpenedReader(store, known[file.path], opened.key)
        try:
            # Never by what is known of its root: that is only what the index says.
            return scan_named(file.path, reader, lambda look: look())
        finally:
            reader.close()

    return lambda files: [scan_one(file) for file in files]


class OpenedReader:
    """A sealed file that is whole in the store, read at any place as what it is opened."""

    def __init__(self, store: Store, each: OpenedFile, key: RepositoryKey) -> None:
        """Raises NotFound if it is not whole in the store."""
        readable = store.readables.open(each.sealed.root)
        if readable is None or readable.chunks is not None:
            if readable is not None:
                os.close(readable.file)
            raise NotFound(f"{each.file.path} is not whole in the store")
        self.size = each.file.size
        self._readable = readable
        self._file = key.file(each.file_id, each.file.size)

    def read(self, offset: int, size: int) -> bytes:
        """Return some bytes from `offset` on, at least one before the end. Raises InvalidData."""
        if size <= 0 or offset >= self.size:
            return b""
        index, skip = divmod(offset, sealing.CHUNK_SIZE)
        with disk_errors(self._readable.name):
            place = index * (sealing.CHUNK_SIZE + sealing.TAG_SIZE)
            data = os.pread(self._readable.file, self._file.length(index) + sealing.TAG_SIZE, place)
        return self._file.open(index, data)[skip : skip + size]

    def close(self) -> None:
        os.close(self._readable.file)


class OpenedContents:
    """The files of an opened repository, as `check_out` places them: decrypted, each a copy of its own."""

    def __init__(self, store: Store, opened: Opened) -> None:
        self._store = store
        self._opened = opened
        self._known = {each.file.path: each for each in opened.files}

    def find(self, files: Sequence[FileEntry]) -> None:
        """Nothing is to be looked up beforehand."""

    def stands(self, file: FileEntry, target: Path) -> bool:
        """Say whether `target` holds `file` already."""
        try:
            if target.stat().st_size != file.size:
                return False
            with open(target, "rb") as source:
                whole = sha256()
                while block := source.read(1024 * 1024):
                    whole.update(block)
        except OSError:
            return False
        return whole.digest() == file.sha256

    def place(self, file: FileEntry, target: Path) -> str:
        """Write `file` at `target`, which is replaced once all of it was opened and is right."""
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = new_name(target.parent)
            descriptor = os.open(temporary, NEW_FILE, 0o666)
        try:
            writer, offset = FileWriter(descriptor), 0
            for data in read_opened(self._store, self._known[file.path], self._opened.key):
                with disk_errors(target):
                    writer.write(memoryview(data), offset)
                offset += len(data)
            with disk_errors(target):
                os.replace(temporary, target)
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return "opened"


def recipients_of(node: Node, key: RepositoryKey) -> dict[NamespaceId, bytes]:
    """Return for whom a key was wrapped: the newest recipient key of each."""
    found: dict[NamespaceId, bytes] = {}
    for each in node.store.seals.recipients(key.identifier):
        found.setdefault(each.wrapped.namespace, each.wrapped.recipient)
    return found
