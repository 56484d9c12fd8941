"""The cases. Each module has one: its rows, what it needs, and its targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..measuring import Row
from ..workplace import Workplace
from . import swarm


@dataclass(frozen=True)
class Case:
    """A case of the command line."""

    summary: str
    rows: Callable[[Workplace], list[Row]]
    default: bool = True  # part of a run that names no case


CASES = {
    "swarm": Case("1 → N nodes in namespaces, every uplink capped", swarm.rows),
}
