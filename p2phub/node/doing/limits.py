"""Do what operations about the limits of links say."""

from __future__ import annotations

from p2phub.core.limits import LinkSettings

from .. import limits
from ..events import Tell
from ..handlers import Handlers
from ..node import Node
from ..operations.limits import SetLabel, SetLimit, SetRange, ShowLimits


async def _limits(node: Node, op: ShowLimits, tell: Tell) -> LinkSettings:
    return await node.links.refresh()


async def _set_limit(node: Node, op: SetLimit, tell: Tell) -> LinkSettings:
    return await limits.set_limit(node, op.link, up=op.up, down=op.down, background=op.background)


async def _set_range(node: Node, op: SetRange, tell: Tell) -> LinkSettings:
    return await limits.set_range(node, op.range, op.link)


async def _set_label(node: Node, op: SetLabel, tell: Tell) -> LinkSettings:
    return await limits.set_label(node, op.label, op.link)


HANDLERS: Handlers = {
    ShowLimits: _limits,
    SetLimit: _set_limit,
    SetRange: _set_range,
    SetLabel: _set_label,
}
