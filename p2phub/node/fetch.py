"""Fetch a repository or a file: resolve, download what is missing, check out (spec/transfer.md §1).

reference ──▶ manifest ──▶ files that are not here ──▶ chunk lists ──▶ swarm ──▶ folder
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from pathlib import Path

from p2phub.core.choices import Kind, LinkMode
from p2phub.core.errors import InvalidData, NoSpace, NotFound, Offline
from p2phub.core.ids import ContentId, ManifestId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.store.disk import free_bytes

from .checkout import check_out, place_file
from .dedup import count_known, find_known
from .disk import on_disk
from .download import DownloadReport
from .events import Tell
from .node import Node, Running
from .partials import WantedFile
from .replicate import require_peers
from .resolve import Target, load_manifest, resolve
from .results import FetchResult, ProviderSummary
from .swarm import download
from .trees import load_chunk_lists

SPACE_RESERVE = 64 * 1024 * 1024  # bytes that a download leaves free


async def fetch(
    node: Node,
    reference: str,
    tell: Tell,
    *,
    to: Path | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    link: LinkMode = "auto",
    force: bool = False,
    dry_run: bool = False,
    kind: Kind | None = None,
    check_out_files: bool = True,
    background: bool = False,
) -> FetchResult:
    """Bring what `reference` means into the store, verified, and place it in a folder.

    to: the folder (for a single file: its path); None takes one in the store's views.
    include, exclude: glob patterns over paths, as the existing hub's clients have them.
    background: let all other traffic go first; spec/links.md §4.
    Raises NotFound, Offline, Conflict, NoSpace, StoreError.
    """
    target = await resolve(node, reference, tell, refresh=True)
    if target.manifest is None:
        return await _fetch_file(
            node, target, tell, to=to, link=link, force=force, dry_run=dry_run, background=background
        )
    manifest = await load_manifest(node, target.manifest, tell)
    if kind is not None and manifest.kind != kind:
        raise NotFound(f"{reference} is a {manifest.kind}, not a {kind}")
    files = select(manifest, include, exclude)
    report, here_before = await fetch_files(node, files, tell, dry_run=dry_run, background=background)
    folder, linked = None, None
    if not dry_run and check_out_files:
        folder = to or _view(node, target, target.manifest)
        linked = await on_disk(check_out, node.store, folder, target.manifest, files, link, force=force)
    return FetchResult(
        reference=reference,
        revision=str(target.manifest),
        path=str(folder) if folder else None,
        files=len(files),
        size=sum(file.size for file in files),
        here_before=here_before,
        copied=report.copied,
        received=report.received,
        duplicates=report.duplicates,
        seconds=report.seconds,
        linked=linked,
        providers=_providers(report),
        dry_run=dry_run,
    )


def select(manifest: Manifest, include: Sequence[str], exclude: Sequence[str]) -> list[FileEntry]:
    """Return the files that match a pattern of `include` (all, if there is none) and none of `exclude`.

    Raises NotFound if that leaves nothing.
    """

    def matches(path: str, patterns: Sequence[str]) -> bool:
        # A pattern that ends in a slash means the folder.
        whole = (pattern + "*" if pattern.endswith("/") else pattern for pattern in patterns)
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in whole)

    files = [
        file
        for file in manifest.files
        if (not include or matches(file.path, include)) and not matches(file.path, exclude)
    ]
    if not files:
        raise NotFound("no file matches the patterns", hint="`p2phub ls` shows the files")
    return files


async def fetch_files(
    node: Node, files: Sequence[FileEntry], tell: Tell, *, dry_run: bool = False, background: bool = False
) -> tuple[DownloadReport, int]:
    """Bring the content of `files` into the store; returns how it went, and the bytes that were here before."""
    sizes = {file.root: file.size for file in files}
    missing = await on_disk(_missing, node, sizes)
    here = sum(file.size for file in files if file.root not in missing)
    if not missing:
        return DownloadReport(), here
    if node.settings.offline:
        raise Offline(f"{len(missing)} of {len(sizes)} files are not here, and the network is switched off")
    await require_peers(node)
    if dry_run:
        return await _foresee(node, missing, tell), here + await _in_partials(node, missing)
    report = await _bring(node, missing, sizes, tell, background=background)
    return report, here + report.here_before


async def _bring(
    node: Node, roots: Sequence[ContentId], sizes: dict[ContentId, int], tell: Tell, *, background: bool
) -> DownloadReport:
    """Download `roots`; what another task of this node downloads already is waited for."""
    report = DownloadReport()
    missing = list(roots)
    while missing:
        mine = [root for root in missing if root not in node.downloads]
        if mine:
            report = _sum(report, await _download(node, mine, sizes, tell, background=background))
        else:
            # What the other task brings is ours too. If it fails, the next turn tries it here.
            other = node.downloads[missing[0]]
            other.background = other.background and background
            await other.done.wait()
        missing = await on_disk(_missing, node, missing)
        if set(missing) & set(mine):
            raise InvalidData(f"{missing[0]} was fetched and is not in the store")
    return report


def _sum(first: DownloadReport, then: DownloadReport) -> DownloadReport:
    return DownloadReport(
        received=first.received + then.received,
        duplicates=first.duplicates + then.duplicates,
        here_before=first.here_before + then.here_before,
        copied=first.copied + then.copied,
        seconds=first.seconds + then.seconds,
        providers=first.providers + then.providers,
    )


def _missing(node: Node, roots: Iterable[ContentId]) -> list[ContentId]:
    return [root for root in roots if not node.store.blobs.find(root)]


async def _download(
    node: Node, roots: Sequence[ContentId], sizes: dict[ContentId, int], tell: Tell, *, background: bool
) -> DownloadReport:
    running = Running(background)
    node.downloads.update(dict.fromkeys(roots, running))
    try:
        chunk_lists = await load_chunk_lists(node, roots, tell)
        for root, chunks in chunk_lists.items():
            if root in sizes and sizes[root] != chunks.size:
                raise InvalidData(f"the manifest says {root} has {sizes[root]} bytes, and it has {chunks.size}")
        await _check_space(node, roots, sum(chunks.size for chunks in chunk_lists.values()))
        return await download(node, [WantedFile(root, chunk_lists[root]) for root in roots], running, tell)
    finally:
        for root in roots:
            node.downloads.pop(root, None)
        running.done.set()


async def _foresee(node: Node, roots: Sequence[ContentId], tell: Tell) -> DownloadReport:
    """Return what a download of `roots` would copy from other files here."""
    found = await load_chunk_lists(node, roots, tell)
    lists = [found[root] for root in roots]

    def count() -> int:
        held = [node.store.blobs.held_map(root) for root in roots]
        have = [
            bytearray(len(chunks)) if isinstance(flags, bool) else bytearray(flags)
            for chunks, flags in zip(lists, held, strict=True)
        ]
        return count_known(lists, have, find_known(node.store.blobs, lists, have))

    return DownloadReport(copied=await on_disk(count))


async def _check_space(node: Node, roots: Sequence[ContentId], size: int) -> None:
    needed = size - await _in_partials(node, roots)
    free = await on_disk(free_bytes, node.settings.layout.store)
    if needed + SPACE_RESERVE > free:
        raise NoSpace(
            f"{needed} bytes are to be fetched and {free} are free on {node.settings.layout.store}",
            path=str(node.settings.layout.store),
            hint="`p2phub store gc` frees what nothing needs; P2PHUB_STORE can lie on another disk",
        )


async def _in_partials(node: Node, roots: Sequence[ContentId]) -> int:
    """Return how many bytes of the files earlier downloads left here."""

    def count() -> int:
        total = 0
        for root in roots:
            chunks = node.store.blobs.chunk_list(root)
            held = node.store.blobs.held_map(root)
            if chunks and not isinstance(held, bool):
                total += sum(chunks.length(index) for index, here in enumerate(held) if here)
        return total

    return await on_disk(count)


async def _fetch_file(
    node: Node,
    target: Target,
    tell: Tell,
    *,
    to: Path | None,
    link: LinkMode,
    force: bool,
    dry_run: bool,
    background: bool,
) -> FetchResult:
    """Fetch a single file by its hash alone."""
    root = target.file
    assert root is not None
    held = await on_disk(node.store.blobs.find, root)
    report = DownloadReport()
    if held is None:
        if node.settings.offline:
            raise Offline(f"{root} is not here, and the network is switched off")
        await require_peers(node)
        chunks = (await load_chunk_lists(node, [root], tell))[root]
        size = chunks.size
        if not dry_run:
            report = await _bring(node, [root], {}, tell, background=background)
    else:
        size = held.size
    path, linked = None, None
    if not dry_run:
        found = await on_disk(node.store.blobs.find, root)
        path = to or (found.path if found else None)
        if to is not None:
            linked = await on_disk(place_file, node.store, root, to, link, force=force)
    return FetchResult(
        reference=target.reference,
        revision=None,
        path=str(path) if path else None,
        files=1,
        size=size,
        here_before=size if held else report.here_before,
        copied=report.copied,
        received=report.received,
        duplicates=report.duplicates,
        seconds=report.seconds,
        linked=linked,
        providers=_providers(report),
        dry_run=dry_run,
    )


def _view(node: Node, target: Target, manifest: ManifestId) -> Path:
    namespace = str(target.namespace) if target.namespace else "b3"
    return node.settings.layout.view(namespace, target.model or manifest.hex()[:12], manifest)


def _providers(report: DownloadReport) -> list[ProviderSummary]:
    return [
        ProviderSummary(provider.name, provider.received, provider.rate, provider.state, provider.reason)
        for provider in report.providers
    ]
