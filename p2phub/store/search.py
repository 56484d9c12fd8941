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
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from itertools import islice
from sqlite3 import Connection, Row
from typing import Any, NamedTuple

import cbor2
import msgspec
from msgspec.structs import replace

from p2phub.core.errors import InvalidData
from p2phub.core.records import Summary
from p2phub.core.search import FacetCounts, Page, Place, Query, Sort, check_query, encode_cursor

from . import orders
from .atonce import Columns, as_list, fetch_at_once
from .database import Database
from .facets import facet_code
from .searchcounts import BETWEEN, ValuesOf, all_counts, counts_of
from .searchindex import ReadEntries
from .searchplan import ANYWHERE, IN_NAME, PARTS, WHOLE_NAME, Plan, make_plan
from .searchresults import key_of, models
from .searchtokens import release_tokens

MATCHES_MAX = 5000  # newest matches that are sorted by a number; spec/search.md §4
COUNTED_MAX = 400  # newest that may match, whose facets are counted; spec/search.md §5
SCANNED_MAX = 10_000  # rows that one page looks at; spec/search.md §4
LAST_ID = 2**63 - 1
FEW_MAX = 60  # matches that are sorted into tiers here, and not by asking for each tier
VALUES_KEPT_MAX = 50_000  # of facets, in memory
ROWS_AT_ONCE = 512  # that are fetched together: first what a page needs, and more and more of what follows

_COLUMNS = (
    "id", "repository", "model", "log_number", "idx", "created", "size", "needs", "parameters", "replicas", "facets",
)  # fmt: skip


_ORDERS = {"created": orders.CREATED, "size": orders.SIZE, "parameters": orders.PARAMETERS, "name": orders.NAME}


class Search:
    """Answers queries."""

    def __init__(self, database: Database, read_entries: ReadEntries) -> None:
        self._database = database
        self._read_entries = read_entries
        self._values = _Values()

    def count(self) -> int:
        """Return how many repositories there are."""
        with self._database.read() as connection:
            (count,) = connection.execute(
                "SELECT coalesce(sum(count), 0) FROM facets WHERE facet = ?", (facet_code("kind"),)
            ).fetchone()
        return int(count)

    def find(self, query: Query, asked: Query | None = None) -> Page:
        """Return the page of `query`. Raises InvalidData if its cursor is not of it, or its order says too little.

        asked: the query as somebody wrote it, with names for ids, whose cursors come and go; None: there are none.
        """
        asked = asked or query
        after = check_query(asked)
        with self._database.read() as connection:
            connection.execute("BEGIN")  # all statements see one state of the index
            try:
                state = connection.execute(
                    "SELECT generation, filled, EXISTS (SELECT 1 FROM gate_rows) AS has_gates FROM search_state"
                ).fetchone()
                page = self._find(connection, query, after, state, asked)
            finally:
                connection.execute("COMMIT")
        return page if state["filled"] else _incomplete(page)

    def _find(self, connection: Connection, query: Query, after: Place | None, state: Row, asked: Query) -> Page:
        plan = make_plan(connection, query)
        if plan is None:
            return Page([], counts=FacetCounts({}, 0, True) if query.facets else None)
        values = partial(self._values.of, connection, state["generation"])
        source = _Source(connection, plan, self._read_entries, values, query.limit)
        counts = source.counts() if query.facets else None
        if not query.limit:
            return Page([], complete=source.complete, counts=counts)
        found = list(islice(source.rows(after), query.limit + 1))
        last = found[query.limit - 1].place if len(found) > query.limit else source.stopped_at
        rows = [item.row for item in found[: query.limit]]
        shown = models(connection, rows, self._read_entries, values, has_gates=state["has_gates"])
        return Page(shown, encode_cursor(asked, last) if last is not None else None, source.complete, counts)


class _Found(NamedTuple):
    """A row of models, and its place in the order."""

    row: Columns
    place: Place


