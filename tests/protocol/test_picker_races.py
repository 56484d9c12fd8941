"""At the end a chunk is asked of two, and of no more."""

from __future__ import annotations

import pytest
from pickerkit import MIB, answer, ask, finish_alone, make, offers, set_rate, slow_and_fast

from p2phub.protocol.picker import HEDGE_FACTOR


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
