"""Who may open what is sealed, and which keys were told to everybody (spec/sealing.md §4, §5).

    publishers' logs ──seal──▶ seal_rows       a key, wrapped for one recipient
                     ──unseal▶ unseal_rows     a key

All of it follows from the logs. No secret is kept here but those that everybody has.
"""

from __future__ import annotations

from collections.abc import Collection
from sqlite3 import Connection

from msgspec import Struct

from p2phub.core.ids import NamespaceId
from p2phub.core.records import Seal, Unseal, WrappedKey
from p2phub.core.sealing import RepositoryKey

from .database import Database

_PLACES = " JOIN repositories ON repositories.number = r.repository JOIN identities ON identities.number = publisher"


class SealedFor(Struct, frozen=True):
    """A key that a publisher wrapped for one recipient, and for which of its repositories."""

    publisher: NamespaceId
    model: str
    wrapped: WrappedKey
    time: int  # seconds since 1970


class Seals:
    """The seals of all repositories that are known here."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recipients(self, key: bytes) -> list[SealedFor]:
        """Return for whom the key called `key` was wrapped, the latest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT namespace, model, r.* FROM seal_rows AS r {_PLACES}"
                " WHERE r.key = ? ORDER BY r.time DESC, r.idx DESC",
                (key,),
            ).fetchall()
        return [
            SealedFor(
                NamespaceId(row["namespace"]),
                row["model"],
                WrappedKey(NamespaceId(row["recipient_namespace"]), row["recipient"], row["box"]),
                row["time"],
            )
            for row in rows
        ]

    def keys_of(self, publisher: NamespaceId, model: str) -> list[bytes]:
        """Return what the keys are called that a repository was sealed with, the one used last first."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT r.key, max(r.time) AS last, max(r.idx) AS place FROM seal_rows AS r {_PLACES}"
                " WHERE namespace = ? AND model = ? GROUP BY r.key ORDER BY last DESC, place DESC",
                (publisher, model),
            ).fetchall()
        return [row["key"] for row in rows]

    def told(self, key: bytes, publishers: Collection[NamespaceId]) -> RepositoryKey | None:
        """Return the key called `key` if one of `publishers` told it to everybody, or, without any, if somebody did."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT namespace, r.secret FROM unseal_rows AS r {_PLACES} WHERE r.key = ?", (key,)
            ).fetchall()
        secrets = [row["secret"] for row in rows if not publishers or NamespaceId(row["namespace"]) in publishers]
        return RepositoryKey(secrets[0]) if secrets else None


def apply_seal(connection: Connection, record: Seal, repository: int, log_number: int) -> None:
    """Take in for whom a publisher wrapped a key."""
    connection.executemany(
        "INSERT OR REPLACE INTO seal_rows (repository, log_number, idx, place, key, recipient_namespace, recipient,"
        " box, time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (repository, log_number, record.index, place, record.key, each.namespace, each.recipient, each.box,
             record.time)
            for place, each in enumerate(record.recipients)
        ],
    )  # fmt: skip


def apply_unseal(connection: Connection, record: Unseal, repository: int, log_number: int) -> None:
    """Take in a key that a publisher told to everybody."""
    connection.execute(
        "INSERT OR REPLACE INTO unseal_rows (repository, log_number, idx, key, secret, time) VALUES (?, ?, ?, ?, ?, ?)",
        (repository, log_number, record.index, RepositoryKey(record.key).identifier, record.key, record.time),
    )
