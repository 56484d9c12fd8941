"""Give back what journals hold for nothing, while the node serves (spec/store.md §4)."""

from __future__ import annotations

import logging

import trio

from p2phub.core.errors import StoreError

from .disk import on_disk
from .node import Node

log = logging.getLogger(__name__)

LOOK_S = 3600.0  # seconds between looks whether a journal is due
BREAK_S = 0.05  # seconds between steps: others are to have the disk, and the processor


async def compact_journals(node: Node) -> None:
    """Make journals smaller of which little counts; runs until cancelled."""
    while True:
        try:
            freed = await _compact(node)
            if freed:
                log.info("journals gave back %d bytes", freed)
        except StoreError as exc:
            log.warning("cannot make journals smaller for now: %s", exc)
        await trio.sleep(LOOK_S)


async def _compact(node: Node) -> int:
    """Do all that is due; returns the bytes freed."""
    steps = node.store.logs.compact(node.clock())
    freed = 0
    while (step := await on_disk(next, steps, None)) is not None:
        freed += step
        await trio.sleep(BREAK_S)
    return freed
