"""Do what operations about names, rules and access say."""

from __future__ import annotations

from p2phub.core.errors import InvalidName
from p2phub.core.rules import Consent

from .. import claiming, federatedgrants, granting, rulecheck, trust, witnesses
from ..events import Tell
from ..handlers import Handlers
from ..node import Node
from ..operations import (
    AddWitness,
    CheckDomain,
    CheckRules,
    ClaimDomain,
    GrantAccess,
    ListGrants,
    ListWitnesses,
    RemoveWitness,
    RevokeAccess,
    ShowRules,
    TrustAccept,
    TrustAdd,
    TrustList,
    TrustRemove,
    TrustWhy,
)
from ..results import BindingInfo, DomainFile, PolicyCheck, PrivateInfo, Reason, ShownRules
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


async def _grant(node: Node, op: GrantAccess, tell: Tell) -> PrivateInfo:
    if op.who.startswith(federatedgrants.PREFIX):
        if op.days is not None:
            raise InvalidName("a grant to a federation lasts as long as its members are in it: it takes no --days")
        return await federatedgrants.grant(node, op.name, op.who.removeprefix(federatedgrants.PREFIX), tell)
    return await granting.grant(node, op.name, op.who, op.days, tell)


async def _revoke(node: Node, op: RevokeAccess, tell: Tell) -> PrivateInfo:
    if op.who.startswith(federatedgrants.PREFIX):
        return await federatedgrants.revoke(node, op.name, op.who.removeprefix(federatedgrants.PREFIX), tell)
    return await granting.revoke(node, op.name, op.who, op.message, tell)


async def _grants(node: Node, op: ListGrants, tell: Tell) -> list[PrivateInfo]:
    return await granting.show(node, op.name, tell)


async def _show_rules(node: Node, op: ShowRules, tell: Tell) -> ShownRules:
    return await rulecheck.show(node)


async def _check_rules(node: Node, op: CheckRules, tell: Tell) -> PolicyCheck:
    consent = Consent(pickles=op.allow_pickle, code=op.with_code)
    return await rulecheck.check_reference(node, op.reference, consent, tell)


HANDLERS: Handlers = {
    TrustAdd: _trust_add,
    TrustAccept: _trust_accept,
    TrustRemove: _trust_remove,
    TrustList: _trust_list,
    TrustWhy: _trust_why,
    ClaimDomain: _claim_domain,
    CheckDomain: _check_domain,
    AddWitness: witnesses.add,
    ListWitnesses: witnesses.show,
    RemoveWitness: witnesses.remove,
    GrantAccess: _grant,
    RevokeAccess: _revoke,
    ListGrants: _grants,
    ShowRules: _show_rules,
    CheckRules: _check_rules,
}
