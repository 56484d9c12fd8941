"""Do what operations about pledges say."""

from __future__ import annotations

from .. import pledging
from ..events import Tell
from ..handlers import Handlers
from ..node import Node
from ..operations.pledges import PledgeAdd, PledgeInfo, PledgeList, PledgeRemove


async def _pledge(node: Node, op: PledgeAdd, tell: Tell) -> PledgeInfo:
    return await pledging.pledge(node, op.reference, replicas=op.replicas, days=op.days, tell=tell)


async def _pledge_list(node: Node, op: PledgeList, tell: Tell) -> list[PledgeInfo]:
    return await pledging.show(node, op.reference, tell)


async def _pledge_remove(node: Node, op: PledgeRemove, tell: Tell) -> PledgeInfo:
    return await pledging.unpledge(node, op.reference, tell)


HANDLERS: Handlers = {
    PledgeAdd: _pledge,
    PledgeList: _pledge_list,
    PledgeRemove: _pledge_remove,
}
