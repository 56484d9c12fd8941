"""What the store holds, what may go, and what must stay (spec/store.md §7)."""

from __future__ import annotations

import shutil
import time

from p2phub.core.errors import Conflict, NotFound
from p2phub.core.ids import ContentId, ManifestId
from p2phub.store.disk import disk_errors, free_bytes

from .disk import on_disk
from .events import Notice, Tell, ignore
from .identity import own_namespace
from .node import Node
from .operations.storage import DiskUse, Freed, StoredRepository
from .pledging import pledged_manifests
from .resolve import resolve

IN_USE_S = 600  # seconds without a new chunk until a partial counts as given up
GC_AGE_S = 24 * 3600  # seconds that something nobody needs is left alone: a command may be about to need it


async def list_repositories(node: Node) -> list[StoredRepository]:
    """Return the manifests of which anything is in the store."""

    def look() -> list[StoredRepository]:
        pins = kept_manifests(node)
        found = []
        for identifier in node.store.manifests.all():
            manifest = node.store.manifests.get(identifier)
            if manifest is None:
                continue
            here = sum(file.size for file in manifest.files if node.store.blobs.find(file.root))
            names = [f"{namespace}/{model}" for namespace, model in node.store.catalogue.publishers_of(identifier)]
            found.append(
                StoredRepository(str(identifier), names, manifest.kind, manifest.size, here, pins.get(identifier))
            )
        return found

    return await on_disk(look)


async def pin(node: Node, reference: str, tell: Tell) -> ManifestId:
    """Keep what `reference` means until it is unpinned; returns the revision."""
    manifest = await _manifest_of(node, reference, tell)
    await on_disk(node.store.keeping.pin, manifest, "kept")
    return manifest


async def unpin(node: Node, reference: str, tell: Tell) -> ManifestId:
    """Take a pin back. Raises NotFound if there is none."""
    manifest = await _manifest_of(node, reference, tell)
    if not await on_disk(node.store.keeping.unpin, manifest):
        if manifest in await on_disk(pledged_manifests, node):
            raise Conflict(
                f"{reference} is kept because this node pledged to", hint="`p2phub pledge rm` takes a pledge back"
            )
        raise NotFound(f"{reference} is not pinned", hint="`p2phub store ls` shows what is")
    return manifest


async def remove(node: Node, reference: str, tell: Tell) -> Freed:
    """Remove a repository's files from the store, as far as no other one needs them.

    Raises Conflict if it is pinned.
    """
    manifest = await _manifest_of(node, reference, tell)

    def work() -> Freed:
        if manifest in node.store.keeping.pins():
            raise Conflict(f"{reference} is pinned", hint=f"p2phub store unpin {reference}")
        if manifest in kept_manifests(node):
            raise Conflict(f"{reference} is pledged", hint="`p2phub pledge rm` takes a pledge back")
        _remove_views(node, manifest)
        known = node.store.manifests.get(manifest)
        roots = {file.root for file in known.files} if known else set()
        node.store.manifests.remove(manifest)
        freed = [node.store.clearing.remove(root) for root in roots - node.store.manifests.needed_content()]
        return Freed(len(freed), sum(freed))

    return await on_disk(work)


async def collect_garbage(node: Node, *, unpinned: bool, tell: Tell = ignore) -> Freed:
    """Remove content that no manifest here needs; with `unpinned`, also what nobody pinned.

    What no manifest named and changed within a day stays: somebody may be fetching or publishing it.
    """

    def work() -> tuple[Freed, list[str]]:
        count = size = 0
        dropped: set[ContentId] = set()
        kept = []
        if unpinned:
            pins = kept_manifests(node)
            fetched = _being_fetched(node)
            for manifest in node.store.manifests.all():
                if manifest in pins:
                    continue
                known = node.store.manifests.get(manifest)
                roots = {file.root for file in known.files} if known else set()
                if roots & fetched:
                    kept.append(f"{manifest} is being fetched")
                    continue
                dropped |= roots
                _remove_views(node, manifest)
                node.store.manifests.remove(manifest)
        needed = node.store.manifests.needed_content()
        for root in node.store.clearing.roots():
            age_s = time.time() - node.store.clearing.last_change(root)
            if root in needed or root in node.downloads:
                continue
            if age_s < GC_AGE_S and root not in dropped:
                kept.append(f"{root} is needed by nothing, and changed less than a day ago")
                continue
            size += node.store.clearing.remove(root)
            count += 1
        # What a command that was killed had begun to write.
        size += node.store.clearing.remove_leftovers(age_s=GC_AGE_S)
        size += node.store.uploads.remove_old(age_s=GC_AGE_S)
        size += node.store.parts.remove_old(age_s=GC_AGE_S)
        size += sum(node.store.logs.compact(time.time()))
        return Freed(count, size), kept

    freed, kept = await on_disk(work)
    for line in kept:
        tell(Notice(line))
    return freed


async def disk_use(node: Node) -> DiskUse:
    """Return how much the store takes on disk."""

    def work() -> DiskUse:
        layout = node.settings.layout

        def measure(folder: str, pattern: str) -> tuple[int, int]:
            count = size = 0
            for path in (layout.store / folder).glob(pattern):
                with disk_errors(path):
                    size += path.stat().st_blocks * 512
                count += 1
            return count, size

        objects, objects_bytes = measure("objects", "??/*")
        partials, partials_bytes = measure("partial", "??/*.data")
        in_place, in_place_bytes = node.store.blobs.in_place()
        return DiskUse(
            store=str(layout.store),
            objects=objects,
            objects_bytes=objects_bytes,
            partials=partials,
            partials_bytes=partials_bytes,
            in_place=in_place,
            in_place_bytes=in_place_bytes,
            index_bytes=layout.index.stat().st_size,
            free_bytes=free_bytes(layout.store),
        )

    return await on_disk(work)


def kept_manifests(node: Node) -> dict[ManifestId, str]:
    """Return the manifests that stay, and why: those that are pinned, and those that this node pledged to keep."""
    return {**dict.fromkeys(pledged_manifests(node), "pledged"), **node.store.keeping.pins()}


def pin_published(node: Node) -> None:
    """Pin all that this home published, as publishing did: pins are lost with the index."""
    own = own_namespace(node)
    for manifest in node.store.manifests.all():
        if own and own in {namespace for namespace, _ in node.store.catalogue.publishers_of(manifest)}:
            node.store.keeping.pin(manifest, "published")


def _being_fetched(node: Node) -> set[ContentId]:
    """Return the files that this process downloads, or another one did within the last minutes."""
    now = time.time()
    return set(node.downloads) | {
        root
        for root in node.store.clearing.roots()
        if node.settings.layout.partial(root).exists() and now - node.store.clearing.last_change(root) < IN_USE_S
    }


def _remove_views(node: Node, manifest: ManifestId) -> None:
    """Delete the folders that the store made for `manifest`; folders of the user's choice stay."""
    for folder in node.store.keeping.views_of(manifest):
        if node.settings.layout.store / "views" in folder.parents:
            shutil.rmtree(folder, ignore_errors=True)
        node.store.keeping.forget_view(folder)


async def _manifest_of(node: Node, reference: str, tell: Tell) -> ManifestId:
    target = await resolve(node, reference, tell, refresh=False)
    if target.manifest is None:
        raise NotFound(f"{reference} is no manifest that is known here")
    return target.manifest
