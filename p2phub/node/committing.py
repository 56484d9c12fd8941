"""Change some files of a repository of one's own and publish the outcome (spec/hub-api.md §8).

Files that stay are taken over from the tip of the branch by their entries; their bytes
are not read again, and need not be here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from p2phub.core import manifest as manifests
from p2phub.core.choices import Kind, Visibility
from p2phub.core.errors import Conflict, InvalidData, NotFound
from p2phub.core.ids import ManifestId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.core.paths import check_paths

from .catchup import ready_to_publish
from .describing import describe_files, role_of
from .disk import from_thread, on_disk
from .events import Tell
from .ingesting import ingest_sources
from .node import Node
from .opening import sealing_key
from .releasing import Destination, TipMoved, check_follows, destination_of, keep_manifest, release
from .resolve import load_manifest
from .sources import SourceFile, refuse_keys, refuse_leaks


@dataclass(frozen=True)
class Put:
    """A file that is new or has new content: one that was uploaded, or one that is here already."""

    path: str
    sha256: bytes
    size: int  # bytes; -1: whatever the upload has


@dataclass(frozen=True)
class Delete:
    """A file that goes, or a folder with all that is in it."""

    path: str
    is_folder: bool = False


Change = Put | Delete


async def commit(
    node: Node,
    model: str,
    kind: Kind,
    branch: str,
    changes: Sequence[Change],
    tell: Tell,
    *,
    message: str = "",
    is_parent: Callable[[ManifestId | None], bool] = lambda tip: True,
    visibility: Visibility | None = None,
) -> ManifestId:
    """Publish the tip of `branch` with `changes` made to it, as the new tip; returns its revision.

    is_parent: says whether the changes were made for this tip; they are made to another one too, if it is published
    meanwhile and this says yes to it. visibility: None for what the repository has.
    Raises Conflict if the tip is another, or if the name is of another kind or visibility; NotFound for a file
    that is not there or was not uploaded;
    InvalidData if what comes out is no manifest, or a file holds keys.
    """
    identity, _ = await ready_to_publish(node, tell)
    destination = await on_disk(destination_of, node, identity.namespace, model, kind, branch, visibility)
    while True:
        try:
            return await _commit_next(node, destination, changes, tell, message, is_parent)
        except TipMoved:
            continue


async def _commit_next(
    node: Node,
    destination: Destination,
    changes: Sequence[Change],
    tell: Tell,
    message: str,
    is_parent: Callable[[ManifestId | None], bool],
) -> ManifestId:
    """Do what `commit` does. Raises TipMoved if something was published to the branch meanwhile."""
    namespace, model, kind, branch = destination.namespace, destination.model, destination.kind, destination.branch
    claim = await on_disk(node.store.catalogue.branch, namespace, model, branch)
    tip = claim.manifest if claim else None
    if not is_parent(tip):
        raise Conflict(f"{branch} of {model} has moved on: it is {tip or 'empty'} now")
    before = await load_manifest(node, tip, tell) if tip else None
    is_closed = await on_disk(sealing_key, node, namespace, model, branch) is not None
    if is_closed or (before is not None and before.sealed is not None):
        raise Conflict(
            f"{branch} of {model} is sealed: what changes is published as a whole", hint=f"p2phub publish DIR {model}"
        )
    kept = _kept(before, changes)
    sources, taken = await on_disk(_find_sources, node, before, kind, changes)
    paths = sorted({*kept, *taken, *(source.path for source in sources)})
    check_paths(paths)
    new, _ = await ingest_sources(
        node, sources, tell, in_place=False, profile=None, kind=kind, only_in=destination.only_in
    )
    entries = sorted({**kept, **taken, **{entry.path: entry for entry in new}}.values(), key=lambda entry: entry.path)
    # Before anything is signed: what was published must not be lost.
    await on_disk(node.store.blobs.sync)
    readable = await on_disk(_readable, node, entries)
    # What these servers have of the new files, they keep on having; of the others they are asked in vain.
    origin_urls = before.origin_urls if before else ()
    manifest = await on_disk(describe_files, node, destination, readable, entries, origin_urls, from_thread(tell))
    if before is not None and len(readable) < len(entries) and manifest.facts is None:
        manifest = msgspec.structs.replace(manifest, facts=before.facts)
    # It follows what is the tip now, and the changes were made to what was it before.
    check_follows(tip, manifest, manifests.manifest_id(manifests.encode(manifest)))
    revision = await on_disk(keep_manifest, node, destination, manifest, None)
    await release(node, destination, manifest, revision, version=None, message=message)
    return revision


async def publish_revision(
    node: Node, model: str, branch: str, revision: ManifestId, tell: Tell, *, version: str | None, message: str = "",
    visibility: Visibility | None = None,
) -> None:  # fmt: skip
    """Publish a revision that is known already: as the tip of `branch` of one's own `model`, and perhaps as a version.

    visibility: None for what the repository has. Raises Conflict if the version stands for another one, or the name is
    of another kind or for others.
    """
    identity, _ = await ready_to_publish(node, tell)
    manifest = await load_manifest(node, revision, tell)
    destination = await on_disk(destination_of, node, identity.namespace, model, manifest.kind, branch, visibility)
    await on_disk(node.store.keeping.pin, revision, "published")
    # It is put there, whatever is.
    await release(node, destination, manifest, revision, version=version, message=message, is_next=False)


def _kept(before: Manifest | None, changes: Sequence[Change]) -> dict[str, FileEntry]:
    """Return the entries of the tip that stay, by path. Raises NotFound for what cannot be deleted."""
    kept = {file.path: file for file in before.files} if before else {}
    for change in changes:
        if not isinstance(change, Delete):
            continue
        prefix = change.path.rstrip("/") + "/"
        gone = [path for path in kept if (path.startswith(prefix) if change.is_folder else path == change.path)]
        if not gone:
            raise NotFound(f"there is no {'folder' if change.is_folder else 'file'} {change.path} to delete")
        for path in gone:
            del kept[path]
    return kept


def _find_sources(
    node: Node, before: Manifest | None, kind: Kind, changes: Sequence[Change]
) -> tuple[list[SourceFile], dict[str, FileEntry]]:
    """Return the files to take in, sorted by path, and the entries of those that the tip has under another name."""
    same = {(file.sha256, file.size): file for file in before.files} if before else {}
    sources: dict[str, SourceFile] = {}
    taken: dict[str, FileEntry] = {}
    for change in changes:
        if not isinstance(change, Put):
            continue
        sources.pop(change.path, None)
        taken.pop(change.path, None)
        if known := same.get((change.sha256, change.size)):
            taken[change.path] = msgspec.structs.replace(known, path=change.path, role=role_of(change.path, kind))
            continue
        location = upload = node.store.uploads.find(change.sha256)
        if location is None:
            held = node.store.blobs.find_sha256(change.sha256)
            location = held.path if held else None
        if location is None:
            raise NotFound(f"{change.path} was not uploaded: nothing here has SHA-256 {change.sha256.hex()}")
        size = location.stat().st_size
        if change.size not in (-1, size):
            raise NotFound(f"{change.path} was uploaded with {size} bytes, not {change.size}")
        source = SourceFile(change.path, location, size)
        try:
            refuse_keys(source)
            refuse_leaks([source], allow_secrets=True)
        except InvalidData:
            if upload is not None:
                # All who read the store would find it there.
                upload.unlink(missing_ok=True)
            raise
        sources[change.path] = source
    return sorted(sources.values(), key=lambda source: source.path), taken


def _readable(node: Node, entries: Sequence[FileEntry]) -> list[SourceFile]:
    """Return those of the files that are here: what their headers say becomes part of the manifest."""
    found = []
    for entry in entries:
        held = node.store.blobs.find(entry.root)
        if held is not None:
            found.append(SourceFile(entry.path, held.path, held.size))
    return found


def uploads_of(node: Node, changes: Sequence[Change]) -> list[Path]:
    """Return the uploaded files that `changes` used, which are objects of the store now."""
    found = [node.store.uploads.find(change.sha256) for change in changes if isinstance(change, Put)]
    return [path for path in found if path is not None]
