from __future__ import annotations

from pathlib import Path

import pytest

from p2phub.core.ids import NamespaceId
from p2phub.store.layout import Layout
from p2phub.store.store import Store

ONE, OTHER = NamespaceId(b"1" * 32), NamespaceId(b"2" * 32)


@pytest.fixture
def store(tmp_path: Path):
    with Store(Layout(tmp_path, tmp_path / "store")) as opened:
        yield opened


def test_the_first_pin_stands(store: Store) -> None:
    first = store.bindings.pin("lab.example", ONE, "first use", now=5, checked=True)
    second = store.bindings.pin("lab.example", OTHER, "added", now=6, checked=True)

    assert first == second == store.bindings.get("lab.example")
    assert (first.namespace, first.since, first.checked) == (ONE, 5, 5)


def test_only_a_person_moves_a_pin(store: Store) -> None:
    bindings = store.bindings
    bindings.pin("lab.example", ONE, "first use", now=5, checked=True)
    bindings.note_offered("lab.example", OTHER, now=6)
    bindings.note_problem("lab.example", "down", now=7)
    still = bindings.get("lab.example")
    bindings.accept("lab.example", OTHER, now=8)
    accepted = bindings.get("lab.example")

    assert (still.namespace, still.offered, still.problem, still.checked, still.tried) == (ONE, OTHER, "down", 5, 7)
    assert (accepted.namespace, accepted.how, accepted.offered, accepted.problem) == (OTHER, "accepted", None, None)


def test_a_domain_that_names_the_first_publisher_again_is_as_before(store: Store) -> None:
    bindings = store.bindings
    pinned = bindings.pin("lab.example", ONE, "added", now=5, checked=True)
    bindings.note_offered("lab.example", OTHER, now=6)
    bindings.note_checked("lab.example", now=5)

    assert bindings.get("lab.example") == pinned


def test_a_rebuild_forgets_no_pin(store: Store) -> None:
    store.bindings.pin("lab.example", ONE, "added", now=5, checked=True)
    store.bindings.pin("bob", ONE, "added", now=5, checked=False)
    store.rebuild(lambda _: None)

    assert store.bindings.names_of(ONE) == ["bob", "lab.example"]
    assert store.bindings.remove("bob")
    assert not store.bindings.remove("bob")
    assert [binding.name for binding in store.bindings.all()] == ["lab.example"]
