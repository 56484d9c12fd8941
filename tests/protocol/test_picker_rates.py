"""How fast providers are, and what is asked of the slow ones."""

from __future__ import annotations

import random

import pytest
from pickerkit import MIB, answer, ask, make, offers

from p2phub.protocol.picker import Picker
from p2phub.protocol.rates import RUNNING_MIN

# --- rates


def test_a_rate_is_measured_while_there_is_work() -> None:
    picker = make(1000)
    picker.set_offer("a", None)
    now = 0.0
    for _ in range(20):
        request = ask(picker, "a", now)
        for chunk in request.chunks:
            now += 0.5
            picker.chunk_arrived(request, chunk, now)
        picker.request_ended(request)
        now += 60.0  # nothing to do

    assert picker.rate("a") == pytest.approx(2 * MIB, rel=0.01)


def test_a_rate_follows_a_provider_whose_requests_take_less_than_a_window() -> None:
    picker = make(1000)
    picker.set_offer("a", None)
    request = ask(picker, "a", 0.0)
    answer(picker, request, 2.0)  # slow at first
    now = 2.0
    for _ in range(50):
        request = ask(picker, "a", now)
        now += 0.02 * request.count
        answer(picker, request, now)

    assert picker.rate("a") == pytest.approx(50 * MIB, rel=0.1)


def test_a_small_first_chunk_does_not_settle_the_rate() -> None:
    picker = Picker([100, *[MIB] * 100], range(101), rng=random.Random(0))
    picker.set_offer("a", offers(101, [0]))
    answer(picker, ask(picker, "a", 0.0), 0.2)
    assert picker.rate("a") == pytest.approx(500)
    picker.set_offer("a", None)
    answer(picker, ask(picker, "a", 0.2), 0.3)

    assert picker.rate("a") > MIB


def test_a_rate_is_that_of_all_connections_together() -> None:
    picker = make(1000)
    picker.set_offer("a", None, connections=4)
    running = [ask(picker, "a", 0.0) for _ in range(4)]
    for step in range(1, 40):
        for lane, request in enumerate(running):
            chunk = next((chunk for chunk in request.chunks if picker.is_wanted(chunk)), None)
            if chunk is not None:
                picker.chunk_arrived(request, chunk, float(step))
            else:
                picker.request_ended(request)
                running[lane] = ask(picker, "a", float(step))
                picker.chunk_arrived(running[lane], running[lane].first, float(step))

    assert picker.rate("a") == pytest.approx(4 * MIB, rel=0.05)


# --- slow lines


def test_over_a_slow_line_few_requests_are_under_way() -> None:
    picker = make(1000)
    for number in range(16):
        picker.set_offer(f"p{number}", None)
    asked = [picker.next_request(f"p{number}", 0.0) for number in range(16)]
    first = [request for request in asked if request]
    for request in first[:2]:
        answer(picker, request, 8.0)

    assert len(first) == RUNNING_MIN
    # 8 MiB in what counts as one second: enough for all the others at once.
    assert all(picker.next_request(f"p{number}", 8.0) for number in range(RUNNING_MIN, 16))


def test_requests_that_bring_nothing_let_others_begin() -> None:
    picker = make(1000)
    for number in range(16):
        picker.set_offer(f"p{number}", None)
    begun = [(now, number) for now in range(20) for number in range(16) if picker.next_request(f"p{number}", now)]

    assert len([1 for now, _ in begun if now == 0]) == RUNNING_MIN
    assert all(len([1 for now, _ in begun if now == second]) == 1 for second in range(1, 12))
