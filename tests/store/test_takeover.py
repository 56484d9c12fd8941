"""Records of many logs, taken over while processes die, run side by side and rebuild the index."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from storekit import (
    TIME,
    Writer,
    fill,
    open_store,
    revision,
    run_at_once,
    run_in_small_disk,
    summary,
    wait_for_the_others,
)

from p2phub.core.checkpoint import open_head, parse_head, sign_head
from p2phub.core.errors import ForkedLog, InvalidData, NoSpace, StoreError
from p2phub.core.ids import LogId
from p2phub.core.merkle import LOG_TREE, Frontier
from p2phub.core.records import NO_PREVIOUS, Publish, Record, open_entry
from p2phub.store import journals, takeover
from p2phub.store.logs import LogPart
from p2phub.store.migrations import MIGRATIONS
from p2phub.store.searchindex import SearchIndex
from p2phub.store.store import Store
from p2phub.testing import values
from p2phub.testing.releases import MadeLog, make_logs

MIB = 1024 * 1024
NOW = 4e9  # later than all records
KILLS = 12


@cache
def made_logs(count: int) -> tuple[MadeLog, ...]:
    return tuple(make_logs(count, seed=7))


def made_parts(count: int, seed: int) -> list[LogPart]:
    """Return logs in pieces: those of one log in order, others' in between."""
    rng = random.Random(seed)
    queues: list[list[LogPart]] = []
    for log in made_logs(count):
        cuts = sorted({0, *(rng.randrange(len(log.data)) for _ in range(rng.randrange(3)))})
        ends = [*cuts[1:], len(log.data)]
        queues.append(
            [
                LogPart(log.identity, log.head.log, log.head, start, tuple(log.data[start:end]))
                for start, end in zip(cuts, ends, strict=True)
            ]
        )
    parts: list[LogPart] = []
    while queues:
        queue = rng.choice(queues)
        parts.append(queue.pop(0))
        queues = [left for left in queues if left]
    return parts


def check_log(store: Store, log: MadeLog, size: int) -> None:
    """Check a log from its first record to the last, as a stranger would; it has `size` records or more."""
    state = store.logs.state(log.head.log)
    assert state is not None
    assert state.size >= size
    data = store.logs.entries(log.head.log, 0, size_max=10**9)
    assert data == log.data[: state.size]
    frontier, previous = Frontier(LOG_TREE), NO_PREVIOUS
    for index, encoded in enumerate(data):
        entry = open_entry(
            encoded, namespace=log.identity.namespace, key=log.key.public_key, index=index, previous=previous
        )
        frontier.append(entry.leaf)
        previous = entry.leaf
    assert frontier.root() == state.root
    if state.head:
        head = open_head(state.head, log=log.head.log, key=log.key.public_key)
        assert head.size == state.size


def index_of(store: Store) -> dict[str, list[Any]]:
    """Return all that the index says of logs, without the numbers that it gives things."""
    questions = {
        "identities": "SELECT namespace, version, chain FROM identities ORDER BY 1",
        "logs": "SELECT log, namespace, key, size, bytes, peaks, head FROM logs ORDER BY 1",
        "entries": "SELECT log, idx, leaf, length FROM entries ORDER BY 1, 2",
        "releases": "SELECT * FROM releases ORDER BY log, idx",
        "branches": "SELECT * FROM branches ORDER BY log, model, branch",
        "versions": "SELECT * FROM versions ORDER BY log, model, version",
        "yanks": "SELECT * FROM yanks ORDER BY log, model, version",
        "refusals": "SELECT * FROM refusals ORDER BY 1, 2",
        "search": "SELECT identities.namespace, models.model, log, idx, created, models.size, needs, parameters"
        " FROM models"
        " JOIN repositories ON repositories.number = models.repository"
        " JOIN identities ON identities.number = repositories.publisher"
        " JOIN logs ON logs.number = models.log_number ORDER BY 1, 2",
    }
    with store.database.read() as connection:
        return {name: [tuple(row) for row in connection.execute(question)] for name, question in questions.items()}


def check_rebuild(store: Store) -> None:
    before = index_of(store)
    store.rebuild(lambda text: None)
    after = index_of(store)

    for name, rows in before.items():
        assert after[name] == rows, name


# ── processes that die ──────────────────────────────────────────────────────


def take_and_tell(home: Path, batches: list[list[LogPart]], tell: int) -> None:
    """Take over batch after batch, and tell how many are done after each."""
    with open_store(home) as store:
        for number, batch in enumerate(batches, start=1):
            outcomes = store.logs.extend_many(batch, now=NOW)
            assert all(isinstance(outcome, int) for outcome in outcomes), outcomes
            os.write(tell, number.to_bytes(4, "big"))


