"""Decide how fast a background answer may be sent, so that others hardly notice it (spec/links.md §5).

    what the kernel says of the connection, every 50 ms ──▶ Ledbat ──▶ bytes a second

As in LEDBAT (RFC 6817), packets that wait in a queue on the way tell of others who want
the link, long before any is lost: the time a packet takes beyond the shortest time seen
is kept near a target. Ours is a rate and not a window, because a rate is what the kernel
lets a program set.
"""

from __future__ import annotations

import math

from msgspec import Struct

TARGET_S = 0.025  # seconds that packets may wait for each other; spec/links.md §5
TARGET_MIN_S = 0.005  # the same where queues are short; spec/links.md §5
STEP_S = 0.05  # seconds between two steps, about; spec/links.md §5
RATE_START = 256 * 1024  # bytes a second, of a new connection; spec/links.md §5
RATE_MAX = 2**32 - 2  # bytes a second; the kernel takes 32 bits
GROWTH = 0.05  # of the rate, in one step, below the target; spec/links.md §5
RAMP = 0.35  # of the rate, in one step, while there is hardly a queue; spec/links.md §5
CUT, CUT_SQUARE = 0.1, 0.1  # of the rate, in one step, by targets above the target and their square; spec/links.md §5
LOSS_FACTOR = 0.5  # of the rate, when packets were lost
CUT_S = 0.2  # seconds, and two round trips: from one cut to the next; spec/links.md §5
SHARE_NEAR = (0.6, 1.25)  # times the share of the link that was last had; there the rate grows slowly
CUT_MAX = 0.5  # of the rate, in one step
OTHERS_JAM_S = 0.5  # seconds after which a queue that is still there is taken for that of others; spec/links.md §5
OTHERS_CUT = 0.4  # of the rate, in one step, from then on at least; spec/links.md §5
CALM_S = 0.5  # seconds without loss or a long queue until the rate may ramp up
TARGET_GROWTH = 0.01  # of a shortened target, in a second
LONGEST_S = 2.0  # seconds until the longest queue is forgotten
OWN_JAM_S = 2.0  # seconds after which a queue must be gone if nobody else makes it; spec/links.md §5
OWN_SHARE = 0.8  # of what arrived then, once it is gone; spec/links.md §5
USED = 0.6  # of the rate has to arrive, or something else is slower than the pace
SMOOTHING_S = 0.05  # seconds over which what arrives is averaged


class Sample(Struct, frozen=True):
    """What the kernel says of a connection."""

    rtt_s: float  # of late, smoothed
    base_s: float  # the shortest that was seen
    delivered: int  # bytes acknowledged since the connection began
    is_losing: bool  # packets were lost and are being sent again
    held_back: bool  # whether the pace held anything back since the last sample


class Ledbat:
    """The rate of one connection that yields."""

    def __init__(self, rate_min: int) -> None:
        """rate_min: bytes a second that it gets in any case."""
        self.rate_min = rate_min
        self.rate = float(max(RATE_START, rate_min))  # bytes a second
        self._target_s = TARGET_S
        self._arriving = 0.0  # bytes a second that are acknowledged, smoothed
        self._last: tuple[float, Sample] | None = None
        self._longest_s = 0.0  # the longest queue of late
        self._calm_since = self._cut_at = -math.inf  # seconds
        self._jam_since: float | None = None  # seconds, when the queue began to be too long
        self._share = 0.0  # bytes a second that arrived then

    def rest(self) -> None:
        """Note that nothing is sent for a while: what is acknowledged until the next step tells nothing."""
        self._last = None

    def step(self, sample: Sample, now: float) -> float:
        """Return the rate from `now` (seconds) on, in bytes a second."""
        if self._last is None:
            self._last = (now, sample)
            return self.rate
        then, last = self._last
        if now <= then or (sample.delivered == last.delivered and sample.is_losing == last.is_losing):
            return self.rate  # no news; a slow connection has some less often
        self._last = (now, sample)
        elapsed_s = now - then
        weight = 1 - math.exp(-elapsed_s / SMOOTHING_S)
        self._arriving += weight * ((sample.delivered - last.delivered) / elapsed_s - self._arriving)
        self._target_s = min(TARGET_S, self._target_s * (1 + TARGET_GROWTH * elapsed_s))
        queue_s = max(0.0, sample.rtt_s - sample.base_s)
        self._longest_s = max(queue_s, self._longest_s * (1 - min(elapsed_s / LONGEST_S, 1.0)))
        steps = min(elapsed_s / STEP_S, 2.0)
        is_lossy = sample.is_losing and not last.is_losing
        if is_lossy or queue_s > self._target_s:
            if now - self._calm_since > CALM_S:
                self._jam_since, self._share = now, self._arriving
            self._calm_since = now
            rate = self._after_loss() if is_lossy else self._after_delay(queue_s, sample.rtt_s, now)
        elif self._jam_since is not None and queue_s < self._target_s / 2:
            # A queue that goes as soon as we slow down was ours: there is room for what came through.
            is_ours = now - self._jam_since < OWN_JAM_S
            rate = max(self.rate, self._share * OWN_SHARE) if is_ours else self.rate
            self._jam_since = None
        elif not sample.held_back or self._arriving < USED * self.rate:
            # Something else is slower than the pace, which so has nothing to learn.
            rate = self.rate
        else:
            is_calm = now - self._calm_since > CALM_S and queue_s < self._target_s / 4
            is_near = SHARE_NEAR[0] * self._share < self.rate < SHARE_NEAR[1] * self._share
            growth = RAMP if is_calm and not is_near else GROWTH * (1 - queue_s / self._target_s)
            rate = self.rate * (1 + growth * steps)
        self.rate = min(max(rate, float(self.rate_min)), float(RATE_MAX))
        return self.rate

    def _after_delay(self, queue_s: float, rtt_s: float, now: float) -> float:
        if now - self._cut_at < CUT_S + 2 * rtt_s:
            return self.rate  # what the last cut does will show
        self._cut_at = now
        excess = queue_s / self._target_s - 1
        cut = min(CUT * excess + CUT_SQUARE * excess**2, CUT_MAX)
        if self._jam_since is not None and now - self._jam_since > OTHERS_JAM_S:
            # A queue of our own would be gone by now. Whoever else makes it should not wait for many small cuts.
            cut = max(cut, OTHERS_CUT)
        return min(self.rate, self._arriving) * (1 - cut)

    def _after_loss(self) -> float:
        if self._longest_s < self._target_s:
            # The queue overflowed before it was as long as the target: queues are shorter here.
            self._target_s = max(TARGET_MIN_S, self._longest_s / 2)
        return min(self.rate, self._arriving) * LOSS_FACTOR
