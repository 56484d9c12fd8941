from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2phub.protocol import picker as module
from p2phub.protocol import stripes
from p2phub.protocol.picker import (
    COPIES_MAX,
    HEDGE_FACTOR,
    OUTSTANDING_S,
    QUICK_S,
    RANDOM_FIRST,
    REQUEST_SIZE_FIRST,
    REQUEST_SIZE_MAX,
    REQUEST_SIZE_MIN,
    Picker,
    Request,
)
from p2phub.protocol.rates import DEADLINE_MIN_S, RUNNING_MIN, deadline_s
from p2phub.protocol.stripes import REQUEST_CHUNKS_MAX, STRIPE_SIZE_MAX, Stripes

MIB = 1024 * 1024


def make(count: int, *, size: int = MIB, missing: Iterable[int] | None = None, seed: int = 0) -> Picker[str]:
    wanted = range(count) if missing is None else missing
    return Picker([size] * count, wanted, rng=random.Random(seed))


def offers(count: int, offered: Iterable[int]) -> bytes:
    held = bytearray(count)
    for chunk in offered:
        held[chunk] = 1
    return bytes(held)


def ask(picker: Picker[str], provider: str, now: float = 0.0) -> Request[str]:
    request = picker.next_request(provider, now)
    assert request is not None
    return request


def answer(picker: Picker[str], request: Request[str], now: float, *, chunks: Iterable[int] | None = None) -> None:
    """Let `chunks` (all, if not given) arrive at `now`, and end the request if those are all."""
    for chunk in request.chunks if chunks is None else chunks:
        picker.chunk_arrived(request, chunk, now)
    if chunks is None:
        picker.request_ended(request)


def finish_alone(picker: Picker[str], provider: str, now: float = 0.0) -> list[Request[str]]:
    """Let `provider` answer all it is asked, and return what that was."""
    requests = []
    while request := picker.next_request(provider, now):
        now += 0.1
        answer(picker, request, now)
        requests.append(request)
    return requests


def past_the_random_first(picker: Picker[str], chunks: Iterable[int]) -> None:
    """Let so many requests be made, and one chunk of `chunks` found for each, that the rarest go first."""
    taken = list(chunks)
    picker.set_offer("first", offers(len(picker._sizes), taken))
    for _ in range(RANDOM_FIRST):
        answer(picker, ask(picker, "first"), 0.0)
    picker.remove_provider("first")


def set_rate(picker: Picker[str], provider: str, rate: float) -> None:
    picker._providers[provider].rate.value = rate


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


# --- the end game


def slow_and_fast(count: int = 4) -> tuple[Picker[str], Request[str]]:
    """Return a picker whose last chunks were asked of `slow` at 0 s, with `fast` known to be fast."""
    picker = make(count + 1, missing=range(count))
    picker.set_offer("slow", None)
    set_rate(picker, "slow", MIB)
    request = ask(picker, "slow")
    while picker.next_request("slow", 0.0):
        pass
    picker.set_offer("fast", None)
    set_rate(picker, "fast", 100 * MIB)
    return picker, request


def test_at_the_end_a_faster_provider_is_asked_too() -> None:
    picker, _ = slow_and_fast(1)

    request = ask(picker, "fast", 0.1)

    assert request.chunks == range(1)
    assert picker.next_request("third", 0.1) is None
    answer(picker, request, 0.2)
    assert picker.done


def test_what_is_copied_is_the_last_run_that_has_not_come() -> None:
    for arrived, expected in [([], range(3)), ([0], range(1, 3)), ([1], range(2, 3)), ([2], range(2))]:
        picker = make(3, size=100)
        picker.set_offer("slow", None)
        slow = ask(picker, "slow")
        assert slow.chunks == range(3)
        answer(picker, slow, 50.0, chunks=arrived)
        picker.set_offer("fast", None)
        set_rate(picker, "fast", MIB)

        assert ask(picker, "fast", 100.0).chunks == expected


