"""Do what operations about whose records are taken in say."""

from __future__ import annotations

from p2phub.core.policy import Policy, changed

from ..disk import on_disk
from ..events import Tell
from ..federationnames import is_federation
from ..handlers import Handlers
from ..names import find
from ..node import Node
from ..operations.policy import ChangePolicy, ShowPolicy


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


HANDLERS: Handlers = {
    ShowPolicy: _policy,
    ChangePolicy: _set_policy,
}
