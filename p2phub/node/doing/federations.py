"""Do what operations about federations say."""

from __future__ import annotations

from .. import federating
from ..events import Tell
from ..handlers import Handlers
from ..names import find
from ..node import Node
from ..operations.federations import (
    FederationAccept,
    FederationInfo,
    FederationInvite,
    FederationJoin,
    FederationLeave,
    FederationList,
    FederationRead,
    FederationRemove,
    FederationSetTerms,
    InviteInfo,
)


async def _invite(node: Node, op: FederationInvite, tell: Tell) -> InviteInfo:
    whom = await find(node, op.namespace, tell) if op.namespace else None
    return await federating.invite(node, op.name, whom=whom, days=op.days, terms=op.terms)


async def _read(node: Node, op: FederationRead, tell: Tell) -> FederationInfo:
    return await federating.read_invitation(node, op.text)


async def _join(node: Node, op: FederationJoin, tell: Tell) -> FederationInfo:
    return await federating.join(node, op.text)


async def _list(node: Node, op: FederationList, tell: Tell) -> list[FederationInfo]:
    return await federating.show(node, op.name)


async def _leave(node: Node, op: FederationLeave, tell: Tell) -> FederationInfo:
    return await federating.leave(node, op.name)


async def _accept(node: Node, op: FederationAccept, tell: Tell) -> FederationInfo:
    return await federating.accept(node, op.name)


async def _set_terms(node: Node, op: FederationSetTerms, tell: Tell) -> FederationInfo:
    return await federating.set_terms(node, op.name, op.terms)


async def _remove(node: Node, op: FederationRemove, tell: Tell) -> FederationInfo:
    return await federating.remove(node, op.name, await find(node, op.namespace, tell))


HANDLERS: Handlers = {
    FederationInvite: _invite,
    FederationRead: _read,
    FederationJoin: _join,
    FederationList: _list,
    FederationLeave: _leave,
    FederationAccept: _accept,
    FederationSetTerms: _set_terms,
    FederationRemove: _remove,
}
