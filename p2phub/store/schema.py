"""The tables of a new index, all at once (spec/store.md §5).

    MIGRATIONS ──tools/make-schema──▶ schema.sql ──▶ a new index

The steps that old indexes go make tables, change them and drop them again: in a new one that
took most of the time of a short command. What stands in the file is what they come to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from sqlite3 import Connection

FILE = Path(__file__).with_name("schema.sql")

_BETWEEN = ";\n\n"
# Triggers last: what they note is in the rows already.
_ORDER = ("table", "rows", "index", "view", "trigger")


def statements() -> list[str]:
    """Return the statements that make the tables, as `describe` wrote them."""
    return FILE.read_text(encoding="utf-8").removesuffix(";\n").split(_BETWEEN)


def describe(connection: Connection) -> str:
    """Return what makes the tables of an index, and the rows in them, from nothing."""
    found = {kind: list(_made(connection, kind)) for kind in _ORDER}
    texts = [text.strip() for kind in _ORDER for text in found[kind]]
    assert not any(_BETWEEN in text for text in texts)
    return _BETWEEN.join(texts) + ";\n"


def _made(connection: Connection, kind: str) -> Iterator[str]:
    if kind == "rows":
        for table in _tables(connection):
            yield from _rows(connection, table)
        yield from _settings(connection)
        return
    for row in connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = ? AND sql IS NOT NULL ORDER BY rowid", (kind,)
    ).fetchall():
        if kind != "table" or row["name"] in _tables(connection) or "VIRTUAL TABLE" in row["sql"]:
            yield row["sql"]


def _tables(connection: Connection) -> list[str]:
    """Return the names of the tables that are no full-text table, and no part of one."""
    rows = connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main' ORDER BY name").fetchall()
    return [row["name"] for row in rows if row["type"] == "table" and not row["name"].startswith("sqlite_")]


def _rows(connection: Connection, table: str) -> Iterator[str]:
    columns = [row["name"] for row in connection.execute(f"PRAGMA table_info({table})")]
    quoted = ", ".join(f"quote({column})" for column in columns)
    for row in connection.execute(f"SELECT {quoted} FROM {table}"):
        yield f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(row)})"


def _settings(connection: Connection) -> Iterator[str]:
    """Yield what sets up the full-text table; its version it knows by itself."""
    for row in connection.execute("SELECT quote(k), quote(v) FROM search_config WHERE k != 'version' ORDER BY k"):
        yield f"INSERT INTO search (search, rank) VALUES ({', '.join(row)})"
