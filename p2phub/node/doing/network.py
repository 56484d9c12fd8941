"""Do what operations about this node and what it does with others say."""

from __future__ import annotations

from p2phub.core.limits import LinkSettings
from p2phub.core.policy import Policy, changed

from .. import inspect, limits, pledging, whohas
from ..disk import on_disk
from ..events import Tell
from ..explain import swarm_info
from ..federationnames import is_federation
from ..handlers import Handlers
from ..names import find
from ..node import Node
from ..operations import (
    ChangePolicy,
    ExplainSwarm,
    GetStatus,
    ListProviders,
    PledgeAdd,
    PledgeList,
    PledgeRemove,
    SetLabel,
    SetLimit,
    SetRange,
    ShowLimits,
    ShowPolicy,
)
from ..results import PledgeInfo, Providers, Status, SwarmInfo


async def _swarm(node: Node, op: ExplainSwarm, tell: Tell) -> SwarmInfo:
    return await swarm_info(node, op.reference, tell)


async def _providers(node: Node, op: ListProviders, tell: Tell) -> Providers:
    return await whohas.providers(node, op.reference, tell)


async def _status(node: Node, op: GetStatus, tell: Tell) -> Status:
    return await inspect.status(node)


async def _limits(node: Node, op: ShowLimits, tell: Tell) -> LinkSettings:
    return await node.links.refresh()


async def _set_limit(node: Node, op: SetLimit, tell: Tell) -> LinkSettings:
    return await limits.set_limit(node, op.link, up=op.up, down=op.down, background=op.background)


async def _set_range(node: Node, op: SetRange, tell: Tell) -> LinkSettings:
    return await limits.set_range(node, op.range, op.link)


async def _set_label(node: Node, op: SetLabel, tell: Tell) -> LinkSettings:
    return await limits.set_label(node, op.label, op.link)


async def _policy(node: Node, op: ShowPolicy, tell: Tell) -> Policy:
    return await on_disk(node.following.refresh)


async def _set_policy(node: Node, op: ChangePolicy, tell: Tell) -> Policy:
    # Members of federations are followed anyway where only some publishers are: nothing is to be noted.
    named = [name for name in op.follow if not await is_federation(node, name)]
    follow, unfollow, block, unblock = [
        tuple([str(await find(node, name, tell)) for name in names])
        for names in (named, op.unfollow, op.block, op.unblock)
    ]

    def change(old: Policy) -> Policy:
        return Policy(
            mode=op.mode or old.mode,
            followed=changed(old.followed, follow, unfollow),
            blocked=changed(old.blocked, block, unblock),
            records_max=old.records_max if op.records_max is None else op.records_max or None,
            bytes_max=old.bytes_max if op.bytes_max is None else op.bytes_max or None,
        )

    return await on_disk(node.following.change, change)


async def _pledge(node: Node, op: PledgeAdd, tell: Tell) -> PledgeInfo:
    return await pledging.pledge(node, op.reference, replicas=op.replicas, days=op.days, tell=tell)


async def _pledge_list(node: Node, op: PledgeList, tell: Tell) -> list[PledgeInfo]:
    return await pledging.show(node, op.reference, tell)


async def _pledge_remove(node: Node, op: PledgeRemove, tell: Tell) -> PledgeInfo:
    return await pledging.unpledge(node, op.reference, tell)


HANDLERS: Handlers = {
    ExplainSwarm: _swarm,
    ListProviders: _providers,
    GetStatus: _status,
    ShowLimits: _limits,
    SetLimit: _set_limit,
    SetRange: _set_range,
    SetLabel: _set_label,
    ShowPolicy: _policy,
    ChangePolicy: _set_policy,
    PledgeAdd: _pledge,
    PledgeList: _pledge_list,
    PledgeRemove: _pledge_remove,
}
