"""First copies, providers that give only whole runs, and what is left to others."""

from __future__ import annotations

from pickerkit import MIB, answer, ask, finish_alone, make, offers, past_the_random_first

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
