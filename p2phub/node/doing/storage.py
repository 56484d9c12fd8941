"""Do what operations about the store and about mirrors say."""

from __future__ import annotations

import time
from pathlib import Path

from p2phub.core.rules import Consent

from .. import housekeeping, mirrortrust
from ..disk import on_disk
from ..events import Notice, Tell
from ..handlers import Handlers
from ..hubcache import view_store
from ..names import find
from ..node import Node
from ..operations import (
    MirrorAdd,
    MirrorList,
    MirrorRemove,
    MirrorTrust,
    MirrorUpdate,
    StoreAdopt,
    StoreCollect,
    StoreList,
    StorePin,
    StoreRebuild,
    StoreRemove,
    StoreUnpin,
    StoreUse,
    StoreView,
)
from ..results import (
    Adopted,
    CacheView,
    DiskUse,
    Freed,
    MirrorInfo,
    PinResult,
    RebuildResult,
    StoredRepository,
    TrustedMirrors,
)


async def _store_list(node: Node, op: StoreList, tell: Tell) -> list[StoredRepository]:
    return await housekeeping.list_repositories(node)


async def _store_remove(node: Node, op: StoreRemove, tell: Tell) -> Freed:
    return await housekeeping.remove(node, op.reference, tell)


async def _store_collect(node: Node, op: StoreCollect, tell: Tell) -> Freed:
    return await housekeeping.collect_garbage(node, unpinned=op.unpinned, tell=tell)


async def _store_pin(node: Node, op: StorePin, tell: Tell) -> PinResult:
    return PinResult(str(await housekeeping.pin(node, op.reference, tell)))


async def _store_unpin(node: Node, op: StoreUnpin, tell: Tell) -> PinResult:
    return PinResult(str(await housekeeping.unpin(node, op.reference, tell)))


async def _store_use(node: Node, op: StoreUse, tell: Tell) -> DiskUse:
    return await housekeeping.disk_use(node)


async def _store_rebuild(node: Node, op: StoreRebuild, tell: Tell) -> RebuildResult:
    start = time.monotonic()
    found = await on_disk(node.store.rebuild, lambda text: None)
    await on_disk(housekeeping.pin_published, node)
    tell(Notice(f"rebuilt in {time.monotonic() - start:.1f} s"))
    return RebuildResult(**found)


async def _store_view(node: Node, op: StoreView, tell: Tell) -> CacheView:
    consent = Consent(pickles=op.allow_pickle, code=op.with_code)
    return await view_store(node, Path(op.folder), op.link, tell, consent=consent)


async def _store_adopt(node: Node, op: StoreAdopt, tell: Tell) -> Adopted:
    from ..adopt import adopt  # loads what publishing does

    return await adopt(node, Path(op.folder), tell)


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
    StoreList: _store_list,
    StoreRemove: _store_remove,
    StoreCollect: _store_collect,
    StorePin: _store_pin,
    StoreUnpin: _store_unpin,
    StoreUse: _store_use,
    StoreView: _store_view,
    StoreAdopt: _store_adopt,
    StoreRebuild: _store_rebuild,
    MirrorAdd: _mirror_add,
    MirrorList: _mirror_list,
    MirrorUpdate: _mirror_update,
    MirrorRemove: _mirror_remove,
    MirrorTrust: _mirror_trust,
}
