"""Do what operations about who may read private repositories say."""

from __future__ import annotations

from p2phub.core.errors import InvalidName

from .. import federatedgrants, granting
from ..events import Tell
from ..handlers import Handlers
from ..node import Node
from ..operations.grants import GrantAccess, ListGrants, PrivateInfo, RevokeAccess


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


HANDLERS: Handlers = {
    GrantAccess: _grant,
    RevokeAccess: _revoke,
    ListGrants: _grants,
}
