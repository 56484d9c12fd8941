"""What ORG/NAME stands for: by the word of the hub, or of publishers who are trusted in it (spec/mirrors.md §6).

    name, revision ──hub──▶ commit ──hub, once──▶ listing ─┐
                    └─ remembered, attested ──▶ manifest ──┴▶ ForeignCommit

The hub decides what is new, as long as it answers. What was known before goes on without it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

import trio

from p2phub.core.choices import DEFAULT_BRANCH, Kind
from p2phub.core.description import Card, Facts
from p2phub.core.errors import AccessDenied, HubError, NotFound
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.core.rules import Consent
from p2phub.core.upstream import Foreign, Info, Listing, UpstreamFile, is_commit

from .arrivals import bring, find_here, may_share
from .disk import on_disk
from .events import ignore
from .mirroring import finish
from .mirrortrust import trusted
from .node import Node
from .recalled import recall_of_mirror, vouchers_of
from .resolve import load_manifest
from .rules import check_recalled
from .upstream import REFUSALS, is_asked, list_commit, look_up

log = logging.getLogger(__name__)

MANIFEST_S = 6.0  # seconds to get the manifest that somebody attested
LINGER_S = 60.0  # seconds that a file goes on coming after the last one who waited for it left
FINISH_S = 2.0  # seconds without a new file until it is looked whether a commit is whole
LISTINGS_MAX = 16  # kept in memory
RETRY_MIN_S, RETRY_MAX_S = 2, 300  # seconds, in which whoever waits for a file is told to come again


@dataclass(frozen=True)
class ForeignCommit:
    """A commit of a foreign repository, by the list of its hub, or a manifest that somebody trusted vouches for."""

    repository: Foreign
    id: str  # of the commit, as the hub calls it
    listing: Listing | None
    manifest: Manifest | None  # there is one of the two, or both

    @property
    def name(self) -> str:
        return self.repository.name

    @property
    def kind(self) -> Kind:
        return self.repository.kind

    @property
    def files(self) -> tuple[UpstreamFile, ...] | tuple[FileEntry, ...]:
        if self.listing is not None:
            return self.listing.files
        assert self.manifest is not None
        return self.manifest.files

    @property
    def created(self) -> int:
        """When it was made, in seconds since 1970."""
        if self.listing is not None:
            return self.listing.info.created
        return self.manifest.created if self.manifest else 0

    @property
    def card(self) -> Card | None:
        if self.manifest is not None and self.manifest.card is not None:
            return self.manifest.card
        return self.listing.info.card if self.listing else None

    @property
    def facts(self) -> Facts | None:
        return self.manifest.facts if self.manifest else None

    def file(self, path: str) -> UpstreamFile | FileEntry | None:
        """Return the file at `path`, None if there is none."""
        if self.listing is not None:
            return self.listing.file(path)
        return self.manifest.file(path) if self.manifest else None

    def vouched(self, file: UpstreamFile) -> FileEntry | None:
        """Return what the manifest says that a listed file is here, if it does not contradict the hub."""
        entry = self.manifest.file(file.path) if self.manifest else None
        if entry is None or entry.size != file.size or file.sha256 not in (None, entry.sha256):
            return None
        return entry


async def find_commit(node: Node, repository: Foreign, revision: str) -> ForeignCommit:
    """Return what a revision of a foreign repository stands for now.

    Raises NotFound, NoSuchRevision, AccessDenied, PeerError, InvalidData if nothing is known of it
    and the hub does not tell.
    """
    known = await on_disk(_known_commit, node, repository, revision)
    info: Info | None = None
    error: HubError = NotFound(
        f"nothing is known of {repository}@{revision}",
        hint="`p2phub node --upstream URL` asks another hub; `p2phub mirror trust` takes a publisher at his word",
    )
    if is_asked(node) and not (known and is_commit(revision)):
        try:
            info = await look_up(node, repository, revision, ignore, in_hurry=known is not None)
        except (*REFUSALS, AccessDenied) as exc:
            error = exc
            if known:
                log.info("%s@%s is what it was: %s", repository, revision, exc)
    commit = info.commit if info else known
    if commit is None:
        raise error
    listing = await _listing(node, repository, commit)
    if is_asked(node) and (listing is None or (info and info.is_restricted != listing.info.is_restricted)):
        try:
            info = info or await look_up(node, repository, commit, ignore, in_hurry=True)
            listing = await list_commit(node, repository, info, ignore)
            node.hub.listings[repository, commit] = listing
        except (*REFUSALS, AccessDenied) as exc:
            error = exc
    manifest = None
    try:
        manifest = await _vouched_manifest(node, repository, commit)
    except AccessDenied as exc:
        error = exc
    if listing is None and manifest is None:
        raise error
    return ForeignCommit(repository, commit, listing, manifest)


@dataclass(frozen=True)
class KnownMirror:
    """What `main` of a foreign repository stands for, by what is known here, where somebody mirrored it."""

    repository: Foreign
    commit: str
    manifest: ManifestId | None  # which holds the commit
    is_shared: bool  # others than the owner of this node may know of it
    said: int  # when the hub or a publisher last said something of it, in seconds since 1970


def known_mirrors(node: Node, kind: Kind, count_max: int) -> list[KnownMirror]:
    """Return what is mirrored here or by trusted publishers, as far as it is known what its `main` stands for.

    Of more than `count_max`, those of which something was said last.
    """
    mirrors, publishers = node.store.mirrors, trusted(node)
    found = []
    for repository, said in mirrors.mirrored(node.hub.name, kind, publishers, count_max):
        commit = _known_commit(node, repository, DEFAULT_BRANCH, publishers)
        if commit is not None:
            manifest = _manifest_of(node, repository, commit, publishers)
            is_shared = node.settings.share_restricted or not mirrors.is_restricted(repository, commit)
            found.append(KnownMirror(repository, commit, manifest, is_shared, said))
    return found


async def load_commit(node: Node, known: KnownMirror) -> ForeignCommit | None:
    """Return the commit of a mirror, its manifest from peers if need be; None if it cannot be had. No hub is asked."""
    listing = await _listing(node, known.repository, known.commit)
    manifest = await _vouched_manifest(node, known.repository, known.commit)
    if listing is None and manifest is None:
        return None
    return ForeignCommit(known.repository, known.commit, listing, manifest)


async def known_manifest(
    node: Node, repository: Foreign, revision: str
) -> tuple[ManifestId, frozenset[NamespaceId]] | None:
    """Return the manifest that a revision stands for by what is known here, and by whose word; None if none is."""

    def look() -> tuple[ManifestId, frozenset[NamespaceId]] | None:
        commit = _known_commit(node, repository, revision)
        manifest = _manifest_of(node, repository, commit) if commit else None
        return (manifest, vouchers_of(node, repository, commit, manifest)) if commit and manifest else None

    return await on_disk(look)


async def known_names(node: Node, repository: Foreign) -> dict[str, str]:
    """Return the branches and tags that are known here, and the commits they stand for."""

    def look() -> dict[str, str]:
        names = dict.fromkeys(node.store.mirrors.names(repository))
        for row in node.store.mirrors.attestations(repository, trusted(node)):
            names |= dict.fromkeys(row.names)
        return {name: commit for name in names if (commit := _known_commit(node, repository, name))}

    return await on_disk(look)


def _known_commit(
    node: Node, repository: Foreign, revision: str, publishers: Collection[NamespaceId] | None = None
) -> str | None:
    """Return the commit that a revision stands for by what is known here, if anything of that commit is known.

    publishers: those who are trusted, if that was looked up already.
    """
    mirrors = node.store.mirrors
    publishers = trusted(node) if publishers is None else publishers
    attested = mirrors.attested(repository, publishers, revision)
    if is_commit(revision):
        return revision if attested or mirrors.is_listed(repository, revision) else None
    said = mirrors.names(repository).get(revision)
    if said is None or (attested is not None and attested.time > said.time):
        return attested.commit if attested else None
    is_usable = mirrors.is_listed(repository, said.commit) or _manifest_of(node, repository, said.commit, publishers)
    return said.commit if is_usable else (attested.commit if attested else None)


def _manifest_of(
    node: Node, repository: Foreign, commit: str, publishers: Collection[NamespaceId] | None = None
) -> ManifestId | None:
    own = node.store.mirrors.manifest(repository, commit)
    publishers = trusted(node) if publishers is None else publishers
    attested = node.store.mirrors.attested(repository, publishers, commit)
    return own or (attested.manifest if attested else None)


async def _listing(node: Node, repository: Foreign, commit: str) -> Listing | None:
    """Return what the hub listed of a commit; clients ask for one file after the other of a long list."""
    listings = node.hub.listings
    known = listings.get((repository, commit))
    if known is None and (known := await on_disk(node.store.mirrors.listing, repository, commit)):
        listings[repository, commit] = known
        if len(listings) > LISTINGS_MAX:
            del listings[next(iter(listings))]
    return known


async def _vouched_manifest(node: Node, repository: Foreign, commit: str) -> Manifest | None:
    """Return the manifest of a commit, if this node or somebody trusted says which it is and it can be had.

    Raises AccessDenied if who said so took it back.
    """
    revision = await on_disk(_manifest_of, node, repository, commit)
    if revision is None:
        return None
    check_recalled(revision, await on_disk(recall_of_mirror, node, repository, commit, revision), Consent())
    manifests = node.hub.manifests
    with trio.move_on_after(MANIFEST_S):
        try:
            manifest = manifests.get(revision) or await load_manifest(node, revision, ignore)
        except HubError as exc:
            log.info("cannot get the manifest of %s: %s", repository, exc)
            return None
        manifests[revision] = manifest
        if len(manifests) > LISTINGS_MAX:
            del manifests[next(iter(manifests))]
        return manifest if manifest.kind == repository.kind else None
    return None


# ── files ───────────────────────────────────────────────────────────────────


class _Job:
    """A file that comes, for whoever waits for it."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.readers = 0
        self.entry: FileEntry | None = None
        self.failure: HubError | None = None


