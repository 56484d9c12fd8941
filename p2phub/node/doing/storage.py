"""Do what operations about the store say."""

from __future__ import annotations

import time
from pathlib import Path

from p2phub.core.rules import Consent

from .. import housekeeping
from ..disk import on_disk
from ..events import Notice, Tell
from ..handlers import Handlers
from ..hubcache import view_store
from ..node import Node
from ..operations.storage import (
    Adopted,
    CacheView,
    DiskUse,
    Freed,
    PinResult,
    RebuildResult,
    StoreAdopt,
    StoreCollect,
    StoredRepository,
    StoreList,
    StorePin,
    StoreRebuild,
    StoreRemove,
    StoreUnpin,
    StoreUse,
    StoreView,
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


async def _store_view(node: Node, op: StoreView, tell: Tell) -> CacheView:
    consent = Consent(pickles=op.allow_pickle, code=op.with_code)
    return await view_store(node, Path(op.folder), op.link, tell, consent=consent)


async def _store_adopt(node: Node, op: StoreAdopt, tell: Tell) -> Adopted:
    from ..adopt import adopt  # loads what publishing does

    return await adopt(node, Path(op.folder), tell)


async def _store_rebuild(node: Node, op: StoreRebuild, tell: Tell) -> RebuildResult:
    start = time.monotonic()
    found = await on_disk(node.store.rebuild, lambda text: None)
    await on_disk(housekeeping.pin_published, node)
    tell(Notice(f"rebuilt in {time.monotonic() - start:.1f} s"))
    return RebuildResult(**found)


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
}
