"""Who promised to keep what (spec/pledges.md).

    publishers' logs ──pledge, unpledge──▶ pledges     the last word of each log
    this node        ──look at holders───▶ pledge_checks

The pledges follow from the logs; what was found of holders does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from sqlite3 import Connection, Row

from msgspec import Struct

from p2phub.core.ids import LogId, ManifestId, NamespaceId, NodeId
from p2phub.core.pledges import Subject
from p2phub.core.records import Pledge, Unpledge

from .database import Database
from .released import REPOSITORIES

_LAST = "ORDER BY time, idx, log"  # of several words on one subject the last counts; spec/pledges.md §2


class Promise(Struct, frozen=True):
    """What a publisher said last of what a node keeps."""

    namespace: NamespaceId
    node: NodeId
    subject: Subject
    replicas: int | None  # None: the node keeps it whatever others do
    until: int  # seconds since 1970; 0: it was taken back
    time: int  # when it was said, seconds since 1970


class Release(Struct, frozen=True, order=True):
    """A revision that a subject is about, and who published it, where that is known."""

    manifest: ManifestId
    namespace: NamespaceId | None = None
    model: str | None = None
    kind: str | None = None
    size: int | None = None  # bytes of its files, once the manifest is here
    log: LogId | None = None  # where it was published, with the index of the record
    index: int | None = None


class Check(Struct, frozen=True):
    """What was found when a node that said to hold a manifest was asked for some of it."""

    is_good: bool
    time: int  # seconds since 1970


class Pledges:
    """The pledges that are known here. Times are seconds since 1970, given by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, namespace: NamespaceId, node: NodeId, now: float) -> list[Promise]:
        """Return what `node` keeps by the word of `namespace`, sorted by subject."""
        return self._current("namespace = ? AND node = ?", (namespace, node), now)

    def about(self, subject: Subject, now: float) -> list[Promise]:
        """Return who keeps exactly this subject."""
        return self._current(
            "manifest = ? AND publisher = ? AND model = ?", _key(subject), now
        )  # fmt: skip

    def covering(self, manifest: ManifestId, now: float) -> list[Promise]:
        """Return all pledges that a manifest falls under."""
        subjects = [Subject(manifest=manifest)]
        for row in self._repositories_of(manifest):
            publisher = NamespaceId(row["namespace"])
            subjects += [Subject(publisher=publisher), Subject(publisher=publisher, model=row["model"])]
        found = [promise for subject in dict.fromkeys(subjects) for promise in self.about(subject, now)]
        return sorted(found, key=lambda each: (each.namespace, each.node, _key(each.subject)))

    def releases(self, subject: Subject) -> list[Release]:
        """Return the revisions that `subject` is about now, yanked ones too, sorted by manifest."""
        with self._database.read() as connection:
            if subject.manifest is not None:
                row = connection.execute(
                    "SELECT size FROM manifests WHERE manifest = ?", (subject.manifest,)
                ).fetchone()
                return [Release(subject.manifest, size=row["size"] if row else None)]
            rows = connection.execute(
                "SELECT r.manifest, identities.namespace, repositories.model, r.kind, m.size, logs.log, r.idx"
                " FROM identities JOIN repositories ON repositories.publisher = identities.number"
                " JOIN release_rows AS r ON r.repository = repositories.number"
                " JOIN logs ON logs.number = r.log_number LEFT JOIN manifests AS m ON m.manifest = r.manifest"
                " WHERE identities.namespace = ?1 AND (?2 = '' OR repositories.model = ?2)"
                " ORDER BY r.manifest, r.time, logs.log, r.idx",
                (subject.publisher, subject.model or ""),
            ).fetchall()
        found: dict[bytes, Release] = {}
        for row in rows:
            release = Release(
                ManifestId(row["manifest"]),
                NamespaceId(row["namespace"]),
                row["model"],
                row["kind"],
                row["size"],
                LogId(row["log"]),
                row["idx"],
            )
            found.setdefault(row["manifest"], release)
        return list(found.values())

    # ── what was found of holders ───────────────────────────────────────────

    def note_check(self, manifest: ManifestId, node: NodeId, now: float, *, is_good: bool) -> None:
        """Note whether `node` gave some of `manifest` when it was asked, to see whether it has it."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO pledge_checks (manifest, node, good, time) VALUES (?, ?, ?, ?)",
                (manifest, node, is_good, int(now)),
            )

    def checks(self, manifest: ManifestId) -> dict[NodeId, Check]:
        """Return what was found last of those that say to hold `manifest`."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT * FROM pledge_checks WHERE manifest = ?", (manifest,)).fetchall()
        return {NodeId(row["node"]): Check(bool(row["good"]), row["time"]) for row in rows}

    def forget_checks(self, before: float) -> None:
        """Forget what was found before a time."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM pledge_checks WHERE time < ?", (int(before),))

    def _current(self, condition: str, values: Collection[object], now: float) -> list[Promise]:
        with self._database.read() as connection:
            rows = connection.execute(f"SELECT * FROM pledges WHERE {condition} {_LAST}", tuple(values)).fetchall()
        last = {(row["namespace"], row["node"], row["manifest"], row["publisher"], row["model"]): row for row in rows}
        found = [_promise(row) for row in last.values() if row["until"] > now]
        return sorted(found, key=lambda each: (_key(each.subject), each.namespace, each.node))

    def _repositories_of(self, manifest: ManifestId) -> Iterable[Row]:
        with self._database.read() as connection:
            return connection.execute(REPOSITORIES, (manifest,)).fetchall()


def apply_pledge(connection: Connection, record: Pledge | Unpledge) -> None:
    """Take in what a publisher promises, or takes back."""
    replicas, until = (record.replicas, record.until) if isinstance(record, Pledge) else (None, 0)
    connection.execute(
        "INSERT OR REPLACE INTO pledges"
        " (namespace, log, node, manifest, publisher, model, replicas, until, time, idx)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (record.namespace, record.log, record.node, *_key(record.subject), replicas, until, record.time, record.index),
    )


def forget_pledges(connection: Connection, namespace: NamespaceId) -> None:
    """Undo all that a publisher promised."""
    connection.execute("DELETE FROM pledges WHERE namespace = ?", (namespace,))


def _key(subject: Subject) -> tuple[bytes, bytes, str]:
    """Return the subject as the table has it: what is not said is empty."""
    return subject.manifest or b"", subject.publisher or b"", subject.model or ""


def _promise(row: Row) -> Promise:
    subject = Subject(
        ManifestId(row["manifest"]) if row["manifest"] else None,
        NamespaceId(row["publisher"]) if row["publisher"] else None,
        row["model"] or None,
    )
    return Promise(
        NamespaceId(row["namespace"]), NodeId(row["node"]), subject, row["replicas"], row["until"], row["time"]
    )
