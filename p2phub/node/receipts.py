"""Show what was accepted where content is behind a gate, and look at what others show (spec/gates.md §3).

own receipts ──signed request──▶ each peer that is asked ──is it his, and does it fit?──▶ kept there
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import trio

from p2phub.core.access import Caller
from p2phub.core.errors import HubError, InvalidData, NotAccepted, PeerError
from p2phub.core.gates import Gate, check_fits, is_of, open_receipt, read_receipt
from p2phub.core.identity import Identity, open_identity
from p2phub.core.ids import ContentId, ManifestId, NamespaceId
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import RECEIPTS_MAX, IdentityChain, ReceiptsAnswer, ReceiptsQuery
from p2phub.store.peers import Peer

from .allowed import peers_about
from .calling import call_peer
from .disk import on_disk
from .events import Notice, Tell
from .identity import own_namespace
from .node import Node

if TYPE_CHECKING:
    from p2phub.store.gates import KeptReceipt

SHOWN_TO_MAX = 16  # peers that a receipt is shown to when it is made
SHOW_TIMEOUT_S = 10.0  # that they are waited for


# ── who wants it ────────────────────────────────────────────────────────────


Asked = tuple[NamespaceId, str]  # the repository that somebody names


async def require_accepted(node: Node, revision: ManifestId, asked: Asked | None, tell: Tell) -> None:
    """Raise NotAccepted if the publisher asks for something that was not accepted here.

    asked: the repository that is fetched; None: it is asked for by its hash, and any that has it will do.
    """
    closed = await on_disk(_closed_gate, node, revision, asked)
    if closed is None:
        return
    gate, state, receipt = closed
    if receipt is not None and state == "waiting" and not node.settings.offline:
        # The publisher's own node may be there now.
        await show_to_some(node, gate, receipt, tell)
    raise _not_accepted(gate, state)


def check_accepted(node: Node, revision: ManifestId, asked: Asked | None) -> None:
    """Raise NotAccepted as `require_accepted` does, without asking anybody."""
    closed = _closed_gate(node, revision, asked)
    if closed is not None:
        raise _not_accepted(closed[0], closed[1])


async def show_receipts(node: Node, client: PeerClient, roots: Collection[ContentId]) -> None:
    """Show a peer what was accepted here for the files `roots`, before it is asked for them. Raises PeerError."""
    receipts = await on_disk(_receipts_for, node, roots)
    if receipts:
        await _show(node, client, receipts)


async def show_to_some(node: Node, gate: Gate, receipt: KeptReceipt, tell: Tell) -> int:
    """Show a receipt to those peers that may hear of what is behind the gate; returns how many took it soon."""
    took = 0

    async def one(peer: Peer) -> None:
        nonlocal took
        try:
            async with call_peer(node, peer) as client:
                took += await _show(node, client, [receipt])
        except PeerError as exc:
            tell(Notice(str(exc)))

    releases = await on_disk(node.store.listing.releases, gate.publisher, gate.model)
    peers = await peers_about(node, [revision for revision, _, _ in releases])
    with trio.move_on_after(SHOW_TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            for peer in peers[:SHOWN_TO_MAX]:
                nursery.start_soon(one, peer)
    return took


def own_receipt(node: Node, gate: Gate) -> KeptReceipt | None:
    """Return the receipt for `gate` that was made here, None if there is none that this machine can use."""
    fitting = [each for each in node.store.gates.own_receipts(gate) if each.node in (None, node.id)]
    return fitting[-1] if fitting else None


def query_of(node: Node, receipts: Sequence[KeptReceipt]) -> ReceiptsQuery:
    chains = []
    for namespace in dict.fromkeys(receipt.namespace for receipt in receipts):
        identity = node.store.logs.identity(namespace)
        chains += [IdentityChain(identity.chain)] if identity else []
    return ReceiptsQuery(tuple(receipt.data for receipt in receipts), tuple(chains))


def _closed_gate(node: Node, revision: ManifestId, asked: Asked | None) -> tuple[Gate, str, KeptReceipt | None] | None:
    """Return the gate before a revision, if it was not passed here, with how far it is and what was given."""
    gates = node.store.gates
    if not gates.has_any():
        return None
    if asked is not None:
        named = gates.of_repository(*asked)
        places = [named] if named else []
    else:
        found = gates.of_manifest(revision)
        places = [place.gate for place in found if place.gate] if all(place.gate for place in found) else []
    own = own_namespace(node)
    first: tuple[Gate, str, KeptReceipt | None] | None = None
    for gate in places:
        receipt = own_receipt(node, gate)
        state = node.access.gates.state(gate, receipt) if receipt else "asked"
        if gate.publisher == own or state == "good":
            return None
        first = first or (gate, state, receipt)
    return first


def _not_accepted(gate: Gate, state: str) -> NotAccepted:
    name = name_of(gate)
    if state == "asked":
        return NotAccepted(
            f"{gate.model} asks you to accept a licence first: {gate.name}",
            hint=f"read it by `p2phub gate show {name}`, accept it by `p2phub gate accept {name}`",
        )
    if state == "waiting":
        return NotAccepted(
            f"you accepted {gate.name} for {gate.model}, and its publisher has not approved it yet",
            hint="your receipt was shown to the peers that are there; try again later",
        )
    return NotAccepted(f"the publisher of {gate.model} refused your receipt, or let it run out")


def _receipts_for(node: Node, roots: Collection[ContentId]) -> list[KeptReceipt]:
    if not node.store.gates.has_any():
        return []
    places = node.store.gates.of_content(roots)
    gates = {place.gate.leaf: place.gate for each in places.values() for place in each if place.gate}
    found = (own_receipt(node, gate) for gate in gates.values())
    return [receipt for receipt in found if receipt]


async def _show(node: Node, client: PeerClient, receipts: Sequence[KeptReceipt]) -> bool:
    """Show receipts to one peer; returns whether it takes them all."""
    from .introduce import introduce

    await introduce(node, client)
    good = True
    for begin in range(0, len(receipts), RECEIPTS_MAX):
        query = await on_disk(query_of, node, receipts[begin : begin + RECEIPTS_MAX])
        answer = await client.show_receipts(query)
        good = good and answer is not None and all(state in ("good", "waiting") for state in answer.states)
    return good


# ── who serves it ───────────────────────────────────────────────────────────


def take_receipts(node: Node, caller: Caller, query: ReceiptsQuery) -> ReceiptsAnswer:
    """Look at what a caller shows, and keep what is good. caller: who has said who he is."""
    chains = identities_in(query)
    states = []
    for data in query.receipts:
        try:
            states.append(_take(node, caller, data, chains))
        except HubError as exc:
            states.append(str(exc)[:200])
    return ReceiptsAnswer(tuple(states))


def identities_in(query: ReceiptsQuery) -> dict[NamespaceId, Identity]:
    found = {}
    for chain in query.identities:
        identity = open_identity(chain.documents)
        found[identity.namespace] = identity
    return found


def newest_identity(
    node: Node, namespace: NamespaceId, chains: dict[NamespaceId, Identity], caller: Caller | None = None
) -> Identity:
    """Return the identity that counts: of one that is known here the longer chain. Raises InvalidData.

    caller: who shows `chains`; None: somebody at this machine.
    """
    shown = chains.get(namespace)
    looked_up = namespace
    if caller is not None and shown is None:
        # To him, one whom this node knows in private alone is as one whom nobody knows.
        (looked_up,) = node.access.shown_publishers(caller, (namespace,), node.following.own)
    known = node.store.logs.identity(looked_up)
    if known is None and shown is None:
        raise InvalidData("who signed the receipt is not known here")
    if known is None or shown is None:
        found = known or shown
        assert found
        return found
    if not (shown.continues(known) or known.continues(shown)):
        raise InvalidData("the identity shown is another history than the known one")
    return shown if len(shown.chain) > len(known.chain) else known


def name_of(gate: Gate) -> str:
    return f"{gate.publisher}/{gate.model}"


def _take(node: Node, caller: Caller, data: bytes, chains: dict[NamespaceId, Identity]) -> str:
    receipt = read_receipt(data)
    if not is_of(receipt, caller):
        raise InvalidData("the receipt is of somebody else")
    gate = node.store.gates.by_leaf(receipt.gate)
    if gate is None:
        raise InvalidData("no gate that is known here asks for this")
    check_fits(receipt, gate)
    identity = newest_identity(node, receipt.namespace, chains, caller)
    keys = node.authority.newest_keys(identity.publish_keys)
    signed = open_receipt(data, keys, now=node.clock())
    node.store.gates.keep(signed, caller.node)
    node.store.publishing.note(keys)
    kept = node.store.gates.receipt(signed.hash)
    assert kept
    return node.access.gates.state(gate, kept)
