"""Private repositories on disk: their logs, who may read them, and what of the content is theirs (spec/private.md).

    append, take ──▶ LogWriter ──▶ file of the log, index ──▶ grants, private_ids ──▶ readable, hidden

Each private log has a file of its own, and beside it one that says what must be known to read it. So a home
that shares the store finds it, and keeps private what another of its owner's homes does.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from sqlite3 import Connection, Row
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from p2phub.core.access import Caller
from p2phub.core.checkpoint import sign_head
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import ForkedLog, InvalidData
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId, NamespaceId, PublicKey
from p2phub.core.private import (
    SECRET_SIZE,
    Granted,
    Grantee,
    PrivateHead,
    PrivateLogFile,
    Repository,
    in_force,
    open_private_head,
    private_log_id,
)
from p2phub.core.records import Entry, sign_record
from p2phub.core.signing import Signer

from .database import Database, portions
from .disk import disk_errors, write_file
from .layout import Layout
from .privateindex import grants_of, is_named_publicly, is_unasked, mark_asked, mark_private, private_model

if TYPE_CHECKING:
    from .logs import Logs, LogState, MakeRecord

FILE_SIZE_MAX = 1024  # bytes of what lies beside a log
NOBODYS = Repository(NamespaceId(bytes(32)), "")  # stands for what is in no private repository


class PrivateLog(Struct, frozen=True):
    """A private log as far as it is here."""

    repository: Repository
    key: PublicKey
    secret: bytes
    state: LogState

    @property
    def told(self) -> PrivateHead:
        """What those are told who may read it."""
        return PrivateHead(self.repository.namespace, self.state.version, self.key, self.secret, self.state.head)

    def __repr__(self) -> str:
        return f"PrivateLog({self.state.log})"


class Private:
    """The private repositories of one home. Times are seconds since 1970."""

    def __init__(self, layout: Layout, database: Database, logs: Callable[[], Logs]) -> None:
        self._layout = layout
        self._database = database
        self._logs = logs

    # ── logs ────────────────────────────────────────────────────────────────

    def append_own(
        self, identity: Identity, key: Signer, model: str, make: MakeRecord, *, may_begin: bool = False
    ) -> Entry | None:
        """Sign and append what `make` returns to the private log of `key` on `model`; as `Logs.append_own` does.

        may_begin: begin a log if there is none; else nothing is done then. `make` runs inside the transaction.
        """
        from .logrows import frontier_of, leaf_at
        from .logs import keep_what_is_taken_in, last_time

        logs = self._logs()
        with self._database.write() as connection:
            log = self._own_log(connection, identity, key.public_key, model)
            if log is None and not may_begin:
                return None
            is_new = log is None
            log = log or self._begin(connection, identity.namespace, key.public_key, model)
            if connection.execute("SELECT 1 FROM forks WHERE log = ?", (log,)).fetchone() is not None:
                raise ForkedLog(f"the private log of {model} was signed with two histories", ours=b"", theirs=b"")
            row = logs.writer.own_row(connection, identity.namespace, log, key.public_key)
            frontier = frontier_of(row)
            previous = leaf_at(connection, row, frontier.size - 1)
            # A log that begins with this record is none without it.
            with (
                contextlib.nullcontext()
                if is_new
                else keep_what_is_taken_in(self._database, connection, logs.writer, row, key)
            ):
                record = make(connection, log, frontier.size, previous, last_time(logs.reader, connection, row))
            entry = sign_record(record, key)
            frontier.append(entry.leaf)
            head = sign_head(log, frontier.size, frontier.root(), key)
            logs.writer.append(
                connection, identity.namespace, log, key.public_key, row, frontier, [entry], head.text, None
            )
        return entry

    def take(
        self,
        identity: Identity,
        told: PrivateHead,
        start: int,
        entries: Sequence[bytes],
        *,
        now: float,
        unasked: bool = False,
    ) -> int:
        """Take over entries of another's private log from index `start` on; returns how many were new.

        identity: checked, and kept here. unasked: nobody here asked for the repository, unless it was asked for before.
        Raises InvalidData if something is wrong, ForkedLog if it is of another history than what is here.
        """
        log = told.log
        head = open_private_head(told, identity)
        from .arrivals import Arrival, check_entries

        checked = check_entries(entries, identity.namespace, log, told.key, start, now)
        if checked.error is not None and not checked.entries:
            raise checked.error
        models = {getattr(entry.record, "model", "") for entry in checked.entries}
        with self._database.write() as connection:
            known = private_model(connection, log)
            if known is None:
                if start or len(models) != 1 or "" in models:
                    raise InvalidData("a private log begins with its first record, and is about one repository")
                repository = Repository(told.namespace, models.pop())
                is_wanted = _is_known(connection, repository) and not is_unasked(
                    connection, told.namespace, repository.model
                )
                file = PrivateLogFile(1, told.namespace, told.key, told.secret, repository.model)
                self._note(connection, replace(file, unasked=unasked and not is_wanted))
            elif models - {known}:
                raise InvalidData(f"a private log is about one repository, and this one about {len(models)} others")
            forked: ForkedLog | None = None
            try:
                count = self._logs().writer.take_log(
                    connection, identity, Arrival(identity, log, told.key, head, start, checked), None
                )
            except ForkedLog as exc:
                forked = exc  # the evidence is kept all the same
        if forked is not None:
            raise forked
        return count

    def logs(self, repositories: Collection[Repository] | None = None) -> list[PrivateLog]:
        """Return the private logs that are here, of these repositories or of all, sorted by log id."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT * FROM private_logs ORDER BY log").fetchall()
        found = []
        for row in rows:
            repository = _repository(row)
            if repositories is not None and repository not in repositories:
                continue
            state = self._logs().state(LogId(row["log"]), private=True)
            if state is not None and state.head:
                found.append(PrivateLog(repository, PublicKey(row["key"]), row["secret"], state))
        return found

    def ask_for(self, repository: Repository) -> None:
        """Note that somebody here asked for a private repository that is known here: what it says counts now."""
        with self._database.write() as connection:
            rows = connection.execute(
                "SELECT * FROM private_logs WHERE namespace = ? AND model = ? AND unasked",
                (repository.namespace, repository.model),
            ).fetchall()
            for row in rows:
                file = PrivateLogFile(1, repository.namespace, PublicKey(row["key"]), row["secret"], repository.model)
                # Before the index, which can be lost.
                write_file(self._layout.private_log(LogId(row["log"])), encode(file), mode=0o600)
            if rows:
                mark_asked(connection, repository.namespace, repository.model)

    def unasked(self) -> dict[Repository, int]:
        """Return the repositories for which nobody here asked, and how many logs of each are here."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT namespace, model, count(*) AS count FROM private_logs"
                " GROUP BY namespace, model HAVING min(unasked)"
            ).fetchall()
        return {_repository(row): row["count"] for row in rows}

    def repository_of(self, log: LogId) -> Repository | None:
        """Return what a private log is about, None if there is no such log here."""
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM private_logs WHERE log = ?", (log,)).fetchone()
        return _repository(row) if row else None

    def is_private(self, repository: Repository) -> bool:
        """Say whether a repository is private."""
        with self._database.read() as connection:
            return _is_known(connection, repository)

    def known_secretly(self, namespaces: Collection[NamespaceId]) -> set[NamespaceId]:
        """Return those of the publishers of whom nothing but private logs is here."""
        found: set[NamespaceId] = set()
        with self._database.read() as connection:
            for some in portions(namespaces):
                rows = connection.execute(
                    "SELECT DISTINCT namespace FROM private_logs AS p"
                    f" WHERE namespace IN ({', '.join('?' * len(some))})"
                    " AND NOT EXISTS (SELECT 1 FROM logs AS l WHERE l.namespace = p.namespace"
                    " AND l.log NOT IN (SELECT log FROM private_logs))",
                    some,
                )
                found |= {NamespaceId(row["namespace"]) for row in rows}
        return found

    # ── who may read ────────────────────────────────────────────────────────

    def repositories(self) -> list[Repository]:
        """Return the private repositories that are here."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT DISTINCT namespace, model FROM private_logs").fetchall()
        return sorted(_repository(row) for row in rows)

    def grants(self, repository: Repository) -> dict[Grantee, Granted]:
        """Return the last word on each grantee of a repository, also of those whose time is over."""
        with self._database.read() as connection:
            return in_force(grants_of(connection, repository.namespace, repository.model))

    def readable(self, caller: Caller, now: float) -> set[Repository]:
        """Return the private repositories that `caller` may read now."""
        names: set[tuple[str, bytes]] = {("namespace", bytes(each)) for each in caller.namespaces}
        if caller.node is not None:
            names.add(("node", bytes(caller.node)))
        with self._database.read() as connection:
            found = {
                _repository(row)
                for namespace in caller.namespaces
                for row in connection.execute(
                    "SELECT namespace, model FROM private_logs WHERE namespace = ?", (namespace,)
                )
            }
            for kind, grantee in names:
                rows = connection.execute(
                    "SELECT DISTINCT namespace, model FROM grants WHERE grantee = ? AND kind = ?", (grantee, kind)
                ).fetchall()
                for row in rows:
                    said = in_force(grants_of(connection, NamespaceId(row["namespace"]), row["model"]))
                    if any((each.grantee.kind, each.grantee.id) == (kind, grantee) and each.until > now
                           for each in said.values()):  # fmt: skip
                        found.add(_repository(row))
        return found

    # ── content ─────────────────────────────────────────────────────────────

    def mark(self, repository: Repository, ids: Collection[bytes]) -> None:
        """Keep these manifests and files from those who may not read the repository."""
        with self._database.write() as connection:
            mark_private(connection, repository.namespace, repository.model, ids)

    def share(self, ids: Collection[bytes]) -> None:
        """Let everybody have these manifests and files: their owner published them for all."""
        with self._database.write() as connection:
            connection.executemany(
                "INSERT INTO private_shared (id) SELECT ?1 WHERE EXISTS (SELECT 1 FROM private_ids WHERE id = ?1)"
                " AND NOT EXISTS (SELECT 1 FROM private_shared WHERE id = ?1)",
                [(each,) for each in ids],
            )

    def hidden(self, ids: Collection[bytes], readable: Collection[Repository]) -> set[bytes]:
        """Return those of the manifests and files that are private, and in none of the repositories `readable`."""
        allowed = {*readable, NOBODYS}
        return {each for each, owners in self._owners(ids).items() if not owners & allowed}

    def within(self, ids: Collection[bytes], repositories: Collection[Repository]) -> set[bytes]:
        """Return those of the manifests and files that are in one of these private repositories, or were."""
        found: set[bytes] = set()
        with self._database.read() as connection:
            for some in portions(ids):
                marks = ", ".join("?" * len(some))
                rows = connection.execute(f"SELECT * FROM private_ids WHERE id IN ({marks})", some)
                found |= {row["id"] for row in rows if _repository(row) in repositories}
        return found

    def owners(self, ids: Collection[bytes]) -> list[set[Repository]]:
        """Return of each of the ids that may not be named to everybody the repositories that it is in."""
        found = self._owners(ids)
        with self._database.read() as connection:
            # A hash that somebody types is fetched, whoever lets this node in and claims it.
            asked = [
                (each, {owner for owner in owners if not is_unasked(connection, owner.namespace, owner.model)})
                for each, owners in found.items()
                if NOBODYS not in owners
            ]
            return [owners for each, owners in asked if owners and not is_named_publicly(connection, each)]

    def _owners(self, ids: Collection[bytes]) -> dict[bytes, set[Repository]]:
        """Return of each of the ids the private repositories that it is in, or NOBODYS alone if all may have it."""
        found: dict[bytes, set[Repository]] = {}
        with self._database.read() as connection:
            # Mostly there is nothing of the kind, and this is asked for every span that is sent.
            if connection.execute("SELECT 1 FROM private_ids LIMIT 1").fetchone() is None:
                return found
            for some in portions(ids):
                # A row for each, and the same done with it: what is private takes no longer than what is not here.
                rows = connection.execute(
                    f"WITH asked (id) AS (VALUES {', '.join(['(?)'] * len(some))})"
                    " SELECT asked.id AS id, coalesce(p.namespace, zeroblob(32)) AS namespace,"
                    " coalesce(p.model, '') AS model, s.id AS shared FROM asked"
                    " LEFT JOIN private_ids AS p ON p.id = asked.id AND NOT p.yields"
                    " LEFT JOIN private_shared AS s ON s.id = asked.id",
                    some,
                )
                for row in rows:
                    owners, repository = found.setdefault(row["id"], set()), _repository(row)
                    owners.add(repository if repository.model and row["shared"] is None else NOBODYS)
        return found

    # ── files ───────────────────────────────────────────────────────────────

    def find_files(self) -> None:
        """Take in the private logs whose files lie in the store and that the index does not know."""
        for log, file in self._files():
            with self._database.read() as connection:
                if private_model(connection, log) is not None:
                    continue
            identity = self._logs().identity(file.namespace) or self._identity_in_file(file.namespace)
            with self._database.write() as connection:
                self._note(connection, file)
                if identity is not None:
                    self._logs().writer.take_in_file(connection, file.namespace, log, file.key, None)

    def _identity_in_file(self, namespace: NamespaceId) -> Identity | None:
        """Take in the identity of a publisher from its file, if the index has lost it."""
        from .chains import check_identity

        try:
            identity = check_identity(self._layout.identity(namespace).read_bytes())
        except (OSError, InvalidData):
            return None
        if identity.namespace != namespace:
            return None
        self._logs().add_identity(identity, own=True)
        return identity

    def _files(self) -> Iterator[tuple[LogId, PrivateLogFile]]:
        try:
            names = sorted(os.listdir(self._layout.private))
        except FileNotFoundError:
            return
        for name in names:
            path = self._layout.private / name
            try:
                file = decode(path.read_bytes(), PrivateLogFile, size_max=FILE_SIZE_MAX)
            except (OSError, InvalidData):
                continue
            log = private_log_id(file.namespace, file.key, file.secret)
            if str(log) == name:
                yield log, file

    def _own_log(self, connection: Connection, identity: Identity, key: PublicKey, model: str) -> LogId | None:
        row = connection.execute(
            "SELECT log FROM private_logs WHERE namespace = ? AND model = ? AND key = ? ORDER BY log",
            (identity.namespace, model, key),
        ).fetchone()
        return LogId(row["log"]) if row else None

    def _begin(self, connection: Connection, namespace: NamespaceId, key: PublicKey, model: str) -> LogId:
        return self._note(connection, PrivateLogFile(1, namespace, key, secrets.token_bytes(SECRET_SIZE), model))

    def _note(self, connection: Connection, file: PrivateLogFile) -> LogId:
        """Keep what must be known to read a log, on the disk before any of the log is there."""
        log = private_log_id(file.namespace, file.key, file.secret)
        path = self._layout.private_log(log)
        with disk_errors(path.parent):
            path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            write_file(path, encode(file), mode=0o600)
        connection.execute(
            "INSERT OR IGNORE INTO private_logs (log, namespace, key, secret, model, unasked)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (log, file.namespace, file.key, file.secret, file.model, file.unasked),
        )
        return log


def _is_known(connection: Connection, repository: Repository) -> bool:
    row = connection.execute(
        "SELECT 1 FROM private_logs WHERE namespace = ? AND model = ?", (repository.namespace, repository.model)
    ).fetchone()
    return row is not None


def _repository(row: Row) -> Repository:
    return Repository(NamespaceId(row["namespace"]), row["model"])
