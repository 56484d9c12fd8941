"""Which publisher a domain or a petname means on this machine, pinned when it was first used (spec/names.md §8).

    domain, namespace ──pin──▶ bindings ──note_checked, note_problem, note_offered──▶ what the domain says since

A pin stays what it is until a person changes it: what a domain says later is noted beside it.
"""

from __future__ import annotations

from sqlite3 import Row

from msgspec import Struct

from p2phub.core.choices import BindingHow
from p2phub.core.ids import NamespaceId
from p2phub.core.names import is_domain

from .database import Database


class Binding(Struct, frozen=True):
    """What a name means here."""

    name: str
    namespace: NamespaceId
    how: BindingHow
    since: int  # seconds since 1970
    checked: int | None = None  # when the domain last said so; None for a petname, or if it never did
    tried: int | None = None  # when it was last asked
    problem: str | None = None  # why it did not say so then
    offered: NamespaceId | None = None  # another publisher, whom it named then

    @property
    def is_domain(self) -> bool:
        return is_domain(self.name)


class Bindings:
    """The names that mean something here."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> Binding | None:
        """Return what `name` means, None if nothing."""
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM bindings WHERE name = ?", (name,)).fetchone()
        return _binding(row) if row else None

    def all(self) -> list[Binding]:
        """Return all that is pinned, by name."""
        with self._database.read() as connection:
            return [_binding(row) for row in connection.execute("SELECT * FROM bindings ORDER BY name")]

    def names_of(self, namespace: NamespaceId) -> list[str]:
        """Return the names of a publisher, sorted."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT name FROM bindings WHERE namespace = ? ORDER BY name", (namespace,))
            return [row["name"] for row in rows]

    def pin(self, name: str, namespace: NamespaceId, how: BindingHow, *, now: float, checked: bool) -> Binding:
        """Let `name` mean `namespace` unless it means something already; returns what it means then.

        checked: the domain says so now.
        """
        time = int(now)
        with self._database.write() as connection:
            # Two processes may meet a domain at once: the first one's pin stands.
            connection.execute(
                "INSERT INTO bindings (name, namespace, how, since, checked, tried) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (name) DO NOTHING",
                (name, namespace, how, time, time if checked else None, time if checked else None),
            )
            return _binding(connection.execute("SELECT * FROM bindings WHERE name = ?", (name,)).fetchone())

    def accept(self, name: str, namespace: NamespaceId, *, now: float) -> None:
        """Let a domain mean the publisher that it names now: a person said so."""
        time = int(now)
        with self._database.write() as connection:
            connection.execute(
                "UPDATE bindings SET namespace = ?, how = 'accepted', since = ?, checked = ?, tried = ?,"
                " problem = NULL, offered = NULL WHERE name = ?",
                (namespace, time, time, time, name),
            )

    def note_checked(self, name: str, *, now: float) -> None:
        """Note that the domain still names the publisher that it is pinned to."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE bindings SET checked = ?, tried = ?, problem = NULL, offered = NULL WHERE name = ?",
                (int(now), int(now), name),
            )

    def note_problem(self, name: str, problem: str, *, now: float) -> None:
        """Note that the domain could not be asked, or did not say who publishes; what it said before that stays."""
        with self._database.write() as connection:
            connection.execute("UPDATE bindings SET tried = ?, problem = ? WHERE name = ?", (int(now), problem, name))

    def note_offered(self, name: str, namespace: NamespaceId, *, now: float) -> None:
        """Note that the domain names another publisher now."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE bindings SET tried = ?, problem = NULL, offered = ? WHERE name = ?",
                (int(now), namespace, name),
            )

    def remove(self, name: str) -> bool:
        """Forget what `name` means; returns whether it meant anything."""
        with self._database.write() as connection:
            return connection.execute("DELETE FROM bindings WHERE name = ?", (name,)).rowcount > 0


def _binding(row: Row) -> Binding:
    return Binding(
        row["name"],
        NamespaceId(row["namespace"]),
        row["how"],
        row["since"],
        row["checked"],
        row["tried"],
        row["problem"],
        NamespaceId(row["offered"]) if row["offered"] is not None else None,
    )
