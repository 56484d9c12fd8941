"""Search goes along the right orders, whatever part of them a repository is in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest
from storekit import TIME, Writer, place_entry, read_entries, summary

from p2phub.core.ids import LogId
from p2phub.core.records import Entry, Score
from p2phub.core.search import MetricBound, Query
from p2phub.store import orders
from p2phub.store.catalogue import Catalogue
from p2phub.store.cataloguewriter import CatalogueWriter
from p2phub.store.database import Database
from p2phub.store.migrations import MIGRATIONS
from p2phub.store.search import Search
from p2phub.store.searchindex import SearchIndex


class Known:
    """A catalogue that takes each entry in a transaction of its own."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.entries: dict[tuple[LogId, int], bytes] = {}
        self.index = SearchIndex(self.database, self.read)
        self.catalogue = Catalogue(self.database)
        self.cataloguing = CatalogueWriter(self.index)
        self.search = Search(self.database, self.read)

    def read(self, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        return read_entries(self.database, self.entries, keys)

    def apply(self, *entries: Entry) -> None:
        for entry in entries:
            with self.database.write() as connection:
                self.entries[entry.record.log, entry.record.index] = entry.data
                self.cataloguing.apply(connection, entry.record.log, [entry], place_entry(connection, entry))

    def along(self, **fields: Any) -> list[str]:
        """Return the names on all pages of two."""
        found: list[str] = []
        cursor = None
        while True:
            page = self.search.find(Query(limit=2, cursor=cursor, **fields))
            found += [model.model for model in page]
            cursor = page.cursor
            if cursor is None:
                return found

    def rows(self, part: str) -> list[tuple[Any, ...]]:
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(f"SELECT what, value, id FROM {part}")]


def score(value: str) -> Score:
    return Score(task="t", dataset="mteb", metric="ndcg", value=value)


def fill(known: Known) -> None:
    writer = Writer()
    for number, size in enumerate((30, 10, 50, 20, 40)):
        shown = summary(size=size, parameters=100 - size, scores=(score(str(size)),))
        known.apply(writer.publish(f"{number}", model=f"m{size}", summary=shown, time=TIME + number))
    # One that is described by another release then, and one that is gone.
    changed = summary(size=35, parameters=65, scores=(score("35"),))
    known.apply(writer.publish("again", model="m30", summary=changed, time=TIME + 10))
    known.apply(writer.publish("gone", model="gone", summary=summary(size=45), time=TIME + 11))
    known.apply(writer.branch(None, model="gone", branch="main", time=TIME + 12))


@pytest.mark.parametrize("brought_at", [1, 2, 6, 1000])
def test_all_orders_hold_in_whatever_part_repositories_are(
    brought_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "BROUGHT_AT", brought_at)
    known = Known(tmp_path / "index.sqlite")
    fill(known)

    assert known.along(sort="size") == ["m50", "m40", "m30", "m20", "m10"]
    assert known.along(sort="parameters") == ["m10", "m20", "m30", "m40", "m50"]
    assert known.along(sort="name") == ["m10", "m20", "m30", "m40", "m50"]
    assert known.along(sort="created") == ["m40", "m20", "m50", "m10", "m30"]
    found = known.along(metrics=(MetricBound("mteb/ndcg", low=20.0, high=40.0),))
    assert sorted(found) == ["m20", "m30", "m40"]
    # Nothing is left of what was taken out, and nothing is there twice.
    rows = [row for part in orders.PARTS for row in known.rows(part)]
    assert len(rows) == len(set(rows)) == 5 * (4 + 3)
    assert bool(known.rows("orders")) == (brought_at < 1000)
    known.database.close()


def test_orders_are_brought_over_while_a_node_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known(tmp_path / "index.sqlite")
    fill(known)
    before = sorted(known.rows("orders_new"))
    assert list(known.index.merge()) == []  # They are few.
    assert sorted(known.rows("orders_new")) == before

    monkeypatch.setattr(orders, "BROUGHT_AT", 5)
    steps = 0
    for _ in known.index.merge():
        steps += 1
        with known.database.read() as connection:
            assert not connection.in_transaction  # Others write, and this thread does something else.
    assert steps == orders.GROUPS

    assert known.rows("orders_new") == []
    assert sorted(known.rows("orders")) == before
    known.database.close()


def test_an_index_of_before_has_the_same_orders(tmp_path: Path) -> None:
    known = Known(tmp_path / "index.sqlite")
    fill(known)
    rows = sorted(row for part in orders.PARTS for row in known.rows(part))
    known.database.close()
    step = next(text for text in MIGRATIONS if "CREATE TABLE orders " in text)
    with connect(tmp_path / "index.sqlite") as connection:
        for part in orders.PARTS:
            connection.execute(f"DROP TABLE {part}")
        for name in ("created", "size", "parameters"):
            connection.execute(f"CREATE INDEX models_by_{name} ON models ({name})")
        connection.execute("CREATE INDEX models_by_name ON models (model COLLATE NOCASE)")
        connection.execute("CREATE INDEX scores_by_value ON scores (metric, value)")
        # That step alone: the index knows what later ones bring.
        connection.executescript(step)
    connection.close()

    again = Known(tmp_path / "index.sqlite")

    assert sorted(again.rows("orders")) == rows
    assert again.rows("orders_new") == []
    again.database.close()
