from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from storekit import (
    fill,
    finish,
    open_files,
    open_store,
    run_at_once,
    run_in_small_disk,
    run_read_only,
    start,
    wait_for_the_others,
)

from p2phub.core.errors import NoSpace, StoreError
from p2phub.store import schema
from p2phub.store.database import Database
from p2phub.store.migrations import MIGRATIONS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


def tables(path: Path) -> set[str]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    return {name for (name,) in rows}


def set_name(database: Database, value: str) -> None:
    with database.write() as connection:
        connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES ('name', ?)", (value,))


def get_name(database: Database) -> str | None:
    with database.read() as connection:
        row = connection.execute("SELECT value FROM settings WHERE name = 'name'").fetchone()
    return row["value"] if row else None


# ── versions ────────────────────────────────────────────────────────────────


def test_a_new_index_has_all_tables_and_the_newest_version(path: Path) -> None:
    Database(path).close()

    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert {"content", "manifests", "peers", "pins", "views", "settings", "forks"} <= tables(path)


def test_a_new_index_is_what_all_steps_come_to(path: Path, tmp_path: Path) -> None:
    made = tmp_path / "schema.sql"
    subprocess.run([ROOT / "tools/make-schema", made], check=True, cwd="/")
    assert made.read_text() == schema.FILE.read_text(), "run ./tools/make-schema"
    Database(path).close()
    stepped = sqlite3.connect(":memory:")
    for step in MIGRATIONS:
        stepped.executescript(step)
    with sqlite3.connect(path) as new:
        found = [
            set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall())
            for connection in (new, stepped)
        ]
    new.close()
    stepped.close()

    assert found[0] == found[1]


@pytest.mark.parametrize("version", range(len(MIGRATIONS) + 1))
def test_an_index_of_every_older_version_is_brought_up(path: Path, version: int) -> None:
    connection = sqlite3.connect(path)
    for step in MIGRATIONS[:version]:
        connection.executescript(step)
    if version:
        connection.execute("INSERT INTO settings (name, value) VALUES ('name', 'kept')")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()
    Database(path).close()
    fresh = path.with_name("fresh.sqlite")
    Database(fresh).close()

    assert tables(path) == tables(fresh)
    if version:
        database = Database(path)
        assert get_name(database) == "kept"
        database.close()


def test_opening_again_changes_nothing(path: Path) -> None:
    database = Database(path)
    set_name(database, "kept")
    database.close()
    for _ in range(2):
        database = Database(path)
        assert get_name(database) == "kept"
        database.close()


def test_an_index_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer p2phub") as caught:
        Database(path)

    assert caught.value.path == str(path)
    assert caught.value.hint
    assert path.read_bytes() == before


# ── damage ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("damage", ["noise", "text", "cut", "folder", "no folder"])
def test_an_index_that_is_none_is_said_to_be(path: Path, damage: str) -> None:
    if damage == "noise":
        path.write_bytes(os.urandom(8192))
    elif damage == "text":
        path.write_text("this is no database, this is a letter to the reader of it\n" * 100)
    elif damage == "cut":
        Database(path).close()
        os.truncate(path, 5000)
    elif damage == "folder":
        path.mkdir()
    else:
        path = path.parent / "nowhere" / "index.sqlite"
    with pytest.raises(StoreError) as caught:
        Database(path)

    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    if damage in ("noise", "text", "cut"):
        assert "damaged" in str(caught.value)
        assert caught.value.hint
        assert "rebuild" in caught.value.hint


def test_damage_in_the_middle_is_said_where_it_is_met(path: Path) -> None:
    database = Database(path)
    for number in range(200):
        set_name(database, "x" * 1000 + str(number))
        with database.write() as connection:
            connection.execute("INSERT INTO settings (name, value) VALUES (?, ?)", (f"{number}", "x" * 1000))
    database.close()
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with pytest.raises(StoreError, match="damaged") as caught:
        read_everything(path)

    assert caught.value.path == str(path)
    assert caught.value.hint


def read_everything(path: Path) -> None:
    database = Database(path)
    try:
        with database.read() as connection:
            connection.execute("SELECT * FROM settings").fetchall()
    finally:
        database.close()


# ── transactions ────────────────────────────────────────────────────────────