class _Source:
    """The rows that a plan finds, in its order. Afterwards says whether it found all."""

    def __init__(
        self, connection: Connection, plan: Plan, read_entries: ReadEntries, values: ValuesOf, wanted: int
    ) -> None:
        """values: what numbers of values of facets stand for. wanted: rows that a page shows; more can be read."""
        self._connection = connection
        self._plan = plan
        self._read_entries = read_entries
        self._values = values
        # One more tells whether there is another page; and of those looked at, many do not have what is dense.
        self._at_first = min(wanted + 1 + (wanted // 2 if plan.dense else 0), ROWS_AT_ONCE)
        self.complete = plan.complete
        self.stopped_at: Place | None = None  # where looking was cut short, for the next page

    def rows(self, after: Place | None) -> Iterator[_Found]:
        """Return what comes after a place. Raises InvalidData if that is no place in this order."""
        plan = self._plan
        if after is not None and not _fits(after, plan.sort):
            raise InvalidData("the cursor is none of ours")
        if plan.small is not None:
            return self._in_order(self._small(plan.small, parts=plan.parts), after)
        if plan.sort in ("relevance", "newest"):
            return self._ranked(after) if plan.is_ranked else self._newest_first(after)
        if plan.sort == "metric" or plan.has_words or self._is_selective():
            return self._in_order(((0, row) for row in self._newest_matches()), after)
        if plan.sort == "replicas":
            return self._by_replicas(after)
        return self._along(_ORDERS[plan.sort], after)

    def counts(self) -> FacetCounts:
        """Count the values of facets: of all repositories if nothing was asked for, else of the newest matches."""
        plan = self._plan
        if plan.is_everything:
            return all_counts(self._connection)
        if plan.small is not None:
            blobs = [row["facets"] for _, row in self._small(plan.small)]
            return counts_of(self._values, BETWEEN.join(blobs), [], plan.complete)
        most = COUNTED_MAX if not plan.conditions else 2 * COUNTED_MAX
        # All facets of all of them in one text: not even a list of rows is made.
        rows, values = self._newest_sql(plan.anywhere(), LAST_ID, "m.facets")
        seen, facets = self._connection.execute(
            f"SELECT count(*), coalesce(group_concat(CASE WHEN ok THEN hex(facets) END, ?), '') FROM ({rows} LIMIT ?)",
            (BETWEEN.hex(), *values, most),
        ).fetchone()
        return counts_of(self._values, bytes.fromhex(facets), plan.dense, seen < most)

    # ── newest first ────────────────────────────────────────────────────────

    def _ranked(self, after: Place | None) -> Iterator[_Found]:
        """Yield one tier after the other."""
        tier, below = after or (WHOLE_NAME, LAST_ID)
        found = after is not None and tier != PARTS
        few = self._few() if tier != PARTS and self._plan.is_rare else None
        if few is not None:
            for item in self._in_order(few, after):
                found = True
                yield item
        else:
            # Names have few words, so a page that they fill is found soon.
            for each in (WHOLE_NAME, IN_NAME, ANYWHERE):
                if each >= tier:  # type: ignore[operator]
                    for item in self._tier(each, below if each == tier else LAST_ID):  # type: ignore[arg-type]
                        found = True
                        yield item
                if self.stopped_at is not None:
                    return
        if self._plan.parts and not found:
            yield from self._tier(PARTS, below if tier == PARTS else LAST_ID)  # type: ignore[arg-type]

    def _few(self) -> list[tuple[int, Columns]] | None:
        """Return all that match, each with its tier, or None if they are more than FEW_MAX."""
        rows = self._page(self._plan.in_any_tier(), LAST_ID, FEW_MAX + 1)
        if len(rows) > FEW_MAX:
            return None
        return [(self._plan.tier_of(row["model"]), row) for row in rows if self._holds(row)]

    def _tier(self, tier: int, below: int) -> Iterator[_Found]:
        """Yield what belongs to a tier and to no better one."""
        plan = self._plan
        for scanned, row in enumerate(self._newest(plan.in_tier(tier), below), start=1):
            belongs = plan.has_parts(row["model"]) if tier == PARTS else plan.tier_of(row["model"]) == tier
            if belongs and self._holds(row):
                yield _Found(row, (tier, row["id"]))
            if scanned >= SCANNED_MAX:
                self.complete, self.stopped_at = False, (tier, row["id"])
                return

    def _newest_first(self, after: Place | None) -> Iterator[_Found]:
        below = after[1] if after is not None else LAST_ID
        for scanned, row in enumerate(self._newest(self._plan.anywhere(), below), start=1):  # type: ignore[arg-type]
            if self._holds(row):
                yield _Found(row, (0, row["id"]))
            if scanned >= SCANNED_MAX:
                self.complete, self.stopped_at = False, (0, row["id"])
                return

    def _holds(self, row: Columns) -> bool:
        return row["ok"] and (not self._plan.dense or self._has_facets(row))

    def _newest(self, match: str, below: int = LAST_ID) -> Iterator[Columns]:
        """Yield what `match` finds, the newest first, with `ok`: whether the conditions hold."""
        most = self._at_first
        while True:
            rows = self._page(match, below, most)
            yield from rows
            if len(rows) < most:
                return
            below, most = rows[-1]["id"], min(2 * most, ROWS_AT_ONCE)

    def _page(self, match: str, below: int, most: int) -> list[Columns]:
        """Return the first `most` of what `match` finds before the id `below`, the newest first."""
        statement, values = self._newest_sql(match, below, "m.*")
        rows = fetch_at_once(
            self._connection, f"{statement} LIMIT ?", (*values, most), (*_COLUMNS, "ok"), blobs=("facets",)
        )
        return sorted(rows, key=lambda row: -row["id"])

    def _newest_sql(self, match: str, below: int, columns: str) -> tuple[str, tuple[object, ...]]:
        ok = self._ok
        values = self._plan.values
        if match:
            return (
                f"SELECT {columns}, ({ok}) AS ok FROM search AS s CROSS JOIN models AS m ON m.id = s.rowid"
                " WHERE s.search MATCH ? AND s.rowid < ? ORDER BY s.rowid DESC",
                (*values, match, below),
            )
        return f"SELECT {columns}, ({ok}) AS ok FROM models AS m WHERE m.id < ? ORDER BY m.id DESC", (*values, below)

    # ── other orders ────────────────────────────────────────────────────────

    def _in_order(self, rows: Iterable[tuple[int, Columns]], after: Place | None) -> Iterator[_Found]:
        """Sort rows, each with its tier, and yield those after a place."""
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

    def _key(self, step: int, row: Columns) -> Place:
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

    def _newest_matches(self) -> Iterator[Columns]:
        for number, row in enumerate(self._newest(self._plan.anywhere(exact=True))):
            if number >= MATCHES_MAX:
                self.complete = False
                return
            yield row

    def _is_selective(self) -> bool:
        """Say whether a value of a facet that is asked for is rare enough to sort all that have it."""
        return self._plan.rarest is not None and self._plan.rarest <= MATCHES_MAX

    def _by_replicas(self, after: Place | None) -> Iterator[_Found]:
        """Go along the few that have any replicas, and then along all others, the newest first."""
        if after is None or after[0] != 0:
            yield from self._walk(("m.replicas", "m.id"), after, "m.replicas > 0")
        if self.stopped_at is None:
            yield from self._walk(("m.id",), after[1:] if after and after[0] == 0 else None, "m.replicas = 0")

    def _along(self, what: int, after: Place | None) -> Iterator[_Found]:
        """Go along an order, and look at each row."""
        columns = f"m.*, ({self._ok}) AS ok"
        descending = what != orders.NAME
        rows = orders.walk(self._connection, what, after, columns, self._plan.values, descending=descending)  # type: ignore[arg-type]
        return self._walked(rows)

    def _walk(self, columns: tuple[str, ...], after: Place | None, among: str) -> Iterator[_Found]:
        """Go along the index of columns of models, the largest first, and look at each row."""
        start = f"({', '.join(columns)}) < ({', '.join('?' * len(columns))})" if after is not None else "1"
        rows = self._connection.execute(
            f"SELECT m.*, ({self._ok}) AS ok FROM models AS m WHERE {start} AND {among}"
            f" ORDER BY {', '.join(f'{column} DESC' for column in columns)}",
            (*self._plan.values, *(after or ())),
        )
        return self._walked(rows)

    @property
    def _ok(self) -> str:
        """A condition that says of a row of models whether all but words and dense facets hold."""
        return " AND ".join(["m.repository > 0", *self._plan.conditions])

    def _walked(self, rows: Iterable[Columns]) -> Iterator[_Found]:
        for scanned, row in enumerate(rows, start=1):
            if row["ok"] and self._has_facets(row):
                yield _Found(row, self._key(0, row))
            if scanned >= SCANNED_MAX:
                self.complete, self.stopped_at = False, self._key(0, row)
                return

    # ── few rows, one by one ────────────────────────────────────────────────

    def _small(self, ids: Iterable[int], parts: Collection[str] = ()) -> list[tuple[int, Columns]]:
        """Return those of the rows `ids` that match, each with its tier.

        parts: if there are any, and no row has the words, these are looked for in the names.
        """
        rows = fetch_at_once(
            self._connection,
            f"SELECT m.*, ({self._ok}) AS ok FROM json_each(?) AS k CROSS JOIN models AS m ON m.id = k.value",
            (*self._plan.values, as_list(ids)),
            (*_COLUMNS, "ok"),
            blobs=("facets",),
        )
        fitting = [row for row in rows if row["ok"] and self._has_facets(row)]
        read = self._read_entries([key_of(row) for row in fitting]) if self._plan.has_words else {}
        found = [
            (tier, row)
            for row in sorted(fitting, key=lambda row: -row["id"])
            if (tier := self._tier_of(row, read.get(key_of(row)))) is not None
        ]
        if not found and parts and self._plan.is_ranked:
            return [(PARTS, row) for row in fitting if self._plan.has_parts(row["model"])]
        return found

    def _tier_of(self, row: Columns, data: bytes | None) -> int | None:
        """Return the tier of a row by what its release, the entry `data`, says; None if it does not match."""
        plan = self._plan
        if not plan.has_words:
            return 0
        if data is None:
            return None
        summary = msgspec.convert(cbor2.loads(cbor2.loads(data)["payload"])["summary"], type=Summary)
        found = set(release_tokens(row["model"], summary).split())

        def holds(tier: int) -> bool:
            return all(any(token in found for token in clause) for clause in plan.tiers[tier])

        if holds(WHOLE_NAME) or holds(ANYWHERE):
            return plan.tier_of(row["model"]) if plan.is_ranked else 0
        return None

    def _has_facets(self, row: Columns) -> bool:
        if not self._plan.facets:
            return True
        has = set(array("I", row["facets"]))
        return all(not has.isdisjoint(numbers) for numbers in self._plan.facets)


def _fits(place: Place, sort: Sort) -> bool:
    """Say whether a place that came from outside is of this order."""
    match sort, place:
        case "relevance" | "newest", (int(tier), int(number)):
            fits = WHOLE_NAME <= tier <= PARTS
        case "name", (str(), int(number)):
            fits = True
        case "metric", (int() | float(), int(number)):
            fits = True
        case "created" | "size" | "parameters" | "replicas", (int(value), int(number)):
            fits = abs(value) <= LAST_ID
        case _:
            return False
    return fits and 0 <= number <= LAST_ID


def _incomplete(page: Page) -> Page:
    """Return a page as it is while not all repositories are in the index yet."""
    counts = replace(page.counts, complete=False) if page.counts else None
    return replace(page, complete=False, counts=counts)


class _Values:
    """What the numbers of values of facets stand for, those that searches have met kept in memory."""

    def __init__(self) -> None:
        self._known: tuple[int, dict[int, str]] = (0, {})  # the generation of the tables that this is of

    def of(self, connection: Connection, generation: int, numbers: Collection[int]) -> dict[int, str]:
        """Return the values of `numbers`, by them. generation: of the tables, as the connection sees them."""
        kept, known = self._known
        if kept != generation or len(known) > VALUES_KEPT_MAX:
            known = {}
            self._known = (generation, known)
        missing = [number for number in numbers if number not in known]
        if missing:
            rows = fetch_at_once(
                connection,
                "SELECT f.id, f.value AS value FROM json_each(?) AS k CROSS JOIN facets AS f ON f.id = k.value",
                (as_list(missing),),
                ("id", "value"),
            )
            known.update((row["id"], row["value"]) for row in rows)
        return {number: known[number] for number in numbers}
