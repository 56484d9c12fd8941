"""Bring files that another hub lists: from the site, from peers, else from the hub (spec/mirrors.md §3).

    listed hash ──here?──▶ who has it ──▶ peers, by root ──┐
                              │ nobody                     ├─▶ the listed hash? ──▶ object
                              └──▶ whose turn ──▶ the hub ─┘

Rule: nothing counts as a file of a repository that was not found to have the hash which the
hub lists, whoever sent it: peers are as little believed as the hub's own servers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from p2phub.core.choices import Profile
from p2phub.core.errors import HashMismatch, HubError, NotFound
from p2phub.core.ids import ContentId
from p2phub.core.manifest import FileEntry
from p2phub.core.upstream import Foreign, Listing, UpstreamFile, git_id_of
from p2phub.protocol.rendezvous import patience_s, waits_for
from p2phub.store.disk import disk_errors
from p2phub.store.ingest import Scan
from p2phub.store.mirrors import UpstreamContent
from p2phub.store.parts import Part
from p2phub.store.store import Store

from .bring import bring_roots, check_space
from .describing import role_of
from .disk import on_disk
from .events import Notice, Tell
from .mates import look_around, roots_of, states_of
from .node import Node
from .smallfiles import SMALL_SIZE_MAX, fetch_small
from .upstream import Arriving, ask

log = logging.getLogger(__name__)

POLL_S = 1.0  # seconds between looks at what others do with a file that is theirs to fetch
BLOCK_SIZE = 1024 * 1024  # bytes read at once


def may_share(node: Node, listing: Listing) -> bool:
    """Say whether peers may have the files of a commit, and be asked for them."""
    return node.settings.share_restricted or not listing.info.is_restricted


async def find_here(
    node: Node, repository: Foreign, files: Iterable[UpstreamFile], *, shared: bool
) -> dict[str, FileEntry]:
    """Return those of the files of a repository that are in the store, by path. shared: others may have them."""
    return await on_disk(_find_here, node.store, repository, list(files), shared)


async def bring(
    node: Node, repository: Foreign, listing: Listing, file: UpstreamFile, tell: Tell, *, from_hub: bool = True
) -> FileEntry:
    """Bring one file of a commit into the store, checked; returns what it is here.

    from_hub: ask the hub, if nobody else has it. Tasks of this node that want the same share the work.
    Raises NotFound, AccessDenied, PeerError, HashMismatch, StoreError, Offline.
    """
    hub, shared = node.hub, may_share(node, listing)
    while True:
        found = await find_here(node, repository, [file], shared=shared)
        if found:
            return found[file.path]
        other = hub.arriving.get(file.id)
        if other is None:
            break
        await other.done.wait()
        if other.failure is not None:
            raise other.failure
    mine = hub.arriving[file.id] = Arriving(is_shared=shared)
    try:
        async with wanting(node, [file] if shared else []):
            return await _bring(node, repository, listing, file, mine, tell, from_hub=from_hub)
    except HubError as exc:
        mine.failure = exc
        raise
    finally:
        del hub.arriving[file.id]
        mine.done.set()


async def bring_small(
    node: Node, repository: Foreign, listing: Listing, files: Sequence[UpstreamFile], tell: Tell
) -> None:
    """Fetch those of some small files, each of another content, from the hub that nobody else fetches or is to fetch.

    What came before a failure stays. Raises as `bring` does.
    """
    hub, shared = node.hub, may_share(node, listing)
    async with hub.small_slots:
        mine = {file.id: file for file in files if file.id not in hub.arriving and _is_ours(node, file)}
        arriving = {known: Arriving(is_shared=shared, is_fetching=True) for known in mine}
        hub.arriving.update(arriving)
        try:
            await fetch_small(node, repository, listing.info.commit, list(mine.values()), tell, shared=shared)
        finally:
            # Tasks that wait for one that did not come try it themselves.
            for known, each in arriving.items():
                del hub.arriving[known]
                each.done.set()


@asynccontextmanager
async def wanting(node: Node, files: Iterable[UpstreamFile]) -> AsyncIterator[None]:
    """Let the nodes of the site know, meanwhile, that this one wants `files`."""
    ids = {file.id for file in files}  # several may have the same content
    wanted, since = node.hub.wanted, node.hub.wanted_since
    wanted.update(ids)
    for identifier in ids:
        since.setdefault(identifier, trio.current_time())
    try:
        yield
    finally:
        wanted.subtract(ids)
        for identifier in ids:
            if wanted[identifier] <= 0:
                del wanted[identifier], since[identifier]


async def bring_from_peers(node: Node, files: Iterable[UpstreamFile], tell: Tell) -> None:
    """Bring those of the files that peers say they have, all at once, and check them."""
    await look_around(node, trio.current_time())
    roots: dict[ContentId, UpstreamFile] = {root: file for file in files for root in roots_of(node, file.id)}
    try:
        await bring_roots(node, {root: file.size for root, file in roots.items()}, tell)
    except HubError as exc:
        log.info("peers did not give what they said they have: %s", exc)
    for root, file in roots.items():
        await on_disk(_accept_object, node.store, root, file)


async def _bring(
    node: Node,
    repository: Foreign,
    listing: Listing,
    file: UpstreamFile,
    arriving: Arriving,
    tell: Tell,
    *,
    from_hub: bool,
) -> FileEntry:
    shared = may_share(node, listing)
    began = trio.current_time()
    tried: set[ContentId] = set()
    while True:
        if shared and not node.settings.offline:
            await look_around(node, max(node.hub.wanted_since[file.id], trio.current_time() - POLL_S / 2))
            for root in roots_of(node, file.id) - tried:
                tried.add(root)
                if entry := await _bring_root(node, repository, root, file, tell):
                    return entry
        if not from_hub and not states_of(node, file.id):
            raise NotFound(f"no peer has {file.path} of {repository}, and there is no upstream to ask")
        is_late = trio.current_time() - began > patience_s(file.size)
        if from_hub and (is_late or _is_ours(node, file)):
            is_small = file.size <= SMALL_SIZE_MAX
            async with node.hub.small_slots if is_small else node.hub.slots:
                # While we waited for the slot, somebody else may have begun.
                if is_late or _is_ours(node, file):
                    arriving.is_fetching = True
                    if is_small:
                        await fetch_small(node, repository, listing.info.commit, [file], tell, shared=shared)
                    else:
                        await _fetch(node, repository, listing, file, arriving, tell)
                    break
        elif is_late:
            raise NotFound(f"no peer gave {file.path} of {repository} in time, and there is no upstream to ask")
        await trio.sleep(POLL_S)
    found = await find_here(node, repository, [file], shared=shared)
    if not found:
        raise HashMismatch(f"{file.path} of {repository} was fetched and is not in the store")
    return found[file.path]


def _is_ours(node: Node, file: UpstreamFile) -> bool:
    """Say whether it is for this node to fetch a file from the hub, of all that want it."""
    return waits_for(node.id, file.id, states_of(node, file.id)) is None


async def _bring_root(
    node: Node, repository: Foreign, root: ContentId, file: UpstreamFile, tell: Tell
) -> FileEntry | None:
    """Bring a file under the root that a peer named; None if it cannot be had, or is another file."""
    try:
        await bring_roots(node, {root: file.size}, tell)
    except HubError as exc:
        log.info("%s does not come from peers as %s: %s", file.path, root, exc)
        return None
    if not await on_disk(_accept_object, node.store, root, file):
        tell(Notice(f"a peer took another file for {file.path}"))
        return None
    return (await find_here(node, repository, [file], shared=True)).get(file.path)


async def _fetch(
    node: Node, repository: Foreign, listing: Listing, file: UpstreamFile, arriving: Arriving, tell: Tell
) -> None:
    """Fetch a file from the hub, check it, and make it an object. What came is kept if it fails."""
    hub, commit = node.hub, listing.info.commit
    part = await on_disk(node.store.parts.begin, file.id)
    is_done = False
    try:
        if part.size > file.size:
            part.start_over()
        await on_disk(check_space, node, file.size - part.size)
        arriving.began, arriving.began_at = trio.current_time(), part.size
        while True:
            await _stream(node, repository, commit, file, part, arriving, tell)
            is_done = await on_disk(_accept_part, node.store, part, file, may_share(node, listing))
            if is_done:
                return
            what = f"{file.path} of {repository}@{commit[:12]}"
            if not part.was_resumed:
                part.start_over()
                raise HashMismatch(f"the hub {hub.name} sends other bytes for {what} than it lists")
            # Pieces of two files may have come together: once more, in one piece.
            tell(Notice(f"what came of {what} is not what the hub lists: fetching it anew"))
            part.start_over()
    finally:
        with trio.CancelScope(shield=True):
            await on_disk(lambda: part.close(keep=not is_done))


async def _stream(
    node: Node, repository: Foreign, commit: str, file: UpstreamFile, part: Part, arriving: Arriving, tell: Tell
) -> None:
    """Write the rest of a file to `part`."""
    furthest = part.size

    def write(data: bytes) -> None:
        part.write(data)
        arriving.size = part.size

    def has_moved() -> bool:
        nonlocal furthest
        moved, furthest = part.size > furthest, max(part.size, furthest)
        if part.size:
            part.was_resumed = True
        return moved

    if part.size == file.size:
        return
    await ask(
        node,
        lambda connection: connection.stream(
            repository, commit, file.path, begin=part.size, size=file.size, sink=write, start_over=part.start_over
        ),
        tell,
        has_moved=has_moved,
    )


# ── on disk ─────────────────────────────────────────────────────────────────


def _find_here(store: Store, repository: Foreign, files: list[UpstreamFile], shared: bool) -> dict[str, FileEntry]:
    known = store.mirrors.contents({file.id for file in files})
    held = store.blobs.find_all({content.root for content in known.values()})
    if shared and held and (kept_back := store.mirrors.withheld(held.keys())):
        store.mirrors.release(kept_back)
    entries = {}
    for file in files:
        content = known.get(file.id)
        if content is None or content.root not in held:
            # What was published here, or came from elsewhere, need not come again.
            same = store.blobs.find_sha256(file.sha256) if file.sha256 else None
            content = _accept_object(store, same.root, file) if same else None
        if content is not None:
            role = role_of(file.path, repository.kind)
            entries[file.path] = FileEntry(file.path, file.size, content.root, content.sha256, role, content.profile)
    return entries


def _accept_object(store: Store, root: ContentId, file: UpstreamFile) -> UpstreamContent | None:
    """Note that an object is the file that the hub lists, if it is; returns what it is then."""
    held = store.blobs.find(root)
    if held is None or held.size != file.size:
        return None
    profile = _fitting_profile(held.path, file)
    ingested = store.intake.ingest(held.path, profile, in_place=not held.is_object)
    if not _is_listed(held.path, ingested.sha256, file):
        return None
    content = UpstreamContent(ingested.root, ingested.sha256, profile)
    store.mirrors.note_content(file.id, content)
    return content


def _accept_part(store: Store, part: Part, file: UpstreamFile, shared: bool) -> bool:
    """Make a part that is whole an object, if it is the file that the hub lists; returns whether it is."""
    profile = _fitting_profile(part.path, file)

    def is_right(scan: Scan) -> bool:
        if scan.chunks.size != file.size or not _is_listed(part.path, scan.sha256, file):
            return False
        if not shared and store.blobs.find(scan.root) is None:
            # Before it becomes an object, which peers could ask for.
            store.mirrors.withhold([scan.root])
        return True

    taken = store.intake.take(part.path, profile, is_right)
    if taken is None:
        return False
    store.mirrors.note_content(file.id, UpstreamContent(taken.root, taken.sha256, profile))
    return True


def _fitting_profile(path: Path, file: UpstreamFile) -> Profile:
    from p2phub.core.chunking import profile_for  # reads the formats of weights

    with disk_errors(path), open(path, "rb") as source:
        descriptor = source.fileno()
        return profile_for(file.path, file.size, lambda offset, size: os.pread(descriptor, size, offset))


def _is_listed(path: Path, sha256: bytes, file: UpstreamFile) -> bool:
    """Say whether the file at `path` has the hash that the hub lists."""
    if file.sha256 is not None:
        return file.sha256 == sha256
    with disk_errors(path), open(path, "rb") as source:
        return file.id == git_id_of(iter(lambda: source.read(BLOCK_SIZE), b""), file.size)
