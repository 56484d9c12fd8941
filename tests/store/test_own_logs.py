"""One's own log: each append leaves it whole and signed, or as it was."""

from __future__ import annotations

from pathlib import Path
from sqlite3 import Connection

import pytest
from logkit import MIB, append, check_own
from storekit import TIME, fill, open_store, revision, run_at_once, run_in_small_disk, wait_for_the_others

from p2phub.core.checkpoint import parse_head
from p2phub.core.errors import InvalidData, NoSpace
from p2phub.core.ids import LogId
from p2phub.core.records import Record
from p2phub.store.store import Store
from p2phub.testing import values


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


@pytest.mark.parametrize("is_forked", [False, True])
def test_what_a_crash_left_is_signed_for_unless_another_history_was_met(store: Store, is_forked: bool) -> None:
    append(store, "one")
    before = store.logs.states()[0]
    append(store, "two")
    with store.database.write() as connection:
        # As after a crash between the record and its head.
        connection.execute("UPDATE logs SET head = ?", (before.head,))
        if is_forked:
            connection.execute("INSERT INTO forks (log, ours, theirs) VALUES (?, x'', x'')", (before.log,))
    store.logs.finish_own(values.identity(), values.key("publisher"))

    assert parse_head(store.logs.states()[0].head).size == (1 if is_forked else 2)


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
