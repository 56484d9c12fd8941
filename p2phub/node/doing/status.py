"""Do what asks how the node is."""

from __future__ import annotations

from .. import inspect
from ..events import Tell
from ..handlers import Handlers
from ..node import Node
from ..operations.status import GetStatus, Status


async def _status(node: Node, op: GetStatus, tell: Tell) -> Status:
    return await inspect.status(node)


HANDLERS: Handlers = {
    GetStatus: _status,
}
