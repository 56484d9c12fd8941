"""What search reads, kept up with what the logs say (spec/search.md §2).

    Catalogue ──touch──▶ names that changed ──before the commit──▶ rows, tokens, counts

A row of `models` is one repository, as the release that describes it says; what that release says in words stays in
its log, and is read there when it is shown or taken out again. All by which a repository is found are tokens of one
full-text table without content (`searchtokens.py`).

Ids of rows grow with the time of the release, so that the full-text index can be read from the newest match on. It
takes rows fast in the order of their ids only: so everything is written at the end of a transaction.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from sqlite3 import Connection, Row

import cbor2
import msgspec
from msgspec import Struct

from p2phub.core.ids import NamespaceId
from p2phub.core.records import Publish, Summary

from . import orders
from .database import Database
from .described import described_by, first_release
from .facets import FacetValues, facet_values, metric_names
from .orders import OrderRow
from .released import IS_SHOWN, is_of
from .searchtokens import facet_tokens, least_size, release_tokens, word_tokens

EPOCH = 1_577_836_800  # seconds: 2020-01-01 00:00 UTC; what is older counts as of then
PLACES = 4  # ids for the releases of one second; more take those of later seconds
CACHED_MAX = 200_000  # words that are remembered
REFILLED_AT_ONCE = 500  # repositories in a transaction, when all of them are looked at again
SCATTERED_PART = 4  # more than 1/n of the full-text index beside its largest segment is worth merging
SCATTERED_MIN = 2000  # pages beside it; fewer are left as they are
MERGED_AT_ONCE = 200  # pages of the full-text index that a step writes: some milliseconds

# Returns entries by the number of their log and their index, those that can be read.
ReadEntries = Callable[[Sequence[tuple[int, int]]], dict[tuple[int, int], bytes]]


class SearchIndex:
    """The tables of search, as far as they are written."""

    def __init__(self, database: Database, read_entries: ReadEntries) -> None:
        self._database = database
        self._read_entries = read_entries
        self._local = threading.local()
        self._facets = FacetValues()
        self._vocabulary: set[str] = set()  # tokens of words that are in the table, some of them
        self._generation = 0  # of the tables, when the two above were filled
        self._unordered = 0  # repositories that came since the orders were brought over, by this process
        self._groups_left = 0  # of the orders that are to be brought over

    def touch(self, repository: int) -> None:
        """Look again at a repository when the transaction ends."""
        self._batch().touched[repository] = None

    def add(self, release: NewRelease, *, is_alone: bool) -> None:
        """Look at a release when the transaction ends.

        is_alone: search may show it, and nobody spoke of its repository before.
        """
        batch = self._batch()
        batch.releases[release.log_number, release.record.index] = release
        # As nearly all are: nothing else came of its repository in this transaction.
        is_all = is_alone and release.repository not in batch.touched
        batch.touched[release.repository] = release if is_all else None

    def _batch(self) -> _Batch:
        batch: _Batch | None = getattr(self._local, "batch", None)
        if batch is None:
            batch = self._local.batch = _Batch()
            self._database.at_end(self._write, self._forget)
        return batch

    def refill(self, most: int | None = None) -> None:
        """Look again at all repositories if that is due, as after an upgrade; readers see them come.

        most: do nothing if there are more repositories than that.
        """
        with self._database.read() as connection:
            (filled,) = connection.execute("SELECT filled FROM search_state").fetchone()
            if not filled and most is not None:
                found = connection.execute("SELECT 1 FROM repositories LIMIT 1 OFFSET ?", (most,)).fetchone()
                filled = found is not None
        last = 0
        while not filled:
            with self._database.write() as connection:
                rows = connection.execute(
                    "SELECT number FROM repositories WHERE number > ? ORDER BY number LIMIT ?", (last, REFILLED_AT_ONCE)
                ).fetchall()
                for row in rows:
                    self.touch(row["number"])
                    last = row["number"]
                if not rows:
                    connection.execute("UPDATE search_state SET filled = 1")
                    filled = 1

    @staticmethod
    def clear(connection: Connection) -> None:
        """Empty the tables, inside a transaction; `refill` fills them."""
        connection.execute("INSERT INTO search (search) VALUES ('delete-all')")
        orders.clear(connection)
        for table in ("models", "scores", "facets", "vocabulary"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("UPDATE search_state SET generation = generation + 1, filled = 0")

    def merge(self) -> Iterator[int]:
        """Bring the orders over, if much is new, and the full-text index into one segment, if it is in many.

        Yields after each step about how many pages it wrote. A search looks its tokens up in each segment, and goes
        through their lists in all of them.
        """
        with self._database.read() as connection:
            groups = orders.GROUPS if orders.count_new(connection) >= orders.BROUGHT_AT else 0
        for group in range(groups):
            with self._database.write() as connection:
                brought = orders.bring_over(connection, group)
            yield brought // orders.ROWS_A_PAGE
        if not self._is_scattered():
            return
        pages = -MERGED_AT_ONCE  # less than 0: all segments; what follows goes on with them
        while True:
            with self._database.write() as connection:
                before = connection.total_changes
                connection.execute("INSERT INTO search (search, rank) VALUES ('merge', ?)", (pages,))
                # The statement itself is one; https://sqlite.org/fts5.html#the_merge_command
                if connection.total_changes - before < 2:
                    return
            pages = MERGED_AT_ONCE
            yield pages

    def _is_scattered(self) -> bool:
        with self._database.read() as connection:
            found = connection.execute("SELECT count(*) FROM search_idx GROUP BY segid").fetchall()
        sizes = [int(pages) for (pages,) in found]  # nearly
        beside = sum(sizes) - max(sizes, default=0)
        return beside > max(SCATTERED_MIN, sum(sizes) // SCATTERED_PART)

    # ── at the end of a transaction ─────────────────────────────────────────

    def _write(self, connection: Connection) -> None:
        batch: _Batch = self._local.batch
        self._local.batch = None
        (generation,) = connection.execute("SELECT generation FROM search_state").fetchone()
        if generation != self._generation:
            self._forget()
            self._generation = generation
        self._facets.begin(connection)
        batch.has_holders = connection.execute("SELECT EXISTS (SELECT 1 FROM holders)").fetchone()[0]
        for repository, release in batch.touched.items():
            if release is not None:
                self._add(connection, batch, _alone(release))
            else:
                self._refresh(connection, batch, repository)
        batch.write(connection)
        self._learn_words(connection, batch)
        self._keep_orders(connection, batch)

    def _keep_orders(self, connection: Connection, batch: _Batch) -> None:
        """Bring a group of the orders over, if much is new: so no transaction takes much longer."""
        self._unordered += len(batch.touched)
        if self._unordered >= orders.BROUGHT_AT:
            self._unordered, self._groups_left = 0, orders.GROUPS
        if self._groups_left:
            self._groups_left -= 1
            orders.bring_over(connection, self._groups_left)

    def _forget(self) -> None:
        """Trust nothing that was remembered: it may have been rolled back."""
        self._local.batch = None
        self._facets.clear()
        self._vocabulary.clear()

    def _refresh(self, connection: Connection, batch: _Batch, repository: int) -> None:
        """Let the row of a repository say what its releases say now."""
        name = connection.execute(
            "SELECT publisher, model FROM repositories WHERE number = ?", (repository,)
        ).fetchone()
        row = connection.execute("SELECT * FROM models WHERE repository = ?", (repository,)).fetchone()
        release = described_by(connection, repository) if name is not None else None
        first = first_release(connection, repository) if release is not None else None
        if release is None or first is None:
            if row is not None:
                self._remove(connection, batch, row)
            return
        shown = _Shown(
            repository, name["publisher"], name["model"], release["log_number"], release["idx"],
            release["manifest"], release["time"], first["kind"], first["time"],
        )  # fmt: skip
        if row is not None:
            wanted = {
                self._publisher(connection, batch, shown.publisher),
                self._facets.number(connection, "kind", shown.kind),
            }
            same = (row["model"], row["log_number"], row["idx"], row["created"]) == (
                shown.model,
                shown.log_number,
                shown.index,
                shown.created,
            )
            if same and wanted <= set(array("I", row["facets"])):
                return
            self._remove(connection, batch, row)
        self._add(connection, batch, shown)

    def _add(self, connection: Connection, batch: _Batch, shown: _Shown) -> None:
        known = self._description(batch, shown.log_number, shown.index, shown.model)
        if known is None:
            return
        summary, found_by = known
        found = [
            self._facets.number(connection, facet, value) for facet, value in facet_values(summary, kind=shown.kind)
        ]
        ids = list(dict.fromkeys([self._publisher(connection, batch, shown.publisher), *found]))
        parameters = -1 if summary.parameters is None else summary.parameters
        replicas = _replicas(connection, shown.manifest) if batch.has_holders else 0
        number = _insert(
            connection,
            shown.time,
            (shown.repository, shown.model, shown.log_number, shown.index, shown.created, summary.size,
             least_size(summary), parameters, replicas, array("I", ids).tobytes()),
        )  # fmt: skip
        batch.tokens.append((number, True, f"{found_by} {facet_tokens(ids)}"))
        batch.counts.update(ids)
        batch.orders += orders.places(number, shown.created, summary.size, parameters, shown.model)
        for score in summary.scores:
            if math.isfinite(value := float(score.value)):
                for metric in metric_names(score):
                    batch.scores.append((number, self._facets.number(connection, "metric", metric), value))

    def _remove(self, connection: Connection, batch: _Batch, row: Row) -> None:
        known = self._description(batch, row["log_number"], row["idx"], row["model"])
        ids = array("I", row["facets"]).tolist()
        batch.counts.subtract(ids)
        self._remove_orders(connection, row)
        if known is not None and (known[0].size, least_size(known[0])) == (row["size"], row["needs"]):
            batch.tokens.append((row["id"], False, f"{known[1]} {facet_tokens(ids)}"))
            connection.execute("DELETE FROM models WHERE id = ?", (row["id"],))
        else:
            # Nobody knows its words any more: its tokens stay, and so must the row, or another would get its id.
            connection.execute(
                "UPDATE models SET repository = -id, model = '', facets = x'' WHERE id = ?", (row["id"],)
            )

    def _remove_orders(self, connection: Connection, row: Row) -> None:
        number = row["id"]
        scores = connection.execute("DELETE FROM scores WHERE id = ? RETURNING metric, value", (number,)).fetchall()
        placed: list[OrderRow] = [(score["metric"], score["value"], number) for score in scores]
        placed += orders.places(number, row["created"], row["size"], row["parameters"], row["model"])
        orders.remove(connection, placed)

    def _publisher(self, connection: Connection, batch: _Batch, publisher: int) -> int:
        number = batch.publishers.get(publisher)
        if number is None:
            (namespace,) = connection.execute(
                "SELECT namespace FROM identities WHERE number = ?", (publisher,)
            ).fetchone()
            number = self._facets.look_up(connection, "publisher", str(NamespaceId(namespace)))
            batch.publishers[publisher] = number
        return number

    def _description(self, batch: _Batch, log_number: int, index: int, model: str) -> tuple[Summary, str] | None:
        """Return what a release says of itself, and the tokens of that; None if it cannot be read."""
        known = batch.releases.get((log_number, index))
        if known is not None:
            summary = known.record.summary
            return summary, known.tokens if known.tokens is not None else release_tokens(model, summary)
        data = self._read_entries([(log_number, index)]).get((log_number, index))
        record = cbor2.loads(cbor2.loads(data)["payload"]) if data is not None else {}
        # Files may hold something else than what the index knows, if it is wrong or they are damaged.
        if record.get("type") != "publish" or record["model"] != model:
            return None
        summary = msgspec.convert(record["summary"], type=Summary)
        return summary, release_tokens(model, summary)

    def _learn_words(self, connection: Connection, batch: _Batch) -> None:
        """Keep the words that are new, so that a beginning of one leads to it; the frequent ones first."""
        unknown: list[str] = []
        for _, is_new, found in batch.tokens:
            if is_new:
                unknown += word_tokens(found).difference(self._vocabulary)
        new = Counter(unknown)
        connection.executemany(
            "INSERT OR IGNORE INTO vocabulary (word) VALUES (?)", [(token[1:],) for token, _ in new.most_common()]
        )
        if len(self._vocabulary) > CACHED_MAX:
            self._vocabulary.clear()
        self._vocabulary.update(new)


class NewRelease(Struct, frozen=True):
    """A release that came just now."""

    repository: int  # number
    publisher: int  # number of its identity
    log_number: int
    record: Publish
    tokens: str | None  # by which it is found but for facets, if somebody said them already


class _Shown(Struct, frozen=True):
    """A repository, by the release that describes it and the one that came first."""

    repository: int
    publisher: int
    model: str
    log_number: int
    index: int
    manifest: bytes
    time: int  # seconds since 1970
    kind: str  # of the first release
    created: int  # when that came, seconds since 1970


def _alone(release: NewRelease) -> _Shown:
    """Return how a repository is shown that has one release."""
    record = release.record
    return _Shown(
        release.repository, release.publisher, record.model, release.log_number, record.index, record.manifest,
        record.time, record.kind, record.time,
    )  # fmt: skip


class _Batch:
    """What one transaction changes."""

    def __init__(self) -> None:
        # Numbers of repositories in their order; those that have one release alone, which came now, with it.
        self.touched: dict[int, NewRelease | None] = {}
        self.publishers: dict[int, int] = {}  # by number: their number among the facets
        self.has_holders = True  # any manifest is known to be held by another node
        # By number of the log and index: what need not be read from a log.
        self.releases: dict[tuple[int, int], NewRelease] = {}
        self.tokens: list[tuple[int, bool, str]] = []  # id; added, or taken out; which
        self.scores: list[tuple[int, int, float]] = []
        self.orders: list[OrderRow] = []  # but for those of scores
        self.counts: Counter[int] = Counter()

    def write(self, connection: Connection) -> None:
        for number, is_new, found in sorted(self.tokens, key=lambda item: item[:2]):
            if is_new:
                connection.execute("INSERT INTO search (rowid, tokens) VALUES (?, ?)", (number, found))
            else:
                connection.execute(
                    "INSERT INTO search (search, rowid, tokens) VALUES ('delete', ?, ?)", (number, found)
                )
        connection.executemany("INSERT OR IGNORE INTO scores (id, metric, value) VALUES (?, ?, ?)", self.scores)
        orders.add(connection, [*self.orders, *((metric, value, number) for number, metric, value in self.scores)])
        connection.executemany(
            "UPDATE facets SET count = count + ? WHERE id = ?",
            [(change, number) for number, change in self.counts.items() if change],
        )


def _insert(connection: Connection, time: int, columns: tuple[object, ...]) -> int:
    """Add a row of models with an id that nobody has: of the second `time` if one is left, else of one soon after."""
    number = start = max(1, (time - EPOCH) * PLACES)
    width = PLACES
    while True:
        done = connection.execute(
            "INSERT OR IGNORE INTO models (id, repository, model, log_number, idx, created, size, needs, parameters,"
            " replicas, facets) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (number, *columns),
        )
        if done.rowcount:
            return number
        (last,) = connection.execute(
            "SELECT max(id) FROM models WHERE id BETWEEN ? AND ?", (start, start + width - 1)
        ).fetchone()
        number = start if last is None else last + 1
        if number == start + width:
            # Wider and wider, or a crowd of one second would be gone through one by one.
            number = start = start + width
            width *= 2


def count_replicas(connection: Connection, manifests: Iterable[bytes]) -> None:
    """Let what shows these manifests say how many nodes hold them now; inside a transaction."""
    connection.executemany(
        "UPDATE models SET replicas = (SELECT count(*) FROM holders WHERE manifest = ?1) WHERE id IN"
        f" (SELECT m.id FROM release_rows AS r CROSS JOIN models AS m ON {IS_SHOWN} WHERE {is_of('?1')})",
        [(manifest,) for manifest in manifests],
    )


def _replicas(connection: Connection, manifest: bytes) -> int:
    (count,) = connection.execute("SELECT count(*) FROM holders WHERE manifest = ?", (manifest,)).fetchone()
    return int(count)
