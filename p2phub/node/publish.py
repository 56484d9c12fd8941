"""Publish a folder: files become content, content a manifest, which is released (spec/store.md §2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from p2phub.core.choices import DEFAULT_BRANCH, Kind, Profile, Visibility
from p2phub.core.errors import InvalidData, InvalidName
from p2phub.core.ids import ManifestId
from p2phub.core.manifest import Manifest
from p2phub.core.origins import ORIGIN_URLS_MAX, check_published
from p2phub.core.records import Entry
from p2phub.store.ownfiles import OwnFiles

from .catchup import ready_to_publish
from .describing import describe_files
from .disk import from_thread, on_disk
from .events import Tell
from .ingesting import ingest_sources
from .node import Node
from .operations.content import PublishResult
from .ownnames import own_version
from .releasing import Destination, TipMoved, destination_of, keep_manifest, release
from .sealing import Begun, Sealing, choose_sealing, publish_seal, seal_sources
from .sources import SourceFile, find_files, refuse_leaks


async def publish(
    node: Node,
    folder: Path,
    name: str,
    tell: Tell,
    *,
    branch: str = DEFAULT_BRANCH,
    message: str = "",
    in_place: bool = False,
    profile: Profile | None = None,
    kind: Kind = "model",
    origin_urls: Sequence[str] = (),
    sealed: bool = False,
    sealed_for: Sequence[str] = (),
    is_open: bool = False,
    visibility: Visibility | None = None,
    allow_secrets: bool = False,
) -> PublishResult:
    """Publish the files of `folder` as `name` (`MODEL` or `MODEL@VERSION`, in one's own namespace).

    sealed, sealed_for: so that keepers cannot read it, but the publisher and who is named can; else as the tip is.
    is_open: let everybody read it, though the tip is sealed.
    origin_urls: where else the files can be fetched; if there are none and the files did not change, those
    of the branch's tip stay. visibility: None for what the repository has, or public.
    allow_secrets: publish private keys that are no keys of p2phub, as of a data set about them.
    Raises Conflict if the version exists with other content, or the repository is for others, StoreError if a file
    cannot be read or changes meanwhile, InvalidData if a path cannot be published.
    """
    _check_origins(origin_urls)
    identity, _ = await ready_to_publish(node, tell)
    model, version = await own_version(node, name, identity.namespace)
    destination = await on_disk(destination_of, node, identity.namespace, model, kind, branch, visibility)
    sources = await on_disk(_sources, node, folder, from_thread(tell), allow_secrets)
    taken, begun = None, Begun()
    while True:
        seal = None
        if not is_open:
            seal = await choose_sealing(node, identity, model, branch, tell, sealed=sealed, sealed_for=sealed_for)
        if seal and (in_place or origin_urls):
            raise InvalidName("what is sealed is another file than lies in the folder or at an origin")
        if seal:
            manifest, written = await seal_sources(
                node, destination, sources, seal.key, tell, profile=profile, begun=begun
            )
        else:
            if taken is None:
                taken = await ingest_sources(
                    node, sources, tell, in_place=in_place, profile=profile, kind=kind, only_in=destination.only_in
                )
            entries, written = taken
            manifest = await on_disk(
                describe_files, node, destination, sources, entries, origin_urls, from_thread(tell)
            )
        try:
            revision, entry = await _release(node, destination, manifest, seal, version, message)
            break
        except TipMoved:
            continue  # what was published meanwhile is what this follows
    return PublishResult(
        namespace=str(identity.namespace),
        model=model,
        version=version,
        branch=branch,
        revision=str(revision),
        files=len(sources),
        size=manifest.size,
        written=written,
        new=entry is not None,
        log_index=entry.record.index if entry else None,
        sealed=seal is not None,
        visibility=destination.visibility,
    )


async def _release(
    node: Node, destination: Destination, manifest: Manifest, seal: Sealing | None, version: str | None, message: str
) -> tuple[ManifestId, Entry | None]:
    """Keep a manifest and release it; returns its id, and the record if one was signed. Raises as `release` does."""
    # Before anything is signed: what was published must not be lost.
    await on_disk(node.store.blobs.sync)
    revision = await on_disk(keep_manifest, node, destination, manifest, version)
    if seal:
        # Before the release, so that nobody finds it and cannot open it.
        await publish_seal(node, destination.namespace, destination.model, seal, visibility=destination.visibility)
    return revision, await release(node, destination, manifest, revision, version=version, message=message)


def _sources(node: Node, folder: Path, tell: Tell, allow_secrets: bool) -> list[SourceFile]:
    """Return the files to publish of `folder`, looked through for keys.

    Raises as `find_files` and `refuse_leaks` do.
    """
    sources = find_files(folder, OwnFiles(node.store.layout), tell)
    refuse_leaks(sources, allow_secrets)
    return sources


def _check_origins(urls: Sequence[str]) -> None:
    """Raise InvalidName unless a manifest may name these origins."""
    if len(urls) > ORIGIN_URLS_MAX:
        raise InvalidName(f"{len(urls)} origins are too many, the limit is {ORIGIN_URLS_MAX}")
    if len(set(urls)) != len(urls):
        raise InvalidName("an origin is named twice")
    for url in urls:
        try:
            check_published(url)
        except InvalidData as exc:
            raise InvalidName(str(exc)) from exc
