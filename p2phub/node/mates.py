"""What the other nodes have, or fetch, of files that another hub lists (spec/mirrors.md §3).

    wanted hashes ──▶ every node of this site, each second │ other peers, seldom ──▶ Hub.seen

The nodes of a site tell each other what they want by asking, so that of those which begin at the same
moment one knows of the other, whichever asked last.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from p2phub.core.access import Caller
from p2phub.core.errors import HubError, PeerViolation
from p2phub.core.ids import ContentId, NodeId
from p2phub.protocol.lease import EXPENSIVE
from p2phub.protocol.messages import HAVE_ROOTS_MAX, UpstreamFiles, UpstreamQuery
from p2phub.protocol.rendezvous import FETCHING, NOTHING, WANTED
from p2phub.store.peers import Peer

from .calling import ban_peer, call_peer, usable_peers
from .disk import on_disk
from .node import Node
from .upstream import Seen

log = logging.getLogger(__name__)

ANSWER_S = 3.0  # seconds that a node of this site has to answer
ANSWER_FAR_S = 5.0  # the same for other peers
FAR_S = 10.0  # seconds between questions to these
SILENT_S = 30.0  # seconds that a peer which did not answer is left alone
NEAR_MAX, FAR_MAX = 64, 16  # peers that are asked at once
PEERS_MAX = 256  # that are looked at for it
TOLD_S = 10.0  # seconds that the wishes of somebody who asked count
TOLD_MAX = 64  # nodes whose wishes are kept


async def look_around(node: Node, not_before: float) -> None:
    """Ask others about all that is wanted here, unless that was done at or after `not_before` (of trio's clock)."""
    hub = node.hub
    async with hub.looking:
        if hub.looked >= not_before:
            return
        now = trio.current_time()
        wanted = list(hub.wanted)[:HAVE_ROOTS_MAX]
        near, far = await _peers(node, now) if wanted else ([], [])
        async with trio.open_nursery() as nursery:
            for peer in near[:NEAR_MAX]:
                nursery.start_soon(_ask, node, peer, wanted, ANSWER_S, node.id)
            for peer in far[:FAR_MAX]:
                hub.rest_until[peer.node] = now + FAR_S
                nursery.start_soon(_ask, node, peer, wanted, ANSWER_FAR_S, None)
        hub.looked = now


async def _peers(node: Node, now: float) -> tuple[list[Peer], list[Peer]]:
    """Return who is to be asked now: of this site, and others."""
    near: list[Peer] = []
    far: list[Peer] = []
    for peer in await on_disk(usable_peers, node):
        if node.hub.rest_until.get(peer.node, now) > now or (peer.failures and not peer.added):
            continue
        (far if await node.links.class_of(peer) in EXPENSIVE else near).append(peer)
        if len(near) + len(far) == PEERS_MAX:
            break
    return near, far


def roots_of(node: Node, file: bytes) -> set[ContentId]:
    """Return under which roots others say that they have a file."""
    return {seen[file].root for seen in node.hub.seen.values() if file in seen} - {None}  # type: ignore[return-value]


def states_of(node: Node, file: bytes) -> dict[NodeId, int]:
    """Return what each of the nodes of this site does with a file."""
    hub = node.hub
    states = {peer: seen[file].state for peer, seen in hub.seen.items() if file in seen and seen[file].state}
    now = trio.current_time()
    for peer, (time, files) in hub.told.items():
        if file in files and now - time < TOLD_S:
            states.setdefault(peer, WANTED)
    return states


async def answer(node: Node, caller: Caller, query: UpstreamQuery, *, is_near: bool) -> UpstreamFiles:
    """Say what is here of the files that somebody asks about, and take note of what he wants.

    is_near: he asks from this site. A stranger's wishes count for nothing.
    """
    hub = node.hub
    roots = await on_disk(_roots_for_others, node, caller, query.files)
    if is_near and query.wanting is not None and query.wanting != node.id:
        hub.told.pop(query.wanting, None)
        hub.told[query.wanting] = trio.current_time(), frozenset(query.files) & hub.wanted.keys()
        if len(hub.told) > TOLD_MAX:
            del hub.told[next(iter(hub.told))]
    states = bytes(_state(node, file) for file in query.files)
    return UpstreamFiles(tuple(roots.get(file) for file in query.files), states)


async def _ask(node: Node, peer: Peer, wanted: list[bytes], timeout_s: float, wanting: NodeId | None) -> None:
    seen: dict[bytes, Seen] = {}
    try:
        with trio.fail_after(timeout_s):
            async with call_peer(node, peer) as client:
                told = await client.upstream_files(wanted, wanting)
        for file, root, state in zip(wanted, told.roots, told.states, strict=True):
            # Far nodes may fetch it too: they are not waited for.
            seen[file] = Seen(root, state if wanting else NOTHING)
    except PeerViolation as exc:
        await ban_peer(node, peer.node, str(exc))
    except (HubError, trio.TooSlowError) as exc:
        log.info("node %s does not say what it has: %s", peer.node, exc or "too slow")
        node.hub.rest_until[peer.node] = trio.current_time() + SILENT_S
    node.hub.seen[peer.node] = seen


def _state(node: Node, file: bytes) -> int:
    arriving = node.hub.arriving.get(file)
    # What not everybody may have is brought without a word of it.
    if arriving is not None and arriving.is_shared and arriving.is_fetching:
        return FETCHING
    return WANTED if file in node.hub.wanted else NOTHING


def _roots_for_others(node: Node, caller: Caller, files: Sequence[bytes]) -> dict[bytes, ContentId]:
    """Return the roots of those of the files that are here and that `caller` may have."""
    known = node.store.mirrors.contents(files)
    roots = {content.root for content in known.values()}
    held = node.store.blobs.find_all(roots).keys() - node.access.withheld(caller, roots)
    return {file: content.root for file, content in known.items() if content.root in held}
