"""What the owner of a home has set, kept in its index and not rebuilt away (spec/store.md §5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from p2phub.core.errors import InvalidData, StoreError
from p2phub.core.jsonform import from_json, to_json

from .database import Database

T = TypeVar("T")


class StoredSettings:
    """Values by name, as JSON."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str, type_: type[T]) -> T | None:
        """Return the value called `name`, None if it was never set. Raises StoreError if it is none of `type_`."""
        with self._database.read() as connection:
            row = connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return self._parse(name, row["value"], type_) if row else None

    def change(self, name: str, type_: type[T], change: Callable[[T | None], T]) -> T:
        """Put what `change` makes of the value called `name` in its place; returns it."""
        with self._database.write() as connection:
            row = connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
            value = change(self._parse(name, row["value"], type_) if row else None)
            connection.execute(
                "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET"
                " value = excluded.value",
                (name, to_json(value).decode()),
            )
        return value

    def _parse(self, name: str, text: str, type_: type[T]) -> T:
        try:
            return from_json(text.encode(), type_)
        except InvalidData as exc:
            path = str(self._database.path)
            raise StoreError(f"the setting '{name}' in the index {path} cannot be read: {exc}", path=path) from exc