def test_a_provider_with_many_connections_has_a_part_of_its_rate_for_each() -> None:
    for connections, expected in [(1, True), (2, True), (16, False)]:
        picker, _ = slow_and_fast(1)
        picker.set_offer("fast", None, connections=connections)
        set_rate(picker, "fast", 10 * MIB)

        assert (picker.next_request("fast", 0.1) is not None) == expected


def test_a_chunk_is_asked_of_two_at_most() -> None:
    picker, _ = slow_and_fast(1)
    picker.set_offer("third", None)
    set_rate(picker, "third", 1000 * MIB)

    assert picker.next_request("fast", 0.1) is not None
    assert picker.next_request("third", 0.1) is None


def test_a_provider_is_not_asked_again_for_what_it_was_asked() -> None:
    picker, _ = slow_and_fast()
    set_rate(picker, "slow", 10_000 * MIB)
    picker.remove_provider("fast")

    assert picker.next_request("slow", 1000.0) is None


def test_nobody_is_asked_too_who_would_not_be_much_sooner() -> None:
    for rate, expected in [(MIB, None), (HEDGE_FACTOR * MIB, None), (HEDGE_FACTOR * MIB * 1.1, range(1))]:
        picker, _ = slow_and_fast(1)
        set_rate(picker, "fast", rate)

        request = picker.next_request("fast", 0.5)

        assert (request.chunks if request else None) == expected


def test_a_newcomer_is_asked_too_once() -> None:
    picker, slow = slow_and_fast(1)
    picker.remove_provider("fast")
    picker.set_offer("new", None)

    assert picker.next_request("new", 0.0) is None, "it takes 1 MiB/s for the rate of a newcomer"
    copied = ask(picker, "new", 1000.0)
    assert set(copied.chunks) <= set(slow.chunks)
    assert picker.next_request("new", 1000.0) is None


def test_a_request_whose_chunks_others_brought_is_pointless() -> None:
    picker, slow = slow_and_fast(1)
    copy = ask(picker, "fast", 10.0)
    for chunk in copy.chunks:
        picker.chunk_arrived(copy, chunk, 10.5)

    assert set(copy.chunks) == set(slow.chunks)
    assert picker.take_pointless() == [slow]
    assert picker.take_pointless() == []


def test_who_just_failed_waits_while_another_is_idle() -> None:
    picker = make(4)
    picker.set_offer("bad", None)
    failed = ask(picker, "bad")
    picker.set_offer("good", None)
    picker.request_ended(failed)

    assert picker.next_request("bad", 1.0) is None
    request = ask(picker, "good", 1.0)
    picker.request_ended(request)
    # Both have failed now.
    assert picker.next_request("bad", 3.0) is not None


def test_nobody_is_asked_too_while_something_is_free() -> None:
    picker = make(40)
    picker.set_offer("slow", None)
    slow = ask(picker, "slow")
    picker.set_offer("fast", None)
    set_rate(picker, "fast", 100 * MIB)

    assert not set(ask(picker, "fast", 3.0).chunks) & set(slow.chunks)


def test_a_copy_is_asked_of_a_provider_that_offers_it() -> None:
    picker, _ = slow_and_fast(1)
    picker.set_offer("fast", offers(2, [1]))

    assert picker.next_request("fast", 1000.0) is None


def test_a_provider_that_stalls_in_the_middle_is_helped_out() -> None:
    picker = make(8)
    picker.set_offer("slow", None)
    set_rate(picker, "slow", 100 * MIB)
    request = ask(picker, "slow")
    picker.chunk_arrived(request, request.first, 0.01)
    picker.set_offer("fast", None)
    set_rate(picker, "fast", 10 * MIB)
    for other in finish_alone(picker, "fast", 0.02):
        assert not set(other.chunks) & set(request.chunks)
        break

    assert picker.done


