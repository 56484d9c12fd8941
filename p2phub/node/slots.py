"""The places for answers with content, and who gets the next one (spec/transfer.md §5).

Who holds the fewest goes first, and nobody holds all, so that one that asks for much does
not keep out those who ask for little. Askers are told apart by address.
"""

from __future__ import annotations

from collections import Counter

import trio

UPLOAD_SLOTS = 8  # answers with content at once; spec/transfer.md §5
UPLOAD_SLOTS_EACH = 6  # of one address; spec/transfer.md §5


class UploadSlots:
    """A number of places, shared fairly."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()  # by asker
        self._waiting: dict[object, tuple[str, trio.Event]] = {}  # in the order of their coming

    @property
    def taken(self) -> int:
        """How many are in use."""
        return self._taken.total()

    async def acquire(self, asker: str) -> None:
        """Take a place for `asker`, as soon as there is one."""
        ticket, granted = object(), trio.Event()
        self._waiting[ticket] = asker, granted
        self._grant()
        try:
            await granted.wait()
        except trio.Cancelled:
            if self._waiting.pop(ticket, None) is None:
                self.release(asker)  # it was granted at the same moment
            raise

    def release(self, asker: str) -> None:
        """Give a place of `asker` back."""
        self._taken[asker] -= 1
        self._taken += Counter()  # forgets those that hold none
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self.taken < UPLOAD_SLOTS:
            # The first of those who hold the fewest.
            ticket, (asker, granted) = min(self._waiting.items(), key=lambda item: self._taken[item[1][0]])
            if self._taken[asker] >= UPLOAD_SLOTS_EACH:
                return
            del self._waiting[ticket]
            self._taken[asker] += 1
            granted.set()