class Arrivals:
    """The files that clients of one node wait for, and that go on coming for a while without them."""

    def __init__(self, node: Node, nursery: trio.Nursery) -> None:
        """nursery: where files go on coming when a client goes away."""
        self._node = node
        self._nursery = nursery
        self._jobs: dict[bytes, _Job] = {}
        self._finishing: set[str] = set()  # commits that may be whole soon
        self._changed = False  # a file came lately

    async def here(self, commit: ForeignCommit, file: UpstreamFile) -> FileEntry | None:
        """Return what a file is here, None if it is not."""
        assert commit.listing is not None
        shared = may_share(self._node, commit.listing)
        return (await find_here(self._node, commit.repository, [file], shared=shared)).get(file.path)

    async def wait(self, commit: ForeignCommit, file: UpstreamFile, *, patience_s: float) -> FileEntry | int:
        """Return what a file is here once it is; after `patience_s`, in how many seconds to come again.

        Raises HubError if it cannot be had.
        """
        job = self._jobs.get(file.id)
        if job is None:
            job = self._jobs[file.id] = _Job()
            self._nursery.start_soon(self._run, commit, file, job)
        job.readers += 1
        job.scope.deadline = float("inf")
        retry_s = 0
        try:
            with trio.move_on_after(patience_s):
                await job.done.wait()
            if not job.done.is_set():
                retry_s = self._foresee(file)
                return retry_s
        finally:
            job.readers -= 1
            if not job.readers:
                job.scope.deadline = trio.current_time() + retry_s + LINGER_S
        if job.entry is None:
            raise job.failure or HubError(f"{file.path} was given up, because nobody waited for it")
        return job.entry

    async def _run(self, commit: ForeignCommit, file: UpstreamFile, job: _Job) -> None:
        assert commit.listing is not None
        try:
            with job.scope:
                job.entry = await bring(
                    self._node, commit.repository, commit.listing, file, ignore, from_hub=is_asked(self._node)
                )
        except HubError as exc:
            job.failure = exc
        except Exception:
            log.exception("cannot bring %s", file.path)
            job.failure = HubError("the node met a bug of its own; its log says more")
        finally:
            del self._jobs[file.id]
            self._changed = True
            job.done.set()
        if job.entry is not None and commit.id not in self._finishing:
            self._finishing.add(commit.id)
            self._nursery.start_soon(self._finish, commit)

    async def _finish(self, commit: ForeignCommit) -> None:
        """Vouch for the commit, if all of it is here by now."""
        assert commit.listing is not None
        self._changed = True
        while self._jobs or self._changed:
            self._changed = False
            await trio.sleep(FINISH_S)
        self._finishing.discard(commit.id)
        names = [
            name for name, known in (await known_names(self._node, commit.repository)).items() if known == commit.id
        ]
        try:
            await finish(self._node, commit.repository, commit.listing, names, ignore)
        except HubError as exc:
            log.warning("cannot vouch for %s: %s", commit.repository, exc)

    def _foresee(self, file: UpstreamFile) -> int:
        """Return in how many seconds a file may be here."""
        arriving = self._node.hub.arriving.get(file.id)
        left_s = float(RETRY_MIN_S)
        if arriving is not None and arriving.size > arriving.began_at:
            rate = (arriving.size - arriving.began_at) / max(trio.current_time() - arriving.began, 0.1)
            left_s = (file.size - arriving.size) / rate
        return round(min(max(left_s, RETRY_MIN_S), RETRY_MAX_S))
