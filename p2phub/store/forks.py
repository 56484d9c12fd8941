"""Proofs that logs forked, and where each log ends that does (spec/forks.md).

    proof ──checked──▶ fork_proofs ──limit──▶ what of the log counts: `Logs` counts again

A log that forked is frozen at what the histories have in common. What stands here behind it
stays on disk, because it may count again once the publisher has said which history goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection

from msgspec import Struct

from p2phub.core.encoding import decode, encode
from p2phub.core.forks import PROOF_SIZE_MAX, ForkProof, check_fork
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId, NamespaceId

from .database import Database


class KnownFork(Struct, frozen=True):
    """A log that forked, as far as a proof of it is here."""

    log: LogId
    namespace: NamespaceId
    common: int  # records at which it is frozen
    proof: ForkProof
    is_settled: bool  # the publisher said since which history counts


class Forks:
    """The forks that are proven here."""

    def __init__(self, database: Database, recount: Callable[[Connection, Identity], None]) -> None:
        """recount: lets only those entries of a namespace have a say that count."""
        self._database = database
        self._recount = recount

    def add(self, identity: Identity, log: LogId, proof: ForkProof) -> bool:
        """Keep a proof, unless one is here that freezes the log at fewer records; returns whether it was kept.

        identity: checked, and the newest that is here. Raises InvalidData if it proves nothing.
        """
        common = check_fork(proof, identity=identity, log=log)
        with self._database.write() as connection:
            known = connection.execute("SELECT common FROM fork_proofs WHERE log = ?", (log,)).fetchone()
            if known is not None and known["common"] <= common:
                return False
            connection.execute(
                "INSERT INTO fork_proofs (log, namespace, common, proof) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (log) DO UPDATE SET common = excluded.common, proof = excluded.proof",
                (log, identity.namespace, common, encode(proof)),
            )
            # What was only suspected here is proven now.
            connection.execute("DELETE FROM forks WHERE log = ?", (log,))
            self._recount(connection, identity)
        return True

    def get(self, log: LogId) -> KnownFork | None:
        """Return what is proven of `log`, None if nothing is."""
        found = self._select("WHERE fork_proofs.log = ?", log)
        return found[0] if found else None

    def all(self) -> list[KnownFork]:
        """Return all logs that are proven to have forked."""
        return self._select("")

    def suspected(self) -> list[LogId]:
        """Return the logs of which another history was met, without what would prove it to others."""
        with self._database.read() as connection:
            return [LogId(row["log"]) for row in connection.execute("SELECT log FROM forks ORDER BY log")]

    def is_stopped(self, log: LogId) -> bool:
        """Say whether nothing new is taken of `log`: it forked, or looks so, or was closed."""
        with self._database.read() as connection:
            return any(
                connection.execute(f"SELECT 1 FROM {table} WHERE log = ?", (log,)).fetchone()
                for table in ("forks", "fork_proofs", "closed_logs")
            )

    def _select(self, where: str, *values: object) -> list[KnownFork]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT fork_proofs.*, closed_logs.log IS NOT NULL AS is_settled FROM fork_proofs"
                f" LEFT JOIN closed_logs ON closed_logs.log = fork_proofs.log {where} ORDER BY fork_proofs.log",
                values,
            ).fetchall()
        return [
            KnownFork(
                LogId(row["log"]),
                NamespaceId(row["namespace"]),
                row["common"],
                decode(row["proof"], ForkProof, size_max=PROOF_SIZE_MAX),  # type: ignore[arg-type]
                bool(row["is_settled"]),
            )
            for row in rows
        ]


def size_max(connection: Connection, identity: Identity, log: LogId) -> int | None:
    """Return how many records of `log` count: None if all do."""
    if log in identity.closed:
        return identity.size_max(log)
    row = connection.execute("SELECT common FROM fork_proofs WHERE log = ?", (log,)).fetchone()
    limits = [limit for limit in (identity.size_max(log), row["common"] if row else None) if limit is not None]
    return min(limits, default=None)


def note_closed(connection: Connection, identity: Identity) -> None:
    """Note in the index which logs of a namespace its newest document closes."""
    connection.execute("DELETE FROM closed_logs WHERE namespace = ?", (identity.namespace,))
    connection.executemany(
        "INSERT INTO closed_logs (log, namespace, size, root) VALUES (?, ?, ?, ?)",
        [(log, identity.namespace, epoch.size, epoch.root) for log, epoch in identity.closed.items()],
    )
