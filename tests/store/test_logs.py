from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storekit import (
    TIME,
    Writer,
    fill,
    open_store,
    revision,
    run_at_once,
    run_in_small_disk,
    summary,
    two_keys_identity,
    wait_for_the_others,
)

from p2phub.core.checkpoint import Head, open_head, parse_head, sign_head
from p2phub.core.errors import ForkedLog, HashMismatch, InvalidData, InvalidSignature, NoSpace, TooEarly
from p2phub.core.identity import Identity, open_identity
from p2phub.core.ids import LogId
from p2phub.core.merkle import LOG_TREE, Frontier
from p2phub.core.records import NO_PREVIOUS, SKEW_MAX_S, Publish, Record, log_id, open_entry
from p2phub.store.layout import Layout
from p2phub.store.logs import LogPart, MakeRecord
from p2phub.store.store import Store
from p2phub.testing import values
from p2phub.testing.processes import flip_byte

MIB = 1024 * 1024


def make(name: str, *, model: str = "parrot", time: int = TIME) -> MakeRecord:
    def make_record(connection: Connection, log: LogId, index: int, previous: bytes, since: int) -> Record:
        return Publish(
            namespace=values.identity().namespace,
            log=log,
            index=index,
            previous=previous,
            time=time + index,
            model=model,
            kind="model",
            manifest=revision(name),
            depth=1,
            branch="main",
            summary=summary(),
        )

    return make_record


def append(store: Store, name: str, **options: object) -> None:
    identity = values.identity()
    store.logs.add_identity(identity)
    store.logs.append_own(identity.namespace, values.key("publisher"), make(name, **options))  # type: ignore[arg-type]


def check_whole(store: Store, identity: Identity, log: LogId) -> int:
    """Check the log from its first record to its head, as a stranger would; returns its size."""
    state = store.logs.state(log)
    assert state is not None
    key = identity.logs[log]
    frontier, previous = Frontier(LOG_TREE), NO_PREVIOUS
    data = store.logs.entries(log, 0, size_max=10**9)
    for index, encoded in enumerate(data):
        entry = open_entry(encoded, namespace=identity.namespace, key=key, index=index, previous=previous)
        frontier.append(entry.leaf)
        previous = entry.leaf
    head = open_head(state.head, log=log, key=key)

    assert len(data) == state.size == head.size
    assert frontier.root() == state.root == head.root
    return state.size


def check_own(store: Store) -> int:
    identity = values.identity()
    return check_whole(store, identity, log_id(identity.namespace, values.key("publisher").public_key))


@contextmanager
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    with open_store(folder) as store:
        yield store
    shutil.rmtree(folder)


# ── one's own log ───────────────────────────────────────────────────────────


def test_each_append_leaves_a_whole_signed_log(store: Store) -> None:
    for number in range(5):
        append(store, f"revision {number}")

        assert check_own(store) == number + 1


def append_many(home: str, name: str, count: str) -> None:
    with open_store(Path(home)) as store:
        wait_for_the_others()
        for number in range(int(count)):
            append(store, f"{name} {number}", model=f"model-{name}")


def test_processes_that_append_at_once_make_one_unforked_log(tmp_path: Path) -> None:
    run_at_once(append_many, *((tmp_path, name, 25) for name in "abcd"))

    with open_store(tmp_path) as store:
        assert check_own(store) == 100
        namespace = values.identity().namespace
        for name in "abcd":
            claim = store.catalogue.branch(namespace, f"model-{name}", "main")
            assert claim is not None
            assert claim.manifest == revision(f"{name} 24")
        # And a peer can take it over.
        log = store.logs.states()[0]
        with open_store(tmp_path / "peer") as peer:
            peer.logs.add_identity(values.identity())
            data = store.logs.entries(log.log, 0, size_max=10**9)
            assert peer.logs.extend(values.identity(), parse_head(log.head), data, now=TIME + 1000) == 100


def test_what_make_refuses_is_not_appended(store: Store) -> None:
    append(store, "one")

    def refuse(connection: Connection, log: LogId, index: int, previous: bytes, since: int) -> Record:
        raise InvalidData("not this")

    with pytest.raises(InvalidData, match="not this"):
        store.logs.append_own(values.identity().namespace, values.key("publisher"), refuse)

    assert check_own(store) == 1
    append(store, "two")
    assert check_own(store) == 2


def test_a_record_that_breaks_the_spec_is_not_appended(store: Store) -> None:
    append(store, "one")
    with pytest.raises(InvalidData):
        append(store, "two", model="no model name!")

    assert check_own(store) == 1


