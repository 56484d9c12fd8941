"""What names of federations mean where publishers are named, too."""

from __future__ import annotations

from .disk import on_disk
from .federatedgrants import PREFIX
from .federations import membership_of, memberships
from .identity import own_namespace
from .node import Node


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
