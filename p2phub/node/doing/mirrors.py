"""Do what operations about mirrors say."""

from __future__ import annotations

from .. import mirrortrust
from ..events import Tell
from ..handlers import Handlers
from ..names import find
from ..node import Node
from ..operations.mirrors import (
    MirrorAdd,
    MirrorInfo,
    MirrorList,
    MirrorRemove,
    MirrorTrust,
    MirrorUpdate,
    TrustedMirrors,
)


async def _mirror_add(node: Node, op: MirrorAdd, tell: Tell) -> MirrorInfo:
    from .. import mirroring  # loads what publishing does

    return await mirroring.add(node, op.reference, op.kind, tell)


async def _mirror_list(node: Node, op: MirrorList, tell: Tell) -> list[MirrorInfo]:
    from .. import mirroring

    return await mirroring.show(node)


async def _mirror_update(node: Node, op: MirrorUpdate, tell: Tell) -> list[MirrorInfo]:
    from .. import mirroring

    return await mirroring.update(node, op.reference, op.kind, tell)


async def _mirror_remove(node: Node, op: MirrorRemove, tell: Tell) -> MirrorInfo:
    from .. import mirroring

    return await mirroring.remove(node, op.reference, op.kind)


async def _mirror_trust(node: Node, op: MirrorTrust, tell: Tell) -> TrustedMirrors:
    namespace = await find(node, op.namespace, tell) if op.namespace else None
    return await mirrortrust.trust(node, namespace, is_trusted=op.trusted)


HANDLERS: Handlers = {
    MirrorAdd: _mirror_add,
    MirrorList: _mirror_list,
    MirrorUpdate: _mirror_update,
    MirrorRemove: _mirror_remove,
    MirrorTrust: _mirror_trust,
}
