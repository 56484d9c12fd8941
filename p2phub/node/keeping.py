"""Keep what this node promised: fetch what is its share, and look whether others have theirs (spec/pledges.md §3, §4).

every minute:  ask who promised ──▶ duties ──share_out──▶ fetch, in the background
now and then:  ask a holder for a chunk by chance ──▶ does it have what it says?
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import trio

from p2phub.core.errors import HubError, InvalidData, PeerViolation, StoreError
from p2phub.core.filetree import ChunkList, check_chunk
from p2phub.core.ids import ManifestId, NodeId
from p2phub.core.manifest import FileEntry
from p2phub.core.rules import Consent, judge
from p2phub.net.peerclient import PeerClient
from p2phub.store.holdings import WHOLE
from p2phub.store.peers import Peer

from .bring import bring_files
from .calling import ban_peer, call_peer
from .disk import on_disk
from .events import Tell, ignore
from .inventory import learn_quietly
from .node import Node
from .origins import of_repository
from .pledging import Duty, all_duties, standing
from .promises import Problem
from .resolve import load_manifest
from .rules import check, facts_of
from .trees import chunk_lists_of

log = logging.getLogger(__name__)

ROUND_S = 60.0  # seconds between looks at what is to be kept; spec/pledges.md §3
GAP_S = 5.0  # at least, also when news comes all the time
FETCHES_MAX = 2  # at once
KEPT = Consent(pickles=True, code=True, recalled=True)  # what is kept is opened by nobody here
RETRY_S = 60.0  # seconds until what did not come is tried again, twice as long each time, up to …
RETRY_MAX_S = 3600.0
ASK_TIMEOUT_S = 20.0  # for one peer to say what it has
ASKED_AT_ONCE = 8
CHECK_S = 24 * 3600.0  # seconds until a holder is asked again for some of a revision; spec/pledges.md §4
CHECKS_MAX = 16  # in one round
FORGET_S = 30 * CHECK_S  # after which what was found of a holder is forgotten


async def keep_promises(node: Node) -> None:
    """Keep what this node promised, now and from now on; runs until cancelled."""
    turns = trio.CapacityLimiter(FETCHES_MAX)
    fetching: set[ManifestId] = set()
    async with trio.open_nursery() as nursery:
        while True:
            woken = node.promises.woken
            try:
                for duty in await _due(node):
                    manifest = duty.release.manifest
                    if manifest not in fetching:
                        fetching.add(manifest)
                        nursery.start_soon(_fetch_quietly, node, manifest, turns, fetching)
            except StoreError as exc:
                log.warning("cannot look what is to be kept: %s", exc)
            begun = trio.current_time()
            with trio.move_on_after(ROUND_S):
                await woken.wait()
                await trio.sleep_until(begun + GAP_S)


async def _due(node: Node) -> list[Duty]:
    """Ask those who promised the same what they have, and return what this node is to fetch now."""
    duties = await on_disk(all_duties, node)
    if not duties:
        return []
    others = {each for duty in duties.values() for each in duty.promises} - {node.id}
    await _learn(node, others)
    await _check_holders(node, duties)

    def missing() -> list[Duty]:
        here = node.store.holdings.whole(list(duties))
        wanted = [duty for manifest, duty in duties.items() if manifest not in here]
        return [duty for duty in wanted if node.id in standing(node, duty).shares.keepers]

    found = await on_disk(missing)
    wanted = {duty.release.manifest for duty in found}
    for manifest in list(node.promises.problems):
        if manifest not in wanted:
            del node.promises.problems[manifest]
    now = trio.current_time()
    waiting = {manifest for manifest, problem in node.promises.problems.items() if problem.next_try > now}
    return [duty for duty in found if duty.release.manifest not in waiting]


async def _learn(node: Node, others: Iterable[NodeId]) -> None:
    """Ask other nodes what they have, those that can be called."""
    turns = trio.CapacityLimiter(ASKED_AT_ONCE)

    async def ask(peer: Peer) -> None:
        async with turns:
            try:
                with trio.fail_after(ASK_TIMEOUT_S):
                    async with call_peer(node, peer) as client:
                        await learn_quietly(node, client)
            except PeerViolation as exc:
                await ban_peer(node, peer.node, str(exc))
            except (HubError, trio.TooSlowError) as exc:
                log.info("node %s does not say what it has: %s", peer.node, exc or "too slow")

    async with trio.open_nursery() as nursery:
        for other in sorted(others):
            peer = await on_disk(node.store.peers.get, other)
            if peer is not None and peer.next_try <= node.clock() and peer.banned_until <= node.clock():
                nursery.start_soon(ask, peer)


async def _fetch_quietly(
    node: Node, manifest: ManifestId, turns: trio.CapacityLimiter, fetching: set[ManifestId]
) -> None:
    """Bring all of a revision; what went wrong is noted, and it is tried again later."""
    problems = node.promises.problems
    try:
        async with turns:
            await bring_whole(node, manifest, ignore)
        problems.pop(manifest, None)
    except HubError as exc:
        tries = problems[manifest].tries + 1 if manifest in problems else 1
        wait_s = min(RETRY_MAX_S, RETRY_S * 2 ** (tries - 1))
        problems[manifest] = Problem(str(exc), tries, trio.current_time() + wait_s)
        log.info("cannot keep %s yet: %s", manifest, exc)
    finally:
        fetching.discard(manifest)


async def bring_whole(node: Node, manifest: ManifestId, tell: Tell) -> None:
    """Bring all files of a revision into the store; others go first. Raises as a fetch does."""
    known = await load_manifest(node, manifest, tell)
    # That it was recalled changes nothing: what is pledged is kept all the same.
    facts = await on_disk(facts_of, node.store, known, manifest, None, None)
    # What it is kept for is to be given to others: what must not be given is not kept (spec/rules.md §6).
    check(judge(await on_disk(node.rules.current), facts, KEPT))
    origins = of_repository(known.files, (), known.origin_urls)
    await bring_files(node, known.files, tell, origins=origins, background=True)
    await on_disk(node.store.blobs.sync)


# ── do others have what they say? ───────────────────────────────────────────


async def _check_holders(node: Node, duties: dict[ManifestId, Duty]) -> None:
    """Ask some of those that promised the same, and say to have it, for some of it."""
    for manifest, holder in await on_disk(_to_check, node, duties):
        peer = await on_disk(node.store.peers.get, holder)
        if peer is None or peer.next_try > node.clock() or peer.banned_until > node.clock():
            continue
        try:
            with trio.fail_after(ASK_TIMEOUT_S):
                async with call_peer(node, peer) as client:
                    has_it = await gives(node, client, manifest)
            await on_disk(node.store.pledges.note_check, manifest, holder, node.clock(), is_good=has_it)
            if not has_it:
                log.warning("node %s says to have %s and does not give it", holder, manifest)
        except PeerViolation as exc:
            await on_disk(node.store.pledges.note_check, manifest, holder, node.clock(), is_good=False)
            await ban_peer(node, holder, str(exc))
        except (HubError, trio.TooSlowError) as exc:
            # That it does not answer now says nothing of what it has.
            log.info("cannot look whether node %s has %s: %s", holder, manifest, exc or "too slow")


def _to_check(node: Node, duties: dict[ManifestId, Duty]) -> list[tuple[ManifestId, NodeId]]:
    """Return some revisions and holders, those that were looked at longest ago first."""
    now = node.clock()
    node.store.pledges.forget_checks(now - FORGET_S)
    found: list[tuple[int, ManifestId, NodeId]] = []
    for manifest, duty in duties.items():
        checks = node.store.pledges.checks(manifest)
        for holding in node.store.holdings.of(manifest):
            last = checks[holding.node].time if holding.node in checks else 0
            if holding.share == WHOLE and holding.node in duty.promises and last + CHECK_S <= now:
                found.append((last, manifest, holding.node))
    node.rng.shuffle(found)
    found.sort(key=lambda each: each[0])
    return [(manifest, holder) for _, manifest, holder in found[:CHECKS_MAX]]


async def gives(node: Node, client: PeerClient, manifest: ManifestId) -> bool:
    """Say whether a peer gives a chunk, chosen by chance, of a manifest that it says to have whole.

    Raises PeerViolation if it gives another.
    """
    files = [file for file in (await load_manifest(node, manifest, ignore)).files if file.size]
    if not files:
        return True
    # By chance of bytes and not of files: most of what could be missing is in the large ones.
    (file,) = node.rng.choices(files, [file.size for file in files])
    chunks = await _chunk_list(node, client, file)
    if chunks is None:
        return False
    index = chunks.index_at(node.rng.randrange(file.size))
    data = await client.span(file.root, chunks.offset(index), chunks.length(index))
    if data is None:
        return False
    try:
        check_chunk(data, chunks.hash(index))
    except InvalidData as exc:
        raise PeerViolation(f"{client} sent something that is not chunk {index}", peer=str(client.node)) from exc
    return True


async def _chunk_list(node: Node, client: PeerClient, file: FileEntry) -> ChunkList | None:
    """Return the chunk list of a file: the one that is here, or what the peer proves; None if it has none."""
    known = await on_disk(node.store.chunk_lists.find, file.root)
    if known is None:
        known = (await chunk_lists_of(client, [file.root])).get(file.root)
    return known if known is not None and known.size == file.size else None
