"""Namespaces whose root keys signed two documents of one version (spec/identity.md §3).

What came first counts, and the other is kept as evidence: whoever heard the other first sees it the other way
round, and no peer is to blame for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection, Row

from msgspec import Struct

from p2phub.core.encoding import encode
from p2phub.core.identity import Identity, SignedDocument
from p2phub.core.ids import NamespaceId

from .database import Database


class KnownSplit(Struct, frozen=True):
    """A namespace with two histories of documents."""

    namespace: NamespaceId
    version: int  # of the first documents that differ
    ours: bytes  # the encoded SignedDocument that counts here
    theirs: bytes


class Splits:
    """The namespaces that are known to have split."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, namespace: NamespaceId) -> KnownSplit | None:
        """Return what is known of one namespace, None if it did not split."""
        with self._database.read() as connection:
            return split_of(connection, namespace)

    def all(self) -> list[KnownSplit]:
        """Return what is known, sorted by namespace."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT * FROM identity_splits ORDER BY namespace").fetchall()
        return [_split(row) for row in rows]


def split_of(connection: Connection, namespace: NamespaceId) -> KnownSplit | None:
    """Return what is known of one namespace, None if it did not split."""
    row = connection.execute("SELECT * FROM identity_splits WHERE namespace = ?", (namespace,)).fetchone()
    return _split(row) if row else None


def differ_at(ours: Sequence[SignedDocument], theirs: Sequence[SignedDocument]) -> int | None:
    """Return the place of the first documents that are not the same, None if one goes on from the other."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((at for at, (one, other) in pairs if one.document != other.document), None)


def note_split(connection: Connection, ours: Identity, theirs: Identity, at: int) -> None:
    """Keep the two documents at place `at` of two checked identities of one namespace. The first evidence stays."""
    connection.execute(
        "INSERT OR IGNORE INTO identity_splits (namespace, version, ours, theirs) VALUES (?, ?, ?, ?)",
        (ours.namespace, at + 1, encode(ours.chain[at]), encode(theirs.chain[at])),
    )


def _split(row: Row) -> KnownSplit:
    return KnownSplit(NamespaceId(row["namespace"]), row["version"], row["ours"], row["theirs"])
