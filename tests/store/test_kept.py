"""What the index alone knows outlives it."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2phub.core.errors import StoreError
from p2phub.store import kept
from p2phub.store.layout import Layout
from p2phub.store.store import Store

# What goes with the index: it can be asked for again, or only makes things faster; spec/store.md §5.
LOST = {
    "confirmations", "fresh_statements", "fork_proofs", "holdings", "pledge_checks", "rates", "scans", "signed_ahead",
    "stated_heads", "views", "upstream_commits", "upstream_names", "upstream_content", "holders", "own_records",
}  # fmt: skip
VALUES = {"BLOB": b"\1" * 32, "TEXT": "text", "INTEGER": 1}


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    store = Store(Layout(folder, folder / "store"))
    try:
        yield store
    finally:
        store.database.close()


def lose_index(folder: Path) -> None:
    for path in folder.glob("index.sqlite*"):
        path.unlink()


def fill(store: Store, table: str) -> None:
    """Put a row into a table; where it matters which, one that is kept."""
    with store.database.write() as connection:
        columns = [(row["name"], row["type"]) for row in connection.execute(f"PRAGMA table_info({table})")]
        values = {name: VALUES[type_] for name, type_ in columns} | ({"shown_by": None} if table == "receipts" else {})
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))


def rows(store: Store, table: str) -> list[tuple[object, ...]]:
    with store.database.read() as connection:
        return [tuple(row) for row in connection.execute(f"SELECT * FROM {table}")]


@pytest.mark.parametrize("table", kept.KEPT)
def test_every_table_is_put_into_a_new_index(table: str, tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        before = rows(store, table)
        fill(store, table)
        filled = rows(store, table)
    lose_index(tmp_path)
    with opened(tmp_path) as store:
        back = rows(store, table)
        with store.database.write() as connection:
            connection.execute(f"DELETE FROM {table}")
    lose_index(tmp_path)
    with opened(tmp_path) as store:
        gone = rows(store, table)

    assert len(filled) == len(before) + 1
    assert back == filled
    assert gone == []


def test_what_changed_by_an_update_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for value in (1, 2):
            store.settings.change("number", int, lambda old, value=value: value)
    lose_index(tmp_path)
    with opened(tmp_path) as store:
        assert store.settings.get("number", int) == 2


def test_what_was_rolled_back_is_not_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.settings.change("number", int, lambda old: 1)
        with pytest.raises(ZeroDivisionError):
            store.settings.change("number", int, lambda old: 1 // 0)
    lose_index(tmp_path)
    with opened(tmp_path) as store:
        assert store.settings.get("number", int) == 1


def test_an_index_of_before_is_kept_when_it_is_brought_up(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.settings.change("number", int, lambda old: 1)
    (tmp_path / "kept.cbor").unlink()
    with opened(tmp_path) as store, store.database.write() as connection:
        connection.execute("UPDATE kept_state SET written = 0")

    assert b"number" in (tmp_path / "kept.cbor").read_bytes()


def test_others_may_not_read_it(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.settings.change("number", int, lambda old: 1)

    assert stat.S_IMODE((tmp_path / "kept.cbor").stat().st_mode) == 0o600


def test_a_new_home_and_peers_that_are_heard_of_write_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store, store.database.write() as connection:
        connection.execute(
            "INSERT INTO peers (node, typed, addresses, record_time, added, failures, received, bans, banned_until)"
            " VALUES (x'01', '', '', 0, 0, 0, 0, 0, 0)"
        )

    assert not (tmp_path / "kept.cbor").exists()


@pytest.mark.parametrize("data", [b"", b"noise", json.dumps({"schema": 1}).encode()])
def test_a_damaged_file_is_named_and_left_alone(data: bytes, tmp_path: Path) -> None:
    tmp_path.joinpath("kept.cbor").write_bytes(data)
    with pytest.raises(StoreError, match=r"kept\.cbor.*damaged") as caught, opened(tmp_path):
        pass

    assert "move it away" in (caught.value.hint or "")
    assert (tmp_path / "kept.cbor").read_bytes() == data
    (tmp_path / "kept.cbor").unlink()
    with opened(tmp_path):
        pass


def test_nobody_forgets_to_say_what_becomes_of_a_new_table(tmp_path: Path) -> None:
    """Each is kept, rebuilt from files, or lost as the specification says."""
    rebuilt = {"content", "chunk_lists", "sources", "manifests", "manifest_files"}

    with opened(tmp_path) as store, store.database.read() as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    followed = {
        "identities", "logs", "entries", "entry_rows", "log_blocks", "forks", "closed_logs", "journals",
        "repositories", "refusals", "release_rows", "branch_rows", "version_rows", "yank_rows", "recall_rows",
        "assessments", "attestations", "seal_rows", "unseal_rows", "gate_rows", "gate_decisions", "grants", "pledges",
        "private_logs", "models", "facets", "scores", "orders", "orders_new", "vocabulary", "search_state", "digests",
        "digests_changed", "prefixes", "kept_state",
    }  # fmt: skip
    unknown = {name for name in names if not name.startswith(("search", "sqlite_"))} - set(kept.KEPT) - rebuilt

    assert unknown - LOST - followed == set()
