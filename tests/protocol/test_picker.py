"""Which chunks one provider is asked for, in which order, and what becomes of them."""

from __future__ import annotations

import random

import pytest
from pickerkit import MIB, answer, ask, finish_alone, make, offers, past_the_random_first, set_rate

from p2phub.protocol.picker import (
    OUTSTANDING_S,
    QUICK_S,
    RANDOM_FIRST,
    REQUEST_SIZE_FIRST,
    REQUEST_SIZE_MAX,
    REQUEST_SIZE_MIN,
    Picker,
)
from p2phub.protocol.rates import DEADLINE_MIN_S, deadline_s
from p2phub.protocol.stripes import REQUEST_CHUNKS_MAX, STRIPE_SIZE_MAX

# --- one provider


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 100])
def test_one_whole_provider_brings_everything_once(count: int) -> None:
    picker = make(count)
    picker.set_offer("a", None)

    requests = finish_alone(picker, "a")

    assert sorted(chunk for request in requests for chunk in request.chunks) == list(range(count))
    assert picker.done
    assert picker.remaining == 0
    assert picker.duplicate_bytes == 0


def test_what_is_here_is_not_asked_for() -> None:
    missing = [0, 1, 2, 7, 8, 40, 99]
    picker = make(100, missing=missing)
    picker.set_offer("a", None)

    requests = finish_alone(picker, "a")

    assert sorted(chunk for request in requests for chunk in request.chunks) == missing


def test_a_download_with_nothing_missing_is_done() -> None:
    for picker in (make(0), make(10, missing=[])):
        picker.set_offer("a", None)
        picker.set_offer("b", offers(len(picker._sizes), []))

        assert picker.done
        assert picker.next_request("a", 0.0) is None
        assert picker.next_request("b", 0.0) is None
        assert picker.unoffered() == []


def test_a_chunk_that_is_named_twice_as_missing_is_missing_once() -> None:
    picker = make(4, missing=[1, 1, 2])
    picker.set_offer("a", None)

    assert picker.remaining == 2
    finish_alone(picker, "a")
    assert picker.done


def test_an_unknown_provider_is_asked_nothing() -> None:
    picker = make(4)

    assert picker.next_request("a", 0.0) is None
    assert picker.rate("a") is None
    picker.remove_provider("a")


def test_a_request_is_a_run_within_the_limits() -> None:
    sizes = [random.Random(index).randint(1, 2 * MIB) for index in range(300)] + [10] * 5000
    picker: Picker[str] = Picker(sizes, range(len(sizes)), rng=random.Random(0))
    picker.set_offer("a", None)
    now, largest = 0.0, 0
    while request := picker.next_request("a", now):
        size = sum(sizes[chunk] for chunk in request.chunks)
        largest = max(largest, size)
        assert request.count <= REQUEST_CHUNKS_MAX
        assert size <= REQUEST_SIZE_MAX or request.count == 1
        now += 0.01
        answer(picker, request, now)

    assert picker.done
    assert largest > REQUEST_SIZE_MAX // 2


def test_before_a_rate_is_known_a_request_is_small() -> None:
    picker = make(1000)
    picker.set_offer("a", None)

    assert ask(picker, "a").count * MIB <= REQUEST_SIZE_FIRST


def test_a_request_is_some_seconds_of_work_for_the_connection() -> None:
    for rate, connections, expected in [(MIB, 1, 3), (4 * MIB, 4, 3), (4 * MIB, 1, 12), (80 * MIB, 1, 16), (1, 1, 1)]:
        picker = make(1000)
        picker.set_offer("a", None, connections=connections)
        set_rate(picker, "a", rate)

        assert ask(picker, "a").count == expected
        assert expected <= max(1, rate * OUTSTANDING_S / connections / MIB)


def test_a_request_is_larger_than_a_stripe_if_it_is_soon_over() -> None:
    for rate, connections, expected in [(99 * MIB, 1, 19), (100 * MIB, 2, 16), (999 * MIB, 1, 64), (1000 * MIB, 5, 40)]:
        picker = make(1000)
        picker.set_offer("a", None, connections=connections)
        set_rate(picker, "a", rate)
        sizes = [ask(picker, "a").count for _ in range(4)]

        # The first begins anywhere: behind it there may be less.
        assert max(sizes) == expected
        assert expected <= max(STRIPE_SIZE_MAX, min(rate * QUICK_S / connections, REQUEST_SIZE_MAX)) / MIB


