"""Logs of others: what comes is taken whole or refused, many logs at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logkit import check_whole, fresh
from storekit import TIME, Writer, revision, two_keys_identity

from p2phub.core.checkpoint import Head, parse_head, sign_head
from p2phub.core.errors import ForkedLog, HashMismatch, InvalidData, InvalidSignature, TooEarly
from p2phub.core.identity import open_identity
from p2phub.core.records import SKEW_MAX_S
from p2phub.store.logs import LogPart
from p2phub.store.store import Store
from p2phub.testing import values

# ── another's log ───────────────────────────────────────────────────────────


@settings(max_examples=15)
@given(cuts=st.sets(st.integers(1, 12)))
def test_a_log_may_come_in_pieces(tmp_path_factory: pytest.TempPathFactory, cuts: set[int]) -> None:
    writer = Writer().grow(12)
    head = writer.head()
    with fresh(tmp_path_factory) as store:
        store.logs.add_identity(writer.identity)
        size = 0
        for cut in [*sorted(cuts), 12]:
            piece = writer.data(size, cut)
            assert store.logs.extend(writer.identity, head, piece, now=TIME + 100) == len(piece)
            size = cut
            state = store.logs.state(writer.log)
            assert state is not None
            assert state.size == size
            # A head speaks only of records that are all here.
            assert state.head == (head.text if size == 12 else b"")

        assert check_whole(store, writer.identity, writer.log) == 12
        assert store.catalogue.revisions(writer.namespace, "parrot", "") != []


def test_a_head_may_cover_less_than_what_comes_with_it(store: Store) -> None:
    writer = Writer().grow(5)
    store.logs.add_identity(writer.identity)

    assert store.logs.extend(writer.identity, writer.head(3), writer.data(), now=TIME + 100) == 3
    assert check_whole(store, writer.identity, writer.log) == 3


def test_the_head_of_an_empty_log_is_nothing_new(store: Store) -> None:
    writer = Writer()
    store.logs.add_identity(writer.identity)

    assert store.logs.extend(writer.identity, writer.head(), [], now=TIME) == 0
    assert writer.grow(2).give(store) == 2
    assert store.logs.extend(writer.identity, writer.head(0), [], now=TIME) == 0


def test_nothing_new_changes_nothing(store: Store) -> None:
    writer = Writer().grow(3)
    assert writer.give(store) == 3
    before = store.logs.states()

    assert store.logs.extend(writer.identity, writer.head(), writer.data(), now=TIME + 100) == 0
    assert store.logs.extend(writer.identity, writer.head(2), [], now=TIME + 100) == 0
    assert store.logs.states() == before


def bad_pieces() -> dict[str, tuple[list[bytes], Head]]:
    """Return what a peer may send after two good records, by what is wrong with it."""
    writer = Writer().grow(5)
    thief = Writer(writer.identity, values.key("thief"))
    thief.entries = writer.entries[:2]
    thief.log = writer.log
    thief.grow(3)
    elsewhere = Writer(two_keys_identity("publisher", "other")).grow(5)
    good, head = writer.data(2), writer.head()
    damaged = bytearray(good[0])
    damaged[-1] ^= 1
    return {
        "signed by another key": (thief.data(2), head),
        "a flipped bit": ([bytes(damaged), *good[1:]], head),
        "out of order": ([good[1], good[0], good[2]], head),
        "one left out": (good[1:], head),
        "one twice": ([good[0], good[0], good[1]], head),
        "of another namespace": (elsewhere.data(2), head),
        "no record at all": ([b"\xa0", *good[1:]], head),
        "empty": ([b"", *good[1:]], head),
    }


@pytest.mark.parametrize("what", bad_pieces())
def test_a_piece_with_anything_wrong_is_refused_whole(store: Store, what: str) -> None:
    piece, head = bad_pieces()[what]
    writer = Writer().grow(5)
    writer.give(store, 2)

    with pytest.raises(InvalidData):
        store.logs.extend(writer.identity, head, piece, now=TIME + 100)
    assert store.logs.fork(writer.log) is None
    assert check_whole(store, writer.identity, writer.log) == 2
    # What is right can still come.
    assert writer.give(store) == 3
    assert check_whole(store, writer.identity, writer.log) == 5


def test_good_records_before_a_bad_one_are_not_kept_half(store: Store) -> None:
    writer = Writer().grow(5)
    store.logs.add_identity(writer.identity)
    with pytest.raises(InvalidData):
        store.logs.extend(writer.identity, writer.head(), [*writer.data(0, 4), b"bad"], now=TIME + 100)

    assert store.logs.state(writer.log) is None
    assert store.search.count() == 0


@pytest.mark.parametrize("ahead_s", [0, SKEW_MAX_S, SKEW_MAX_S + 1])
def test_a_record_may_be_ahead_of_the_clock_by_the_limit_only(store: Store, ahead_s: int) -> None:
    writer = Writer()
    writer.publish("a", time=TIME + ahead_s)
    store.logs.add_identity(writer.identity)
    if ahead_s <= SKEW_MAX_S:
        assert store.logs.extend(writer.identity, writer.head(), writer.data(), now=TIME) == 1
    else:
        with pytest.raises(InvalidData, match="clock"):
            store.logs.extend(writer.identity, writer.head(), writer.data(), now=TIME)
        assert store.logs.state(writer.log) is None


def test_the_log_of_a_retired_key_counts_up_to_its_limit(store: Store) -> None:
    identity = values.rotated_identity()
    writer = Writer(identity, values.key("laptop 1")).grow(13)
    limit = identity.size_max(writer.log)
    assert limit == 12
    assert writer.give(store) == 12
    state = store.logs.state(writer.log)
    assert state is not None
    assert (state.size, state.head) == (12, b"")

    # A head of what counts is kept; one beyond it says nothing that counts.
    assert writer.give(store, 12) == 0
    assert writer.give(store) == 0
    kept = store.logs.state(writer.log)
    assert kept is not None
    assert parse_head(kept.head).size == 12


def test_what_a_key_signed_beyond_its_retirement_stops_counting_when_that_is_known(store: Store) -> None:
    identity = values.rotated_identity()
    before = open_identity(identity.chain[:1])
    writer = Writer(before, values.key("laptop 1")).grow(13)
    writer.publish("late", model="late", version="9.9.9")
    assert writer.give(store) == 14
    assert store.catalogue.version(before.namespace, "late", "9.9.9") is not None
    count = store.search.count()

    assert store.logs.add_identity(identity)
    assert store.catalogue.version(before.namespace, "late", "9.9.9") is None
    assert store.search.count() < count


def test_a_head_must_be_signed_by_the_key_of_a_log_of_the_identity(store: Store) -> None:
    writer = Writer().grow(2)
    root = writer.head().root
    forged = sign_head(writer.log, 2, root, values.key("thief"))
    unsigned = Head(writer.log, 2, root, writer.head(1).text)
    strange = Writer(values.identity("somebody"), values.key("somebody")).grow(2)
    store.logs.add_identity(writer.identity)
    with pytest.raises(InvalidSignature):
        store.logs.extend(writer.identity, forged, writer.data(), now=TIME + 100)
    with pytest.raises(InvalidData):
        store.logs.extend(writer.identity, strange.head(), strange.data(), now=TIME + 100)
    # The text is what was signed; what somebody says beside it does not count.
    assert store.logs.extend(writer.identity, unsigned, writer.data(), now=TIME + 100) == 1

    assert check_whole(store, writer.identity, writer.log) == 1


def test_a_head_over_other_records_than_those_signed_is_no_start_of_a_log(store: Store) -> None:
    writer = Writer().grow(3)
    wrong = sign_head(writer.log, 3, values.content("root", 32), writer.key)
    store.logs.add_identity(writer.identity)
    with pytest.raises(HashMismatch):
        store.logs.extend(writer.identity, wrong, writer.data(), now=TIME + 100)

    assert store.logs.state(writer.log) is None


@pytest.mark.parametrize("size", [1, 3])
def test_the_newest_head_whose_records_are_all_here_is_kept(store: Store, size: int) -> None:
    """Records may be here before a head that covers just them: then it is kept as soon as it is seen."""
    writer = Writer().grow(5)
    store.logs.add_identity(writer.identity)
    store.logs.extend(writer.identity, writer.head(), writer.data(0, 3), now=TIME + 100)
    assert store.logs.extend(writer.identity, writer.head(size), [], now=TIME + 100) == 0

    state = store.logs.state(writer.log)
    assert state is not None
    assert state.head == writer.head(size).text
    # An older one does not take its place.
    store.logs.extend(writer.identity, writer.head(1), [], now=TIME + 100)
    state = store.logs.state(writer.log)
    assert state is not None
    assert state.head == writer.head(size).text


# ── many logs at once ───────────────────────────────────────────────────────


def part(writer: Writer, start: int = 0, end: int | None = None, head: Head | None = None) -> LogPart:
    return LogPart(writer.identity, writer.log, head or writer.head(), start, tuple(writer.data(start, end)))


def writers_of(*names: str) -> list[Writer]:
    return [Writer(values.identity(name), values.key(name)).grow(4) for name in names]


def test_many_logs_come_at_once_with_their_identities(store: Store) -> None:
    writers = writers_of(*"abcde")

    assert store.logs.extend_many([part(writer) for writer in writers], now=TIME + 100) == [4] * 5
    for writer in writers:
        assert check_whole(store, writer.identity, writer.log) == 4
        assert store.logs.identity(writer.namespace) == writer.identity
    assert store.logs.extend_many([part(writer) for writer in writers], now=TIME + 100) == [0] * 5
    assert store.logs.extend_many([], now=TIME) == []


def test_one_log_that_is_wrong_does_not_keep_the_others_out(store: Store) -> None:
    good, bad, forged, forked, late = writers_of("good", "bad", "forged", "forked", "late")
    forked.give(store, 3)
    other = forked.fork(2)
    other.grow(4)
    parts = [
        part(bad, head=sign_head(bad.log, 4, values.content("root", 32), bad.key)),
        part(other, 3),
        part(forged, head=sign_head(forged.log, 4, forged.head().root, values.key("thief"))),
        part(good),
        part(late.grow(700)),
    ]
    outcomes = store.logs.extend_many(parts, now=TIME + 100)

    assert [type(outcome) for outcome in outcomes] == [HashMismatch, ForkedLog, InvalidSignature, int, TooEarly]
    assert outcomes[3] == 4
    assert {state.log: state.size for state in store.logs.states()} == {good.log: 4, forked.log: 3}
    assert store.logs.fork(forked.log)
    assert check_whole(store, good.identity, good.log) == 4


def test_parts_of_one_log_are_taken_in_order(store: Store) -> None:
    writer = Writer().grow(9)
    parts = [part(writer, 0, 3), part(writer, 2, 6), part(writer, 6), part(writer, 0, 1, writer.head(1))]

    assert store.logs.extend_many(parts, now=TIME + 100) == [3, 3, 3, 0]
    assert check_whole(store, writer.identity, writer.log) == 9


def test_a_part_behind_a_gap_is_not_taken(store: Store) -> None:
    writer = Writer().grow(5)

    assert store.logs.extend_many([part(writer, 0, 1), part(writer, 3)], now=TIME + 100) == [1, 0]


def test_a_newer_identity_comes_with_a_part(store: Store) -> None:
    identity = values.rotated_identity()
    before = open_identity(identity.chain[:1])
    writer = Writer(before, values.key("laptop 1")).grow(13)
    assert store.logs.extend_many([part(writer)], now=TIME + 100) == [13]
    assert store.catalogue.revisions(writer.namespace, "parrot", revision("revision 12").hex())

    renewed = LogPart(identity, writer.log, writer.head(), 13, ())
    assert store.logs.extend_many([renewed], now=TIME + 100) == [0]
    assert store.logs.identity(writer.namespace) == identity
    assert not store.catalogue.revisions(writer.namespace, "parrot", revision("revision 12").hex())
    # An older one is no step back.
    assert store.logs.extend_many([part(writer)], now=TIME + 100) == [0]
    assert store.logs.identity(writer.namespace) == identity
