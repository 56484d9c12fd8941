"""What a publisher's records take is known at any time, however many they are."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from storekit import TIME, Writer, check_entry_bytes, finish, open_store, start

from p2phub.store import rebuild as rebuilding
from p2phub.store.logs import LogPart
from p2phub.store.migrations import MIGRATIONS
from p2phub.store.store import Store
from p2phub.testing import values

NOW = TIME + 100_000


def give(store: Store, writer: Writer, start: int, end: int) -> None:
    part = LogPart(writer.identity, writer.log, writer.head(end), start, tuple(writer.data(start, end)))
    assert store.logs.extend_many([part], now=NOW) == [end - start]


def steps_to_say_the_size(store: Store, writer: Writer) -> int:
    """Return how many steps SQLite takes."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with store.database.read() as connection:
        connection.set_progress_handler(count, 1)
        store.policy_use.size(writer.namespace)
        store.policy_use.of_log(writer.log)
        connection.set_progress_handler(None, 0)
    assert steps
    return steps


def test_it_is_what_all_records_of_a_publisher_have_together(store: Store) -> None:
    writer, other = Writer().grow(9), Writer(values.identity("other"), values.key("other")).grow(3)
    give(store, writer, 0, 4)
    give(store, other, 0, 3)
    give(store, writer, 4, 9)

    assert store.policy_use.size(writer.namespace) == sum(map(len, writer.data(0, 9)))
    assert store.policy_use.of_log(writer.log) == sum(map(len, writer.data(0, 9)))
    assert store.policy_use.of_log(other.log) == sum(map(len, other.data(0, 3)))
    assert store.policy_use.size(values.identity("nobody").namespace) == 0


def test_to_say_it_takes_no_longer_for_a_long_log(store: Store) -> None:
    writer = Writer().grow(300)
    give(store, writer, 0, 10)
    short = steps_to_say_the_size(store, writer)
    give(store, writer, 10, 300)

    assert steps_to_say_the_size(store, writer) == short


@pytest.mark.parametrize("piece", [2, 1000])
def test_it_is_right_after_a_rebuild(store: Store, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "PIECE_ENTRIES", piece)
    writer = Writer().grow(7)
    give(store, writer, 0, 7)
    with store.database.write() as connection:
        connection.execute("UPDATE logs SET entry_bytes = 5")
    store.logs.rebuild()

    assert store.policy_use.size(writer.namespace) == sum(map(len, writer.data(0, 7)))


def take_and_die(home: str, seed: str) -> None:
    """Take in one record after the other, and say so; another ends it."""
    writer = Writer().grow(60)
    store = open_store(Path(home))
    for index in range(60):
        give(store, writer, index, index + 1)
        print(index, flush=True)
        if index == int(seed):
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("seed", [3, 17])
def test_it_is_right_after_a_process_was_killed(seed: int, tmp_path: Path) -> None:
    process = start(take_and_die, tmp_path, seed)
    with pytest.raises(AssertionError):
        finish(process)
    assert process.returncode == -signal.SIGKILL
    writer = Writer().grow(60)
    with open_store(tmp_path) as store:
        check_entry_bytes(store)
        give(store, writer, seed + 1, 60)

        assert store.policy_use.size(writer.namespace) == sum(map(len, writer.data(0, 60)))


def test_an_index_of_before_is_told_it_without_news_for_peers(store: Store) -> None:
    writer = Writer().grow(6)
    give(store, writer, 0, 6)
    (step,) = (step for step in MIGRATIONS if "entry_bytes" in step)
    with store.database.write() as connection:
        connection.execute("ALTER TABLE logs DROP COLUMN entry_bytes")
        connection.execute("DELETE FROM digests_changed")
    with store.database.read() as connection:
        connection.executescript(step)

        assert connection.execute("SELECT count(*) FROM digests_changed").fetchone()[0] == 0
    assert store.policy_use.size(writer.namespace) == sum(map(len, writer.data(0, 6)))
