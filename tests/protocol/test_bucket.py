"""How a rate is kept and shared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.protocol.bucket import BURST_MIN, BURST_S, Bucket

RATE = 1_000_000  # bytes a second
PIECE = 50_000


def passed(bucket: Bucket, seconds: float, *queues: bool) -> dict[bool, int]:
    """Return how many bytes pass in `seconds` when each of `queues` always wants the next piece."""
    marks = {queue: bucket.take(PIECE, 0.0, background=queue) for queue in queues}
    done = dict.fromkeys(queues, 0)
    now = 0.0
    while now < seconds:
        waits = {queue: bucket.wait_s(mark, now, background=queue) for queue, mark in marks.items()}
        for queue, wait_s in waits.items():
            if wait_s <= 0:
                done[queue] += PIECE
                marks[queue] = bucket.take(PIECE, now, background=queue)
        if all(wait_s > 0 for wait_s in waits.values()):
            now += min(min(waits.values()), 0.01) + 1e-6
    return done


@pytest.mark.parametrize("background", [False, True])
def test_who_is_alone_has_all_of_the_rate(background: bool) -> None:
    burst = max(RATE * BURST_S, BURST_MIN)
    done = passed(Bucket(RATE, 0.0), 10.0, background)[background]

    assert 9.7 * RATE <= done <= 10 * RATE + burst + PIECE


def test_the_background_has_a_tenth_beside_the_foreground() -> None:
    done = passed(Bucket(RATE, 0.0), 20.0, False, True)

    assert 0.85 <= done[False] / (20 * RATE) <= 0.95
    assert 0.05 <= done[True] / (20 * RATE) <= 0.15


def test_a_changed_rate_holds_at_once() -> None:
    bucket = Bucket(1000, 0.0)
    mark = bucket.take(1_000_000, 0.0)
    slow_s = bucket.wait_s(mark, 0.0)
    bucket.set_rate(RATE, 0.0)

    assert slow_s > 900
    assert bucket.wait_s(mark, 0.0) <= 1.0


def test_what_was_given_back_is_not_waited_for() -> None:
    bucket = Bucket(RATE, 0.0)
    bucket.take(10 * RATE, 0.0)
    bucket.give_back(10 * RATE)

    assert bucket.wait_s(bucket.take(PIECE, 0.0), 0.0) <= PIECE / RATE


@given(st.lists(st.tuples(st.integers(1, 200_000), st.floats(0, 0.5), st.booleans()), max_size=60))
def test_never_more_passes_than_the_rate_and_a_burst(steps: list[tuple[int, float, bool]]) -> None:
    bucket, now, total = Bucket(RATE, 0.0), 0.0, 0
    for size, pause_s, background in steps:
        now += pause_s
        mark = bucket.take(size, now, background=background)
        while (wait_s := bucket.wait_s(mark, now, background=background)) > 0:
            now += wait_s + 1e-6
        total += size

    # Of each of the two queues.
    assert total <= RATE * now + 2 * max(RATE * BURST_S, BURST_MIN) + 1