def test_the_end_of_the_latest_request_is_copied() -> None:
    picker = make(3, missing=range(3))
    for name in ("slow", "slower"):
        picker.set_offer(name, None)
    slow, slower = ask(picker, "slow"), ask(picker, "slower")
    for name, rate in (("slow", MIB), ("slower", MIB / 10)):
        set_rate(picker, name, rate)
    rest = ask(picker, "slow")
    picker.set_offer("fast", None)
    set_rate(picker, "fast", 100 * MIB)

    assert ask(picker, "fast", 0.1).chunks == slower.chunks
    assert len({*slow.chunks, *slower.chunks, *rest.chunks}) == 3


def test_what_the_other_is_about_to_bring_is_not_copied() -> None:
    picker = make(5, missing=range(4))
    picker.set_offer("slow", None)
    set_rate(picker, "slow", 10 * MIB)
    slow = ask(picker, "slow")
    while picker.next_request("slow", 0.0):
        pass
    assert slow.count == 2
    picker.set_offer("fast", None)
    # It would bring both in 0.1 s, and the other the first of them in 0.1 s.
    set_rate(picker, "fast", 20 * MIB)
    assert picker.next_request("fast", 0.0) is None
    set_rate(picker, "fast", 45 * MIB)

    assert ask(picker, "fast", 0.0).chunks == slow.chunks[1:]


def test_a_request_of_which_others_brought_the_rest_is_pointless_when_its_own_chunk_came() -> None:
    picker = make(3, size=100)
    picker.set_offer("slow", None)
    slow = ask(picker, "slow")
    picker.set_offer("fast", None)
    set_rate(picker, "fast", MIB)
    answer(picker, slow, 50.0, chunks=[0])
    copy = ask(picker, "fast", 100.0)
    assert copy.chunks == range(1, 3)
    picker.chunk_arrived(copy, 2, 100.1)
    picker.chunk_arrived(slow, 1, 100.2)

    # The copy ends by itself in a moment: what it was asked for last came first.
    assert slow in picker.take_pointless()


def test_nothing_new_is_asked_of_who_would_bring_it_long_after_all_else_is_here() -> None:
    for rate, expected in [(100 * MIB, False), (5 * MIB, False), (3 * MIB, True)]:
        picker = make(4)
        for name in ("slow", "fast"):
            picker.set_offer(name, None)
        ask(picker, "fast")
        set_rate(picker, "slow", 0.4 * MIB)
        set_rate(picker, "fast", rate)
        # It would take 2.5 s; the other brings all four in less than half of that, or in more.

        assert (picker.next_request("slow", 0.0) is not None) == expected


@pytest.mark.parametrize("why", ["it has it not", "it just failed", "it stalls"])
def test_but_it_is_asked_if_the_other_does_not_bring_it(why: str) -> None:
    picker = make(4, missing=range(3))
    picker.set_offer("slow", None)
    picker.set_offer("fast", None)
    set_rate(picker, "slow", 0.4 * MIB)
    request = ask(picker, "fast", 0.0)
    set_rate(picker, "fast", 100 * MIB)
    assert picker.next_request("slow", 0.0) is None
    match why:
        case "it has it not":
            picker.set_offer("fast", offers(4, []))
        case "it just failed":
            picker.request_ended(request)

    assert picker.next_request("slow", 2.0 if why == "it stalls" else 0.0) is not None


def test_a_request_whose_provider_left_is_not_copied() -> None:
    picker, _ = slow_and_fast()
    picker.remove_provider("slow")

    finish_alone(picker, "fast", 1.0)

    assert picker.done
    assert picker.duplicate_bytes == 0


def test_the_loser_of_a_race_is_told_that_its_chunk_is_here() -> None:
    picker, slow = slow_and_fast(1)
    fast = ask(picker, "fast", 0.1)
    answer(picker, fast, 0.2)

    assert not picker.is_wanted(0)
    assert not picker.chunk_arrived(slow, 0, 0.3)
    picker.request_ended(slow)
    assert picker.done


