"""Keep copies of other hubs' repositories, and say who vouches for them (spec/mirrors.md §4, §5).

    hf://org/name@main ──look up──▶ commit ──list──▶ files ──bring each──▶ manifest ──attest──▶ log

The manifest follows from the commit alone, so that all who mirror it make the same one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial

import trio

from p2phub.core import manifest as manifests
from p2phub.core.choices import Kind
from p2phub.core.errors import HubError, NotFound
from p2phub.core.ids import ManifestId
from p2phub.core.manifest import FileEntry, Manifest, Origin
from p2phub.core.records import Attest, Entry
from p2phub.core.rules import Consent, Facts, Rules, judge
from p2phub.core.upstream import NAMES_MAX, Foreign, Info, Listing, UpstreamFile, is_commit, parse_foreign

from .arrivals import bring, bring_from_peers, bring_small, find_here, may_share, wanting
from .describing import describe
from .disk import from_thread, on_disk
from .events import Event, Notice, Progress, Tell
from .identity import own_namespace, publish_record
from .node import Node
from .operations.mirrors import MirrorInfo
from .rules import check
from .smallfiles import SMALL_SIZE_MAX, groups
from .sources import SourceFile
from .upstream import list_commit, look_up

TICK_S = 0.1  # seconds between reports of how far it is
TASKS_MAX = 64  # files that are waited for at once
EVERY_S = 3600.0  # seconds, about, from one look at the hub of what is mirrored to the next; spec/mirrors.md §4

log = logging.getLogger(__name__)


async def add(node: Node, text: str, kind: Kind | None, tell: Tell) -> MirrorInfo:
    """Fetch all of a foreign repository, keep it, and vouch for it; `text` is `hf://ORG/NAME[@REVISION]`.

    Raises InvalidName, NotFound, AccessDenied, InvalidData, PeerError, StoreError, Offline.
    """
    repository, revision = parse_foreign(text, node.hub.name, kind)
    # Asked first, so that a name that means nothing is not kept.
    await look_up(node, repository, revision, tell)
    await on_disk(node.store.mirrors.track, repository, revision)
    return await _refresh(node, repository, revision, tell)


async def update(node: Node, text: str | None, kind: Kind | None, tell: Tell) -> list[MirrorInfo]:
    """Fetch what changed since of one mirror, or of all; returns how they stand. Raises as `add`, at the end."""
    wanted = parse_foreign(text, node.hub.name, kind) if text is not None else None
    tracked = [mirror for mirror in await on_disk(node.store.mirrors.tracked) if mirror.repository.hub == node.hub.name]
    chosen = [mirror for mirror in tracked if wanted in (None, (mirror.repository, mirror.revision))]
    if wanted and not chosen:
        raise NotFound(f"{text} is no mirror here", hint="`p2phub mirror ls` lists them, `p2phub mirror add` makes one")
    failure: HubError | None = None
    found = []
    for mirror in chosen:
        node.hub.answers.pop((mirror.repository, mirror.revision), None)
        try:
            found.append(await _refresh(node, mirror.repository, mirror.revision, tell))
        except HubError as exc:
            failure = failure or exc
            tell(Notice(f"{mirror.repository}@{mirror.revision}: {exc}"))
    if failure is not None:
        raise failure
    return found


async def keep_up(node: Node) -> None:
    """Look now and then whether the hub has anything new of what is mirrored, and fetch it; runs until cancelled."""
    while True:
        # By chance, so that the nodes of a site, which were started together, do not ask it all at once.
        await trio.sleep(EVERY_S * node.rng.uniform(0.8, 1.2))
        try:
            await update(node, None, None, _log_notice)
        except HubError as exc:
            log.warning("cannot bring mirrors up to date: %s", exc)


def _log_notice(event: Event) -> None:
    if isinstance(event, Notice):
        log.info("mirrors: %s", event.text)


async def remove(node: Node, text: str, kind: Kind | None) -> MirrorInfo:
    """Keep a mirror no longer; its files go with the garbage, and what was attested stays said. Raises NotFound."""
    repository, revision = parse_foreign(text, node.hub.name, kind)
    known = [
        m for m in await on_disk(node.store.mirrors.tracked) if (m.repository, m.revision) == (repository, revision)
    ]
    if not known or not await on_disk(node.store.mirrors.untrack, repository, revision):
        raise NotFound(f"{text} is no mirror here", hint="`p2phub mirror ls` lists them")
    if known[0].manifest is not None:
        await _unpin(node, known[0].manifest)
    return await _info(node, repository, revision)


async def show(node: Node) -> list[MirrorInfo]:
    """Return the mirrors that this node keeps."""
    return [await _info(node, m.repository, m.revision) for m in await on_disk(node.store.mirrors.tracked)]


# ── one commit ──────────────────────────────────────────────────────────────


async def finish(
    node: Node, repository: Foreign, listing: Listing, names: Sequence[str], tell: Tell
) -> ManifestId | None:
    """Make the manifest of a commit and vouch for it, if all its files are here; None if they are not.

    names: branches and tags that stand for the commit.
    """
    commit, shared = listing.info.commit, may_share(node, listing)
    entries = await find_here(node, repository, listing.files, shared=shared)
    for file in listing.files:
        if file.size == 0 and file.path not in entries:
            # Clients that read it were given nothing, and nothing was asked of the hub.
            entries[file.path] = await bring(node, repository, listing, file, tell)
    if len(entries) < len(listing.files):
        return None
    known = await on_disk(node.store.mirrors.manifest, repository, commit)
    if known is None or await on_disk(node.store.manifests.data, known) is None:
        ordered = [entries[file.path] for file in listing.files]
        manifest = await on_disk(_describe, node, repository, listing, ordered, from_thread(tell))
        data = manifests.encode(manifest)
        known = manifests.manifest_id(data)
        if not shared:
            # Before it can be found.
            await on_disk(node.store.mirrors.withhold, [known])
        await on_disk(node.store.blobs.sync)
        await on_disk(node.store.manifests.add, data)
        await on_disk(node.store.mirrors.set_manifest, repository, commit, known)
    if shared:
        await on_disk(node.store.mirrors.release, [known])
        # The owner of this node gives it to all, whoever claims it.
        await on_disk(node.store.private.share, [known, *(entry.root for entry in entries.values())])
        signed = await on_disk(_attest, node, repository, listing, known, tuple(names)[:NAMES_MAX])
        if signed is not None:
            node.note_news(signed.record.log, signed.record.index)
    return known


async def _refresh(node: Node, repository: Foreign, revision: str, tell: Tell) -> MirrorInfo:
    """Bring a mirror to where its hub is now."""
    info = await look_up(node, repository, revision, tell)
    _check_licence(await on_disk(node.rules.current), info)
    listing = await list_commit(node, repository, info, tell)
    if listing.info.is_restricted and not node.settings.share_restricted:
        tell(Notice(f"not everybody may have {repository}: peers are not given it, and nobody is told of it"))
    await _bring_all(node, repository, listing, tell)
    names = () if is_commit(revision) else (revision,)
    manifest = await finish(node, repository, listing, names, tell)
    if manifest is None:
        raise NotFound(f"files of {repository} went while it was mirrored", hint="`p2phub mirror update` fetches them")
    tracked = await on_disk(node.store.mirrors.tracked)
    before = next((m.manifest for m in tracked if (m.repository, m.revision) == (repository, revision)), None)
    await on_disk(node.store.keeping.pin, manifest, "mirrored")
    await on_disk(node.store.mirrors.note_kept, repository, revision, info.commit, is_restricted=info.is_restricted)
    if before not in (None, manifest):
        await _unpin(node, before)
    return await _info(node, repository, revision)


def _check_licence(rules: Rules, info: Info) -> None:
    """Raise AccessDenied if the policy does not accept the licence that the hub names."""
    tags = info.card.tags
    licence = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
    facts = Facts(ManifestId(bytes(32)), (), licence=licence)
    check([finding for finding in judge(rules, facts, Consent()) if finding.rule == "licences"])


async def _bring_all(node: Node, repository: Foreign, listing: Listing, tell: Tell) -> None:
    """Bring all files of a commit into the store."""
    work = _Bringing(node, repository, listing, tell)
    await work.note_here(listing.files)
    missing = list(work.missing.values())
    async with wanting(node, missing if work.shared else ()), trio.open_nursery() as beside:
        beside.start_soon(work.report)
        if work.shared and missing and not node.settings.offline:
            await bring_from_peers(node, missing, tell)
            await work.note_here(missing)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work.bring_all_small)
            for file in list(work.missing.values()):
                if file.size > SMALL_SIZE_MAX:
                    nursery.start_soon(work.bring_one, file)
        beside.cancel_scope.cancel()
    await on_disk(node.store.blobs.sync)
    if work.failure is not None:
        raise work.failure


class _Bringing:
    """What is missing of a commit while its files come, and how it comes. After the first failure nothing is begun."""

    def __init__(self, node: Node, repository: Foreign, listing: Listing, tell: Tell) -> None:
        self.shared = may_share(node, listing)
        self.missing = {file.path: file for file in listing.files}
        self.failure: HubError | None = None
        self._node = node
        self._repository = repository
        self._listing = listing
        self._tell = tell
        self._tasks = trio.CapacityLimiter(TASKS_MAX)

    async def note_here(self, files: Sequence[UpstreamFile]) -> None:
        """Look which of `files` are here by now."""
        for path in await find_here(self._node, self._repository, files, shared=self.shared):
            self.missing.pop(path, None)

    async def bring_one(self, file: UpstreamFile) -> None:
        """Bring a file, when it is its turn."""
        async with self._tasks:
            if self.failure is not None:
                return
            try:
                await bring(self._node, self._repository, self._listing, file, self._tell)
            except HubError as exc:
                self.failure = self.failure or exc
            else:
                self.missing.pop(file.path, None)

    async def bring_all_small(self) -> None:
        """Bring the small files, many with a request, and then each that did not come so."""
        small = [file for file in self.missing.values() if file.size <= SMALL_SIZE_MAX]
        async with trio.open_nursery() as nursery:
            for group in groups(small):
                nursery.start_soon(self._bring_group, group)
        async with trio.open_nursery() as nursery:
            # What others fetch, and what came under another name.
            for file in small:
                if file.path in self.missing:
                    nursery.start_soon(self.bring_one, file)

    async def _bring_group(self, files: Sequence[UpstreamFile]) -> None:
        if self.failure is not None:
            return
        try:
            await bring_small(self._node, self._repository, self._listing, files, self._tell)
        except HubError as exc:
            self.failure = self.failure or exc
        await self.note_here(files)

    async def report(self) -> None:
        """Tell how far it is; until cancelled."""
        start = trio.current_time()
        total = _size(self.missing.values())
        while True:
            part = sum(arriving.size for arriving in self._node.hub.arriving.values())
            done = min(total, total - _size(self.missing.values()) + part)
            self._tell(Progress("fetching", done, total, rate=done / max(trio.current_time() - start, 1e-6)))
            await trio.sleep(TICK_S)


def _size(files: Iterable[UpstreamFile]) -> int:
    """Return the bytes of `files`, each content once."""
    return sum({file.id: file.size for file in files}.values())


async def _unpin(node: Node, manifest: ManifestId) -> None:
    """Let go what no mirror keeps any more."""

    def work() -> None:
        kept = {mirror.manifest for mirror in node.store.mirrors.tracked()}
        if manifest not in kept and node.store.keeping.pins().get(manifest) == "mirrored":
            node.store.keeping.unpin(manifest)

    await on_disk(work)


async def _info(node: Node, repository: Foreign, revision: str) -> MirrorInfo:
    def work() -> MirrorInfo:
        tracked = node.store.mirrors.tracked()
        mirror = next((m for m in tracked if (m.repository, m.revision) == (repository, revision)), None)
        commit = mirror.commit if mirror else None
        listing = node.store.mirrors.listing(repository, commit) if commit else None
        return MirrorInfo(
            reference=f"{repository}@{revision}",
            hub=repository.hub,
            kind=repository.kind,
            name=repository.name,
            revision=revision,
            commit=commit,
            manifest=str(mirror.manifest) if mirror and mirror.manifest else None,
            files=len(listing.files) if listing else 0,
            size=listing.size if listing else 0,
            restricted=bool(mirror and mirror.is_restricted),
            checked=mirror.time if mirror and mirror.time else None,
        )

    return await on_disk(work)


def _describe(node: Node, repository: Foreign, listing: Listing, entries: list[FileEntry], tell: Tell) -> Manifest:
    sources = []
    for entry in entries:
        held = node.store.blobs.find(entry.root)
        if held is not None:
            sources.append(SourceFile(entry.path, held.path, held.size))
    card, facts, variants = describe(sources, entries, tell)
    return Manifest(
        schema=1,
        kind=repository.kind,
        created=listing.info.created,
        files=tuple(entries),
        variants=variants,
        card=card,
        facts=facts,
        origin=Origin(repository.hub, repository.name, listing.info.commit),
    )


def _attest(
    node: Node, repository: Foreign, listing: Listing, manifest: ManifestId, names: tuple[str, ...]
) -> Entry | None:
    """Vouch for a mirror; returns the entry, None if there is nobody who could, or it was said already."""
    own = own_namespace(node)
    if own is None:
        return None
    commit = listing.info.commit
    said = [node.store.mirrors.attested(repository, {own}, word) for word in (commit, *names)]
    if all(row is not None and (row.commit, row.manifest) == (commit, manifest) for row in said):
        return None

    make = partial(
        Attest,
        namespace=own,
        model=repository.model,
        claim="mirror-of",
        kind=repository.kind,
        manifest=manifest,
        hub=repository.hub,
        owner=repository.owner,
        commit=commit,
        names=names,
    )

    return publish_record(node, make)
