"""A choice among 100,000 chunks costs little."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pickerkit import MIB, answer, ask, finish_alone, make, offers

from p2phub.protocol import picker as module
from p2phub.protocol import stripes
from p2phub.protocol.picker import Picker
from p2phub.protocol.stripes import Stripes

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
