"""The cases. Each module has one or two: the rows, what they need, and their targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..measuring import Row
from ..workplace import Workplace
from . import catalogue, fetch, finetune, hub, memory, providers, publish, reconcile, small, swarm


@dataclass(frozen=True)
class Case:
    """A case of the command line."""

    summary: str
    rows: Callable[[Workplace], list[Row]]
    options: tuple[str, ...] = ("size",)  # of the command line, that change it
    default: bool = True  # part of a run that names no case


CAPPED = ("size", "nodes", "rate")
CASES = {
    "fetch": Case("a large file from one provider and from three, beside the limit and the others", fetch.rows),
    "providers": Case("three providers with capped uplinks against one", providers.rows, ("size", "rate")),
    "swarm": Case("1 → 4 and 8 nodes at once, every uplink capped", swarm.rows, CAPPED),
    "growth": Case("1 → 4, 8, 16 nodes: how the time grows; --svg plots it", swarm.growth_rows, CAPPED, default=False),
    "small": Case("100 and 1,000 files of 10 KB", small.rows, ()),
    "finetune": Case("a fine-tune of a model that is here", finetune.rows),
    "memory": Case("memory with a very large file and with many connections", memory.rows, default=False),
    "hub": Case("the hub's own client through the local door, and from the cache view", hub.rows),
    "reconcile": Case("two catalogues, equal and almost so: bytes and questions", reconcile.rows, (), default=False),
    "catalogue": Case(
        "take a catalogue over, and search it while more comes in", catalogue.rows, ("records", "keep"), default=False
    ),
    "publish": Case("publish and verify, beside copying and hashing", publish.rows),
}
