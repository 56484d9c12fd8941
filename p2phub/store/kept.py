"""What the index alone knows, and no file of the store tells, in one file beside it (spec/store.md §5).

    a transaction that changes one of these tables ──▶ kept.cbor, before it is committed
    an index that was made anew                    ◀── kept.cbor

What its owner said (names, pins, settings, mirrors), what was signed for him (federations, receipts, delegations), and
what must not be given to others: without this an index that was lost would take them along, and with the last of them
a secret would be handed out. All of it is small; what is large, or can be asked for again, is not in it.
"""

from __future__ import annotations

from sqlite3 import Connection
from typing import Any, Literal

from msgspec import Struct

from p2phub.core.encoding import decode, encode
from p2phub.core.errors import InvalidData

KEPT_SIZE_MAX = 1024 * 1024 * 1024  # bytes of the file

# By table, which rows. Triggers of the index watch them all, see migrations.
KEPT = {
    "bindings": "1",
    "settings": "1",
    "pins": "1",
    "mirrors": "1",
    "peers": "added = 1",
    "witnesses": "1",
    "federations": "1",
    "agreements": "1",
    "invitations": "1",
    "receipts": "shown_by IS NULL",
    "delegations": "1",
    "publisher_keys": "1",
    "identity_splits": "1",
    "withheld": "1",
    "private_ids": "1",
    "private_shared": "1",
}


class Rows(Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of one table."""

    table: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]  # of bytes, texts, integers and None


class Kept(Struct, frozen=True, forbid_unknown_fields=True):
    """All that is kept."""

    schema: Literal[1]
    tables: tuple[Rows, ...]


def is_due(connection: Connection) -> bool:
    """Say whether anything that is to be kept changed since it was last written."""
    row = connection.execute("SELECT changes != written FROM kept_state").fetchone()
    return bool(row[0])


def note_written(connection: Connection) -> None:
    """Note that the file says what the index does."""
    connection.execute("UPDATE kept_state SET written = changes")


def gather(connection: Connection) -> bytes:
    """Return what is to be written, and note that it is."""
    note_written(connection)
    tables = []
    for table, which in KEPT.items():
        found = connection.execute(f"SELECT * FROM {table} WHERE {which}")
        columns = tuple(column[0] for column in found.description)
        tables.append(Rows(table, columns, tuple(tuple(row) for row in found)))
    return encode(Kept(1, tuple(tables)))


def put_back(connection: Connection, data: bytes) -> None:
    """Fill the tables of a new index with what was written. Raises InvalidData."""
    for rows in decode(data, Kept, size_max=KEPT_SIZE_MAX).tables:
        if rows.table not in KEPT:
            continue
        there = {row["name"] for row in connection.execute(f"PRAGMA table_info({rows.table})")}
        # A column that went since is no loss: what it said is not asked for any more.
        if not all(len(row) == len(rows.columns) and _is_row(row) for row in rows.rows):
            raise InvalidData(f"{rows.table} has rows that are none")
        chosen = [at for at, column in enumerate(rows.columns) if column in there]
        names = ", ".join(rows.columns[at] for at in chosen)
        marks = ", ".join("?" * len(chosen))
        connection.executemany(
            f"INSERT OR REPLACE INTO {rows.table} ({names}) VALUES ({marks})",
            [tuple(row[at] for at in chosen) for row in rows.rows],
        )


def _is_row(row: tuple[Any, ...]) -> bool:
    return all(isinstance(value, bytes | str | int | None) for value in row)