def take_until_killed(home: Path, batches: list[list[LogPart]], after: int, delay_s: float) -> int:
    """Let a process take over batches, and kill it a while after it said that `after` were done.

    Returns how many it said were done.
    """
    hear, tell = os.pipe()
    # Not a new program: that would take longer than what is to be interrupted.
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(hear)
            take_and_tell(home, batches, tell)
            status = 0
        finally:
            os._exit(status)
    os.close(tell)
    with open(hear, "rb") as file:
        said = file.read(4 * after)
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        said += file.read()
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return int.from_bytes(said[-4:], "big") if said else 0


def test_a_process_that_is_killed_loses_nothing_that_it_said_was_done(tmp_path: Path) -> None:
    parts = made_parts(400, seed=1)
    batches = [parts[at : at + 5] for at in range(0, len(parts), 5)]
    logs = {log.head.log: log for log in made_logs(400)}
    rng = random.Random(11)
    done = 0
    with open_store(tmp_path):
        pass
    for _ in range(KILLS):
        # Not always where it ended: what is here already may come again.
        start = max(0, done - rng.randrange(3))
        told = take_until_killed(tmp_path, batches[start:], rng.randrange(4), rng.uniform(0, 0.03))
        done = max(done, start + told)
        with open_store(tmp_path) as store:
            for part in (part for batch in batches[:done] for part in batch):
                state = store.logs.state(part.log)
                assert state is not None
                assert state.size >= part.start + len(part.entries)
        if done == len(batches):
            break
    assert done > 0
    with open_store(tmp_path) as store:
        # What the last one had written and not committed is taken in with the next batch, whatever it is.
        assert store.logs.extend_many(parts[:1], now=NOW) == [0]
        for state in store.logs.states():
            check_log(store, logs[state.log], state.size)
        check_rebuild(store)
        store.logs.extend_many(parts, now=NOW)
        for log in logs.values():
            check_log(store, log, len(log.data))
        check_rebuild(store)
        with store.database.read() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_records_that_the_index_lost_are_taken_in_from_the_journal(tmp_path: Path) -> None:
    """After a power cut SQLite may have lost what was committed last; the journal, which was synced, has not."""
    first, second, third = (
        [LogPart(log.identity, log.head.log, log.head, 0, tuple(log.data))] for log in made_logs(30)[:3]
    )
    with open_store(tmp_path) as store:
        store.logs.extend_many(first, now=NOW)
    shutil.copy(tmp_path / "home" / "index.sqlite", tmp_path / "old index")
    with open_store(tmp_path) as store:
        store.logs.extend_many(second, now=NOW)
    for path in (tmp_path / "home").glob("index.sqlite*"):
        path.unlink()
    shutil.copy(tmp_path / "old index", tmp_path / "home" / "index.sqlite")
    with open_store(tmp_path) as store:
        assert store.logs.state(second[0].log) is None
        assert store.logs.extend_many(third, now=NOW) == [len(third[0].entries)]

        for log in made_logs(30)[:3]:
            check_log(store, log, len(log.data))
            state = store.logs.state(log.head.log)
            assert state is not None
            assert state.head == log.head.text
        check_rebuild(store)


def test_what_a_crash_left_is_believed_no_more_than_a_peer(tmp_path: Path) -> None:
    log = made_logs(30)[0]
    forged = sign_head(log.head.log, len(log.data), log.head.root, values.key("thief"))
    with open_store(tmp_path) as store:
        store.logs.add_identity(log.identity)
        with store.database.write() as connection:
            batch = store.logs._journals.begin(connection)
            for data in (*log.data[:-1], log.data[-1][:-1] + b"?"):
                batch.add(b"e", data)
            batch.add(b"h", forged.text)
            store.logs._journals.write(connection, batch)()
            connection.execute("UPDATE journals SET bytes = ?", (batch.start,))
        other = made_logs(30)[1]
        store.logs.extend_many([LogPart(other.identity, other.head.log, other.head, 0, tuple(other.data))], now=NOW)

        state = store.logs.state(log.head.log)
        assert (state.size if state else 0) == len(log.data) - 1
        assert state is None or state.head == b""


