"""Give back what journals hold for nothing, and merge what search goes through, while the node serves.

See spec/store.md §4, §5.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import trio

from p2phub.core.errors import StoreError

from .disk import on_disk
from .node import Node

log = logging.getLogger(__name__)

LOOK_S = 3600.0  # seconds between looks whether a journal is due
BREAK_S = 0.05  # seconds between steps: others are to have the disk, and the processor
MERGE_LOOK_S = 60.0  # seconds between looks whether the index of search is in too many pieces
BUSY_RATE = 1000  # new repositories a second while a catalogue is taken over, which is not to wait for the merging


async def compact_journals(node: Node) -> None:
    """Make journals smaller of which little counts; runs until cancelled."""
    while True:
        try:
            freed = await _each(node.store.logs.compact(node.clock()))
            if freed:
                log.info("journals gave back %d bytes", freed)
        except StoreError as exc:
            log.warning("cannot make journals smaller for now: %s", exc)
        await trio.sleep(LOOK_S)


async def merge_search(node: Node) -> None:
    """Keep the index of search in few pieces; runs until cancelled."""
    count: int | None = None
    while True:
        try:
            before, count = count, await on_disk(node.store.search.count)
            is_quiet = before is not None and count - before <= BUSY_RATE * MERGE_LOOK_S
            if is_quiet and (pages := await _each(node.store.index.merge())):
                log.info("the index of search was merged: about %d pages", pages)
        except StoreError as exc:
            log.warning("cannot merge the index of search for now: %s", exc)
        await trio.sleep(MERGE_LOOK_S)


async def _each(steps: Iterator[int]) -> int:
    """Do one step after the other, each on the disk; returns the sum of what they give."""
    done = 0
    while (step := await on_disk(next, steps, None)) is not None:
        done += step
        await trio.sleep(BREAK_S)
    return done