def append_on_a_full_disk(folder_name: str) -> None:
    folder = Path(folder_name)
    with open_store(folder) as store:

        def append_many() -> None:
            for number in range(1000):
                append(store, f"more {number}")

        append(store, "one")
        fill(folder / "filler")
        with pytest.raises(NoSpace) as caught:
            append_many()
        assert caught.value.path.startswith(folder_name)
        size = check_own(store)
        (folder / "filler").unlink()
        append(store, "later")
        assert check_own(store) == size + 1
        assert store.rebuild(lambda text: None)["records"] == size + 1
        assert check_own(store) == size + 1


def test_an_append_to_a_full_disk_says_so_and_leaves_the_log_whole(tmp_path: Path) -> None:
    run_in_small_disk(append_on_a_full_disk, tmp_path, 24 * MIB)


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


# ── two histories ───────────────────────────────────────────────────────────


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


# ── crashes, and several homes on one store ─────────────────────────────────


def test_bytes_that_a_crash_left_behind_do_no_harm(store: Store) -> None:
    for garbage in (b"\0", b"\0\0\0\5abc", b"\0\0\1\0" + bytes(256), b"\xff" * 1000):
        append(store, f"before {len(garbage)}")
        log = store.logs.states()[0].log
        with open(store.layout.log(log), "ab") as file:
            file.write(garbage)
        assert check_own(store)
        append(store, f"after {len(garbage)}")

    assert check_own(store) == 8
    assert store.rebuild(lambda text: None)["records"] == 8
    assert check_own(store) == 8


def test_an_index_that_lost_the_last_appends_does_not_fork_the_log(tmp_path: Path) -> None:
    """After a power cut SQLite may have lost what a peer has seen already; the log's file has not."""
    with open_store(tmp_path) as store:
        append(store, "one")
    shutil.copy(store.layout.index, tmp_path / "old index")
    with open_store(tmp_path) as store:
        append(store, "two")
        append(store, "three")
        seen = store.logs.states()[0]
        data = store.logs.entries(seen.log, 0, size_max=10**9)
    for path in store.layout.home.glob("index.sqlite*"):
        path.unlink()
    shutil.copy(tmp_path / "old index", store.layout.index)
    with open_store(tmp_path / "peer") as peer:
        peer.logs.add_identity(values.identity())
        peer.logs.extend(values.identity(), parse_head(seen.head), data, now=TIME + 100)
        with open_store(tmp_path) as store:
            append(store, "four")
            assert check_own(store) == 4
            state = store.logs.states()[0]
            data = store.logs.entries(state.log, 3, size_max=10**9)

            assert peer.logs.extend(values.identity(), parse_head(state.head), data, now=TIME + 100) == 1
            claim = store.catalogue.branch(values.identity().namespace, "parrot", "main")
            assert claim is not None
            assert claim.manifest == revision("four")


def test_homes_that_share_a_store_do_not_cut_each_others_logs(tmp_path: Path) -> None:
    """Each host has an index of its own; one that is behind must not undo what the other wrote."""
    writer = Writer().grow(6)
    shared = tmp_path / "store"
    with Store(Layout(tmp_path / "a", shared)) as one, Store(Layout(tmp_path / "b", shared)) as other:
        writer.give(one)
        writer.give(other, 2)
        assert check_whole(one, writer.identity, writer.log) == 6
        assert check_whole(other, writer.identity, writer.log) == 2
        writer.give(other, 4)
        assert check_whole(one, writer.identity, writer.log) == 6
        writer.grow(2).give(one)
        writer.give(other)

        assert check_whole(one, writer.identity, writer.log) == 8
        assert check_whole(other, writer.identity, writer.log) == 8
        assert one.rebuild(lambda text: None)["records"] == 8
        assert check_whole(one, writer.identity, writer.log) == 8


# ── reading ─────────────────────────────────────────────────────────────────


def test_a_page_has_at_least_one_record_and_then_as_many_as_fit(store: Store) -> None:
    writer = Writer().grow(5)
    writer.give(store)
    sizes = [len(data) for data in writer.data()]

    assert store.logs.entries(writer.log, 0, size_max=0) == writer.data(0, 1)
    assert store.logs.entries(writer.log, 1, size_max=10**9) == writer.data(1)
    assert store.logs.entries(writer.log, 1, size_max=sum(sizes[1:3]) + 16) == writer.data(1, 3)
    assert store.logs.entries(writer.log, 5, size_max=10**9) == []
    assert store.logs.entries(writer.log, 2**53, size_max=10**9) == []
    assert store.logs.entries(LogId(bytes(32)), 0, size_max=10**9) == []