# ── while the disk takes a batch ────────────────────────────────────────────


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[LogPart]:
    """Logs, each of which is a large batch: it is brought onto the disk while the index is written."""
    monkeypatch.setattr(journals, "BESIDE_SIZE", 1)
    return [LogPart(log.identity, log.head.log, log.head, 0, tuple(log.data)) for log in made_logs(30)]


def test_records_are_committed_after_the_disk_has_them_and_not_before(
    store: Store, parts: list[LogPart], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = parts[0]
    seen: list[tuple[str, bool]] = []
    real = os.fdatasync

    def slow(file: int) -> None:
        time.sleep(0.5)  # the index is done long before
        seen.append((threading.current_thread().name, store.logs.state(part.log) is None))
        real(file)

    monkeypatch.setattr(journals.os, "fdatasync", slow)
    assert store.logs.extend_many([part], now=NOW) == [len(part.entries)]

    ((thread, is_uncommitted),) = seen
    assert thread.startswith("sync journal")
    assert is_uncommitted
    assert store.logs.state(part.log) is not None


def test_what_the_disk_does_not_take_is_not_there(
    store: Store, parts: list[LogPart], monkeypatch: pytest.MonkeyPatch
) -> None:
    part, other = parts[:2]
    assert store.logs.extend_many([other], now=NOW) == [len(other.entries)]
    path = store.logs._journals.path(1)
    size = path.stat().st_size

    def fail(file: int) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    with monkeypatch.context() as broken:
        broken.setattr(journals.os, "fdatasync", fail)
        with pytest.raises(StoreError, match="the disk is broken"):
            store.logs.extend_many([part], now=NOW)
        assert path.stat().st_size == size
        assert store.logs.state(part.log) is None
    assert store.logs.extend_many([part], now=NOW) == [len(part.entries)]
    check_rebuild(store)


def test_a_transaction_that_fails_ends_after_the_disk_is_done_with_its_batch(
    store: Store, parts: list[LogPart], monkeypatch: pytest.MonkeyPatch
) -> None:
    part, other, before = parts[:3]
    assert store.logs.extend_many([before], now=NOW) == [len(before.entries)]
    events: list[str] = []
    real = os.fdatasync

    def slow(file: int) -> None:
        time.sleep(0.5)
        real(file)
        events.append("synced")

    def fail(self: SearchIndex, connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("no such function")

    with monkeypatch.context() as broken:
        broken.setattr(journals.os, "fdatasync", slow)
        broken.setattr(SearchIndex, "_write", fail)
        with pytest.raises(StoreError, match="no such function"):
            store.logs.extend_many([part], now=NOW)
        events.append("ended")
    assert events == ["synced", "ended"]
    # What was written is taken in with the next batch, as what a crash leaves is.
    assert store.logs.extend_many([other], now=NOW) == [len(other.entries)]
    state = store.logs.state(part.log)
    assert state is not None
    assert state.size == len(part.entries)
    check_rebuild(store)


# ── side by side ────────────────────────────────────────────────────────────


def take_made(home: str, seed: str) -> None:
    parts = made_parts(300, seed=int(seed))
    with open_store(Path(home)) as store:
        wait_for_the_others()
        for at in range(0, len(parts), 7):
            outcomes = store.logs.extend_many(parts[at : at + 7], now=NOW)
            assert all(isinstance(outcome, int) for outcome in outcomes)


def test_processes_may_take_over_the_same_logs_at_once(tmp_path: Path) -> None:
    with open_store(tmp_path):
        pass
    run_at_once(take_made, *((tmp_path, seed) for seed in (1, 2)))

    with open_store(tmp_path) as store:
        # A piece that came before the one in front of it, which the other process brought, was let go.
        store.logs.extend_many(made_parts(300, seed=3), now=NOW)
        for log in made_logs(300):
            check_log(store, log, len(log.data))
        assert store.logs.rebuild() == 300
        check_rebuild(store)


def test_threads_that_take_over_at_once_all_get_their_own_outcomes(store: Store) -> None:
    logs = made_logs(200)
    wrong: list[str] = []

    def work(number: int) -> None:
        for log in logs[number::4]:
            bad = LogPart(log.identity, log.head.log, sign_head(log.head.log, 1, bytes(32), values.key("thief")), 0, ())
            good = LogPart(log.identity, log.head.log, log.head, 0, tuple(log.data))
            outcomes = store.logs.extend_many([bad, good], now=NOW)
            if not isinstance(outcomes[0], InvalidData) or outcomes[1] != len(log.data):
                wrong.append(str(outcomes))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert sum(state.size for state in store.logs.states()) == 200


def test_an_index_is_rebuilt_while_others_read_and_take_over(store: Store) -> None:
    parts = made_parts(300, seed=4)
    logs = {log.head.log: log for log in made_logs(300)}
    half = len(parts) // 2
    store.logs.extend_many(parts[:half], now=NOW)
    sizes = {state.log: state.size for state in store.logs.states()}
    errors: list[str] = []
    over = threading.Event()

    def read() -> None:
        rng = random.Random(1)
        while not over.is_set():
            log = rng.choice(list(sizes))
            state = store.logs.state(log)
            if state is None or state.size < sizes[log]:
                errors.append(f"{log} had {sizes[log]} records and has {state and state.size}")

    def take_over() -> None:
        for part in parts[half:]:
            outcome = store.logs.extend_many([part], now=NOW)
            if outcome != [len(part.entries)]:
                errors.append(str(outcome))

    threads = [threading.Thread(target=read), threading.Thread(target=take_over)]
    for thread in threads:
        thread.start()
    store.logs.rebuild()
    threads[1].join()
    over.set()
    threads[0].join()

    assert errors == []
    for log in logs.values():
        check_log(store, log, len(log.data))
    check_rebuild(store)


@pytest.mark.parametrize("window", [1, 7, 10_000])
def test_it_does_not_matter_how_much_is_written_at_a_time(
    store: Store, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "WINDOW_ENTRIES", window)
    monkeypatch.setattr(takeover, "TRANSACTION_ENTRIES", window)
    parts = made_parts(120, seed=5)

    assert store.logs.extend_many(parts, now=NOW) == [len(part.entries) for part in parts]
    for log in made_logs(120):
        check_log(store, log, len(log.data))


# ── one's own log ───────────────────────────────────────────────────────────


def append(store: Store, name: str) -> None:
    def make(connection: Any, log: LogId, index: int, previous: bytes, since: int) -> Record:
        return Publish(
            namespace=values.identity().namespace, log=log, index=index, previous=previous, time=TIME + index,
            model="parrot", kind="model", manifest=revision(name), depth=1, branch="main", summary=summary(),
        )  # fmt: skip

    store.logs.add_identity(values.identity(), own=True)
    store.logs.append_own(values.identity().namespace, values.key("publisher"), make)


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[tuple[list[bytes], bytes, LogId]]:
    """What peers have of a log that was written elsewhere: its entries, its head and its id."""
    with open_store(tmp_path / "elsewhere") as store:
        for number in range(4):
            append(store, f"revision {number}")
        (state,) = store.logs.states()
        yield store.logs.entries(state.log, 0, size_max=10**9), state.head, state.log


def test_a_log_that_came_from_peers_goes_on_unforked_in_a_file_of_its_own(
    store: Store, publisher: tuple[list[bytes], bytes, LogId]
) -> None:
    """The key and identity were restored from a backup, the log was not."""
    entries, head, log = publisher
    assert store.logs.extend(values.identity(), parse_head(head), entries, now=NOW) == 4
    assert not store.layout.log(log).exists()
    append(store, "here")

    assert store.logs.entries(log, 0, size_max=10**9)[:4] == entries
    state = store.logs.state(log)
    assert state is not None
    assert state.size == 5
    for path in store.layout.journals.iterdir():
        path.unlink()
    assert store.logs.rebuild() == 5
    assert store.logs.states() == [state]


def test_of_a_log_with_a_file_of_its_own_nothing_goes_to_the_journals(
    store: Store, publisher: tuple[list[bytes], bytes, LogId]
) -> None:
    """The index was lost: peers bring the log, but its file is here and must not fall behind."""
    entries, head, log = publisher
    path = store.layout.log(log)
    path.parent.mkdir()
    path.write_bytes(b"".join(len(data).to_bytes(4, "big") + data for data in entries[:2]))
    assert store.logs.extend(values.identity(), parse_head(head), entries, start=0, now=NOW) == 2

    assert path.read_bytes() == b"".join(len(data).to_bytes(4, "big") + data for data in entries)
    append(store, "here")
    assert store.logs.rebuild() == 5


def test_a_file_of_another_history_than_the_peers_is_not_signed_on(
    store: Store, publisher: tuple[list[bytes], bytes, LogId]
) -> None:
    entries, head, log = publisher
    store.logs.extend(values.identity(), parse_head(head), entries, now=NOW)
    other = Writer().publish("other").data
    path = store.layout.log(log)
    path.parent.mkdir()
    path.write_bytes(len(other).to_bytes(4, "big") + other)
    with pytest.raises(ForkedLog):
        append(store, "here")

    state = store.logs.state(log)
    assert state is not None
    assert state.size == 4


# ── the disk ────────────────────────────────────────────────────────────────


def take_again_and_again(store: Store, parts: list[LogPart]) -> None:
    for _ in range(50):
        store.logs.extend_many(parts, now=NOW)


def take_over_on_a_full_disk(folder_name: str) -> None:
    folder = Path(folder_name)
    parts = made_parts(300, seed=6)
    logs = {log.head.log: log for log in made_logs(300)}
    with open_store(folder) as store:
        store.logs.extend_many(parts[:5], now=NOW)
        fill(folder / "filler")
        with pytest.raises(NoSpace):
            take_again_and_again(store, parts)
        for state in store.logs.states():
            check_log(store, logs[state.log], state.size)
        (folder / "filler").unlink()
        store.logs.extend_many(parts, now=NOW)
        for log in logs.values():
            check_log(store, log, len(log.data))
        check_rebuild(store)


def test_a_full_disk_is_said_and_leaves_all_that_was_taken(tmp_path: Path) -> None:
    run_in_small_disk(take_over_on_a_full_disk, tmp_path, 24 * MIB)


def test_a_rotten_entry_is_not_handed_out(store: Store) -> None:
    log = next(log for log in made_logs(300) if len(log.data) > 3)
    store.logs.extend_many([LogPart(log.identity, log.head.log, log.head, 0, tuple(log.data))], now=NOW)
    with store.database.read() as connection:
        (offset,) = connection.execute("SELECT offset FROM entries WHERE idx = 2").fetchone()
    with open(store.layout.journals / "00000001", "r+b") as file:
        file.seek(offset + 30)
        file.write(b"?!")

    assert store.logs.entries(log.head.log, 0, size_max=10**9) == log.data[:2]
    assert store.logs.entry(log.head.log, 2) is None
    assert store.logs.entry(log.head.log, 3) == log.data[3]
    # What a rebuild leaves can be brought again.
    assert store.logs.rebuild() == 2
    assert store.logs.extend_many([LogPart(log.identity, log.head.log, log.head, 2, tuple(log.data[2:]))], now=NOW) == [
        len(log.data) - 2
    ]
    check_log(store, log, len(log.data))


# ── indexes of older programs ───────────────────────────────────────────────


def test_an_index_with_long_ids_says_the_same_after_it_is_brought_up(tmp_path: Path) -> None:
    """Every log had a file then, and keeps it."""
    step = next(at for at, text in enumerate(MIGRATIONS) if "CREATE TABLE entry_rows" in text)
    log = next(log for log in made_logs(300) if len(log.data) > 20)
    with open_store(tmp_path) as store:
        store.logs.add_identity(log.identity, own=True)
        path = store.layout.log(log.head.log)
        path.parent.mkdir()
        path.write_bytes(len(log.data[0]).to_bytes(4, "big") + log.data[0])
        store.logs.extend_many([LogPart(log.identity, log.head.log, log.head, 0, tuple(log.data))], now=NOW)
        expected = index_of(store)
        rows = old_rows(store)
    (tmp_path / "home" / "index.sqlite").unlink()
    make_old_index(tmp_path / "home" / "index.sqlite", step, rows)
    with open_store(tmp_path) as store:
        found = index_of(store)

        for name, said in expected.items():
            assert found[name] == said, name
        check_log(store, log, len(log.data))


OLD_TABLES = {
    "identities": "SELECT namespace, version, chain FROM identities",
    "logs": "SELECT log, namespace, key, size, bytes, peaks, head FROM logs",
    "entries": "SELECT log, idx, leaf, offset, length FROM entries",
    "releases": "SELECT log, idx, namespace, model, kind, manifest, 'main', version, time, leaf FROM releases",
    "branches": "SELECT namespace, model, branch, log, idx, manifest, depth, time, leaf FROM branches",
    "versions": "SELECT namespace, model, version, log, idx, manifest, time, leaf FROM versions",
    "yanks": "SELECT namespace, model, version, log, message, time, leaf FROM yanks",
}


def old_rows(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    with store.database.read() as connection:
        return {table: [tuple(row) for row in connection.execute(text)] for table, text in OLD_TABLES.items()}


def make_old_index(path: Path, version: int, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    connection = sqlite3.connect(path)
    for step in MIGRATIONS[:version]:
        connection.executescript(step)
    for table, values_of in rows.items():
        for row in values_of:
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    connection.execute("UPDATE search_state SET filled = 0")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()
