"""What the maps that are compared with peers say of each log and of each node (spec/replication.md §3)."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Sequence
from sqlite3 import Connection, Row

from p2phub.core.errors import InvalidData
from p2phub.core.fingerprints import log_digest, node_digest
from p2phub.core.ids import NamespaceId
from p2phub.core.noderecord import expiry_of
from p2phub.protocol.messages import LogHead

from .database import Database
from .digests import Digest

_KEYS_AT_ONCE = 500  # parameters of one statement

_LOGS = (
    "SELECT logs.log, logs.namespace, logs.size, logs.head, coalesce(identities.version, 1) AS version"
    " FROM logs LEFT JOIN identities ON identities.namespace = logs.namespace"
)


class LogStates:
    """The logs that can be passed on, by log id."""

    kind = 1

    def __init__(self, database: Database) -> None:
        self._database = database

    def digests(self, connection: Connection, keys: Sequence[bytes], now: float) -> dict[bytes, Digest]:
        return {row["log"]: (_digest(row), None) for row in _rows(connection, _LOGS, "logs.log", keys) if row["head"]}

    def heads(self, keys: Sequence[bytes]) -> list[LogHead]:
        """Return the heads of those of the logs `keys` that are here, sorted by log id."""
        with self._database.read() as connection:
            rows = sorted(_rows(connection, _LOGS, "logs.log", keys), key=lambda row: bytes(row["log"]))
        return [LogHead(NamespaceId(row["namespace"]), row["version"], row["head"]) for row in rows if row["head"]]


class NodeStates:
    """The nodes whose record is here, this one included, by node id."""

    kind = 2

    def __init__(self, database: Database) -> None:
        self._database = database

    def digests(self, connection: Connection, keys: Sequence[bytes], now: float) -> dict[bytes, Digest]:
        found: dict[bytes, Digest] = {}
        for row in self._records(connection, keys):
            try:
                expires = expiry_of(row["record"])
            except InvalidData:
                continue
            if expires >= now:
                found[row["node"]] = node_digest(row["record"]), expires
        return found

    def records(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the signed records of those of the nodes `keys` that are here, sorted by node id."""
        with self._database.read() as connection:
            rows = sorted(self._records(connection, keys), key=lambda row: bytes(row["node"]))
        return [row["record"] for row in rows]

    def note_own(self, node: bytes, record: bytes) -> None:
        """Keep the signed record of this node, to be passed on as those of others are."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM own_records WHERE node <> ?", (node,))
            connection.execute("INSERT OR REPLACE INTO own_records (node, record) VALUES (?, ?)", (node, record))

    def _records(self, connection: Connection, keys: Sequence[bytes]) -> Iterator[Row]:
        own_rows = _rows(connection, "SELECT node, record FROM own_records", "node", keys)
        own = {bytes(row["node"]): row for row in own_rows}
        yield from own.values()
        for row in _rows(connection, "SELECT node, record FROM peers", "node", keys):
            if row["record"] and bytes(row["node"]) not in own:
                yield row


def _digest(row: Row) -> bytes:
    # Of a head that was checked when it came; its other lines are signatures.
    _, size, root, _ = row["head"].split(b"\n", 3)
    return log_digest(row["version"], int(size), b64decode(root))


def _rows(connection: Connection, select: str, column: str, keys: Sequence[bytes]) -> Iterator[Row]:
    for begin in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[begin : begin + _KEYS_AT_ONCE]
        yield from connection.execute(f"{select} WHERE {column} IN ({', '.join('?' * len(some))})", tuple(some))
