"""A log with two histories is found out, frozen, and the evidence kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logkit import check_whole, fresh
from storekit import TIME, Writer, open_store

from p2phub.core.checkpoint import sign_head
from p2phub.core.errors import ForkedLog
from p2phub.store.store import Store
from p2phub.testing import values


@contextmanager
def a_fork_is_found(store: Store, ours: bytes, theirs: bytes) -> Iterator[None]:
    before = store.logs.states()
    log = before[0].log
    with pytest.raises(ForkedLog) as caught:
        yield
    assert (caught.value.ours, caught.value.theirs) == (ours, theirs)
    assert store.logs.fork(log) == (ours, theirs)
    assert store.logs.states() == before


def other_history(writer: Writer, common: int, size: int) -> Writer:
    other = writer.fork(common)
    while len(other.entries) < size:
        other.publish(f"other {len(other.entries)}")
    return other


@settings(max_examples=20)
@given(common=st.integers(0, 5), theirs=st.integers(1, 6))
def test_a_head_of_another_history_is_evidence(
    tmp_path_factory: pytest.TempPathFactory, common: int, theirs: int
) -> None:
    writer = Writer().grow(6)
    other = other_history(writer, common, 6)
    with fresh(tmp_path_factory) as store:
        writer.give(store)
        if theirs <= common:
            store.logs.check_head(other.head(theirs))
            assert store.logs.fork(writer.log) is None
            return
        with a_fork_is_found(store, writer.head().text, other.head(theirs).text):
            store.logs.check_head(other.head(theirs))
        with a_fork_is_found(store, writer.head().text, other.head(theirs).text):
            store.logs.extend(writer.identity, other.head(theirs), other.data(theirs), now=TIME + 100)


@settings(max_examples=15)
@given(common=st.integers(0, 3), size=st.integers(5, 8), piece=st.integers(1, 8))
def test_records_that_do_not_follow_ours_are_evidence(
    tmp_path_factory: pytest.TempPathFactory, common: int, size: int, piece: int
) -> None:
    """A longer log of another history comes as records behind ours, each signed: no peer made them up."""
    writer = Writer().grow(4)
    other = other_history(writer, common, size)
    with fresh(tmp_path_factory) as store:
        writer.give(store)
        with a_fork_is_found(store, writer.head().text, other.head().text):
            store.logs.extend(writer.identity, other.head(), other.data(4, 4 + piece), now=TIME + 100)


def test_a_longer_head_over_other_records_than_those_signed_is_evidence(store: Store) -> None:
    writer = Writer().grow(5)
    writer.give(store, 3)
    wrong = sign_head(writer.log, 5, values.content("root", 32), writer.key)
    with a_fork_is_found(store, writer.head(3).text, wrong.text):
        store.logs.extend(writer.identity, wrong, writer.data(3), now=TIME + 100)


def test_the_first_evidence_is_kept(store: Store) -> None:
    writer = Writer().grow(3)
    writer.give(store)
    first, second = other_history(writer, 1, 3).head(), other_history(writer, 2, 3).head()
    for head in (first, second):
        with pytest.raises(ForkedLog):
            store.logs.check_head(head)

    assert store.logs.fork(writer.log) == (writer.head().text, first.text)


def test_a_forked_log_grows_no_more(store: Store) -> None:
    writer = Writer().grow(5)
    writer.give(store, 3)
    with pytest.raises(ForkedLog):
        store.logs.check_head(other_history(writer, 1, 3).head())
    with pytest.raises(ForkedLog):
        writer.give(store)

    assert check_whole(store, writer.identity, writer.log) == 3


def test_evidence_outlives_the_process_and_a_rebuild(tmp_path: Path) -> None:
    writer = Writer().grow(3)
    other = other_history(writer, 1, 3)
    with open_store(tmp_path) as store:
        writer.give(store)
        with pytest.raises(ForkedLog):
            store.logs.check_head(other.head())
    with open_store(tmp_path) as store:
        store.rebuild(lambda text: None)

        assert store.logs.fork(writer.log) == (writer.head().text, other.head().text)
