"""What stands between a reader and the files: a licence that is asked for, a seal (spec/gates.md, spec/sealing.md)."""

from __future__ import annotations

from .disk import on_disk
from .node import Node
from .opening import find_key
from .operations.trust import Reason
from .receipts import own_receipt
from .resolve import Target, own_namespace
from .verdicts import bad, good, unknown


async def explain_gate(node: Node, target: Target | None) -> list[Reason]:
    """Say what must be accepted, and how that stands."""
    if target is None or target.namespace is None or target.model is None:
        return []
    return await on_disk(_gate, node, target)


def _gate(node: Node, target: Target) -> list[Reason]:
    about = "licence"
    assert target.namespace
    assert target.model
    gate = node.store.gates.of_repository(target.namespace, target.model)
    if gate is None:
        return []
    if gate.publisher == own_namespace(node):
        return [good(about, f"you ask everybody to accept {gate.name}")]
    receipt = own_receipt(node, gate)
    if receipt is None:
        return [bad(about, f"{gate.name} was not accepted here: `p2phub gate show {target.reference}`")]
    match node.access.gates.state(gate, receipt):
        case "good":
            return [good(about, f"{gate.name} was accepted here, by {receipt.namespace}")]
        case "waiting":
            return [unknown(about, f"{gate.name} was accepted here, and its publisher has not approved it yet")]
        case _:
            return [bad(about, f"{gate.name} was accepted here, and its publisher refused it, or let it run out")]


async def explain_seal(node: Node, target: Target | None) -> list[Reason]:
    """Say whether the files are sealed, and who opens them."""
    if target is None or target.manifest is None:
        return []
    manifest = await on_disk(node.store.manifests.get, target.manifest)
    if manifest is None or manifest.sealed is None:
        return []
    found = await on_disk(find_key, node, target.manifest, manifest)
    if found is None:
        return [bad("seal", "the files are sealed, and there is no key here that opens them")]
    if found.is_public:
        return [good("seal", "the files were sealed, and their publisher told everybody the key")]
    return [good("seal", "the files are sealed, and were sealed for you too")]