def test_a_large_request_does_not_cover_what_is_here_or_asked_of_others() -> None:
    picker = make(400, missing=[*range(20), *range(21, 400)])
    for name in "ab":
        picker.set_offer(name, None)
        set_rate(picker, name, 10_000 * MIB)
    runs = [set(ask(picker, name).chunks) for name in "ab" * 2]

    assert sum(map(len, runs)) == len(set().union(*runs))
    assert 20 not in set().union(*runs)


def test_near_the_end_the_rest_is_shared_fairly() -> None:
    picker = make(16)
    for name in "abcd":
        picker.set_offer(name, None)
        set_rate(picker, name, 1000 * MIB)

    assert [ask(picker, name).count for name in "abcd"] == [2, 1, 1, 1]
    assert REQUEST_SIZE_MIN == MIB


# --- the order


def test_the_first_requests_are_random() -> None:
    begins = set()
    for seed in range(20):
        picker = make(1000, seed=seed)
        picker.set_offer("a", None)
        begins.add(ask(picker, "a").first)

    assert len(begins) > 10


def test_the_first_requests_do_not_ask_for_the_rarest() -> None:
    picker = make(1000)
    picker.set_offer("common", offers(1000, range(1, 1000)))
    picker.set_offer("also", offers(1000, range(1000)))

    assert 0 not in ask(picker, "also").chunks


def test_then_the_rarest_go_first() -> None:
    for seed in range(20):
        picker = make(200, seed=seed)
        past_the_random_first(picker, range(100, 200))
        picker.set_offer("b", offers(200, range(200)))
        for name in "cde":
            picker.set_offer(name, offers(200, [chunk for chunk in range(200) if chunk not in (37, 71)]))

        # 37 and 71 lie in two stripes; b is the only one that has them.
        asked = [ask(picker, "b").chunks, ask(picker, "b").chunks]

        assert {37, 71} <= {chunk for chunks in asked for chunk in chunks}


def test_the_rarest_go_first_from_the_fifth_request_on() -> None:
    rare = 555
    for seed in range(10):
        picker = make(1000, seed=seed)
        picker.set_offer("whole", None)
        picker.set_offer("partial", offers(1000, [chunk for chunk in range(1000) if chunk != rare]))

        # A second later, when a fifth may be under way although nothing came.
        asked = [ask(picker, "whole", now).chunks for now in (0.0, 0.0, 0.0, 0.0, 1.0)]

        assert rare in asked[RANDOM_FIRST] or rare in {chunk for chunks in asked[:RANDOM_FIRST] for chunk in chunks}


def test_a_provider_is_asked_for_the_rarest_of_its_own() -> None:
    picker = make(200)
    past_the_random_first(picker, range(160, 200))
    # Every stripe has a chunk that only x has, but for y that is no reason to go there.
    rare_x = range(0, 160, 16)
    picker.set_offer("x", offers(200, rare_x))
    picker.set_offer("y", offers(200, [chunk for chunk in range(160) if chunk not in rare_x]))
    picker.set_offer("z", offers(200, [chunk for chunk in range(160) if chunk != 100 and chunk not in rare_x]))

    assert 100 in ask(picker, "y").chunks


def test_a_request_reaches_back_if_the_rarest_is_at_the_end() -> None:
    picker = make(20, missing=range(8))
    picker._stripes.rarest_first()
    picker.set_offer("a", offers(20, range(8)))
    picker.set_offer("b", offers(20, range(7)))
    set_rate(picker, "a", 100 * MIB)

    assert ask(picker, "a").chunks == range(6, 8)


def test_whole_providers_do_not_change_the_order() -> None:
    picker, other = make(500), make(500)
    for name in "abc":
        picker.set_offer(name, None)
    other.set_offer("a", None)

    assert ask(picker, "a").first == ask(other, "a").first


