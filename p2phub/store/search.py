"""Search: pages of repositories in an order, and counts of what they have (spec/search.md).

    Query ──▶ Plan ──▶ rows in their order, one after the other ──▶ Page

For relevance the words come in tiers: the name as it is typed, all words in the name, in what describes it, anywhere,
and at last parts of the name. A page takes what it needs from one tier after the other, each newest first. No score
is computed, so that a page costs the same however many match, and places stay while the catalogue grows.

An order by a number walks along an index. Only where words are searched for, or the walk would find little, the
newest MATCHES_MAX matches are sorted.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from sqlite3 import Connection, Row
from typing import Any, NamedTuple

import cbor2
import msgspec

from p2phub.core.errors import InvalidData
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.records import Summary
from p2phub.core.search import (
    COUNTS_MAX,
    FACETS,
    FacetCount,
    FacetCounts,
    Model,
    Page,
    Place,
    Query,
    Result,
    Sort,
    VariantInfo,
    decode_cursor,
    encode_cursor,
)

from .database import Database
from .searchindex import ReadEntry, facet_code, facet_of, read_release, tokens
from .searchplan import IS_HERE, Plan, Step, make_plan

MATCHES_MAX = 5000  # newest matches that are sorted by a number; spec/search.md §4
COUNTED_MAX = 2000  # newest matches whose facets are counted; spec/search.md §5
SCANNED_MAX = 10_000  # rows that one page looks at; spec/search.md §4
LAST_ID = 2**63 - 1


@dataclass(frozen=True)
class _Order:
    """An order by a column of models: the columns of its key, and whether the largest come first."""

    columns: tuple[str, ...]
    descending: bool = True


_ORDERS = {
    "created": _Order(("m.created", "m.id")),
    "size": _Order(("m.size", "m.id")),
    "parameters": _Order(("m.parameters", "m.id")),
    "replicas": _Order(("m.replicas", "m.id")),
    "name": _Order(("m.model COLLATE NOCASE", "m.id"), descending=False),
}


class Search:
    """Answers queries."""

    def __init__(self, database: Database, read_entry: ReadEntry) -> None:
        self._database = database
        self._read_entry = read_entry

    def count(self) -> int:
        """Return how many repositories there are."""
        with self._database.read() as connection:
            (count,) = connection.execute(
                "SELECT coalesce(sum(count), 0) FROM facets WHERE facet = ?", (facet_code("kind"),)
            ).fetchone()
        return int(count)

    def find(self, query: Query) -> Page:
        """Return the page of `query`. Raises InvalidData if its cursor is not of it, or its order says too little."""
        after = decode_cursor(query)
        if query.sort == "metric" and not query.metrics:
            raise InvalidData("to sort by a metric, say by which one")
        with self._database.read() as connection:
            connection.execute("BEGIN")  # all statements see one state of the index
            try:
                return self._find(connection, query, after)
            finally:
                connection.execute("COMMIT")

    def _find(self, connection: Connection, query: Query, after: Place | None) -> Page:
        plan = make_plan(connection, query)
        if plan is None:
            return Page([], counts=FacetCounts({}, 0, True) if query.facets else None)
        source = _Source(connection, plan, self._read_entry)
        counts = source.counts() if query.facets else None
        if not query.limit:
            return Page([], complete=source.complete, counts=counts)
        found = list(islice(source.rows(after), query.limit + 1))
        last = found[query.limit - 1].place if len(found) > query.limit else source.stopped_at
        models = [model for row in found[: query.limit] if (model := self._model(connection, row.row)) is not None]
        return Page(models, encode_cursor(query, last) if last is not None else None, source.complete, counts)

    def _model(self, connection: Connection, row: Row) -> Model | None:
        """Return a repository as it is shown; what its release says is in its log."""
        data = read_release(connection, self._read_entry, row["log_number"], row["idx"])
        if data is None:
            return None
        record = cbor2.loads(cbor2.loads(data)["payload"])  # checked when it came in
        summary = record["summary"]
        manifest = ManifestId(record["manifest"])
        return Model(
            namespace=str(NamespaceId(record["namespace"])),
            model=record["model"],
            kind=_kind(connection, row),
            revision=str(manifest),
            version=record.get("version"),
            time=record["time"],
            files=summary["files"],
            size=summary["size"],
            parameters=summary.get("parameters"),
            task=summary.get("task"),
            library=summary.get("library"),
            license=summary.get("license"),
            languages=summary.get("languages", []),
            tags=summary.get("tags", []),
            base_models=summary.get("base_models", []),
            datasets=summary.get("datasets", []),
            tensor_types=summary.get("tensor_types", []),
            architecture=summary.get("architecture"),
            title=summary.get("title", ""),
            excerpt=summary.get("excerpt", ""),
            created=row["created"],
            variants=[VariantInfo(item["name"], item["size"]) for item in summary.get("variants", ())],
            results=[
                Result(f"{item['task']}/{item['dataset']}/{item['metric']}", item["value"])
                for item in summary.get("scores", ())
            ],
            replicas=row["replicas"],
            replicas_seen=_seen(connection, manifest) if row["replicas"] else None,
            here=_is_here(connection, manifest),
        )


class _Found(NamedTuple):
    """A row of models, and its place in the order."""

    row: Row
    place: Place


class _Source:
    """The rows that a plan finds, in its order. Afterwards says whether it found all."""

    def __init__(self, connection: Connection, plan: Plan, read_entry: ReadEntry) -> None:
        self._connection = connection
        self._plan = plan
        self._steps = plan.steps()
        self._read_entry = read_entry
        self.complete = plan.complete
        self.stopped_at: Place | None = None  # where looking was cut short, for the next page

    def rows(self, after: Place | None) -> Iterator[_Found]:
        """Return what comes after a place. Raises InvalidData if that is no place in this order."""
        plan = self._plan
        if after is not None and not _fits(after, plan.sort, len(self._steps)):
            raise InvalidData("the cursor is none of ours")
        if plan.small is not None:
            return self._in_order(self._small(plan.small), after)
        if plan.sort in ("relevance", "newest"):
            return self._newest_first(*(after or (0, LAST_ID)))  # type: ignore[arg-type]
        if plan.sort == "metric" or plan.has_words or self._is_selective():
            return self._in_order(self._newest_matches(), after)
        if plan.sort == "replicas":
            return self._by_replicas(after)
        return self._walk(_ORDERS[plan.sort], after)

    def counts(self) -> FacetCounts:
        """Count the values of facets: of all repositories if nothing was asked for, else of the newest matches."""
        if self._plan.is_everything:
            return _all_counts(self._connection)
        numbers = array("I")
        counted, complete = 0, self._plan.complete
        if self._plan.small is not None:
            rows: Iterable[Row] = (row for _, row in self._small(self._plan.small))
        else:
            rows = self._newest(self._plan.anywhere())
        for scanned, row in enumerate(rows):
            if counted >= COUNTED_MAX or scanned >= SCANNED_MAX:
                complete = False
                break
            if row["ok"]:
                numbers.frombytes(row["facets"])
                counted += 1
        return _counts(self._connection, numbers, counted, complete)

    # ── newest first ────────────────────────────────────────────────────────

    def _newest_first(self, first: int, below: int) -> Iterator[_Found]:
        scanned = 0
        for place, step in enumerate(self._steps[first:], start=first):
            for row in self._newest(step, below):
                if row["ok"] and step.takes(row["model"]):
                    yield _Found(row, (place, row["id"]))
                scanned += 1
                if scanned >= SCANNED_MAX:
                    self.complete, self.stopped_at = False, (place, row["id"])
                    return
            below = LAST_ID

    def _newest(self, step: Step, below: int = LAST_ID) -> Iterator[Row]:
        """Yield what a step finds, the newest first, with `ok`: whether the conditions hold."""
        ok = " AND ".join(["m.repository > 0", *self._plan.conditions])
        values = self._plan.values
        if step.match:
            return self._connection.execute(
                f"SELECT m.*, ({ok}) AS ok FROM search AS s CROSS JOIN models AS m ON m.id = s.rowid"
                " WHERE s.search MATCH ? AND s.rowid < ? ORDER BY s.rowid DESC",
                (*values, step.match, below),
            )
        return self._connection.execute(
            f"SELECT m.*, ({ok}) AS ok FROM models AS m WHERE m.id < ? ORDER BY m.id DESC", (*values, below)
        )

    # ── other orders ────────────────────────────────────────────────────────

    def _in_order(self, rows: Iterable[tuple[int, Row]], after: Place | None) -> Iterator[_Found]:
        """Sort rows, each with the step that found it, and yield those after a place."""
        found = [_Found(row, self._key(step, row)) for step, row in rows if row["ok"]]
        descending = self._plan.sort != "name"
        found.sort(key=self._rank, reverse=descending)
        if after is not None:
            rank = self._rank(_Found(found[0].row, after)) if found else ()
            found = [item for item in found if (self._rank(item) < rank) == descending and item.place != after]
        return iter(found)

    def _rank(self, item: _Found) -> tuple[Any, ...]:
        step, *rest = item.place
        return (-step, *rest) if self._plan.sort == "relevance" else item.place  # type: ignore[operator]

    def _key(self, step: int, row: Row) -> Place:
        match self._plan.sort:
            case "relevance" | "newest":
                return (step, row["id"])
            case "name":
                return (row["model"].lower(), row["id"])
            case "metric":
                (value,) = self._connection.execute(
                    "SELECT max(value) FROM scores WHERE id = ? AND metric = ?", (row["id"], self._plan.metrics[0])
                ).fetchone()
                return (float("-inf") if value is None else value, row["id"])
            case column:
                return (row[column], row["id"])

    def _newest_matches(self) -> Iterator[tuple[int, Row]]:
        for number, row in enumerate(self._newest(self._plan.anywhere())):
            if number >= MATCHES_MAX:
                self.complete = False
                return
            yield 0, row

    def _is_selective(self) -> bool:
        """Say whether a value of a facet that is asked for is rare enough to sort all that have it."""
        counts = [
            self._connection.execute(
                f"SELECT sum(count) FROM facets WHERE id IN ({', '.join('?' * len(numbers))})", numbers
            ).fetchone()[0]
            for numbers in self._plan.facets
        ]
        return any(count <= MATCHES_MAX for count in counts)

    def _by_replicas(self, after: Place | None) -> Iterator[_Found]:
        """Go along the few that have any replicas, and then along all others, the newest first."""
        if after is None or after[0] != 0:
            yield from self._walk(_ORDERS["replicas"], after, "m.replicas > 0")
        if self.stopped_at is None:
            yield from self._walk(_Order(("m.id",)), after[1:] if after and after[0] == 0 else None, "m.replicas = 0")

    def _walk(self, order: _Order, after: Place | None, among: str = "1") -> Iterator[_Found]:
        """Go along the index of an order, and look at each row."""
        ok = " AND ".join(["m.repository > 0", *self._plan.conditions])
        columns = ", ".join(order.columns)
        direction, sign = ("DESC", "<") if order.descending else ("ASC", ">")
        start = f"({columns}) {sign} ({', '.join('?' * len(order.columns))})" if after is not None else "1"
        rows = self._connection.execute(
            f"SELECT m.*, ({ok}) AS ok FROM models AS m WHERE {start} AND {among}"
            f" ORDER BY {', '.join(f'{column} {direction}' for column in order.columns)}",
            (*self._plan.values, *(after or ())),
        )
        return self._walked(rows)

    def _walked(self, rows: Iterable[Row]) -> Iterator[_Found]:
        for scanned, row in enumerate(rows, start=1):
            if row["ok"] and self._has_facets(row):
                yield _Found(row, self._key(0, row))
            if scanned >= SCANNED_MAX:
                self.complete, self.stopped_at = False, self._key(0, row)
                return

    # ── few rows, one by one ────────────────────────────────────────────────

    def _small(self, ids: Iterable[int]) -> Iterator[tuple[int, Row]]:
        """Yield those of the rows `ids` that match, each with the step that would have found it."""
        ok = " AND ".join(["m.repository > 0", *self._plan.conditions])
        for number in sorted(ids, reverse=True):
            row = self._connection.execute(
                f"SELECT m.*, ({ok}) AS ok FROM models AS m WHERE id = ?", (*self._plan.values, number)
            ).fetchone()
            if row is None or not row["ok"] or not self._has_facets(row):
                continue
            step = self._step_of(row)
            if step is not None:
                yield step, row

    def _step_of(self, row: Row) -> int | None:
        if not self._plan.has_words:
            return 0
        data = read_release(self._connection, self._read_entry, row["log_number"], row["idx"])
        if data is None:
            return None
        summary = msgspec.convert(cbor2.loads(cbor2.loads(data)["payload"])["summary"], type=Summary)
        found = set(tokens(row["model"], summary, []))
        for place, step in enumerate(self._steps):
            if all(any(token in found for token in clause) for clause in step.tier) and step.takes(row["model"]):
                return place
        return None

    def _has_facets(self, row: Row) -> bool:
        if not self._plan.facets:
            return True
        has = set(array("I", row["facets"]))
        return all(not has.isdisjoint(numbers) for numbers in self._plan.facets)


def _fits(place: Place, sort: Sort, steps: int) -> bool:
    """Say whether a place that came from outside is of this order."""
    match sort, place:
        case "relevance" | "newest", (int(step), int(number)):
            fits = 0 <= step < steps
        case "name", (str(), int(number)):
            fits = True
        case "metric", (int() | float(), int(number)):
            fits = True
        case "created" | "size" | "parameters" | "replicas", (int(value), int(number)):
            fits = abs(value) <= LAST_ID
        case _:
            return False
    return fits and 0 <= number <= LAST_ID


# ── counts ──────────────────────────────────────────────────────────────────


def _all_counts(connection: Connection) -> FacetCounts:
    """Return the counts of all repositories, which are kept."""
    facets: dict[str, list[FacetCount]] = {}
    for facet in FACETS:
        rows = connection.execute(
            "SELECT value, count FROM facets WHERE facet = ? AND count > 0 ORDER BY count DESC LIMIT ?",
            (facet_code(facet), COUNTS_MAX),
        ).fetchall()
        if rows:
            facets[facet] = [FacetCount(row["value"], row["count"]) for row in rows]
    return FacetCounts(facets, sum(item.count for item in facets.get("kind", [])), True)


def _counts(connection: Connection, numbers: array[int], counted: int, complete: bool) -> FacetCounts:
    """Return the counts of these numbers of values."""
    ranked: dict[str, list[tuple[int, int]]] = {}
    for number, count in Counter(numbers).most_common():
        listed = ranked.setdefault(facet_of(number), [])
        if len(listed) < COUNTS_MAX:
            listed.append((number, count))
    facets: dict[str, list[FacetCount]] = {
        facet: [FacetCount(_value(connection, number), count) for number, count in ranked[facet]]
        for facet in FACETS
        if facet in ranked
    }
    return FacetCounts(facets, counted, complete)


def _value(connection: Connection, number: int) -> str:
    value: str = connection.execute("SELECT value FROM facets WHERE id = ?", (number,)).fetchone()[0]
    return value


# ── what a row leads to ─────────────────────────────────────────────────────


def _kind(connection: Connection, row: Row) -> str:
    return _value(connection, next(number for number in array("I", row["facets"]) if facet_of(number) == "kind"))


def _seen(connection: Connection, manifest: ManifestId) -> int | None:
    (time,) = connection.execute("SELECT max(time) FROM holders WHERE manifest = ?", (manifest,)).fetchone()
    return int(time) if time is not None else None


def _is_here(connection: Connection, manifest: ManifestId) -> bool:
    found = connection.execute(f"SELECT 1 FROM manifests WHERE manifest = ?1 AND {IS_HERE.format('?1')}", (manifest,))
    return found.fetchone() is not None
