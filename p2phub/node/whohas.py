"""Say who has a repository, as peers say now and as others said before (spec/gossip.md §9)."""

from __future__ import annotations

from p2phub.core.errors import NotFound
from p2phub.core.ids import NodeId
from p2phub.store.peers import Peer

from .allowed import peers_about
from .disk import on_disk
from .events import Tell
from .explain import told
from .node import Node
from .operations.swarm import KnownProvider, Providers
from .resolve import load_manifest, resolve
from .survey import ask_who_has

ASKED_MAX = 32  # peers that are asked now; spec/gossip.md §9
STATES = ("offers", "fetching", "said so", "busy", "gone")  # in the order in which providers are shown


async def providers(node: Node, reference: str, tell: Tell) -> Providers:
    """Return who has what `reference` means, as peers say now and as others said before.

    Raises NotFound, and Offline if only peers could tell what the reference means.
    """
    target = await resolve(node, reference, tell, refresh=False)
    if target.manifest is None:
        raise NotFound(f"{reference} is no manifest that is known here", hint="`p2phub swarm` shows who gives a file")
    manifest = await load_manifest(node, target.manifest, tell)
    holdings = {each.node: each for each in await on_disk(node.store.holdings.of, target.manifest)}
    peers = {peer.node: peer for peer in await peers_about(node, [target.manifest, *(f.root for f in manifest.files)])}
    asked = [] if node.settings.offline else _whom_to_ask(node, list(holdings), peers)
    roots = [file.root for file in manifest.files]
    answers = await ask_who_has(node, roots, asked)
    found: dict[NodeId, KnownProvider] = {}
    for answer in answers:
        who = answer.peer
        said = await on_disk(told, node, answer, roots)
        holding = holdings.get(who.node)
        if said.state == "has nothing" or (answer.have is None and holding is None):
            continue
        share = said.has if answer.have is not None else holding.share / 1000 if holding else None
        when = int(node.clock()) if answer.have is not None else holding.time if holding else None
        found[who.node] = await _provider(node, who, said.state, share, when, said.reason)
    for holding in holdings.values():
        peer = peers.get(holding.node)
        if holding.node not in found and peer and holding.node not in {answer.peer.node for answer in answers}:
            found[holding.node] = await _provider(node, peer, "said so", holding.share / 1000, holding.time, None)
    listed = sorted(found.values(), key=lambda each: (STATES.index(each.state), -(each.has or 0.0), each.node))
    return Providers(reference, str(target.manifest), len(answers), listed)


def _whom_to_ask(node: Node, holders: list[NodeId], peers: dict[NodeId, Peer]) -> list[Peer]:
    """Return the peers to ask: those that said to have it, neighbours, and others that answered last."""
    order = dict.fromkeys([*holders, *node.neighbours.members.active, *peers])
    return [peers[each] for each in order if each in peers][:ASKED_MAX]


async def _provider(
    node: Node, peer: Peer, state: str, share: float | None, time: int | None, reason: str | None
) -> KnownProvider:
    return KnownProvider(
        node=str(peer.node),
        addresses=peer.addresses,
        link=await node.links.class_of(peer),
        state=state,
        has=share,
        time=time,
        reason=reason,
    )
