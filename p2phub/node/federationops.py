"""Do what operations about federations say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from p2phub.core.ids import NamespaceId

from . import federating
from .disk import on_disk
from .events import Tell
from .federatedgrants import PREFIX
from .federations import membership_of, memberships
from .identity import own_namespace
from .node import Node
from .operations import (
    FederationAccept,
    FederationInvite,
    FederationJoin,
    FederationLeave,
    FederationList,
    FederationRead,
    FederationRemove,
    FederationSetTerms,
    Operation,
)
from .results import FederationInfo, InviteInfo


async def _invite(node: Node, op: FederationInvite, tell: Tell) -> InviteInfo:
    whom = NamespaceId.parse(op.namespace) if op.namespace else None
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
    return await federating.remove(node, op.name, NamespaceId.parse(op.namespace))


async def is_federation(node: Node, name: str) -> bool:
    """Say whether `name`, or `federation:name`, means a federation that this home is a member of.

    Raises NotFound for the second form of one that it does not belong to.
    """
    own = await on_disk(own_namespace, node)
    if name.startswith(PREFIX):
        await on_disk(membership_of, node.store, name.removeprefix(PREFIX), own, node.clock())
        return True
    if await on_disk(node.store.bindings.get, name) is not None:
        return False  # a publisher is called so
    return any(each.is_called(name) for each in await on_disk(memberships, node.store, own, node.clock()))


HANDLERS: dict[type[Operation], Callable[[Node, Any, Tell], Awaitable[Any]]] = {
    FederationInvite: _invite,
    FederationRead: _read,
    FederationJoin: _join,
    FederationList: _list,
    FederationLeave: _leave,
    FederationAccept: _accept,
    FederationSetTerms: _set_terms,
    FederationRemove: _remove,
}
