"""Search goes along the right orders, whatever part of them a repository is in."""

from __future__ import annotations

from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest
from storekit import TIME, Known, Writer, summary

from p2phub.core.records import Score
from p2phub.core.search import MetricBound
from p2phub.store import orders
from p2phub.store.migrations import MIGRATIONS


def along(known: Known, **fields: Any) -> list[str]:
    """Return the names on all pages of two."""
    return [name.partition("/")[2] for name in known.every(limit=2, **fields)]


def rows(known: Known, part: str) -> list[tuple[Any, ...]]:
    with known.database.read() as connection:
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

    assert along(known, sort="size") == ["m50", "m40", "m30", "m20", "m10"]
    assert along(known, sort="parameters") == ["m10", "m20", "m30", "m40", "m50"]
    assert along(known, sort="name") == ["m10", "m20", "m30", "m40", "m50"]
    assert along(known, sort="created") == ["m40", "m20", "m50", "m10", "m30"]
    found = along(known, metrics=(MetricBound("mteb/ndcg", low=20.0, high=40.0),))
    assert sorted(found) == ["m20", "m30", "m40"]
    # Nothing is left of what was taken out, and nothing is there twice.
    found_rows = [row for part in orders.PARTS for row in rows(known, part)]
    assert len(found_rows) == len(set(found_rows)) == 5 * (4 + 3)
    assert bool(rows(known, "orders")) == (brought_at < 1000)
    known.database.close()


def test_orders_are_brought_over_while_a_node_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known(tmp_path / "index.sqlite")
    fill(known)
    before = sorted(rows(known, "orders_new"))
    assert list(known.index.merge()) == []  # They are few.
    assert sorted(rows(known, "orders_new")) == before

    monkeypatch.setattr(orders, "BROUGHT_AT", 5)
    steps = 0
    for _ in known.index.merge():
        steps += 1
        with known.database.read() as connection:
            assert not connection.in_transaction  # Others write, and this thread does something else.
    assert steps == orders.GROUPS

    assert rows(known, "orders_new") == []
    assert sorted(rows(known, "orders")) == before
    known.database.close()


def test_an_index_of_before_has_the_same_orders(tmp_path: Path) -> None:
    known = Known(tmp_path / "index.sqlite")
    fill(known)
    before = sorted(row for part in orders.PARTS for row in rows(known, part))
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

    assert sorted(rows(again, "orders")) == before
    assert rows(again, "orders_new") == []
    again.database.close()
