"""How fast things come: measured from what arrives, and what may be expected of it (spec/transfer.md §3.2, §4)."""

from __future__ import annotations

from collections import deque

from msgspec import Struct

RATE_WINDOW_S = 1.0  # seconds over which a rate is measured; spec/transfer.md §3.2
RATE_WEIGHT = 0.5  # of the newest measurement in the running rate; spec/transfer.md §3.2

DEADLINE_MIN_S = 10.0  # seconds; spec/transfer.md §4
DEADLINE_PER_MIB_S = 64.0  # seconds, a floor of 16 KiB/s; spec/transfer.md §4

# Requests that may be under way however slow all is, one more for each second in which nothing arrives: the
# first ones may be mute. Beyond that each must have a rate of its own, far above the floor; spec/transfer.md §3.2
RUNNING_MIN = 4
RUNNING_RATE = 128 * 1024  # bytes a second
TOTAL_WINDOW_S = 5.0  # seconds over which the rate of all together is measured


def deadline_s(size: int) -> float:
    """Return the seconds that a request for `size` bytes may take."""
    return max(DEADLINE_MIN_S, DEADLINE_PER_MIB_S * size / 2**20)


class Rate(Struct):
    """The rate of one provider, over all its connections, while it is at work."""

    value: float | None = None  # bytes a second; None before anything came
    window_start: float = 0.0  # seconds; moved on by the time it had nothing to do
    window_bytes: int = 0
    is_first_window: bool = True
    busy_at: float | None = None  # seconds, when it was last known to be at work

    def begin(self, now: float, *, was_idle: bool) -> None:
        """Note that a request begins; if it had nothing to do since the last, that says nothing about its rate."""
        if was_idle:
            self.window_start += now - (self.busy_at or 0.0)
        self.busy_at = now

    def measure(self, size: int, now: float) -> None:
        """Note that `size` bytes arrived."""
        self.busy_at = now
        self.window_bytes += size
        elapsed = now - self.window_start
        if elapsed <= 0:
            return
        newest = self.window_bytes / elapsed
        is_over = self.value is not None and elapsed >= RATE_WINDOW_S
        if self.value is None or self.is_first_window:
            # The first chunk alone may be some bytes after a long way.
            self.value = newest
        elif is_over:
            self.value = RATE_WEIGHT * newest + (1 - RATE_WEIGHT) * self.value
        if is_over:
            self.is_first_window = False
            self.window_start, self.window_bytes = now, 0


class Arrivals:
    """What arrived lately from all providers together, and how many requests that allows."""

    def __init__(self) -> None:
        self._last: float | None = None  # seconds
        self._lately: deque[tuple[float, int]] = deque()  # seconds and bytes, of the last TOTAL_WINDOW_S
        self._size = 0  # bytes of these

    def note(self, size: int, now: float) -> None:
        """Note that `size` bytes arrived."""
        self._last = now
        self._lately.append((now, size))
        self._size += size

    def running_max(self, now: float) -> float:
        """Return how many requests may be under way: over a slow line many at once would all be too late."""
        while self._lately and now - self._lately[0][0] > TOTAL_WINDOW_S:
            self._size -= self._lately.popleft()[1]
        if self._last is None:
            self._last = now
        rate = self._size / max(now - self._lately[0][0], 1.0) if self._lately else 0.0
        return max(RUNNING_MIN + (now - self._last), rate / RUNNING_RATE)
