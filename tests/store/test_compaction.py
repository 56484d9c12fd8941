"""Journals are made smaller: what counts stays, whatever happens meanwhile, and what does not goes."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from storekit import TIME, Writer, open_store

from p2phub.core.identity import open_identity
from p2phub.store import compaction, journals
from p2phub.store.compaction import LOOK_EACH_S, STAY_S
from p2phub.store.logrows import log_row
from p2phub.store.logs import LogPart
from p2phub.store.rebuild import Rebuild
from p2phub.store.store import Store
from p2phub.testing import values

NOW = 4e9  # later than all records
KILLS = 20


@pytest.fixture(autouse=True)
def small_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "JOURNAL_SIZE", 8000)
    monkeypatch.setattr(compaction, "STEP_FRAMES", 5)
    # A record is larger than the head that covers it.
    monkeypatch.setattr(compaction, "COUNTING_SHARE", 0.9)


def writers(count: int = 3, size: int = 30) -> list[Writer]:
    return [Writer(values.identity(f"{name}"), values.key(f"{name}")).grow(size) for name in range(count)]


def part(writer: Writer, start: int) -> LogPart:
    """Return one record of a log, with the head of then."""
    return LogPart(writer.identity, writer.log, writer.head(start + 1), start, tuple(writer.data(start, start + 1)))


def give_one_by_one(store: Store, all_writers: list[Writer], size: int = 30) -> None:
    for start in range(size):
        assert store.logs.extend_many([part(writer, start) for writer in all_writers], now=NOW) == [1] * len(
            all_writers
        )


def compact(store: Store, now: float) -> int:
    return sum(store.logs.compact(now))


def on_disk(store: Store) -> int:
    return sum(path.stat().st_size for path in store.layout.journals.iterdir())


def numbers(store: Store) -> list[int]:
    return sorted(int(path.name) for path in store.layout.journals.iterdir())


def check_all_there(store: Store, all_writers: list[Writer]) -> None:
    for writer in all_writers:
        state = store.logs.state(writer.log)
        assert state is not None
        assert store.logs.entries(writer.log, 0, size_max=10**9) == writer.data(0, state.size)
        assert state.head == writer.head(state.size).text
        assert store.logs.identity(writer.namespace) is not None


def lose_index(folder: Path) -> None:
    for path in (folder / "home").glob("index.sqlite*"):
        path.unlink()


def test_what_is_superseded_gives_back_its_room_and_what_counts_is_all_there(tmp_path: Path) -> None:
    all_writers = writers()
    # Its head lies in the first journal for ever.
    quiet = Writer(values.identity("quiet"), values.key("quiet")).grow(2)
    with open_store(tmp_path) as store:
        quiet.give(store)
        give_one_by_one(store, all_writers)
        all_writers.append(quiet)
        before, old = on_disk(store), numbers(store)
        assert len(old) > 3
        # Nothing goes at once: somebody may be reading it.
        assert [compact(store, now) for now in (NOW, NOW + STAY_S - 1)] == [0, 0]
        assert numbers(store)[: len(old)] == old
        assert compact(store, NOW + STAY_S) > 0

        assert min(numbers(store)) >= old[-1]
        assert on_disk(store) < 0.8 * before
        check_all_there(store, all_writers)
        # Made small once, it stays so.
        after = numbers(store)
        compact(store, NOW + LOOK_EACH_S)
        compact(store, NOW + LOOK_EACH_S + STAY_S)
        assert len(numbers(store)) <= len(after) + 1
    lose_index(tmp_path)
    with open_store(tmp_path) as store:
        assert store.logs.rebuild() == 92
        check_all_there(store, all_writers)


def test_of_an_identity_with_many_versions_the_newest_is_kept(tmp_path: Path) -> None:
    chain = values.rotated_identity().chain
    with open_store(tmp_path) as store:
        for version in range(1, len(chain) + 1):
            store.logs.add_identity(open_identity(chain[:version]))
        give_one_by_one(store, writers())
        for now in (NOW, NOW + STAY_S):
            compact(store, now)
        assert numbers(store)[0] > 1
    lose_index(tmp_path)
    with open_store(tmp_path) as store:
        store.logs.rebuild()
        identity = store.logs.identity(open_identity(chain).namespace)

        assert identity is not None
        assert identity.chain == tuple(chain)


def test_a_journal_of_which_most_counts_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "COUNTING_SHARE", 2 / 3)
    for writer in writers(20, 20):
        writer.give(store)
    before = numbers(store)
    compact(store, NOW)
    compact(store, NOW + STAY_S)

    assert len(before) > 2
    assert numbers(store) == before


def test_a_journal_is_looked_into_once_a_day_whatever_the_clock_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "COUNTING_SHARE", 0.0)
    give_one_by_one(store, writers())
    full = numbers(store)[:-1]
    looked: list[int] = []
    look = compaction.Compaction._look

    def noted(self: compaction.Compaction, number: int, now: float) -> Iterator[int]:
        looked.append(number)
        return look(self, number, now)

    monkeypatch.setattr(compaction.Compaction, "_look", noted)
    for now in (NOW, NOW + 1, NOW - 100, NOW + LOOK_EACH_S, NOW - 100):
        compact(store, now)

    assert looked == full * 3


def test_whoever_reads_a_log_meanwhile_reads_it_whole(store: Store) -> None:
    all_writers = writers()
    give_one_by_one(store, all_writers)
    log = all_writers[0].log
    with store.database.read() as connection:
        row = log_row(connection, log)
        assert row is not None
        reading = store.logs.reader.of_log(connection, row)
        found = [next(reading) for _ in range(3)]
        # In another thread, as others do.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(compact, store, NOW).result()
        found += reading

    assert found == all_writers[0].data()


def test_a_record_that_is_damaged_keeps_its_journal_until_peers_gave_it_again(store: Store) -> None:
    all_writers = writers()
    give_one_by_one(store, all_writers)
    damaged = all_writers[0]
    path = store.layout.journals / f"{numbers(store)[0]:08}"
    data = path.read_bytes()
    at = data.index(damaged.entries[2].data) + 100
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(bytes([data[at] ^ 1]))
    for now in (NOW, NOW + STAY_S):
        compact(store, now)

    assert path.exists()
    check_all_there(store, all_writers[1:])
    assert store.logs.entries(damaged.log, 0, size_max=10**9) == damaged.data(0, 2)
    assert store.logs.entries(damaged.log, 3, size_max=10**9) == damaged.data(3)
    store.logs.rebuild()
    damaged.give(store)
    for now in (NOW + LOOK_EACH_S, NOW + LOOK_EACH_S + STAY_S):
        compact(store, now)
    assert not path.exists()
    check_all_there(store, all_writers)


# ── beside a rebuild ────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_rebuild_that_read_a_journal_before_it_was_emptied_keeps_all(
    store: Store, monkeypatch: pytest.MonkeyPatch, is_deleted: bool
) -> None:
    all_writers = writers()
    give_one_by_one(store, all_writers)
    replace_all = Rebuild._replace_all

    def later(self: Rebuild, *arguments: object) -> None:
        compact(store, NOW)
        if is_deleted:
            compact(store, NOW + STAY_S)
        replace_all(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Rebuild, "_replace_all", later)
    store.logs.rebuild()
    compact(store, NOW + 2 * STAY_S)

    check_all_there(store, all_writers)


def test_a_rebuild_that_was_broken_off_leaves_no_journal_to_be_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_writers = writers()
    with open_store(tmp_path) as store:
        give_one_by_one(store, all_writers)
        old = numbers(store)
    lose_index(tmp_path)
    with open_store(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(Rebuild, "_replace_all", lambda *arguments: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                store.logs.rebuild()
        # A journal of its own, so that others could be looked into.
        give_one_by_one(store, writers(1), 2)
        for now in (NOW, NOW + STAY_S):
            compact(store, now)

        assert numbers(store)[: len(old)] == old
        store.logs.rebuild()
        check_all_there(store, all_writers)


# ── processes that die ──────────────────────────────────────────────────────


def take_and_compact(folder: Path, batches: list[list[LogPart]], tell: int) -> None:
    """Take over batch after batch, tell how many are done after each, and compact all the time."""
    with open_store(folder) as store:
        now = NOW + os.getpid() * 10 * LOOK_EACH_S
        steps = store.logs.compact(now)
        for number, batch in enumerate(batches, start=1):
            store.logs.extend_many(batch, now=NOW)
            os.write(tell, number.to_bytes(4, "big"))
            for _ in range(12):
                if next(steps, None) is None:
                    now += STAY_S
                    steps = store.logs.compact(now)


def test_a_process_that_is_killed_while_it_compacts_loses_nothing(tmp_path: Path) -> None:
    all_writers = writers(3, 60)
    batches = [[part(writer, start) for writer in all_writers] for start in range(60)]
    rng = random.Random(5)
    done = 0
    freed = False
    for _ in range(KILLS):
        hear, tell = os.pipe()
        # Not a new program: that would take longer than what is to be interrupted.
        child = os.fork()
        if child == 0:
            try:
                os.close(hear)
                take_and_compact(tmp_path, batches[done:], tell)
            finally:
                os._exit(0)
        os.close(tell)
        with open(hear, "rb") as file:
            said = file.read(4 * rng.randrange(1, 12))
            time.sleep(rng.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            said += file.read()
        done += int.from_bytes(said[-4:], "big")
        with open_store(tmp_path) as store:
            check_all_there(store, all_writers)
            states = [store.logs.state(writer.log) for writer in all_writers]
            sizes = {state.size if state else 0 for state in states}
            assert min(sizes) >= done
            (done,) = sizes
            freed = freed or numbers(store)[0] > 1
        if done == 60:
            break
    assert freed
    assert done > 10
    with open_store(tmp_path) as store:
        give = [part(writer, start) for start in range(done, 60) for writer in all_writers]
        store.logs.extend_many(give, now=NOW)
        compact(store, TIME)
        compact(store, TIME - STAY_S)
        check_all_there(store, all_writers)
    lose_index(tmp_path)
    with open_store(tmp_path) as store:
        assert store.logs.rebuild() == 180
        check_all_there(store, all_writers)