@pytest.mark.parametrize("is_own", [False, True])
def test_a_record_that_the_disk_changed_is_not_given(store: Store, is_own: bool) -> None:
    if is_own:
        for number in range(4):
            append(store, f"revision {number}")
    else:
        Writer().grow(4).give(store)
    (state,) = store.logs.states()
    data = store.logs.entries(state.log, 0, size_max=10**9)
    path = store.layout.log(state.log) if is_own else store.layout.journals / f"{1:08}"
    flip_byte(path, path.read_bytes().index(data[2]) + len(data[2]) // 2)

    assert store.logs.entries(state.log, 0, size_max=10**9) == data[:2]
    assert store.logs.entries(state.log, 3, size_max=10**9) == data[3:]
    assert store.logs.entry(state.log, 2) is None
    number = 1  # of the only log
    found = store.logs.entries_at([(number, index) for index in range(5)])
    assert found == {(number, index): data[index] for index in (0, 1, 3)}


def test_all_logs_can_be_paged_through(store: Store) -> None:
    identity = two_keys_identity(*"abcde")
    writers = [Writer(identity, values.key(name)).grow(2) for name in "abcde"]
    for writer in writers:
        writer.give(store)
    logs = sorted(writer.log for writer in writers)

    assert [state.log for state in store.logs.states()] == logs
    assert [state.log for state in store.logs.logs_of(identity.namespace)] == logs
    found: list[LogId] = []
    while page := store.logs.states(after=found[-1] if found else None, limit=2):
        found += [state.log for state in page]
    assert found == logs


def test_of_a_log_that_is_not_here_nothing_is_known(store: Store) -> None:
    log = Writer().log

    assert store.logs.state(log) is None
    assert store.logs.fork(log) is None
    assert store.logs.entries(log, 0, size_max=1000) == []
    assert store.logs.identity(values.identity().namespace) is None
    store.logs.check_head(Writer().grow(1).head())


# ── identities ──────────────────────────────────────────────────────────────


def test_the_newest_identity_is_kept_whatever_the_order(tmp_path: Path) -> None:
    whole = values.rotated_identity()
    versions = [open_identity(whole.chain[:count]) for count in (1, 2, 3)]
    for number, order in enumerate(((0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1), (2, 2, 0))):
        with open_store(tmp_path / str(number)) as store:
            newest = 0
            for version in order:
                assert store.logs.add_identity(versions[version]) is (version + 1 > newest)
                newest = max(newest, version + 1)
            found = store.logs.identity(whole.namespace)

            assert found == whole


def test_two_documents_of_one_version_are_refused(store: Store) -> None:
    whole = values.rotated_identity()
    store.logs.add_identity(whole)
    other = msgspec.structs.replace(whole, chain=(whole.chain[0], whole.chain[2], whole.chain[1]))
    with pytest.raises(InvalidData, match="have version 2"):
        store.logs.add_identity(other)

    assert store.logs.identity(whole.namespace) == whole


def add_identities(home: str, counts: str) -> None:
    whole = values.rotated_identity()
    with open_store(Path(home)) as store:
        wait_for_the_others()
        for count in counts:
            store.logs.add_identity(open_identity(whole.chain[: int(count)]))


def test_an_older_identity_never_takes_the_place_of_a_newer(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        run_at_once(add_identities, *((tmp_path, counts) for counts in ("123", "1212", "2121")))

        assert store.logs.identity(values.rotated_identity().namespace) == values.rotated_identity()
        # On disk too.
        for path in store.layout.home.glob("index.sqlite*"):
            path.unlink()
    with open_store(tmp_path) as store:
        store.rebuild(lambda text: None)

        assert store.logs.identity(values.rotated_identity().namespace) == values.rotated_identity()


def test_records_that_another_task_brought_meanwhile_are_passed_over(store: Store) -> None:
    writer = Writer().grow(5)
    assert writer.give(store, 3) == 3

    # Asked for when there was one record here, answered when there were three.
    assert store.logs.extend(writer.identity, writer.head(), writer.data(1), start=1, now=TIME + 100) == 2
    state = store.logs.state(writer.log)
    assert state is not None
    assert state.size == 5


def test_records_behind_a_gap_are_not_taken(store: Store) -> None:
    writer = Writer().grow(5)
    assert writer.give(store, 1) == 1

    assert store.logs.extend(writer.identity, writer.head(), writer.data(3), start=3, now=TIME + 100) == 0
