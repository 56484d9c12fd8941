"""No key uses more than its allowance, and none pays for another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2phub.protocol.tokens import BUCKETS_MAX, Allowance, Tokens

uses = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20), st.floats(0, 5)), max_size=60)


@given(uses, st.floats(1, 20), st.floats(0.1, 10))
def test_no_key_uses_more_than_its_allowance(uses, burst, rate):
    tokens = Tokens(Allowance(burst, rate))
    used = dict.fromkeys("abc", 0.0)
    now = 0.0
    for key, count, pause_s in uses:
        now += pause_s
        if tokens.take(key, count, now) == 0:
            used[key] += count

            # What is larger than a bucket passes once the bucket is full.
            assert used[key] - max(count - burst, 0) <= burst + rate * now + 1e-6


@given(uses)
def test_who_waits_as_long_as_was_said_is_served(uses):
    tokens = Tokens(Allowance(10, 1))
    now = 0.0
    for key, count, pause_s in uses:
        now += pause_s
        if wait_s := tokens.take(key, count, now):
            now += wait_s + 1e-6

            assert tokens.take(key, count, now) == 0


def test_one_key_does_not_pay_for_another():
    tokens = Tokens(Allowance(1, 0.001))
    first = [tokens.take("a", 1, 0.0) for _ in range(3)]

    assert first[0] == 0
    assert min(first[1:]) > 0
    assert tokens.take("b", 1, 0.0) == 0


def test_those_who_called_long_ago_are_forgotten():
    tokens = Tokens(Allowance(2, 1))
    for number in range(BUCKETS_MAX + 100):
        tokens.take(number, 1, 0.0)

    assert len(tokens) <= BUCKETS_MAX
    tokens.take("late", 1, 100.0)
    assert len(tokens) == 1
