"""What is remembered of how fast providers were."""

from __future__ import annotations

import pytest

from p2phub.store import rates
from p2phub.store.store import Store


def test_a_rate_that_was_noted_is_known_and_a_newer_one_counts_half(store: Store) -> None:
    store.rates.note({"one": 1000.0, "example.org:443": 5.5}, 100.0)
    store.rates.note({"one": 3000.0}, 200.0)
    store.rates.note({}, 300.0)

    assert store.rates.of(["one", "example.org:443", "other"]) == {"one": 2000.0, "example.org:443": 5.0}
    assert store.rates.of([]) == {}


def test_many_providers_are_asked_about_at_once_and_the_oldest_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "RATES_MAX", 700)
    store.rates.note({f"old {number}": 1.0 for number in range(100)}, 100.0)
    store.rates.note({f"new {number}": 2.0 for number in range(700)}, 200.0)
    names = [f"new {number}" for number in range(700)]

    assert store.rates.of([*names, "old 7"]) == dict.fromkeys(names, 2.0)
