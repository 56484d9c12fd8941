"""Limits that threads share. Nothing here proves speed: waits are compared with what they must be at least."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from p2phub.net.pacing import PIECE_MAX, PIECE_MIN, Pacer, RateLimit

PATIENCE_S = 30.0


class Waiting(threading.Thread):
    """Does `work` in a thread and notes when it is over."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.start()

    def run(self) -> None:
        self._work()

    @property
    def is_over(self) -> bool:
        return not self.is_alive()

    def ends(self) -> bool:
        """Say whether it ends within some seconds."""
        self.join(PATIENCE_S)
        return self.is_over


def test_without_a_limit_nothing_waits_and_pieces_are_large():
    pacer = Pacer((RateLimit(), RateLimit()))

    assert pacer.wait(10**12) < PATIENCE_S
    assert list(pacer.pieces(PIECE_MAX + 5)) == [(0, PIECE_MAX), (PIECE_MAX, PIECE_MAX + 5)]
    assert list(pacer.pieces(0)) == []


def test_what_passes_keeps_the_limit():
    rate, size = 400_000, 200_000
    pacer = Pacer((RateLimit(rate),))
    start = time.monotonic()
    pieces = list(pacer.pieces(size))
    took_s = time.monotonic() - start

    assert pieces[0][0] == 0
    assert pieces[-1][1] == size
    assert all(end == begin for (_, end), (begin, _) in pairwise(pieces))
    assert all(PIECE_MIN <= end - begin <= rate / 10 for begin, end in pieces[:-1])
    assert took_s > 0.8 * (size - 64 * 1024) / rate


def test_several_connections_share_one_limit():
    limit = RateLimit(400_000)
    start = time.monotonic()
    threads = [Waiting(lambda: list(Pacer((limit,)).pieces(50_000))) for _ in range(4)]

    assert all(thread.ends() for thread in threads)
    assert time.monotonic() - start > 0.8 * (200_000 - 64 * 1024) / 400_000


@pytest.mark.parametrize("stricter", [0, 1])
def test_of_several_limits_the_strictest_counts(stricter):
    limits = [RateLimit(10**9), RateLimit(10**9)]
    limits[stricter].set_rate(100_000)

    assert Pacer(limits).piece(10**9) == 100_000 // 20
    assert Pacer(limits).wait(60_000) > 0.2


def test_who_waits_goes_on_at_once_when_stopped():
    limit = RateLimit(1)
    pacer, other = Pacer((limit,)), Pacer((limit,))
    waiting = Waiting(lambda: pacer.wait(10**9))
    time.sleep(0.1)
    assert not waiting.is_over
    pacer.stop()

    assert waiting.ends()
    assert pacer.wait(10**9) < PATIENCE_S
    # And what it took is not held against others.
    limit.set_rate(10**9)
    assert other.wait(1000) < PATIENCE_S


@pytest.mark.parametrize("rate", [None, 10**12])
def test_who_waits_follows_a_changed_limit(rate):
    limit = RateLimit(1)
    waiting = Waiting(lambda: Pacer((limit,)).wait(10**9))
    time.sleep(0.1)
    assert not waiting.is_over
    limit.set_rate(rate)

    assert limit.rate == rate
    assert waiting.ends()


def test_a_limit_that_begins_holds_what_comes_then():
    limit = RateLimit()
    pacer = Pacer((limit,))
    pacer.wait(10**9)
    limit.set_rate(100_000)

    assert pacer.wait(50_000) > 0.1


def test_it_is_known_whether_anybody_was_held_back():
    limit = RateLimit(100_000)
    pacer = Pacer((limit,))
    pacer.wait(50_000)

    assert limit.held_back()
    assert not limit.held_back()
    limit.set_rate(None)
    pacer.wait(50_000)
    assert not limit.held_back()


def test_the_most_that_passed_is_remembered(monkeypatch):
    limit = RateLimit()
    pacer = Pacer((limit,))
    clock = 1000.0
    monkeypatch.setattr("p2phub.net.pacing.time.monotonic", lambda: clock)
    for _ in range(10):
        list(pacer.pieces(500_000))
        clock += 1.0

    assert 400_000 < limit.peak() < 1_200_000