def test_a_rarity_counts_as_long_as_the_provider_is_here() -> None:
    picker = make(200)
    past_the_random_first(picker, range(160, 200))
    picker.set_offer("a", offers(200, range(160)))
    picker.set_offer("b", offers(200, range(150)))
    picker.set_offer("b", offers(200, range(1, 160)))
    assert picker._stripes._rarity.tolist() == [1, *[2] * 159, *[0] * 40]

    assert 0 in ask(picker, "a").chunks
    picker.remove_provider("b")
    picker.remove_provider("b")
    picker.remove_provider("a")
    assert not any(picker._stripes._rarity)


def test_a_partial_provider_that_becomes_whole_is_asked_for_all() -> None:
    picker = make(100)
    picker.set_offer("a", offers(100, [5]))
    assert [list(request.chunks) for request in finish_alone(picker, "a")] == [[5]]

    picker.set_offer("a", None)
    finish_alone(picker, "a")

    assert picker.done
    assert not any(picker._stripes._rarity)


def test_what_a_partial_provider_does_not_offer_is_left_to_a_whole_one() -> None:
    picker = make(64)
    picker.set_offer("partial", offers(64, range(16)))
    finish_alone(picker, "partial")

    picker.set_offer("whole", None)
    finish_alone(picker, "whole")

    assert picker.done


def test_chunks_that_nobody_offers_are_told() -> None:
    picker = make(10, missing=range(1, 10))
    picker.set_offer("a", offers(10, [0, 1, 2]))
    picker.set_offer("b", offers(10, [2, 3]))
    assert picker.unoffered() == [4, 5, 6, 7, 8, 9]

    picker.set_offer("b", None)
    assert picker.unoffered() == []


# --- what goes wrong


def test_what_a_request_did_not_bring_is_free_again() -> None:
    picker = make(16)
    picker.set_offer("a", None)
    picker.set_offer("b", None)
    request = ask(picker, "a")
    answer(picker, request, 1.0, chunks=[request.first])
    picker.request_ended(request)

    finish_alone(picker, "b")

    assert picker.done


def test_what_was_asked_of_a_provider_that_left_is_free_again() -> None:
    picker = make(64)
    picker.set_offer("a", None, connections=4)
    picker.set_offer("b", None)
    requests = [ask(picker, "a") for _ in range(4)]
    picker.remove_provider("a")

    finish_alone(picker, "b")

    assert picker.done
    for request in requests:
        picker.request_ended(request)
        assert not picker.chunk_arrived(request, request.first, 9.0)


def test_a_stripe_that_was_used_up_comes_back_when_its_chunks_are_freed() -> None:
    picker = make(64)
    picker.set_offer("a", None)
    picker.set_offer("b", offers(64, range(64)))
    requests = []
    while request := picker.next_request("a", 0.0):
        requests.append(request)
    assert picker.next_request("b", 0.0) is None

    for request in requests:
        picker.request_ended(request)
    finish_alone(picker, "b")

    assert picker.done


def test_an_answer_that_comes_late_counts() -> None:
    picker = make(4)
    picker.set_offer("a", None)
    request = ask(picker, "a")
    picker.request_ended(request)

    assert picker.chunk_arrived(request, request.first, 9.0)
    assert not picker.is_wanted(request.first)
    assert picker.remaining == 3
    assert picker.rate("a") is None


def test_a_late_answer_to_a_provider_that_came_back_measures_nothing() -> None:
    picker = make(64)
    picker.set_offer("a", None)
    old = ask(picker, "a", 0.0)
    picker.remove_provider("a")
    picker.set_offer("a", None)
    ask(picker, "a", 100.0)

    picker.chunk_arrived(old, old.first, 101.0)

    assert picker.rate("a") is None


def test_a_chunk_that_arrives_again_is_counted_as_a_duplicate() -> None:
    picker = make(4)
    picker.set_offer("a", None)
    request = ask(picker, "a")

    assert picker.chunk_arrived(request, request.first, 1.0)
    assert not picker.chunk_arrived(request, request.first, 2.0)
    assert picker.duplicate_bytes == MIB
    assert picker.remaining == 3


# --- deadlines


def test_a_deadline_grows_with_the_size_and_has_a_minimum() -> None:
    assert deadline_s(1) == deadline_s(MIB // 8) == DEADLINE_MIN_S
    assert deadline_s(16 * MIB) == 1024.0
