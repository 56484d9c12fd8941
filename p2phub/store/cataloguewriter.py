"""What entries of logs say, written down so that it can be asked for (spec/records.md §5, spec/store.md §5).

    logs ──apply, entry by entry──▶ releases, branches, versions, … ──▶ SearchIndex

Everything here follows from the logs alone, in whatever order they come in: each log
has its own row for a branch or a version. `catalogue.py` chooses among the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection

from msgspec import Struct

from p2phub.core.ids import LogId, NamespaceId
from p2phub.core.records import (
    Approve,
    Assess,
    Attest,
    Branch,
    Entry,
    Grant,
    OpenGate,
    Pledge,
    Publish,
    Recall,
    Refuse,
    Seal,
    SetGate,
    Ungrant,
    Unpledge,
    Unseal,
    Yank,
)

from .assessments import apply_assessment, forget_assessments
from .gates import GATE_TABLES, apply_decision, apply_gate
from .mirrors import apply_attestation, forget_attestations
from .pledges import apply_pledge, forget_pledges
from .privateindex import apply_grant, forget_grants, mark_private, mark_released, private_model
from .recalls import apply_recall
from .seals import apply_seal, apply_unseal
from .searchindex import NewRelease, SearchIndex
from .searchtokens import ReadyEntry


class Numbers(Struct, frozen=True):
    """What the index calls the long ids by of which an entry speaks."""

    log: int  # in logs
    publisher: int  # in identities


class CatalogueWriter:
    """Writes down what entries say, inside the transactions of the logs."""

    def __init__(self, index: SearchIndex) -> None:
        self._index = index

    def apply(self, connection: Connection, log: LogId, entries: Iterable[Entry], numbers: Numbers) -> None:
        """Add what entries of `log` say, inside the transaction that adds them to it."""
        only = private_model(connection, log)
        for entry in entries:
            self._apply(connection, entry, numbers, only)

    def _apply(self, connection: Connection, entry: Entry, numbers: Numbers, only: str | None) -> None:
        """only: the one repository that the log is about, if it is private."""
        record = entry.record
        if (only is None and isinstance(record, Grant | Ungrant)) or (
            only is not None and (isinstance(record, Attest | Pledge | Unpledge) or record.model != only)
        ):
            return  # it means nothing there
        match record:
            case Publish():
                if only is not None:
                    _mark_private(connection, record)
                refusal = self._publish(connection, record, numbers, entry, is_listed=record.listed and only is None)
                if refusal:
                    connection.execute(
                        "INSERT OR REPLACE INTO refusals (log, idx, reason) VALUES (?, ?, ?)",
                        (record.log, record.index, refusal),
                    )
                if only is None:
                    mark_released(connection, record.manifest)
            case Branch():
                repository, _ = _repository(connection, numbers.publisher, record.model)
                _move_branch(connection, record, repository, numbers)
                self._index.touch(repository)
            case Yank():
                repository, _ = _repository(connection, numbers.publisher, record.model)
                connection.execute(
                    "INSERT OR REPLACE INTO yank_rows (repository, version, log_number, idx, message, time)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (repository, record.version, numbers.log, record.index, record.message, record.time),
                )
                self._index.touch(repository)
            case Attest():
                apply_attestation(connection, record)
                mark_released(connection, record.manifest)
            case Recall():
                repository, _ = _repository(connection, numbers.publisher, record.model)
                apply_recall(connection, record, repository, numbers.log)
                self._index.touch(repository)
            case Assess():
                apply_assessment(connection, record)
            case Seal():
                repository, _ = _repository(connection, numbers.publisher, record.model)
                apply_seal(connection, record, repository, numbers.log)
            case Unseal():
                repository, _ = _repository(connection, numbers.publisher, record.model)
                apply_unseal(connection, record, repository, numbers.log)
            case Grant() | Ungrant():
                apply_grant(connection, record)
            case Pledge() | Unpledge():
                apply_pledge(connection, record)
            case SetGate() | OpenGate():
                repository, _ = _repository(connection, numbers.publisher, record.model)
                apply_gate(connection, record, entry.leaf, repository, numbers.log)
            case Approve() | Refuse():
                repository, _ = _repository(connection, numbers.publisher, record.model)
                apply_decision(connection, record, entry.leaf, repository, numbers.log)

    def forget(self, connection: Connection, namespace: NamespaceId, publisher: int) -> None:
        """Undo all that entries of `namespace`, which has the number `publisher`, said."""
        connection.execute("DELETE FROM refusals WHERE log IN (SELECT log FROM logs WHERE namespace = ?)", (namespace,))
        numbers = connection.execute("SELECT number FROM repositories WHERE publisher = ?", (publisher,)).fetchall()
        for row in numbers:
            self._index.touch(row["number"])
        for table in (
            "release_rows",
            "branch_rows",
            "version_rows",
            "yank_rows",
            "seal_rows",
            "unseal_rows",
            "recall_rows",
            *GATE_TABLES,
        ):
            connection.execute(
                f"DELETE FROM {table} WHERE repository IN (SELECT number FROM repositories WHERE publisher = ?)",
                (publisher,),
            )
        forget_attestations(connection, namespace)
        forget_grants(connection, namespace)
        forget_pledges(connection, namespace)
        forget_assessments(connection, namespace)

    def _publish(
        self, connection: Connection, record: Publish, numbers: Numbers, entry: Entry, *, is_listed: bool
    ) -> str | None:
        """Take in a release; returns why it may not count, or None."""
        repository, is_new = _repository(connection, numbers.publisher, record.model)
        refusal = None if is_new else _refusal(connection, record, repository, numbers)
        if refusal:
            return refusal
        if record.version:
            connection.execute(
                "INSERT OR IGNORE INTO version_rows (repository, version, log_number, idx) VALUES (?, ?, ?, ?)",
                (repository, record.version, numbers.log, record.index),
            )
        connection.execute(
            "INSERT INTO release_rows (repository, log_number, idx, kind, manifest, version, time, listed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (repository, numbers.log, record.index, record.kind, record.manifest, record.version, record.time,
             is_listed),
        )  # fmt: skip
        _move_branch(connection, record, repository, numbers)
        tokens = entry.tokens if isinstance(entry, ReadyEntry) else None
        release = NewRelease(repository, numbers.publisher, numbers.log, record, tokens)
        self._index.add(release, is_alone=is_new and is_listed)
        return None


def _mark_private(connection: Connection, record: Publish) -> None:
    """Note that what a release names is not for everybody; also of one that does not count."""
    roots = connection.execute("SELECT root FROM manifest_files WHERE manifest = ?", (record.manifest,)).fetchall()
    ids = [record.manifest, *(bytes(row["root"]) for row in roots)]
    mark_private(connection, record.namespace, record.model, ids)


def _repository(connection: Connection, publisher: int, model: str) -> tuple[int, bool]:
    """Return the number of a repository, and whether nobody spoke of it before."""
    key = (publisher, model)
    # Most records are the first of their repository. RETURNING would take more than twice the time.
    new = connection.execute("INSERT OR IGNORE INTO repositories (publisher, model) VALUES (?, ?)", key)
    if new.rowcount:
        assert new.lastrowid is not None
        return new.lastrowid, True
    row = connection.execute("SELECT number FROM repositories WHERE publisher = ? AND model = ?", key).fetchone()
    return row["number"], False


def _refusal(connection: Connection, record: Publish, repository: int, numbers: Numbers) -> str | None:
    """Return why a release may not count beside those before it, None if it may."""
    # Of this log only: what another log says must not depend on which of them came first.
    known = connection.execute(
        "SELECT kind FROM release_rows WHERE repository = ? AND log_number = ? LIMIT 1", (repository, numbers.log)
    ).fetchone()
    if known and known["kind"] != record.kind:
        return f"{record.model} is a {known['kind']}, not a {record.kind}"
    if known and record.version:
        first = connection.execute(
            "SELECT manifest FROM version_rows JOIN release_rows USING (repository, log_number, idx)"
            " WHERE version_rows.repository = ? AND version_rows.version = ? AND version_rows.log_number = ?",
            (repository, record.version, numbers.log),
        ).fetchone()
        if first and first["manifest"] != record.manifest:
            return f"version {record.version} of {record.model} was published before with other content"
    return None


def _move_branch(connection: Connection, record: Publish | Branch, repository: int, numbers: Numbers) -> None:
    # The row of a release names the manifest already.
    manifest = b"" if isinstance(record, Publish) else record.manifest
    connection.execute(
        "INSERT OR REPLACE INTO branch_rows (repository, branch, log_number, idx, manifest, depth, time)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (repository, record.branch, numbers.log, record.index, manifest, record.depth, record.time),
    )