# --- how much work it is


@given(seed=st.integers(0, 2**32))
def test_few_chunks_are_chosen_from_as_many_are(seed: int) -> None:
    """Few are sorted in plain Python, many with numpy: both know the same rarities and give the same order."""
    ways = []
    for numpy_chunks in (0, stripes.NUMPY_CHUNKS):
        rng = random.Random(seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stripes, "NUMPY_CHUNKS", numpy_chunks)
            count = rng.randrange(1, 40)
            picker = make(count, size=4 * MIB, missing=rng.sample(range(count), rng.randrange(count + 1)), seed=seed)
            orders = []
            for _ in range(30):
                some = offers(count, rng.sample(range(count), rng.randrange(count + 1)))
                provider = rng.choice("abc")
                match rng.randrange(4):
                    case 0:
                        picker.set_offer(provider, rng.choice([None, some]), given=rng.choice([None, some]))
                    case 1:
                        picker.remove_provider(provider)
                    case _:
                        if (request := picker.next_request(provider, 0.0)) and rng.randrange(2):
                            answer(picker, request, 0.0)
                orders.append((picker._stripes._sorted(None), picker._stripes._sorted(some), picker.unoffered()))
            ways.append(orders)

    assert ways[0] == ways[1]


class Counting(Stripes):
    """Counts what a choice costs."""

    sorts = looks = 0

    def _sorted(self, reach: bytes | None) -> list[int]:
        self.sorts += 1
        return super()._sorted(reach)

    def is_free(self, chunk: int, reach: bytes | None) -> bool:
        self.looks += 1
        return super().is_free(chunk, reach)


COUNT = 100_000


