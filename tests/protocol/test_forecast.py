"""What is to be expected of a download."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.choices import LINK_CLASSES
from p2phub.protocol.forecast import Offer, forecast

MIB = 1024 * 1024
SIZES = [MIB] * 100


def test_of_one_provider_all_comes_at_its_rate():
    found = forecast(SIZES, [Offer("lan", 10 * MIB)], {})

    assert found.links == {"lan": 100 * MIB}
    assert found.providers == {"lan": 1}
    assert found.seconds == pytest.approx(10.0)


def test_providers_share_by_their_rates():
    found = forecast(SIZES, [Offer("internet", 30 * MIB), Offer("federation", 10 * MIB)], {})

    assert found.links["internet"] == pytest.approx(75 * MIB, rel=0.03)
    assert sum(found.links.values()) == 100 * MIB
    assert found.seconds == pytest.approx(2.5, rel=0.03)


def test_what_is_near_is_asked_alone_unless_it_is_slow():
    fast = forecast(SIZES, [Offer("lan", 50 * MIB), Offer("internet", 100 * MIB)], {})
    slow = forecast(SIZES, [Offer("lan", 10 * MIB), Offer("internet", 100 * MIB)], {})

    assert fast.links == {"lan": 100 * MIB}
    assert fast.providers == {"lan": 1, "internet": 1}
    assert set(slow.links) == {"lan", "internet"}


def test_a_limit_is_kept_however_many_give():
    offers = [Offer("internet", 50 * MIB) for _ in range(4)]
    found = forecast(SIZES, offers, {"internet": 5.0 * MIB})

    assert found.seconds == pytest.approx(20.0)


def test_a_limit_tells_the_time_where_nothing_else_is_known():
    assert forecast(SIZES, [Offer("internet", None)], {"internet": 5.0 * MIB}).seconds == pytest.approx(20.0)
    assert forecast(SIZES, [Offer("internet", None)], {"lan": 5.0 * MIB}).seconds is None


def test_of_whom_nothing_is_known_the_others_of_the_class_tell():
    found = forecast(SIZES, [Offer("lan", 10 * MIB), Offer("lan", None)], {})
    other = forecast(SIZES, [Offer("internet", 10 * MIB), Offer("federation", None)], {})

    assert found.seconds == pytest.approx(5.0)
    assert other.seconds is None
    assert set(other.links) == {"internet", "federation"}


def test_what_one_has_alone_comes_from_him():
    first, second = bytes([1] * 90 + [0] * 10), bytes([0] * 90 + [1] * 9 + [0])
    found = forecast(SIZES, [Offer("lan", 10 * MIB, first), Offer("internet", MIB, second)], {})

    assert found.links == {"lan": 90 * MIB, "internet": 9 * MIB}
    assert found.unoffered == MIB
    assert found.seconds == pytest.approx(9.0)


def test_nobody_offers_anything():
    found = forecast(SIZES, [Offer("lan", 10 * MIB, bytes(100))], {})

    assert (found.links, found.providers, found.unoffered) == ({}, {}, 100 * MIB)
    assert forecast([], [Offer("lan", 10 * MIB)], {}).links == {}


rates = st.none() | st.floats(1e3, 1e9)
offers = st.builds(
    Offer,
    st.sampled_from(LINK_CLASSES),
    rates,
    st.none() | st.lists(st.integers(0, 1), min_size=9, max_size=9).map(bytes),
)


@given(st.lists(st.integers(1, 2 * MIB), min_size=9, max_size=9), st.lists(offers, max_size=6), rates)
def test_every_byte_comes_once_and_from_who_has_it(sizes, some, limit):
    found = forecast(sizes, some, {"internet": limit})
    able = {offer.link for offer in some if offer.has is None or 1 in offer.has}
    lonely = sum(size for chunk, size in enumerate(sizes) if not any(o.has is None or o.has[chunk] for o in some))

    assert found.unoffered == lonely
    assert sum(found.links.values()) == pytest.approx(sum(sizes) - lonely, abs=len(some) + 1)
    assert set(found.links) <= able
    if found.seconds is not None and "internet" in found.links and limit:
        assert found.seconds >= 0.999 * (found.links["internet"] - 1) / limit
