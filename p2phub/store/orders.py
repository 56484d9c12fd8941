"""The orders in which search goes along repositories, kept in two parts (spec/store.md §5).

    new rows ──▶ orders_new, small ──many at once, in their order──▶ orders

What comes belongs anywhere in an order. In a large B-tree that is a page to be written for each row, in a small one a
page for many; and of many rows that are brought over in their order, several belong into each page. Whoever reads
goes along both parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from sqlite3 import Connection

from .atonce import Columns

# What is ordered; a larger number is that of a metric among the facets.
CREATED, SIZE, PARAMETERS, NAME = 1, 2, 3, 4

BROUGHT_AT = 32_768  # repositories in the small part, from which on they are brought over
ROWS_A_PAGE = 150  # about
PARTS = ("orders", "orders_new")
# What is brought over at once, from a number up to another: a fraction of a second for each.
_GROUPS = ((CREATED, SIZE), (SIZE, PARAMETERS), (PARAMETERS, NAME), (NAME, NAME + 1), (NAME + 1, 2**62))
GROUPS = len(_GROUPS)

Value = int | float | str
OrderRow = tuple[int, Value, int]  # what; its value; id in models


def places(number: int, created: int, size: int, parameters: int, model: str) -> tuple[OrderRow, ...]:
    """Return where the row `number` of models stands, its scores left out."""
    return (
        (CREATED, created, number),
        (SIZE, size, number),
        (PARAMETERS, parameters, number),
        (NAME, model.lower(), number),
    )


def add(connection: Connection, rows: Iterable[OrderRow]) -> None:
    """Add rows, inside a transaction."""
    connection.executemany("INSERT OR IGNORE INTO orders_new (what, value, id) VALUES (?, ?, ?)", sorted(rows))


def remove(connection: Connection, rows: Iterable[OrderRow]) -> None:
    """Take rows out, inside a transaction."""
    gone = list(rows)
    for part in PARTS:
        connection.executemany(f"DELETE FROM {part} WHERE what = ? AND value = ? AND id = ?", gone)


def count_new(connection: Connection) -> int:
    """Return how many repositories are in the small part."""
    (count,) = connection.execute("SELECT count(*) FROM orders_new WHERE what = ?", (CREATED,)).fetchone()
    return int(count)


def bring_over(connection: Connection, group: int) -> int:
    """Bring one of GROUPS groups from the small part to the large one, inside a transaction; returns how many rows."""
    bounds = _GROUPS[group]
    brought = connection.execute(
        "INSERT OR IGNORE INTO orders SELECT what, value, id FROM orders_new WHERE what >= ? AND what < ?"
        " ORDER BY what, value, id",
        bounds,
    )
    connection.execute("DELETE FROM orders_new WHERE what >= ? AND what < ?", bounds)
    return brought.rowcount


def clear(connection: Connection) -> None:
    """Empty both parts, inside a transaction."""
    for part in PARTS:
        connection.execute(f"DELETE FROM {part}")


def walk(
    connection: Connection,
    what: int,
    after: tuple[Value, int] | None,
    columns: str,
    values: tuple[object, ...],
    *,
    descending: bool,
) -> Iterator[Columns]:
    """Yield rows of models in an order, those after a place.

    columns: what is selected of `m`, with placeholders for `values`.
    """
    direction, sign = ("DESC", "<") if descending else ("ASC", ">")
    start = f" AND (o.value, o.id) {sign} (?, ?)" if after is not None else ""
    rows = [
        connection.execute(
            f"SELECT {columns}, o.value AS at FROM {part} AS o CROSS JOIN models AS m ON m.id = o.id"
            f" WHERE o.what = ?{start} ORDER BY o.value {direction}, o.id {direction}",
            (*values, what, *(after or ())),
        )
        for part in PARTS
    ]
    return merge(*rows, key=lambda row: (row["at"], row["id"]), reverse=descending)


def ids_sql(condition: str) -> str:
    """Return a statement that gives ids in models of rows for which `condition` holds, in either part."""
    return " UNION ALL ".join(f"SELECT id FROM {part} WHERE {condition}" for part in PARTS)
