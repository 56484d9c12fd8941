"""The witnesses that this home knows: whom to ask to cosign its log, and what each said last (spec/witness.md §5)."""

from __future__ import annotations

from sqlite3 import Row

from msgspec import Struct

from p2phub.core.errors import Conflict, InvalidName, NotFound
from p2phub.core.notes import COSIGNATURE, NoteKey, parse_note_key

from .database import Database

ASKED_MAX = 16  # witnesses that are asked: their lines must fit into a head; spec/witness.md §5
ASKED_NAME_MAX = 100  # characters of the name of one


class KnownWitness(Struct, frozen=True):
    """A witness that the owner of this home added."""

    key: NoteKey
    place: str | None  # URL or p2phub address where it is asked; None: it is only counted
    problem: str | None  # why it did not when it was last asked


class Witnesses:
    """The witnesses that the owner of a home has added."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, key: NoteKey, place: str | None) -> None:
        """Note a witness; one that is known by this key is asked at `place` from now on.

        Raises Conflict if the key is known under another name (it would count twice), or if too many are asked.
        """
        if place and len(key.name) > ASKED_NAME_MAX:
            raise InvalidName(f"the name of a witness that is asked has at most {ASKED_NAME_MAX} characters")
        with self._database.write() as connection:
            others = [each for each in _all(connection.execute("SELECT * FROM witnesses").fetchall())]
            if place and sum(each.place is not None and each.key != key for each in others) >= ASKED_MAX:
                raise Conflict(f"{ASKED_MAX} witnesses are asked already", hint="`p2phub witness rm` forgets one")
            for known in others:
                if known.key.key == key.key and known.key != key:
                    raise Conflict(f"the witness {known.key.name} has the same key as {key.name}")
            connection.execute(
                "INSERT INTO witnesses (key, place) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET"
                " place = excluded.place, problem = ''",
                (str(key), place or ""),
            )

    def remove(self, name: str) -> KnownWitness:
        """Forget the witness with this name or key. Raises NotFound, Conflict if several have the name."""
        with self._database.write() as connection:
            found = [each for each in _all(connection.execute("SELECT * FROM witnesses").fetchall())
                     if name in (each.key.name, str(each.key))]  # fmt: skip
            if not found:
                raise NotFound(f"no witness {name} is known", hint="`p2phub witness ls` shows which are")
            if len(found) > 1:
                raise Conflict(f"{len(found)} witnesses are called {name}", hint="name one by its whole key")
            connection.execute("DELETE FROM witnesses WHERE key = ?", (str(found[0].key),))
        return found[0]

    def all(self) -> list[KnownWitness]:
        """Return all witnesses, by name."""
        with self._database.read() as connection:
            return _all(connection.execute("SELECT * FROM witnesses ORDER BY key").fetchall())

    def note_answer(self, key: NoteKey, problem: str | None) -> None:
        """Note that a witness was asked, and why it did not cosign; None: it did."""
        with self._database.write() as connection:
            connection.execute("UPDATE witnesses SET problem = ? WHERE key = ?", (problem or "", str(key)))


def _all(rows: list[Row]) -> list[KnownWitness]:
    return [_known(row) for row in rows]


def _known(row: Row) -> KnownWitness:
    return KnownWitness(
        parse_note_key(row["key"], type_=COSIGNATURE),
        row["place"] or None,
        row["problem"] or None,
    )
