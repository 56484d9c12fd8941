"""What the maps that are compared with peers say of each log and of each node (spec/replication.md §3)."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Sequence
from sqlite3 import Connection, Row

from p2phub.core.errors import InvalidData
from p2phub.core.fingerprints import forked_digest, log_digest, node_digest
from p2phub.core.ids import LogId, NamespaceId
from p2phub.core.noderecord import expiry_of
from p2phub.protocol.messages import LogHead, StoppedLog

from .database import Database
from .digests import Digest
from .logtrees import LogTree

_KEYS_AT_ONCE = 500  # parameters of one statement

_LOGS = (
    "SELECT logs.log, logs.number, logs.namespace, logs.size, logs.head, coalesce(identities.version, 1) AS version,"
    " common, closed_logs.size AS end, closed_logs.root AS end_root"
    " FROM logs LEFT JOIN identities ON identities.namespace = logs.namespace"
    " LEFT JOIN fork_proofs ON fork_proofs.log = logs.log LEFT JOIN closed_logs ON closed_logs.log = logs.log"
)
# Forks of logs of which no record is here.
_FORKS = (
    "SELECT fork_proofs.log, NULL AS number, fork_proofs.namespace, 0 AS size, x'' AS head,"
    " coalesce(identities.version, 1) AS version, common, NULL AS end, NULL AS end_root"
    " FROM fork_proofs LEFT JOIN identities ON identities.namespace = fork_proofs.namespace"
)


class LogStates:
    """The logs that can be passed on, by log id."""

    kind = 1

    def __init__(self, database: Database) -> None:
        self._database = database

    def digests(self, connection: Connection, keys: Sequence[bytes], now: float) -> dict[bytes, Digest]:
        found: dict[bytes, Digest] = {}
        for row in _logs(connection, keys):
            if (digest := _digest(connection, row)) is not None:
                found[row["log"]] = digest, None
        return found

    def heads(self, keys: Sequence[bytes]) -> list[LogHead | StoppedLog]:
        """Return what is shown of those of the logs `keys` that are in the map, sorted by log id."""
        with self._database.read() as connection:
            rows = [row for row in _logs(connection, keys) if _digest(connection, row) is not None]
        return [_shown(row) for row in sorted(rows, key=lambda row: bytes(row["log"]))]


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


def _logs(connection: Connection, keys: Sequence[bytes]) -> list[Row]:
    # A private log is in no map: only those are told of it who may read it.
    hidden = {row["log"] for row in _rows(connection, "SELECT log FROM private_logs", "log", keys)}
    keys = [key for key in keys if key not in hidden]
    rows = list(_rows(connection, _LOGS, "logs.log", keys))
    missing = sorted(set(keys) - {row["log"] for row in rows})
    return rows + list(_rows(connection, _FORKS, "fork_proofs.log", missing))


def _digest(connection: Connection, row: Row) -> bytes | None:
    """Return the digest of a log, None if it cannot be passed on."""
    version: int = row["version"]
    if row["end"] is not None:
        is_whole = row["size"] >= row["end"] and (
            LogTree(connection, row["number"]).root(row["end"]) == row["end_root"]
        )
        return log_digest(version, row["end"], row["end_root"]) if is_whole else None
    if row["common"] is not None:
        return forked_digest(version, row["common"], min(row["size"], row["common"]))
    if not row["head"]:
        return None
    # Of a head that was checked when it came; its other lines are signatures.
    _, size, root, _ = row["head"].split(b"\n", 3)
    return log_digest(version, int(size), b64decode(root))


def _shown(row: Row) -> LogHead | StoppedLog:
    namespace, version = NamespaceId(row["namespace"]), row["version"]
    if row["end"] is None and row["common"] is None:
        return LogHead(namespace, version, row["head"])
    end = row["common"] if row["end"] is None else row["end"]
    common = row["common"] if row["end"] is None else None
    return StoppedLog(namespace, version, LogId(row["log"]), min(row["size"], end), common)


def _rows(connection: Connection, select: str, column: str, keys: Sequence[bytes]) -> Iterator[Row]:
    for begin in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[begin : begin + _KEYS_AT_ONCE]
        yield from connection.execute(f"{select} WHERE {column} IN ({', '.join('?' * len(some))})", tuple(some))