def make_counting() -> tuple[Picker[str], Counting]:
    """Return the picker of a large download, and what its choices cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Stripes", Counting)
        picker = make(COUNT)
    assert isinstance(picker._stripes, Counting)
    return picker, picker._stripes


def test_a_large_download_from_whole_providers_is_handed_out_in_few_looks() -> None:
    picker, cost = make_counting()
    for name in "abcd":
        picker.set_offer(name, None)
    now = 0.0
    while not picker.done:
        now += 0.5
        for name in "abcd":
            if request := picker.next_request(name, now):
                answer(picker, request, now + 0.4)

    assert cost.sorts <= 2  # the random first, then the rarest
    assert cost.looks <= 8 * COUNT


def test_partial_providers_cost_a_sort_each_time_an_offer_changed() -> None:
    picker, cost = make_counting()
    rng = random.Random(1)
    changes = 0
    picker.set_offer("seed", None)
    names = [f"peer {number}" for number in range(8)]
    now = 0.0
    for turn in range(300):
        if turn % 50 == 0:
            for name in names:
                picker.set_offer(name, bytes(rng.choices((0, 1), k=COUNT)))
                changes += 1
        now += 1.0
        for name in [*names, "seed"]:
            if request := picker.next_request(name, now):
                answer(picker, request, now + 0.5)

    # Each of nine orders is sorted anew after a round of changes, not at each request.
    assert cost.sorts <= 9 * (300 // 50 + 2)
    assert changes == 48
    assert cost.looks <= 300 * 9 * 60


def test_a_provider_that_fails_costs_a_sort_for_each_failure() -> None:
    picker, cost = make_counting()
    picker.set_offer("a", None)
    for turn in range(100):
        picker.request_ended(ask(picker, "a", float(turn)))

    assert cost.sorts <= 101
    assert cost.looks <= 100 * 60


def test_an_offer_of_little_is_not_searched_for() -> None:
    picker, cost = make_counting()
    picker.set_offer("a", offers(COUNT, range(0, COUNT, 1000)))

    finish_alone(picker, "a")

    assert picker.remaining == COUNT - 100
    assert cost.looks <= 100 * 60
    assert cost.sorts <= 2


# --- first copies


def test_what_a_seed_gave_to_others_comes_last() -> None:
    for seed in range(10):
        picker = make(160, seed=seed)
        past_the_random_first(picker, range(128, 160))
        picker.set_offer("seed", None, given=offers(160, set(range(160)) - set(range(48, 64))))
        request = ask(picker, "seed")

        assert set(request.chunks) <= set(range(48, 64))
        assert request.is_first_copy


def test_a_request_for_first_copies_holds_nothing_else() -> None:
    picker = make(16)
    picker.set_offer("seed", None, given=offers(16, range(0, 16, 2)))
    requests = finish_alone(picker, "seed")

    assert sorted(chunk for request in requests for chunk in request.chunks) == list(range(16))
    for request in requests:
        assert request.is_first_copy == all(chunk % 2 for chunk in request.chunks)


def test_what_others_hold_is_no_first_copy_and_a_partial_provider_gives_none() -> None:
    picker = make(8)
    picker.set_offer("seed", None)
    picker.set_offer("mate", offers(8, range(8)))

    assert not ask(picker, "seed").is_first_copy
    assert not ask(picker, "mate").is_first_copy


def test_a_seed_that_is_gone_has_given_nothing() -> None:
    picker = make(8)
    picker.set_offer("gone", None, given=offers(8, range(8)))
    picker.set_offer("seed", None)
    picker.remove_provider("gone")

    assert ask(picker, "seed").is_first_copy


# --- providers that give only whole runs


def test_a_provider_of_whole_runs_is_asked_for_one_after_the_other() -> None:
    picker = make(100)
    runs = [range(0, 40), range(40, 41), range(41, 100)]
    picker.set_offer("origin", None, connections=2, runs=runs)
    requests = [ask(picker, "origin"), ask(picker, "origin")]
    answer(picker, requests[0], 1.0)
    requests.append(ask(picker, "origin", 1.0))

    assert [request.chunks for request in requests] == runs
    assert all(request.is_whole and not request.is_first_copy for request in requests)
    assert picker.next_request("origin", 1.0) is None


def test_what_is_asked_for_in_a_whole_run_is_asked_of_others_too() -> None:
    # The last of a hundred chunks would else wait until the run has come to it.
    picker = make(100)
    picker.set_offer("origin", None, runs=[range(100)])
    ask(picker, "origin")
    picker.set_offer("peer", None)
    brought = finish_alone(picker, "peer")

    assert sum(request.count for request in brought) == 100
    assert picker.done


def test_a_whole_run_is_asked_for_again_while_something_of_it_is_free() -> None:
    picker = make(10)
    picker.set_offer("origin", None, runs=[range(10)])
    request = ask(picker, "origin")
    answer(picker, request, 1.0, chunks=range(9))
    picker.request_ended(request)
    again = ask(picker, "origin", 1.0)
    answer(picker, again, 2.0)

    assert again.chunks == range(10)
    assert picker.done
    assert picker.duplicate_bytes == 9 * MIB
    assert picker.next_request("origin", 2.0) is None


def test_a_run_of_which_others_bring_all_is_not_asked_for() -> None:
    picker = make(10)
    picker.set_offer("peer", None)
    requests = []
    while request := picker.next_request("peer", 0.0):
        requests.append(request)
    picker.set_offer("origin", None, runs=[range(10)])

    assert picker.next_request("origin", 0.0) is None
    picker.request_ended(requests[0])
    assert ask(picker, "origin").chunks == range(10)


def test_a_whole_run_of_which_nothing_is_wanted_any_more_is_pointless() -> None:
    picker = make(4)
    picker.set_offer("origin", None, runs=[range(4)])
    whole = ask(picker, "origin")
    picker.set_offer("peer", offers(4, [1, 2, 3]))
    finish_alone(picker, "peer")
    assert picker.take_pointless() == []
    picker.chunk_arrived(whole, 0, 2.0)

    # What comes behind is here already.
    assert picker.take_pointless() == [whole]
    assert picker.take_pointless() == []


def test_a_whole_run_that_comes_to_its_end_is_not_pointless() -> None:
    picker = make(4)
    picker.set_offer("origin", None, runs=[range(4)])
    answer(picker, ask(picker, "origin"), 1.0)

    assert picker.done
    assert picker.take_pointless() == []


# --- what others shall ask for


def test_a_provider_is_asked_only_for_what_it_may_be_asked_for() -> None:
    picker = make(64)
    picker.set_offer("far", None, allowed=offers(64, range(16, 32)))
    asked = finish_alone(picker, "far")

    assert {chunk for request in asked for chunk in request.chunks} == set(range(16, 32))
    assert not picker.unoffered(), "others may ask it"
    picker.set_offer("far", None)
    assert {chunk for request in finish_alone(picker, "far") for chunk in request.chunks} == set(range(64)) - set(
        range(16, 32)
    )


def test_what_a_partial_provider_may_be_asked_for_is_part_of_what_it_offers() -> None:
    picker = make(8)
    picker.set_offer("far", offers(8, range(4)), allowed=offers(8, range(2, 8)))

    assert {chunk for request in finish_alone(picker, "far") for chunk in request.chunks} == {2, 3}


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


# --- deadlines


def test_a_deadline_grows_with_the_size_and_has_a_minimum() -> None:
    assert deadline_s(1) == deadline_s(MIB // 8) == DEADLINE_MIN_S
    assert deadline_s(16 * MIB) == 1024.0


# --- whatever happens


class AnyDownload(RuleBasedStateMachine):
    """A download in which anything can happen, beside a plain account of what did."""

    @initialize(
        seed=st.integers(0, 2**32),
        sizes=st.lists(st.sampled_from([1, 1000, 256 * 1024, MIB, MIB + 17, 2 * MIB]), max_size=50),
        data=st.data(),
    )
    def begin(self, seed: int, sizes: list[int], data: st.DataObject) -> None:
        missing = data.draw(st.sets(st.integers(0, len(sizes) - 1)) if sizes else st.just(set()))
        self.sizes = sizes
        self.here = set(range(len(sizes))) - missing
        self.picker: Picker[str] = Picker(sizes, missing, rng=random.Random(seed))
        self.twin: Picker[str] = Picker(sizes, sorted(missing), rng=random.Random(seed))
        self.offers: dict[str, set[int] | None] = {}
        self.runs: dict[str, list[range]] = {}
        self.given: dict[str, set[int]] = {}
        self.live: dict[int, Request[str]] = {}
        self.over: list[Request[str]] = []
        self.numbers: set[int] = set()
        self.now = 0.0

    names = st.sampled_from(["a", "b", "c", "d"])
    chance = st.randoms(use_true_random=False)

    def both(self, verb: str, *args: object, **kwargs: object) -> object:
        """Tell the picker and its twin; return what the picker says."""
        said = getattr(self.picker, verb)(*args, **kwargs)
        assert getattr(self.twin, verb)(*args, **kwargs) == said
        return said

    @rule(name=names, connections=st.integers(1, 4))
    def offer_all(self, name: str, connections: int) -> None:
        self.offers[name] = None
        self.runs.pop(name, None)
        self.given.pop(name, None)
        self.both("set_offer", name, None, connections=connections)

    @rule(name=names, connections=st.integers(1, 4), share=st.floats(0, 1), chance=chance)
    def offer_all_and_say_what_was_given(
        self, name: str, connections: int, share: float, chance: random.Random
    ) -> None:
        some = {chunk for chunk in range(len(self.sizes)) if chance.random() < share}
        self.offers[name] = None
        self.runs.pop(name, None)
        self.given[name] = some
        self.both("set_offer", name, None, given=offers(len(self.sizes), some), connections=connections)

    @rule(name=names, connections=st.integers(1, 4), share=st.floats(0, 1), chance=chance)
    def offer_some(self, name: str, connections: int, share: float, chance: random.Random) -> None:
        some = {chunk for chunk in range(len(self.sizes)) if chance.random() < share}
        self.offers[name] = some
        self.runs.pop(name, None)
        self.given.pop(name, None)
        self.both("set_offer", name, offers(len(self.sizes), some), connections=connections)

    @rule(name=names, connections=st.integers(1, 4), cuts=st.sets(st.integers(1, 49), max_size=5))
    def offer_whole_runs(self, name: str, connections: int, cuts: set[int]) -> None:
        count = len(self.sizes)
        edges = [0, *sorted(cut for cut in cuts if cut < count), count]
        runs = [range(first, end) for first, end in pairwise(edges) if end > first]
        self.offers[name] = None
        self.given.pop(name, None)
        self.both("set_offer", name, None, connections=connections, runs=runs)
        self.runs[name] = runs

    @rule(name=names)
    def leave(self, name: str) -> None:
        self.offers.pop(name, None)
        self.runs.pop(name, None)
        self.given.pop(name, None)
        for request in list(self.live.values()):
            if request.provider == name:
                self.over.append(self.live.pop(request.number))
        self.both("remove_provider", name)

    @rule(name=names)
    def ask(self, name: str) -> None:
        self.asked(name)

    def asked(self, name: str) -> Request[str] | None:
        request = self.both("next_request", name, self.now)
        if request is None:
            return None
        assert isinstance(request, Request)
        offered = self.offers[name]
        size = sum(self.sizes[chunk] for chunk in request.chunks)
        assert request.provider == name
        assert request.number not in self.numbers
        assert request.time == self.now
        assert request.count >= 1
        assert request.is_whole == (name in self.runs)
        self.numbers.add(request.number)
        if request.is_whole:
            assert request.chunks in self.runs[name]
            assert set(request.chunks) & set(self.free())
            assert request.chunks not in [other.chunks for other in self.live.values() if other.provider == name]
            self.live[request.number] = request
            return request
        assert size <= REQUEST_SIZE_MAX or request.count == 1
        assert not set(request.chunks) & self.here
        assert offered is None or set(request.chunks) <= offered
        own = [
            chunk
            for other in self.live.values()
            if other.provider == name and not other.is_whole
            for chunk in other.chunks
        ]
        assert not set(request.chunks) & set(own)
        if request.is_first_copy:
            assert offered is None
            assert not any(self.is_held_elsewhere(chunk) for chunk in request.chunks)
        self.live[request.number] = request
        return request

    def is_held_elsewhere(self, chunk: int) -> bool:
        """Say whether it was given to somebody, or is offered by one who has not everything."""
        held = [offered for offered in self.offers.values() if offered is not None]
        return any(chunk in chunks for chunks in [*held, *self.given.values()])

    @rule(reader=names, first=st.integers(0, 49), count=st.integers(0, 10))
    def a_reader_is_in_a_hurry(self, reader: str, first: int, count: int) -> None:
        self.both("hurry", reader, range(min(first, len(self.sizes)), min(first + count, len(self.sizes))))

    def arrive(self, request: Request[str], chunk: int) -> None:
        was_missing = chunk not in self.here
        self.here.add(chunk)
        assert self.both("chunk_arrived", request, chunk, self.now) == was_missing
        # Those whose last missing chunk somebody else brought.
        pointless = [
            other
            for other in self.live.values()
            if was_missing
            and chunk in other.chunks
            and set(other.chunks) <= self.here
            # Its own last chunk ends it anyway.
            and not (other.number == request.number and chunk == other.chunks[-1])
        ]
        said = self.both("take_pointless")
        assert isinstance(said, list)
        assert sorted(other.number for other in said) == sorted(other.number for other in pointless)

    @precondition(lambda self: self.live)
    @rule(chance=chance)
    def the_next_chunk_arrives(self, chance: random.Random) -> None:
        request = chance.choice(list(self.live.values()))
        chunk = next((chunk for chunk in request.chunks if chunk not in self.here), request.first)
        self.arrive(request, chunk)

    @precondition(lambda self: self.live)
    @rule(chance=chance)
    def any_chunk_arrives(self, chance: random.Random) -> None:
        request = chance.choice(list(self.live.values()))
        self.arrive(request, chance.choice(request.chunks))

    @precondition(lambda self: self.live)
    @rule(chance=chance, seconds=st.floats(0.001, 5))
    def all_chunks_arrive(self, chance: random.Random, seconds: float) -> None:
        request = chance.choice(list(self.live.values()))
        self.now += seconds
        for chunk in request.chunks:
            self.arrive(request, chunk)
        self.end(request)

    @precondition(lambda self: self.over)
    @rule(chance=chance)
    def a_chunk_arrives_after_its_request_ended(self, chance: random.Random) -> None:
        request = chance.choice(self.over)
        self.arrive(request, chance.choice(request.chunks))

    @precondition(lambda self: self.live)
    @rule(chance=chance)
    def a_request_ends(self, chance: random.Random) -> None:
        self.end(chance.choice(list(self.live.values())))

    @precondition(lambda self: self.over)
    @rule(chance=chance)
    def a_request_ends_again(self, chance: random.Random) -> None:
        self.both("request_ended", chance.choice(self.over))

    def end(self, request: Request[str]) -> None:
        self.over.append(self.live.pop(request.number))
        self.both("request_ended", request)

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def no_chunk_is_in_flight_too_often(self) -> None:
        assert all(count <= COPIES_MAX for count in self.in_flight().values())

    def in_flight(self) -> Counter[int]:
        taken = (request for request in self.live.values() if not request.is_whole)
        return Counter(chunk for request in taken for chunk in request.chunks if chunk not in self.here)

    def free(self) -> list[int]:
        in_flight = self.in_flight()
        return [chunk for chunk in range(len(self.sizes)) if chunk not in self.here and chunk not in in_flight]

    @invariant()
    def it_knows_what_is_here(self) -> None:
        chunks = range(len(self.sizes))
        assert {chunk for chunk in chunks if not self.picker.is_wanted(chunk)} == self.here
        assert self.picker.remaining == len(self.sizes) - len(self.here)
        assert self.picker.done == (len(self.here) == len(self.sizes))

    @invariant()
    def it_knows_what_nobody_offers(self) -> None:
        expected = [
            chunk
            for chunk in self.free()
            if not any(offered is None or chunk in offered for offered in self.offers.values())
        ]
        assert self.both("unoffered") == expected

    @invariant()
    def its_counts_are_those_of_its_states(self) -> None:
        free = self.free()
        assert self.picker._missing_count == len(free)
        assert self.picker._missing_bytes == sum(self.sizes[chunk] for chunk in free)
        assert set(self.picker._asked) == set(self.in_flight())
        assert set(self.picker._requests) == set(self.live)
        assert all(rate is None or rate > 0 for rate in map(self.picker.rate, self.offers))

    def teardown(self) -> None:
        # A whole provider that stays and answers brings the download to its end, once
        # the deadlines of the requests to all others have passed.
        if not hasattr(self, "picker"):
            return
        self.offer_all("stays", 1)
        for last in (False, True):
            while request := self.asked("stays"):
                self.now += 0.5
                for chunk in request.chunks:
                    self.arrive(request, chunk)
                self.end(request)
            if not last:
                for request in list(self.live.values()):
                    self.end(request)
        assert self.picker.done


TestAnyDownload = AnyDownload.TestCase
TestAnyDownload.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
