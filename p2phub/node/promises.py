"""What stands in the way of what this node promised to keep, and what wakes the task that keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from p2phub.core.ids import ManifestId


@dataclass(frozen=True)
class Problem:
    """Why a revision that this node is to keep did not come."""

    reason: str
    tries: int
    next_try: float  # on trio's clock


class Promises:
    """What the task that keeps promises found out, and what wakes it."""

    def __init__(self) -> None:
        self.problems: dict[ManifestId, Problem] = {}
        self.woken = trio.Event()

    def wake(self) -> None:
        """Let the task look at once: something was promised, or taken back."""
        self.woken.set()
        self.woken = trio.Event()
