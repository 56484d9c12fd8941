"""Wait, in a thread, until bytes may pass: limits that many connections share, changed at any time (spec/links.md §3).

    RateLimit ◀── shared by connections ── Pacer ◀── one a connection: piece, wait, stop

A thread that waits is woken when a rate changes and when its connection is given up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from p2phub.protocol.bucket import Bucket
from p2phub.protocol.peak import Peak

PIECE_S = 0.05  # seconds of a rate that pass at once
PIECE_MIN = 4 * 1024  # bytes; less would only cost time
PIECE_MAX = 2 * 1024 * 1024  # bytes


class RateLimit:
    """So many bytes a second over all that passes here. Safe to use from any thread."""

    piece_s = PIECE_S  # seconds of the rate that pass at once

    def __init__(self, rate: int | None = None) -> None:
        """rate: bytes a second; None is no limit."""
        self._condition = threading.Condition()
        self._bucket: Bucket | None = None
        self._held = False
        self._peak = Peak()
        self.set_rate(rate)

    @property
    def rate(self) -> int | None:
        """Bytes a second, None if there is no limit."""
        bucket = self._bucket
        return bucket.rate if bucket else None

    def set_rate(self, rate: int | None) -> None:
        """Change the rate for what waits now, too."""
        with self._condition:
            if rate is None:
                self._bucket = None
            elif self._bucket is None:
                self._bucket = Bucket(rate, time.monotonic())
            else:
                self._bucket.set_rate(rate, time.monotonic())
            self._condition.notify_all()

    def held_back(self) -> bool:
        """Say whether anybody had to wait since the last time this was asked."""
        held, self._held = self._held, False
        return held

    def note_passed(self, size: int) -> None:
        """Note that `size` bytes have passed."""
        with self._condition:
            self._peak.note(size, time.monotonic())

    def peak(self) -> int:
        """Return the most bytes that passed in a second of late."""
        with self._condition:
            return int(self._peak.rate(time.monotonic()))

    def wake(self) -> None:
        """Let whoever waits look whether it was stopped."""
        with self._condition:
            self._condition.notify_all()

    def wait(self, size: int, pacer: Pacer) -> None:
        """Wait until `size` bytes of `pacer` may pass, or until it is stopped."""
        if self._bucket is None:
            return
        with self._condition:
            bucket = self._bucket
            if bucket is None:
                return
            background = pacer.background
            mark = bucket.take(size, time.monotonic(), background=background)
            # Another bucket, or none, has begun to count from nothing: what is under way may pass.
            while self._bucket is bucket:
                left_s = bucket.wait_s(mark, time.monotonic(), background=background)
                if left_s <= 0:
                    return
                if pacer.stopped:
                    bucket.give_back(size, background=background)
                    return
                self._held = True
                self._condition.wait(left_s)


class Pacer:
    """What one connection asks before bytes pass: all of its limits have to allow them."""

    def __init__(self, limits: Sequence[RateLimit] = (), *, background: bool = False) -> None:
        """background: let what else passes the limits go first."""
        self._limits = tuple(limits)
        self.background = background
        self.stopped = False

    def piece(self, size: int) -> int:
        """Return how many of `size` bytes should pass before the next wait."""
        size = min(size, PIECE_MAX)
        for limit in self._limits:
            rate = limit.rate
            if rate is not None:
                size = min(size, max(PIECE_MIN, int(rate * limit.piece_s)))
        return size

    def wait(self, size: int) -> float:
        """Wait until `size` bytes may pass; returns the seconds that it took. Returns at once when stopped."""
        start = time.monotonic()
        for limit in self._limits:
            limit.wait(size, self)
        return time.monotonic() - start

    def pieces(self, size: int) -> Iterator[tuple[int, int]]:
        """Cut `size` bytes into pieces, and wait before each: gives where it begins and ends.

        When the next is asked for, the last one has passed.
        """
        begin = 0
        while begin < size:
            end = begin + self.piece(size - begin)
            self.wait(end - begin)
            yield begin, end
            for limit in self._limits:
                limit.note_passed(end - begin)
            begin = end

    def stop(self) -> None:
        """Let whoever waits go on at once, now and from now on: the connection is given up."""
        self.stopped = True
        for limit in self._limits:
            limit.wake()
