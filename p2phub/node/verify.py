"""Hash again what is here, and fetch again what is not as it should be (spec/store.md §2)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import trio

from p2phub.core.errors import NotFound
from p2phub.core.filetree import ChunkList
from p2phub.core.ids import ContentId
from p2phub.core.manifest import FileEntry
from p2phub.store.blobs import Held
from p2phub.store.links import Placer

from .bring import bring_files
from .checkout import bad_chunks, place_held
from .disk import on_disk
from .events import Progress, Tell
from .node import Node, Running
from .opened import Opened
from .opening import OpenedContents, require_opened
from .operations.checking import ByteSpan, Damage, VerifyResult
from .origins import NONE_GIVEN, GivenOrigins, Origins, of_file, of_repository
from .partials import WantedFile
from .resolve import load_manifest, resolve
from .swarm import download


async def verify(
    node: Node, reference: str, tell: Tell, *, repair: bool = False, origins: GivenOrigins = NONE_GIVEN
) -> VerifyResult:
    """Hash the files that `reference` means: a folder (absolute) that files were placed in, a repository, or a hash.

    origins: HTTP servers from which damage can be repaired, besides those that the manifest names.
    Raises NotFound if it means nothing that is here, InvalidName.
    """
    start = time.monotonic()
    origins.check()
    folder = Path(reference)
    is_folder = folder.is_absolute() and await on_disk(folder.is_dir)
    if is_folder and (view := await on_disk(lambda: node.store.keeping.view(folder.resolve()))):
        manifest = await load_manifest(node, view.manifest, tell)
        sources = of_repository(manifest.files, origins.of_repository(tell), manifest.origin_urls)
        if manifest.sealed:
            opened, _ = await require_opened(node, view.manifest, manifest, tell, origins=sources)
            files = [file for file in opened.manifest.files if file.path in view.files]
            damaged, received = await _verify_opened(node, folder, opened, files, tell, repair=repair, origins=sources)
        else:
            files = [file for file in manifest.files if file.path in view.files]
            damaged, received = await _verify_folder(node, folder, files, tell, repair=repair, origins=sources)
        revision: str | None = str(view.manifest)
    elif is_folder:
        raise NotFound(
            f"no files were placed in {folder} by p2phub", hint="name the repository instead: p2phub verify REF"
        )
    else:
        target = await resolve(node, reference, tell, refresh=False)
        if target.manifest:
            manifest = await load_manifest(node, target.manifest, tell)
            files = list(manifest.files)
            revision = str(target.manifest)
            sources = of_repository(files, origins.of_repository(tell), manifest.origin_urls)
        else:
            files, revision = [await on_disk(_single, node, target.file)], None
            sources = of_file(files[0].root, origins.of_file(tell)).of_size(files[0].root, files[0].size)
        damaged, received = await _verify_store(node, files, tell, repair=repair, origins=sources)
    return VerifyResult(
        reference=reference,
        revision=revision,
        files=len(files),
        size=sum(file.size for file in files),
        damaged=damaged,
        received=received,
        seconds=time.monotonic() - start,
    )


def spans_of(chunks: ChunkList, bad: Sequence[int]) -> list[ByteSpan]:
    """Return the bytes of the chunks `bad` (sorted indices), neighbours joined."""
    spans: list[ByteSpan] = []
    for index in bad:
        begin = chunks.offset(index)
        end = begin + (chunks.length(index) if index < len(chunks) else 0)
        if spans and spans[-1].end == begin:
            spans[-1] = ByteSpan(spans[-1].begin, end)
        else:
            spans.append(ByteSpan(begin, end))
    return spans


async def _verify_store(
    node: Node, files: Sequence[FileEntry], tell: Tell, *, repair: bool, origins: Origins
) -> tuple[list[Damage], int]:
    """Hash the content of `files` in the store."""
    meter = _Meter(sum(file.size for file in files), tell)
    damaged: list[Damage] = []
    for file in files:
        found = await on_disk(_check_held, node, file, meter)
        if found:
            damaged.append(found)
        meter.show()
    received = 0
    if repair and damaged:
        broken = {damage.path for damage in damaged}
        report, _ = await bring_files(node, [file for file in files if file.path in broken], tell, origins=origins)
        received = report.received
        damaged = [_repaired(damage) for damage in damaged]
    return damaged, received


async def _verify_folder(
    node: Node, folder: Path, files: Sequence[FileEntry], tell: Tell, *, repair: bool, origins: Origins
) -> tuple[list[Damage], int]:
    """Hash the files in `folder`; a repair fetches only the chunks that no good copy here has."""
    meter = _Meter(sum(file.size for file in files), tell)
    damaged: list[Damage] = []
    received = 0
    for file in files:
        target = folder / file.path
        bad = await on_disk(bad_chunks, node.store, file.root, target)
        meter.advance(file.size)
        meter.show()
        if not bad:
            continue
        chunks = await on_disk(node.store.chunk_lists.find, file.root)
        assert chunks is not None
        missing = not target.exists()
        damage = Damage(file.path, str(target), spans_of(chunks, bad), missing, repaired=False)
        if repair:
            # The object may be the same inode as the damaged file, or be whole.
            held = await on_disk(node.store.blobs.find, file.root)
            if held:
                await on_disk(node.store.blobs.bad_chunks, held)
            if await on_disk(node.store.blobs.find, file.root) is None:
                wanted = [WantedFile(file.root, chunks)]
                report = await download(node, wanted, Running(background=False), tell, origins=origins)
                received += report.received
            await on_disk(_place_again, node, file, target)
            damage = _repaired(damage)
        damaged.append(damage)
    return damaged, received


async def _verify_opened(
    node: Node,
    folder: Path,
    opened: Opened,
    files: Sequence[FileEntry],
    tell: Tell,
    *,
    repair: bool,
    origins: Origins,
) -> tuple[list[Damage], int]:
    """Hash the files in `folder`, which were opened there; a repair opens those that are not right again."""
    meter = _Meter(sum(file.size for file in files), tell)
    contents = OpenedContents(node.store, opened)
    damaged: list[Damage] = []
    received = 0
    for file in files:
        target = folder / file.path
        is_right = await on_disk(contents.stands, file, target)
        meter.advance(file.size)
        meter.show()
        if is_right:
            continue
        # Only the whole is known of a file that was opened.
        damage = Damage(file.path, str(target), [ByteSpan(0, file.size)], not target.exists(), repaired=False)
        if repair:
            report, _ = await bring_files(node, [each.sealed for each in opened.of([file])], tell, origins=origins)
            received += report.received
            await on_disk(contents.place, file, target)
            damage = _repaired(damage)
        damaged.append(damage)
    return damaged, received


def _place_again(node: Node, file: FileEntry, target: Path) -> None:
    held = node.store.blobs.find(file.root)
    if held is None:
        raise NotFound(f"{file.path} is not in the store")
    if not target.exists() or bad_chunks(node.store, file.root, target):
        place_held(node.store, Placer("auto"), held, target)


def _check_held(node: Node, file: FileEntry, meter: _Meter) -> Damage | None:
    held = node.store.blobs.find(file.root)
    chunks = node.store.chunk_lists.find(file.root)
    if held and chunks:
        bad = node.store.blobs.bad_chunks(held, progress=meter.advance)
        return Damage(file.path, str(held.path), spans_of(chunks, bad), False, False) if bad else None
    meter.advance(file.size)
    # An object that was found damaged, just now or before, is a partial with all its good chunks.
    have = node.store.partials.recover(file.root, chunks) if chunks else bytearray()
    if not chunks or not any(have):
        return Damage(file.path, str(node.settings.layout.object(file.root)), [ByteSpan(0, file.size)], True, False)
    bad = [index for index, here in enumerate(have) if not here]
    where = str(node.settings.layout.partial(file.root))
    return Damage(file.path, where, spans_of(chunks, bad), False, False) if bad else None


def _single(node: Node, root: ContentId | None) -> FileEntry:
    """Return an entry for a file that is known by its hash alone. Raises NotFound if nothing of it is here."""
    found: Held | ChunkList | None = node.store.blobs.find(root) if root else None
    if root and found is None and node.settings.layout.partial(root).exists():
        # An object that was found damaged is a partial.
        found = node.store.chunk_lists.find(root)
    if root is None or found is None:
        raise NotFound(f"{root} is not here")
    return FileEntry(str(root), found.size, root, bytes(32), "other", "fixed-1m")


def _repaired(damage: Damage) -> Damage:
    return Damage(damage.path, damage.location, damage.spans, damage.missing, repaired=True)


class _Meter:
    """Counts bytes in a thread and shows them from the trio task."""

    def __init__(self, total: int, tell: Tell) -> None:
        self._total = total
        self._done = 0
        self._tell = tell
        self._start = trio.current_time()

    def advance(self, size: int) -> None:
        self._done += size

    def show(self) -> None:
        elapsed = max(trio.current_time() - self._start, 1e-6)
        self._tell(Progress("verifying", self._done, self._total, rate=self._done / elapsed))
