"""Fingerprints of maps: they say what is in a map, and nothing else."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2phub.core import fingerprints
from p2phub.core.fingerprints import BUCKET_MAX, EMPTY, Item, branch_of, children_of, of_children, range_of

hashes = st.binary(min_size=32, max_size=32)


@st.composite
def maps(draw: st.DrawFn) -> list[Item]:
    """Maps of up to some hundred items, of which many share long prefixes."""
    starts = draw(st.lists(st.binary(max_size=3), min_size=1, max_size=4))
    rng = random.Random(draw(st.integers(0, 2**32)))
    count = draw(st.integers(0, 300))
    keys = {rng.choice(starts).ljust(4, b"\0") + rng.randbytes(28) for _ in range(count)}
    return [(key, rng.randbytes(32)) for key in sorted(keys)]


@given(maps(), st.data())
def test_one_item_more_less_or_other_changes_the_fingerprint(items: list[Item], data: st.DataObject) -> None:
    before = branch_of(items, 0)
    key, digest = data.draw(st.tuples(hashes, hashes))
    more = sorted({**dict(items), key: digest}.items())

    assert branch_of(more, 0) != before or more == items
    if items:
        place = data.draw(st.integers(0, len(items) - 1))
        less = items[:place] + items[place + 1 :]
        other = [*items[:place], (items[place][0], bytes(32)), *items[place + 1 :]]

        assert branch_of(less, 0).fingerprint != before.fingerprint
        assert branch_of(other, 0).fingerprint != before.fingerprint


@given(maps())
def test_a_prefix_is_its_children_or_a_bucket_and_counts_what_is_under_it(items: list[Item]) -> None:
    branch = branch_of(items, 0)
    children = children_of(items, 0)

    assert branch.count == len(items) == sum(child.count for child in children)
    assert branch.is_bucket == (len(items) <= BUCKET_MAX)
    if not branch.is_bucket:
        assert branch.fingerprint == of_children([child.fingerprint for child in children])
    for digit, child in enumerate(children):
        low, high = range_of("0123456789abcdef"[digit])

        assert child == branch_of([item for item in items if low <= item[0] <= high], 1)


def test_no_items_have_one_fingerprint_at_any_depth() -> None:
    assert branch_of([], 0) == branch_of([], 17) == EMPTY


@settings(max_examples=20)
@given(hashes, hashes, st.binary(min_size=32, max_size=32))
def test_short_fingerprints_depend_on_the_salt(one: bytes, salt: bytes, other_salt: bytes) -> None:
    short = fingerprints.short(one, salt)

    assert len(short) == fingerprints.SHORT_SIZE
    assert (short == fingerprints.short(one, other_salt)) == (salt == other_salt)


def test_a_log_that_forked_is_told_apart_from_one_that_goes_on() -> None:
    digests = {
        fingerprints.log_digest(1, 5, bytes(32)),
        fingerprints.log_digest(2, 5, bytes(32)),
        fingerprints.log_digest(1, 6, bytes(32)),
        fingerprints.log_digest(1, 5, b"\1" * 32),
        fingerprints.forked_digest(1, 5, 5),
        fingerprints.forked_digest(2, 5, 5),
        fingerprints.forked_digest(1, 5, 4),
        fingerprints.forked_digest(1, 4, 4),
    }

    assert len(digests) == 8
