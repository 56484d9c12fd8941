"""Bound what each of many callers may cost (spec/gossip.md §6).

Each key of a kind has a bucket of tokens that fills steadily; whoever finds it empty is
told how long to wait. A bucket that is full again is forgotten, so the memory is bounded
by who called lately, and of too many at once the oldest are forgotten.
"""

from __future__ import annotations

from collections.abc import Hashable

from msgspec import Struct

BUCKETS_MAX = 10_000  # of one kind


class Allowance(Struct, frozen=True):
    """What one key of a kind may use."""

    burst: float  # tokens at once, after a pause
    rate: float  # tokens a second


class Tokens:
    """The buckets of one kind. Times are seconds of one clock."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._buckets: dict[Hashable, tuple[float, float]] = {}  # tokens, and when; the least lately used first

    def take(self, key: Hashable, count: float, now: float) -> float:
        """Take `count` tokens of `key`; returns 0, or the seconds to wait if there are too few: then none are taken."""
        tokens = self.left(key, now)
        if tokens < min(count, self._allowance.burst):
            return (min(count, self._allowance.burst) - tokens) / self._allowance.rate
        self._buckets.pop(key, None)
        # More than a bucket holds is a debt: it is paid before the next.
        self._buckets[key] = (tokens - count, now)
        self._forget(now)
        return 0.0

    def left(self, key: Hashable, now: float) -> float:
        """Return the tokens that `key` has."""
        tokens, then = self._buckets.get(key, (self._allowance.burst, now))
        return min(self._allowance.burst, tokens + max(0.0, now - then) * self._allowance.rate)

    def __len__(self) -> int:
        return len(self._buckets)

    def _forget(self, now: float) -> None:
        while self._buckets:
            oldest = next(iter(self._buckets))
            if len(self._buckets) <= BUCKETS_MAX and self.left(oldest, now) < self._allowance.burst:
                return
            del self._buckets[oldest]
