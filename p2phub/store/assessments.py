"""What publishers found of content: evaluations, scans, reviews, endorsements, blocks (spec/records.md §5).

    publishers' logs ──assess──▶ assessments

Everybody may say anything of everything. What counts is up to whoever asks, and whom they trust in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from sqlite3 import Connection, Row

from msgspec import Struct

from p2phub.core.choices import Judgement, Verdict
from p2phub.core.ids import NamespaceId
from p2phub.core.records import Assess

from .database import Database, portions


class Assessment(Struct, frozen=True):
    """The last word of a publisher on one thing."""

    namespace: NamespaceId
    claim: Judgement
    subject: bytes  # the id of a manifest or a file
    verdict: Verdict
    metric: str  # TASK/DATASET/METRIC, or empty
    value: str  # decimal, or empty
    tool: str
    message: str
    time: int  # seconds since 1970


class Assessments:
    """What was found, by whom, as far as this node knows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def about(self, subjects: Collection[bytes]) -> list[Assessment]:
        """Return the last word of every publisher on these manifests and files, the latest first."""
        last: dict[tuple[object, ...], Assessment] = {}
        with self._database.read() as connection:
            if connection.execute("SELECT 1 FROM assessments LIMIT 1").fetchone() is None:
                return []
            for row in _rows(connection, subjects):
                found = _assessment(row)
                # Rows come with the latest first.
                last.setdefault((found.namespace, found.claim, found.subject, found.metric, found.tool), found)
        return [found for found in last.values() if found.verdict != "withdrawn"]

    def blocked(self, subjects: Collection[bytes], lists: Collection[str]) -> list[Assessment]:
        """Return what the publishers `lists` (namespace ids) block of these manifests and files."""
        if not lists:
            return []
        return [found for found in self.about(subjects) if found.claim == "blocked" and str(found.namespace) in lists]


def apply_assessment(connection: Connection, record: Assess) -> None:
    """Take in what a publisher found."""
    score = record.score
    connection.execute(
        "INSERT OR REPLACE INTO assessments"
        " (log, idx, namespace, claim, subject, verdict, metric, value, tool, message, time)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (record.log, record.index, record.namespace, record.claim, record.manifest or record.file, record.verdict,
         f"{score.task}/{score.dataset}/{score.metric}" if score else "", score.value if score else "",
         record.tool or "", record.message, record.time),
    )  # fmt: skip


def forget_assessments(connection: Connection, namespace: NamespaceId) -> None:
    """Undo all that a publisher found."""
    connection.execute("DELETE FROM assessments WHERE namespace = ?", (namespace,))


def _rows(connection: Connection, subjects: Iterable[bytes]) -> list[Row]:
    rows = []
    for some in portions(subjects):
        marks = ", ".join("?" * len(some))
        rows += connection.execute(f"SELECT * FROM assessments WHERE subject IN ({marks})", some).fetchall()
    return sorted(rows, key=lambda row: (row["time"], row["idx"], row["log"]), reverse=True)


def _assessment(row: Row) -> Assessment:
    return Assessment(
        NamespaceId(row["namespace"]),
        row["claim"],
        row["subject"],
        row["verdict"],
        row["metric"],
        row["value"],
        row["tool"],
        row["message"],
        row["time"],
    )
