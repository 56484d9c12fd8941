"""What a reader waits for goes before everything else."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from p2phub.protocol.picker import HURRY_SIZE_MAX, Picker

CHUNK = 1024 * 1024


def picker_of(count: int, *, seed: int = 0) -> Picker[str]:
    picker: Picker[str] = Picker([CHUNK] * count, range(count), rng=random.Random(seed))
    picker.set_offer("alice", None)
    return picker


@given(seed=st.integers(0, 1000), first=st.integers(0, 199))
def test_the_chunk_that_a_reader_needs_is_asked_for_next(seed, first):
    picker = picker_of(200, seed=seed)
    picker.hurry("reader", range(first, min(first + 32, 200)))

    request = picker.next_request("alice", 0.0)

    assert request is not None
    assert request.first == first
    assert request.count * CHUNK <= HURRY_SIZE_MAX
    assert not request.is_first_copy


def test_readers_are_served_in_turn_of_what_is_free():
    picker = picker_of(200)
    picker._providers["alice"].rate.value = 100.0 * CHUNK
    picker.hurry("one", range(100, 104))
    picker.hurry("two", range(150, 154))

    requests = [picker.next_request("alice", 0.0) for _ in range(8)]
    chunks = [chunk for request in requests if request for chunk in request.chunks]

    assert chunks[:8] == [100, 101, 102, 103, 150, 151, 152, 153]


def test_a_reader_that_left_hurries_nothing():
    seen = set()
    for seed in range(20):
        picker = picker_of(200, seed=seed)
        picker.hurry("reader", range(77, 90))
        picker.hurry("reader", range(0))
        request = picker.next_request("alice", 0.0)
        assert request is not None
        seen.add(request.first)

    assert seen != {77}


def test_what_a_provider_has_not_is_not_asked_of_it():
    picker: Picker[str] = Picker([CHUNK] * 10, range(10), rng=random.Random(0))
    picker.set_offer("bob", bytes([0] * 5 + [1] * 5))
    picker.hurry("reader", range(3, 10))

    request = picker.next_request("bob", 0.0)

    assert request is not None
    assert request.first == 5


def test_what_arrived_is_not_asked_for_again():
    picker = picker_of(20)
    picker._providers["alice"].rate.value = 100.0 * CHUNK
    picker.hurry("reader", range(2, 4))
    first = picker.next_request("alice", 0.0)
    assert first is not None
    for chunk in first.chunks:
        picker.chunk_arrived(first, chunk, 1.0)
    picker.request_ended(first)
    picker.hurry("reader", range(2, 10))

    request = picker.next_request("alice", 1.0)

    assert list(first.chunks) == [2, 3]
    assert request is not None
    assert request.first == 4
