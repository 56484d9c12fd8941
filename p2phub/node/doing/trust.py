"""Do what operations about names say."""

from __future__ import annotations

from .. import claiming, trust
from ..events import Tell
from ..handlers import Handlers
from ..node import Node
from ..operations.trust import (
    BindingInfo,
    CheckDomain,
    ClaimDomain,
    DomainFile,
    Reason,
    TrustAccept,
    TrustAdd,
    TrustList,
    TrustRemove,
    TrustWhy,
)
from ..why import why


async def _trust_add(node: Node, op: TrustAdd, tell: Tell) -> BindingInfo:
    return await trust.add_name(node, op.name, op.namespace, tell)


async def _trust_accept(node: Node, op: TrustAccept, tell: Tell) -> BindingInfo:
    return await trust.accept_name(node, op.name, tell)


async def _trust_remove(node: Node, op: TrustRemove, tell: Tell) -> BindingInfo:
    return await trust.remove_name(node, op.name)


async def _trust_list(node: Node, op: TrustList, tell: Tell) -> list[BindingInfo]:
    return await trust.list_names(node)


async def _trust_why(node: Node, op: TrustWhy, tell: Tell) -> list[Reason]:
    return await why(node, op.reference, tell)


async def _claim_domain(node: Node, op: ClaimDomain, tell: Tell) -> DomainFile:
    if op.drop:
        return await claiming.drop_domain(node, op.domain)
    return await claiming.claim_domain(node, op.domain, op.nodes, tell)


async def _check_domain(node: Node, op: CheckDomain, tell: Tell) -> list[Reason]:
    return await claiming.check_domain(node, op.domain)


HANDLERS: Handlers = {
    TrustAdd: _trust_add,
    TrustAccept: _trust_accept,
    TrustRemove: _trust_remove,
    TrustList: _trust_list,
    TrustWhy: _trust_why,
    ClaimDomain: _claim_domain,
    CheckDomain: _check_domain,
}
