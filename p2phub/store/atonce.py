"""Read many rows in one step of SQLite (spec/store.md §5).

Each row that is fetched lets another thread in, which may keep Python's lock for a while. A search that
fetches a hundred rows beside a node that takes records over would wait a hundred times.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from sqlite3 import Connection
from typing import Any

import msgspec

Columns = Mapping[str, Any]  # a row, by the names of its columns


def as_list(items: Iterable[Any]) -> str:
    """Return what `json_each(?)` in a statement takes as a table of `items`."""
    return msgspec.json.encode(list(items)).decode()


def fetch_at_once(
    connection: Connection,
    statement: str,
    values: Sequence[object],
    columns: Sequence[str],
    *,
    blobs: Collection[str] = (),
) -> list[Columns]:
    """Return the rows of a statement. columns: those that it gives; blobs: of these, which are bytes."""
    shown = ", ".join(f"hex({column})" if column in blobs else column for column in columns)
    (text,) = connection.execute(f"SELECT json_group_array(json_array({shown})) FROM ({statement})", values).fetchone()
    rows: list[Columns] = []
    for found in msgspec.json.decode(text):
        row = dict(zip(columns, found, strict=True))
        row.update((column, bytes.fromhex(row[column])) for column in blobs)
        rows.append(row)
    return rows
