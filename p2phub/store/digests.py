"""The maps that are compared with those of peers, and their fingerprints (spec/store.md §5, spec/replication.md §1).

    logs, identities, peers ──trigger──▶ digests_changed ──refresh──▶ digests ──▶ prefixes

Whoever writes only leaves the key behind, in its own transaction, whichever process it is.
Who compares brings digests and fingerprints up to date, and only on the way from what changed
to the root. Of prefixes with few items no children are kept: they are computed when asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Protocol

from p2phub.core import fingerprints
from p2phub.core.fingerprints import DIGITS, EMPTY, Branch, Item, branch_of, children_of, range_of

from .database import Database

LEAF_MAX = 64  # items under a prefix of which no children are kept
BATCH = 4096  # keys that are brought up to date in one transaction: writers wait for its end

Digest = tuple[bytes, int | None]  # 32 bytes, and the second since 1970 from which it counts no more


class Source(Protocol):
    """Knows what stands in a map."""

    kind: int  # of the map, in the index

    def digests(self, connection: Connection, keys: Sequence[bytes], now: float) -> dict[bytes, Digest]:
        """Return the digests of those of `keys` that are in the map, at the time `now` (seconds since 1970)."""


class Digests:
    """One map of this home."""

    def __init__(self, database: Database, source: Source) -> None:
        self._database = database
        self._source = source
        self._kind = source.kind

    # ── writing ─────────────────────────────────────────────────────────────

    def refresh(self, now: float, *, keys_max: int | None = None) -> bool:
        """Take in what changed since the last time; returns whether that was all.

        keys_max: stop when so many keys were taken in; None: none are left out.
        """
        taken = 0
        while self._is_stale(now):
            if keys_max is not None and taken >= keys_max:
                return False
            taken += self._refresh_some(now)
        return True

    def _is_stale(self, now: float) -> bool:
        with self._database.read() as connection:
            return (
                connection.execute("SELECT 1 FROM digests_changed WHERE kind = ? LIMIT 1", (self._kind,)).fetchone()
                or connection.execute(
                    "SELECT 1 FROM digests WHERE kind = ? AND expires < ? LIMIT 1", (self._kind, int(now))
                ).fetchone()
            ) is not None

    def _refresh_some(self, now: float) -> int:
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO digests_changed (kind, key)"
                " SELECT kind, key FROM digests WHERE kind = ? AND expires < ?",
                (self._kind, int(now)),
            )
            # Sorted, so that those under one prefix are taken in together.
            rows = connection.execute(
                "SELECT key FROM digests_changed WHERE kind = ? ORDER BY key LIMIT ?", (self._kind, BATCH)
            ).fetchall()
            keys = [bytes(row["key"]) for row in rows]
            if not keys:
                return 0
            found = self._source.digests(connection, keys, now)
            gone = [(self._kind, key) for key in keys if key not in found]
            connection.executemany("DELETE FROM digests WHERE kind = ? AND key = ?", gone)
            connection.executemany(
                "INSERT OR REPLACE INTO digests (kind, key, digest, expires) VALUES (?, ?, ?, ?)",
                ((self._kind, key, digest, expires) for key, (digest, expires) in found.items()),
            )
            self._update(connection, "", keys)
            connection.execute(
                "DELETE FROM digests_changed WHERE kind = ? AND key BETWEEN ? AND ?", (self._kind, keys[0], keys[-1])
            )
        return len(keys)

    def _update(self, connection: Connection, prefix: str, changed: Sequence[bytes]) -> Branch:
        """Compute again what is under `prefix`, where items with the keys `changed`, sorted, are not as they were."""
        known = self._stored(connection, prefix)
        if known is None or known.count - len(changed) <= LEAF_MAX:
            items = self._items(connection, prefix, LEAF_MAX + 1)
            if len(items) <= LEAF_MAX:
                if known is not None and known.count > LEAF_MAX:
                    connection.execute(
                        "DELETE FROM prefixes WHERE kind = ? AND prefix > ? AND prefix < ?",
                        (self._kind, prefix, prefix + "g"),
                    )
                return self._store(connection, prefix, branch_of(items, len(prefix)))
        children = []
        begin = 0
        for digit in DIGITS:
            _, last = range_of(prefix + digit)
            end = bisect_left(changed, last, begin)
            end += end < len(changed) and changed[end] == last
            child = self._stored(connection, prefix + digit) if begin == end else None
            children.append(child or self._update(connection, prefix + digit, changed[begin:end]))
            begin = end
        fingerprint = fingerprints.of_children([child.fingerprint for child in children])
        return self._store(connection, prefix, Branch(sum(child.count for child in children), fingerprint))

    def _store(self, connection: Connection, prefix: str, branch: Branch) -> Branch:
        connection.execute(
            "INSERT OR REPLACE INTO prefixes (kind, prefix, count, fingerprint) VALUES (?, ?, ?, ?)",
            (self._kind, prefix, branch.count, branch.fingerprint),
        )
        return branch

    # ── reading ─────────────────────────────────────────────────────────────

    def root(self) -> Branch:
        """Return how many items the map has, and its fingerprint, as of the last refresh."""
        with self._database.read() as connection:
            return self._stored(connection, "") or EMPTY

    def children(self, prefixes: Sequence[str]) -> list[list[Branch] | None]:
        """Return for each of `prefixes` its 16 children, or None if it is a bucket."""
        with self._database.read() as connection:
            return [self._children(connection, prefix) for prefix in prefixes]

    def _children(self, connection: Connection, prefix: str) -> list[Branch] | None:
        kept = [self._stored(connection, prefix + digit) for digit in DIGITS]
        if kept[0] is not None:
            return [child or EMPTY for child in kept]
        items = self._items(connection, prefix, LEAF_MAX + 1)
        return children_of(items, len(prefix)) if not branch_of(items, len(prefix)).is_bucket else None

    def items(self, prefix: str, limit: int, *, after: bytes | None = None) -> list[Item]:
        """Return the first `limit` items under `prefix`, sorted by key: those behind the key `after`."""
        with self._database.read() as connection:
            return self._items(connection, prefix, limit, after)

    def _items(self, connection: Connection, prefix: str, limit: int, after: bytes | None = None) -> list[Item]:
        low, high = range_of(prefix)
        rows = connection.execute(
            "SELECT key, digest FROM digests WHERE kind = ? AND key BETWEEN ? AND ? AND key > ? ORDER BY key LIMIT ?",
            (self._kind, low, high, after or b"", limit),
        )
        return [(row["key"], row["digest"]) for row in rows]

    def _stored(self, connection: Connection, prefix: str) -> Branch | None:
        row = connection.execute(
            "SELECT count, fingerprint FROM prefixes WHERE kind = ? AND prefix = ?", (self._kind, prefix)
        ).fetchone()
        return Branch(row["count"], row["fingerprint"]) if row else None