def test_an_error_in_a_transaction_undoes_all_of_it(path: Path) -> None:
    database = Database(path)
    set_name(database, "old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            set_and_fail(database, error)
        assert get_name(database) == "old"
    set_name(database, "new")

    assert get_name(database) == "new"
    database.close()


def set_and_fail(database: Database, error: type[BaseException]) -> None:
    with database.write() as connection:
        connection.execute("UPDATE settings SET value = 'new'")
        raise error


def test_a_wrong_statement_is_a_bug_and_not_a_broken_disk(path: Path) -> None:
    database = Database(path)
    with pytest.raises(sqlite3.IntegrityError), database.write() as connection:
        connection.execute("INSERT INTO settings (name) VALUES ('x')")
    database.close()


def count_up(path_name: str, count: str) -> None:
    database = Database(Path(path_name))
    wait_for_the_others()
    for _ in range(int(count)):
        with database.write() as connection:
            row = connection.execute("SELECT value FROM settings WHERE name = 'count'").fetchone()
            number = int(row["value"]) if row else 0
            connection.execute("INSERT OR REPLACE INTO settings VALUES ('count', ?)", (str(number + 1),))
    database.close()


def test_processes_that_read_and_then_write_do_not_undo_each_other(path: Path) -> None:
    run_at_once(count_up, *((path, 45) for _ in range(2)))

    database = Database(path)
    with database.read() as connection:
        assert connection.execute("SELECT value FROM settings WHERE name = 'count'").fetchone()["value"] == "90"
    database.close()


def test_threads_have_connections_of_their_own_and_all_are_closed(path: Path) -> None:
    database = Database(path)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(20):
                set_name(database, str(number))
                get_name(database)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    database.close()

    assert not [name for name in open_files() if name.startswith(str(path))]


def test_a_thread_that_ends_leaves_no_connection_open(path: Path) -> None:
    """A node runs for months, and its worker threads come and go."""
    database = Database(path)

    def count_open() -> int:
        return sum(name.startswith(str(path)) for name in open_files())

    before = count_open()
    for _ in range(20):
        thread = threading.Thread(target=set_name, args=(database, "x"))
        thread.start()
        thread.join()

    assert count_open() <= before + 3
    database.close()


def test_a_closed_index_opens_again_when_it_is_used(path: Path) -> None:
    database = Database(path)
    set_name(database, "kept")
    database.close()

    assert get_name(database) == "kept"
    database.close()


def die_in_a_transaction(path_name: str) -> None:
    database = Database(Path(path_name))
    with database.write() as connection:
        connection.execute("UPDATE settings SET value = 'half'")
        print("in it", flush=True)
        input()


def test_a_process_that_is_killed_in_a_transaction_leaves_the_old_state(path: Path) -> None:
    database = Database(path)
    set_name(database, "old")
    process = start(die_in_a_transaction, path)
    assert process.stdout
    process.stdout.readline()
    process.kill()
    process.communicate()

    assert get_name(database) == "old"
    set_name(database, "new")
    assert get_name(database) == "new"
    database.close()


# ── a fresh home ────────────────────────────────────────────────────────────


def open_home(folder: str, turns: str) -> None:
    wait_for_the_others()
    for turn in range(int(turns)):
        home = Path(folder) / str(turn)
        home.mkdir(exist_ok=True)
        with open_store(home) as store:
            set_name(store.database, "opened")


def test_processes_that_open_a_fresh_home_at_once_all_can(tmp_path: Path) -> None:
    run_at_once(open_home, *((tmp_path, 12) for _ in range(3)))

    for turn in range(12):
        with open_store(tmp_path / str(turn)) as store:
            assert get_name(store.database) == "opened"


def open_a_closed_home(folder: str) -> None:
    with pytest.raises(StoreError) as caught, open_store(Path(folder)) as store:
        set_name(store.database, "new")
    print(caught.value)


def test_a_home_that_cannot_be_written_to_is_said_to_be(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        set_name(store.database, "old")
    said = run_read_only(open_a_closed_home, tmp_path)

    assert str(tmp_path) in said
    finish(start(open_home_again, tmp_path))


def open_home_again(folder: str) -> None:
    with open_store(Path(folder)) as store:
        assert get_name(store.database) == "old"


def commit_on_a_full_disk(folder_name: str) -> None:
    folder = Path(folder_name)
    database = Database(folder / "index.sqlite")
    set_name(database, "old")
    ended: list[str] = []

    def commit(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE settings SET value = 'at the end'")

    def write() -> None:
        with database.write() as connection:
            connection.execute("UPDATE settings SET value = ?", ("new" * 100_000,))
            database.at_end(commit, lambda: ended.append("rolled back"))

    fill(folder / "filler")
    with pytest.raises(NoSpace):
        write()
    (folder / "filler").unlink()

    assert ended == ["rolled back"]
    assert get_name(database) == "old"
    # Nothing is left open that would keep other threads and processes out.
    with ThreadPoolExecutor() as threads:
        threads.submit(set_name, database, "later").result()
    assert get_name(database) == "later"
    database.close()


def test_a_commit_for_which_there_is_no_room_keeps_nobody_out_afterwards(tmp_path: Path) -> None:
    run_in_small_disk(commit_on_a_full_disk, tmp_path, 4 * 1024 * 1024)


def test_what_was_committed_before_an_error_stays(path: Path) -> None:
    database = Database(path)
    ended: list[str] = []

    def write() -> None:
        with database.write() as connection:
            connection.execute("INSERT INTO settings (name, value) VALUES ('name', 'new')")
            database.at_end(lambda connection: ended.append("committed"), lambda: ended.append("rolled back"))
            database.commit_now(connection)
            raise ValueError("later")

    with pytest.raises(ValueError, match="later"):
        write()

    assert get_name(database) == "new"
    assert ended == ["committed"]
    database.close()
