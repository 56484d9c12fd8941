"""Say who gives a repository, at which rate, and what a download of it waits for (spec/transfer.md §6).

While the node downloads it, its own download knows; otherwise the peers are asked now.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2phub.core.errors import PeerBusy
from p2phub.core.filetree import ChunkList
from p2phub.core.ids import ContentId
from p2phub.store.partial import unpack_bits
from p2phub.store.peers import Peer

from .disk import on_disk
from .events import Tell
from .node import Node
from .operations.swarm import SwarmInfo, SwarmProvider, with_slow
from .resolve import load_manifest, resolve
from .survey import Answer, ask_who_has


async def swarm_info(node: Node, reference: str, tell: Tell) -> SwarmInfo:
    """Return who gives what `reference` means: to the download that runs here, or as the peers say now.

    Raises NotFound, and Offline if only peers could tell what the reference means.
    """
    target = await resolve(node, reference, tell, refresh=False)
    if target.manifest is not None:
        manifest = await load_manifest(node, target.manifest, tell)
        sizes = {file.root: file.size for file in manifest.files}
    else:
        assert target.file is not None
        chunks = await on_disk(node.store.chunk_lists.find, target.file)
        sizes = {target.file: chunks.size if chunks else 0}
    banned = await on_disk(_banned, node)
    running = {arriving.explain for root, arriving in node.arriving.items() if root in sizes}
    states = [explain() for explain in running]
    if states:
        providers = [provider for state in states for provider in state.providers]
    elif node.settings.offline:
        providers = []
    else:
        providers = await _ask_all(node, list(sizes))
    named = {provider.name for provider in providers}
    return SwarmInfo(
        reference=reference,
        revision=str(target.manifest) if target.manifest else None,
        files=len(sizes),
        size=sum(sizes.values()),
        here=await on_disk(_here, node, sizes),
        fetching=bool(states),
        rate=sum(state.rate for state in states),
        waiting_for=next((state.waiting_for for state in states if state.waiting_for), None),
        providers=with_slow(providers) + [provider for provider in banned if provider.name not in named],
    )


def _banned(node: Node) -> list[SwarmProvider]:
    now = node.clock()
    return [
        SwarmProvider(str(peer.node), "banned", None, 0.0, 0, peer.ban_reason)
        for peer in node.store.peers.all()
        if peer.banned_until > now
    ]


def _here(node: Node, sizes: dict[ContentId, int]) -> int:
    """Return how many bytes of the files are on disk."""
    here = 0
    for root, size in sizes.items():
        arriving = node.arriving.get(root)
        held = bytes(arriving.have) if arriving else node.store.readables.held_map(root)
        if isinstance(held, bool):
            here += size * held
        elif chunks := node.store.chunk_lists.find(root):
            here += _bytes_of(chunks, held)
    return here


def _bytes_of(chunks: ChunkList, flags: bytes | bytearray) -> int:
    return sum(chunks.length(index) for index, is_here in enumerate(flags) if is_here)


async def _ask_all(node: Node, roots: Sequence[ContentId]) -> list[SwarmProvider]:
    """Ask every peer what it has of `roots`."""
    answers = await ask_who_has(node, roots)
    return await on_disk(lambda: [told(node, answer, roots) for answer in answers])


def told(node: Node, answer: Answer, roots: Sequence[ContentId]) -> SwarmProvider:
    """Return what a peer has said, or why it has not."""
    if answer.have is None:
        return _idle(answer.peer, "busy" if isinstance(answer.failure, PeerBusy) else "gone", str(answer.failure))
    # By size where the chunk list is known, else every file counts the same.
    total = has = 0.0
    for root, held in zip(roots, answer.have.held, strict=True):
        chunks = node.store.chunk_lists.find(root)
        size = chunks.size if chunks else 1
        total += size
        if isinstance(held, bool):
            has += size * held
        elif chunks and len(held) == -(-len(chunks) // 8):
            has += _bytes_of(chunks, unpack_bits(held, len(chunks)))
    state = "fetching" if answer.have.fetching else "has nothing" if not has else "offers"
    share = has / total if total else 0.0
    return SwarmProvider(str(answer.peer.node), state, share, 0.0, answer.peer.received, None)


def _idle(peer: Peer, state: str, reason: str) -> SwarmProvider:
    return SwarmProvider(str(peer.node), state, None, 0.0, peer.received, reason)
