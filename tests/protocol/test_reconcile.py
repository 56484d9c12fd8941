"""Walks over maps: they find every difference, and end whatever the peer says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2phub.core import fingerprints
from p2phub.core.errors import InvalidData
from p2phub.core.fingerprints import Item, branch_of, children_of, range_of
from p2phub.protocol import reconcile
from p2phub.protocol.reconcile import Children, Walk, told

Map = dict[bytes, bytes]


def under(items: Map, prefix: str) -> list[Item]:
    low, high = range_of(prefix)
    return sorted(item for item in items.items() if low <= item[0] <= high)


def look(items: Map, prefix: str) -> Children:
    """Return the children of a prefix of a map, as a store gives them."""
    found = under(items, prefix)
    return None if branch_of(found, len(prefix)).is_bucket else children_of(found, len(prefix))


def missing(walk: Walk, ours: Map, theirs: Map) -> Map:
    """Carry a walk to its end; returns the items of `theirs` that it brings."""
    brought: Map = {}
    while not walk.is_over:
        if prefixes := walk.question():
            walk.compare(
                [look(ours, prefix) for prefix in prefixes],
                [told(look(theirs, prefix), walk.salt) for prefix in prefixes],
            )
            continue
        for prefix in walk.buckets():
            have = {fingerprints.short_item(item, walk.salt) for item in under(ours, prefix)}
            brought.update(
                item for item in under(theirs, prefix) if fingerprints.short_item(item, walk.salt) not in have
            )
    return brought


class TwoMaps(RuleBasedStateMachine):
    """Two maps that change apart; a walk at any time brings exactly what differs."""

    def __init__(self) -> None:
        super().__init__()
        self.ours: Map = {}
        self.theirs: Map = {}
        self.rng = random.Random(0)

    @rule(seed=st.integers(0, 2**32), count=st.integers(1, 100), start=st.binary(max_size=2))
    def both_learn(self, seed: int, count: int, start: bytes) -> None:
        rng = random.Random(seed)
        news = {start + rng.randbytes(32 - len(start)): rng.randbytes(32) for _ in range(count)}
        self.ours.update(news)
        self.theirs.update(news)

    @rule(seed=st.integers(0, 2**32), count=st.integers(1, 60), mine=st.booleans())
    def one_learns(self, seed: int, count: int, mine: bool) -> None:
        rng = random.Random(seed)
        (self.ours if mine else self.theirs).update({rng.randbytes(32): rng.randbytes(32) for _ in range(count)})

    @rule(seed=st.integers(0, 2**32), count=st.integers(1, 60), mine=st.booleans())
    def one_changes(self, seed: int, count: int, mine: bool) -> None:
        rng = random.Random(seed)
        changed = self.ours if mine else self.theirs
        for key in rng.sample(sorted(changed), min(count, len(changed))):
            changed[key] = rng.randbytes(32)

    @rule(seed=st.integers(0, 2**32), share=st.floats(0, 1))
    def one_forgets(self, seed: int, share: float) -> None:
        rng = random.Random(seed)
        self.ours = {key: digest for key, digest in self.ours.items() if rng.random() > share}

    @invariant()
    def a_walk_brings_what_differs(self) -> None:
        salt = self.rng.randbytes(32)
        brought = missing(Walk(salt), self.ours, self.theirs)

        differing = {key: digest for key, digest in self.theirs.items() if self.ours.get(key) != digest}
        # Where a map of few items meets one of many, items that are the same may come with them.
        assert differing.items() <= brought.items() <= self.theirs.items()


TestTwoMaps = TwoMaps.TestCase
TestTwoMaps.settings = settings(max_examples=15, stateful_step_count=12)


def large_map(count: int) -> Map:
    rng = random.Random(1)
    return {rng.randbytes(32): rng.randbytes(32) for _ in range(count)}


def test_few_differences_of_many_items_cost_little() -> None:
    theirs = large_map(5_000)
    rng = random.Random(2)
    ours = {**theirs, **{key: bytes(32) for key in rng.sample(sorted(theirs), 10)}}
    walk = Walk(rng.randbytes(32))
    asked = questions = 0
    buckets: list[str] = []
    while not walk.is_over:
        if prefixes := walk.question():
            questions += 1
            asked += len(prefixes)
            walk.compare(
                [look(ours, prefix) for prefix in prefixes],
                [told(look(theirs, prefix), walk.salt) for prefix in prefixes],
            )
        else:
            buckets += walk.buckets()

    assert questions <= 4
    assert asked <= 1 + 16 + 10 + 10
    assert len(buckets) <= 10


def test_the_same_short_fingerprints_of_one_question_are_others_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    # Four bits instead of 32: many differences hide from one walk, and none from all.
    short = fingerprints.short

    def four_bits(fingerprint: bytes, salt: bytes) -> bytes:
        return (short(fingerprint, salt)[0] & 15).to_bytes(4, "big")

    monkeypatch.setattr(fingerprints, "short", four_bits)
    monkeypatch.setattr(reconcile, "short", four_bits)
    theirs = large_map(300)
    ours = {**theirs, **{key: bytes(32) for key in random.Random(3).sample(sorted(theirs), 5)}}
    hidden = False
    for number in range(200):
        brought = missing(Walk(number.to_bytes(32, "big")), ours, theirs)
        hidden = hidden or any(ours[key] != theirs[key] and key not in brought for key in theirs)
        ours.update(brought)

    assert hidden
    assert ours == theirs


@given(st.integers(0, 2**32))
def test_a_peer_that_answers_by_chance_cannot_make_a_walk_endless(seed: int) -> None:
    rng = random.Random(seed)
    ours = large_map(200)
    walk = Walk(bytes(32))
    steps = 0
    while not walk.is_over:
        if prefixes := walk.question():
            theirs = [rng.choice((b"", rng.randbytes(64), rng.randbytes(64))) for _ in prefixes]
            walk.compare([look(ours, prefix) for prefix in prefixes], theirs)
        else:
            assert walk.buckets()
        steps += 1

        assert steps < 100


@pytest.mark.parametrize("answer", [[], [b"", b""], [bytes(63)], [bytes(4)], [bytes(65)]])
def test_what_is_no_answer_to_the_question_is_refused(answer: list[bytes]) -> None:
    walk = Walk(bytes(32))
    (prefix,) = walk.question()
    with pytest.raises(InvalidData):
        walk.compare([look(large_map(20), prefix)], answer)
