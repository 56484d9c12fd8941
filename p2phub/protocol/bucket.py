"""Say when bytes may pass, so that together they keep a rate (spec/links.md §3).

    take(size) ──▶ mark ──wait_s(mark)──▶ seconds until the bytes may pass

Whoever wants to send takes first and waits then, so that turns are kept: bytes pass in
the order in which they were taken. There are two queues. While both are used, the
background gets a small share; what one of them does not use goes to the other.
"""

from __future__ import annotations

from msgspec import Struct

BURST_S = 0.1  # seconds of the rate that may pass at once after a pause
BURST_MIN = 32 * 1024  # bytes; the same where that is less
BACKGROUND_SHARE = 0.1  # of the rate, while the foreground wants more than there is; spec/links.md §3
BACKGROUND_RATE = 24 * 1024  # bytes a second; at least so much is that share; spec/links.md §3


class _Queue(Struct):
    """Bytes that were taken so far, and bytes that may have passed by now."""

    taken: float = 0.0
    allowed: float = 0.0


class Bucket:
    """A rate that the foreground and the background share. Times are seconds of one clock."""

    def __init__(self, rate: int, now: float) -> None:
        """rate: bytes a second."""
        self.rate = rate
        # As if nobody had been in the foreground for long: else what it could save up were missing to the background.
        self._queues = (_Queue(allowed=self._burst), _Queue())
        self._now = now

    def set_rate(self, rate: int, now: float) -> None:
        """Keep another rate from `now` on; what waits keeps its turn."""
        self._advance(now)
        before, self.rate = self._burst, rate
        for queue in self._queues:
            # Who had saved up all that may pass at once still has: to save up more would be at the other's cost.
            queue.allowed += max(0.0, queue.allowed - queue.taken) * (self._burst / before - 1)

    @property
    def _burst(self) -> float:
        """Bytes that may pass at once after a pause."""
        return max(self.rate * BURST_S, BURST_MIN)

    def take(self, size: int, now: float, *, background: bool = False) -> float:
        """Take `size` bytes; returns the mark to wait for."""
        self._advance(now)
        queue = self._queues[background]
        queue.taken += size
        return queue.taken

    def give_back(self, size: int, *, background: bool = False) -> None:
        """Note that `size` bytes which were taken will not pass."""
        self._queues[background].allowed += size

    def wait_s(self, mark: float, now: float, *, background: bool = False) -> float:
        """Return the seconds until the bytes up to `mark` may pass, 0 if they may now.

        What the other queue does meanwhile may make it longer: ask again then.
        """
        self._advance(now)
        mine, other = self._queues[background], self._queues[not background]
        short = mark - mine.allowed
        if short <= 0:
            return 0.0
        return short / (self._share(background) if other.taken > other.allowed else self.rate)

    def _advance(self, now: float) -> None:
        """Let pass what the time since the last call allows."""
        elapsed_s = max(0.0, now - self._now)
        self._now = max(now, self._now)
        burst = self._burst
        over = 0.0
        for background, queue in enumerate(self._queues):
            queue.allowed += self._share(bool(background)) * elapsed_s
            over += max(0.0, queue.allowed - queue.taken - burst)
        for queue in self._queues:
            # What one does not use is the other's; what neither uses is lost.
            queue.allowed = min(queue.allowed + over, queue.taken + burst)

    def _share(self, background: bool) -> float:
        """Return what one queue gets while both want more than there is, in bytes a second."""
        share = max(self.rate * BACKGROUND_SHARE, min(float(BACKGROUND_RATE), self.rate / 2))
        return share if background else self.rate - share
