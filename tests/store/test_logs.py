"""Logs and identities in the store: read in pages, kept through crashes, by several homes, newest identity first."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from logkit import append, check_own, check_whole
from storekit import TIME, Writer, open_store, revision, run_at_once, two_keys_identity, wait_for_the_others

from p2phub.core.checkpoint import parse_head
from p2phub.core.errors import InvalidData
from p2phub.core.identity import open_identity
from p2phub.core.ids import LogId
from p2phub.store.layout import Layout
from p2phub.store.store import Store
from p2phub.testing import values
from p2phub.testing.processes import flip_byte

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
