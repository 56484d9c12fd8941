"""What stands in the way of what this node promised to keep, and what wakes the task that keeps it."""

from __future__ import annotations

import trio
from msgspec import Struct

from p2phub.core.ids import ManifestId


class Problem(Struct, frozen=True):
    """Why a revision that this node is to keep did not come."""

    reason: str
    tries: int
    next_try: float  # on trio's clock


class Wake:
    """What wakes a task that looks from time to time, when there is something to do."""

    def __init__(self) -> None:
        self.woken = trio.Event()

    def wake(self) -> None:
        """Let the task look at once."""
        self.woken.set()
        self.woken = trio.Event()


class Promises(Wake):
    """What the task that keeps promises found out, and what wakes it."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: dict[ManifestId, Problem] = {}
