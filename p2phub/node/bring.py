"""Bring content into the store: what is missing of it, from peers and origins (spec/transfer.md §1).

roots ──▶ chunk lists ──▶ swarm ──▶ objects
  └─ without a chunk list ──▶ origin, whole ─┘
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec.structs import replace

from p2phub.core.errors import InvalidData, Offline
from p2phub.core.filetree import ChunkList
from p2phub.core.ids import ContentId
from p2phub.core.manifest import FileEntry
from p2phub.store import disk

from .calling import require_peers
from .dedup import count_shareable
from .disk import on_disk
from .download import DownloadReport
from .events import Tell
from .node import Node, Running
from .origins import Origins
from .partials import WantedFile
from .swarm import download
from .trees import ask_for_chunk_lists, nobody_has
from .wholefiles import fetch_whole, find_sizes


async def bring_files(
    node: Node,
    files: Sequence[FileEntry],
    tell: Tell,
    *,
    origins: Origins,
    dry_run: bool = False,
    background: bool = False,
) -> tuple[DownloadReport, int]:
    """Bring the content of `files` into the store; returns how it went, and the bytes that were here before.

    Raises NotFound, Offline, NoSpace, StoreError.
    """
    sizes = {file.root: file.size for file in files}
    missing = await on_disk(_missing, node, sizes)
    away = set(missing)
    here = sum(file.size for file in files if file.root not in away)
    if not missing:
        return DownloadReport(), here
    if node.settings.offline:
        raise Offline(f"{len(missing)} of {len(sizes)} files are not here, and the network is switched off")
    if not origins:
        await require_peers(node)
    if dry_run:
        # Loaded only where it is wanted: a fetch must start fast.
        from .foresee import foresee

        report = await foresee(node, missing, origins, tell)
        return report, here + report.here_before
    report = await _bring(node, missing, sizes, origins, tell, Running(background))
    return report, here + report.here_before


async def bring_file(
    node: Node, root: ContentId, tell: Tell, *, origins: Origins, dry_run: bool = False, background: bool = False
) -> tuple[DownloadReport, int]:
    """Bring a single file, of which no manifest is known, into the store; returns how it went, and its size in bytes.

    Raises as `bring_files` does.
    """
    if node.settings.offline:
        raise Offline(f"{root} is not here, and the network is switched off")
    if not origins:
        await require_peers(node)
    found, reasons = await ask_for_chunk_lists(node, [root], tell)
    if root in found:
        size = found[root].size
        origins = origins.of_size(root, size)
    elif origins:
        origins = await find_sizes(root, origins)
        size = origins.size(root)
    else:
        raise nobody_has(node, [root], reasons)
    if dry_run:
        from .foresee import foresee

        return await foresee(node, [root], origins, tell), size
    report = await _bring(node, [root], {}, origins, tell, Running(background))
    held = await on_disk(node.store.blobs.find, root)
    return report, held.size if held else size


async def bring_roots(node: Node, sizes: Mapping[ContentId, int], tell: Tell) -> DownloadReport:
    """Bring single files of known sizes from peers. Raises as `bring_files` does."""
    missing = await on_disk(_missing, node, sizes)
    if not missing:
        return DownloadReport()
    await require_peers(node)
    return await _bring(node, missing, sizes, Origins(), tell, Running(False))


def check_space(node: Node, size: int) -> None:
    """Raise NoSpace unless `size` bytes can be fetched."""
    disk.check_space(node.settings.layout.store, size, "are to be fetched")


async def _bring(
    node: Node,
    roots: Sequence[ContentId],
    sizes: Mapping[ContentId, int],
    origins: Origins,
    tell: Tell,
    running: Running,
) -> DownloadReport:
    """Download `roots`; what another task of this node downloads already is waited for."""
    report = DownloadReport()
    missing = list(roots)
    while missing:
        mine = [root for root in missing if root not in node.downloads]
        if mine:
            report = _sum(report, await _download(node, mine, sizes, origins, tell, running))
            running = Running(running.background)
        else:
            # What the other task brings is ours too. If it fails, the next turn tries it here.
            other = node.downloads[missing[0]]
            # It is as urgent as the most urgent of those who wait for it.
            other.background = other.background and running.background
            await other.done.wait()
        missing = await on_disk(_missing, node, missing)
        if set(missing) & set(mine):
            raise InvalidData(f"{missing[0]} was fetched and is not in the store")
    return report


def _sum(first: DownloadReport, then: DownloadReport) -> DownloadReport:
    providers = {report.name: report for report in first.providers}
    for report in then.providers:
        before = providers.get(report.name)
        providers[report.name] = replace(report, received=report.received + (before.received if before else 0))
    return DownloadReport(
        received=first.received + then.received,
        duplicates=first.duplicates + then.duplicates,
        here_before=first.here_before + then.here_before,
        copied=first.copied + then.copied,
        shared=first.shared + then.shared,
        seconds=first.seconds + then.seconds,
        providers=list(providers.values()),
    )


def _missing(node: Node, roots: Collection[ContentId]) -> list[ContentId]:
    held = node.store.blobs.find_all(roots)
    return [root for root in roots if root not in held]


async def _download(
    node: Node,
    roots: Sequence[ContentId],
    sizes: Mapping[ContentId, int],
    origins: Origins,
    tell: Tell,
    running: Running,
) -> DownloadReport:
    node.downloads.update(dict.fromkeys(roots, running))
    try:
        lists, reasons = await ask_for_chunk_lists(node, roots, tell)
        for root, chunks in lists.items():
            if root in sizes and sizes[root] != chunks.size:
                raise InvalidData(f"the manifest says {root} has {sizes[root]} bytes, and it has {chunks.size}")
        unlisted = [root for root in roots if root not in lists]
        if any(not origins.having(root) for root in unlisted):
            raise nobody_has(node, unlisted, reasons)
        await _check_space(node, lists, sum(origins.size(root) for root in unlisted))
        report = DownloadReport()
        if lists:
            files = [WantedFile(root, lists[root]) for root in roots if root in lists]
            report = await download(node, files, running, tell, origins=origins)
        if unlisted:
            report = _sum(report, await fetch_whole(node, unlisted, origins, tell))
        return report
    finally:
        for root in roots:
            node.downloads.pop(root, None)
        running.done.set()


async def _check_space(node: Node, lists: Mapping[ContentId, ChunkList], more: int) -> None:
    """Raise NoSpace unless there is room for the files of `lists` and `more` bytes."""
    needed = sum(chunks.size for chunks in lists.values()) - await _in_partials(node, list(lists)) + more
    if not await on_disk(disk.has_room, node.settings.layout.store, needed):
        # What other files here share takes no space. Looked for only now, as mostly there is enough without.
        needed -= await on_disk(count_shareable, node.store, list(lists.values()))
        await on_disk(check_space, node, needed)


async def _in_partials(node: Node, roots: Sequence[ContentId]) -> int:
    """Return how many bytes of the files earlier downloads left here."""

    def count() -> int:
        total = 0
        for root in node.store.partials.begun(roots):
            chunks = node.store.chunk_lists.find(root)
            held = node.store.readables.held_map(root)
            if chunks and not isinstance(held, bool):
                total += sum(chunks.length(index) for index, here in enumerate(held) if here)
        return total

    return await on_disk(count)
