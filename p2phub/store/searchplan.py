"""Turn a query into what the index can be asked: tokens, conditions on rows, small sets (spec/search.md §2, §3).

A *clause* is some tokens of which one must be there. All clauses of a tier must hold, and all values of facets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from sqlite3 import Connection

from p2phub.core.errors import InvalidName
from p2phub.core.ids import NamespaceId
from p2phub.core.search import Facet, MetricBound, Query, Sort
from p2phub.core.words import distinct, squeeze, trigrams, words

from .atonce import as_list, fetch_at_once
from .facets import facet_code
from .gates import APPROVAL
from .orders import ids_sql
from .released import IS_SHOWN, is_of

WORDS_MAX = 16  # different words that are looked for; spec/search.md §2
BEGINNINGS_MAX = 8  # words that the last one may be the beginning of; spec/search.md §2
BEGINNINGS_LOOKED_AT_MAX = 2000
PART_LENGTH_MIN = 3  # characters of a part of a name; spec/search.md §2
PARTS_MAX = 32  # of a name that are looked up; the rest is compared
SMALL_MAX = 2000  # repositories in a set that is gone through one by one
SMALL_WITH_WORDS_MAX = 300  # the same, where it can be helped and each has to be read from its log
DENSE_PART = 3  # a value that more than this part of all repositories have is looked for in their rows
RARE_MAX = 30  # repositories that are expected to match, up to which one question is asked for all tiers
NESTED_MAX = 8  # clauses, after the rarest, that are only asked where those before hold; FTS5 goes 256 levels deep
FREQUENCY = 4  # about 1/n of this part of all repositories have the n-th word of the vocabulary
COUNTED_IN_NAMES_MAX = 1000  # repositories whose names have a word
_NOTHING = '"0"'  # matches nothing: no token begins with a digit
_USUAL_BITS = range(28, 37)  # of sizes and counts of parameters; a range over all of them excludes little

WHOLE_NAME, IN_NAME, ANYWHERE, PARTS = range(4)  # the tiers, the best first; spec/search.md §2

Clause = tuple[str, ...]

_ANY_FACETS: tuple[Facet, ...] = ("library", "task", "architecture", "tag", "language")
_IS_GATED = f"({APPROVAL.format('m.repository')} IS NOT NULL)"
_NAMESPACE = re.compile(r"\b[a-z2-7]{52}\b", re.IGNORECASE)


@dataclass
class Plan:
    """What must hold for a repository to be found."""

    sort: Sort
    tiers: list[list[Clause]] = field(default_factory=lambda: [[]])  # the best first
    parts: tuple[str, ...] = ()  # that the names of the last tier contain; empty: there is no such tier
    facets: list[tuple[int, ...]] = field(default_factory=list)  # each: numbers of values of which it has one
    # The same, but those that so many have that the full-text index would go through them all; rows tell faster.
    sparse: list[tuple[int, ...]] = field(default_factory=list)
    numbers: list[Clause] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)  # on a row of models, called m
    values: list[int | float] = field(default_factory=list)  # of the conditions
    counts: dict[Clause, int] = field(default_factory=dict)  # about how many repositories have a clause; else: few
    small: set[int] | None = None  # the ids of all that can be found, if they are few
    metrics: tuple[int, ...] = ()  # by whose values it can be sorted
    rarest: int | None = None  # repositories that have the rarest of the facets
    complete: bool = True  # False: `small` had to leave out some
    total: int = 0  # repositories that there are

    @property
    def has_words(self) -> bool:
        return self.tiers != [[]]

    @property
    def is_everything(self) -> bool:
        """Whether nothing was asked for but an order."""
        return not (self.has_words or self.facets or self.numbers or self.conditions or self.small is not None)

    @property
    def is_ranked(self) -> bool:
        """Whether better matches come first, and not only newer ones."""
        return self.has_words and self.sort == "relevance"

    @property
    def is_rare(self) -> bool:
        """Whether probably so few match that all can be looked at, as if each clause held independently of others."""
        clauses = [*self.tiers[ANYWHERE], *self.numbers, *map(_facet_clause, self.sparse)]
        expected = self.total * prod(self.counts.get(clause, 0) / max(1, self.total) for clause in clauses)
        return expected < RARE_MAX

    def in_tier(self, tier: int) -> str:
        """Return what finds a tier, and with it some of the better ones: an expression of the full-text index.

        What it finds need not have `dense`.
        """
        return self._match(self.tiers[tier], self.sparse)

    def in_any_tier(self) -> str:
        """Return what finds all tiers but the last one, as `in_tier` does."""
        return f"({self.in_tier(WHOLE_NAME)}) OR ({self.in_tier(ANYWHERE)})"

    def anywhere(self, *, exact: bool = False) -> str:
        """Return what finds all that match, but for parts of names; empty: everything does.

        exact: and nothing that has not `dense`.
        """
        tier = self.tiers[ANYWHERE if self.has_words else 0]
        return self._match(tier, self.facets if exact else self.sparse)

    def tier_of(self, model: str) -> int:
        """Return the best tier that a repository with this name, and all words anywhere, belongs to."""
        found = words(model)
        if self.tiers[WHOLE_NAME] == [("x" + "".join(found),)]:
            return WHOLE_NAME
        has = {"n" + word for word in found}
        return ANYWHERE if any(has.isdisjoint(clause) for clause in self.tiers[IN_NAME]) else IN_NAME

    def has_parts(self, model: str) -> bool:
        """Say whether a name contains all words as parts."""
        name = squeeze(model)
        return all(part in name for part in self.parts)

    @property
    def dense(self) -> list[tuple[int, ...]]:
        """Those of `facets` that are looked for in rows."""
        return [some for some in self.facets if some not in self.sparse]

    def _match(self, tier: list[Clause], numbers: Sequence[tuple[int, ...]]) -> str:
        clauses = [*tier, *self.numbers, *map(_facet_clause, numbers)]
        return _conjunction(sorted(clauses, key=lambda clause: self.counts.get(clause, 0)))


def make_plan(connection: Connection, query: Query) -> Plan | None:
    """Return how to find what `query` asks for; None if nothing can match."""
    text, publishers = _take_namespaces(query)
    known = _Known(connection, _values_of(query, publishers))
    plan = Plan(query.sort, total=known.total)
    if not _add_facets(known, plan, query, publishers):
        return None
    if not _add_numbers(plan, query):
        return None
    if query.gated is not None:
        plan.conditions.append(_IS_GATED if query.gated else f"NOT {_IS_GATED}")
    if not _add_metrics(known, plan, query.metrics):
        return None
    _add_words(connection, plan, text, known.total)
    _set_sparse(known, plan)
    if plan.has_words and (plan.sparse or plan.numbers):
        _count_in_names(connection, plan)
    _add_small(connection, plan, query)
    return plan


# ── facets ──────────────────────────────────────────────────────────────────


def _take_namespaces(query: Query) -> tuple[str, list[str]]:
    """Return the text without ids of namespaces, and these: they are publishers and not words."""
    publishers = [query.publisher.lower()] if query.publisher else []

    def take(found: re.Match[str]) -> str:
        try:
            publishers.append(str(NamespaceId.parse(found[0].lower())))
        except InvalidName:
            return found[0]  # a word that only looks like one
        return " "

    return _NAMESPACE.sub(take, query.text), publishers


class _Known:
    """What the index knows of values of facets: the number of each, and how many repositories have it."""

    def __init__(self, connection: Connection, asked: Sequence[tuple[Facet, str]]) -> None:
        # SQLite cuts a text in JSON at a NUL.
        wanted = [(facet, value) for facet, value in asked if "\0" not in value]
        rows = fetch_at_once(
            connection,
            "SELECT k.key AS at, f.id AS id, f.count AS count FROM json_each(?) AS k CROSS JOIN facets AS f"
            " ON f.facet = json_extract(k.value, '$[0]') AND f.value = json_extract(k.value, '$[1]')"
            " UNION ALL SELECT NULL, id, count FROM facets WHERE facet = ?",
            (as_list([facet_code(facet), value] for facet, value in wanted), facet_code("kind")),
            ("at", "id", "count"),
        )
        self._numbers = {wanted[row["at"]]: row["id"] for row in rows if row["at"] is not None}
        self._counts = {row["id"]: row["count"] for row in rows}
        # Each repository has one kind.
        self.total = sum(row["count"] for row in rows if row["at"] is None)

    def number(self, facet: Facet, value: str) -> int | None:
        """Return the number of a value, in whatever case it is written; None if nothing has it."""
        return self._numbers.get((facet, value))

    def count(self, numbers: Iterable[int]) -> int:
        return sum(self._counts[number] for number in numbers)


def _values_of(query: Query, publishers: Sequence[str]) -> list[tuple[Facet, str]]:
    """Return the values of facets of which `query` asks for each, or for some."""
    some = [(facet, value) for value in query.filters for facet in _ANY_FACETS]
    metrics: list[tuple[Facet, str]] = [("metric", bound.metric) for bound in query.metrics]
    return [*_each_of(query, publishers), *some, *metrics]


def _each_of(query: Query, publishers: Sequence[str]) -> list[tuple[Facet, str]]:
    single: tuple[tuple[Facet, str | None], ...] = (
        ("kind", query.kind), ("task", query.task), ("library", query.library), ("license", query.license),
        ("architecture", query.architecture),
    )  # fmt: skip
    several: tuple[tuple[Facet, Iterable[str]], ...] = (
        ("publisher", publishers), ("language", query.languages), ("tag", query.tags),
        ("base_model", query.base_models), ("dataset", query.datasets), ("tensor_type", query.tensor_types),
        ("variant", query.variants),
    )  # fmt: skip
    wanted = [(facet, value) for facet, value in single if value is not None]
    return wanted + [(facet, value) for facet, values in several for value in values]


def _add_facets(known: _Known, plan: Plan, query: Query, publishers: Sequence[str]) -> bool:
    for facet, value in _each_of(query, publishers):
        number = known.number(facet, value)
        if number is None:
            return False
        plan.facets.append((number,))
    for value in query.filters:
        numbers = [number for facet in _ANY_FACETS if (number := known.number(facet, value)) is not None]
        if not numbers:
            return False
        plan.facets.append(tuple(numbers))
    return True


def _set_sparse(known: _Known, plan: Plan) -> None:
    counts = {some: known.count(some) for some in plan.facets}
    plan.sparse = [some for some in plan.facets if counts[some] * DENSE_PART < known.total]
    if not (plan.sparse or plan.has_words or plan.numbers):
        # One at least leads to rows; the rarest.
        plan.sparse = sorted(plan.facets, key=counts.__getitem__)[:1]
    plan.rarest = min(counts.values(), default=None)
    plan.counts |= {_facet_clause(some): count for some, count in counts.items()}
    plan.counts |= dict.fromkeys(plan.numbers, known.total)


def _facet_clause(numbers: tuple[int, ...]) -> Clause:
    return tuple(f"f{number}" for number in numbers)


def _add_metrics(known: _Known, plan: Plan, bounds: Sequence[MetricBound]) -> bool:
    for bound in bounds:
        number = known.number("metric", bound.metric)
        if number is None:
            return False
        plan.facets.append((number,))
        plan.metrics += (number,)
        if bound.low is None and bound.high is None:
            continue
        low, high = _limits(bound)
        plan.conditions.append("EXISTS (SELECT 1 FROM scores WHERE id = m.id AND metric = ? AND value BETWEEN ? AND ?)")
        plan.values += (number, low, high)
    return True


def _limits(bound: MetricBound) -> tuple[float, float]:
    return (
        float("-inf") if bound.low is None else bound.low,
        float("inf") if bound.high is None else bound.high,
    )


# ── numbers ─────────────────────────────────────────────────────────────────


def _add_numbers(plan: Plan, query: Query) -> bool:
    low, high = query.parameters_min or 0, query.parameters_max
    if high is not None and high < low:
        return False

    def add(condition: str, value: int | None) -> None:
        if value is not None:
            plan.conditions.append(condition)
            plan.values.append(value)

    if query.parameters_max is not None or query.parameters_min is not None:
        add("m.parameters >= ?", low)
        add("m.parameters <= ?", high)
        _add_bits(plan, "p", low, high)
    add("m.size >= ?", query.size_min)
    add("m.size <= ?", query.size_max)
    add("m.needs <= ?", query.fits)
    # What a variant needs is never more than all of its repository.
    limits = [limit for limit in (query.size_max, query.fits) if limit is not None]
    if limits:
        _add_bits(plan, "z", 0, min(limits))
    return True


def _add_bits(plan: Plan, letter: str, low: int, high: int | None) -> None:
    """Let tokens exclude most of what is out of a range, if it excludes much at all."""
    bits = range(low.bit_length(), 64 if high is None else high.bit_length() + 1)
    if not set(_USUAL_BITS) <= set(bits):
        plan.numbers.append(tuple(f"{letter}{number}" for number in bits))


# ── words ───────────────────────────────────────────────────────────────────


def _add_words(connection: Connection, plan: Plan, text: str, total: int) -> None:
    """Add tiers of words; there are `total` repositories."""
    found = distinct(words(text), WORDS_MAX)
    if not found:
        return
    whole, last = found[:-1], found[-1]
    places, endings = _vocabulary(connection, whole, last)
    choices = [*([word] for word in whole), endings]

    def tier(letters: str) -> list[Clause]:
        """Return what has all words in places of these letters."""
        clauses = [tuple(letter + word for word in choice for letter in letters) for choice in choices]
        for clause, choice in zip(clauses, choices, strict=True):
            known = [places[word] for word in choice if word in places]
            plan.counts[clause] = sum(min(total, FREQUENCY * total // place) for place in known)
        return clauses

    plan.tiers = [[("x" + squeeze(text),)], tier("n"), tier("nw")]
    parts = [word for word in found if len(word) >= PART_LENGTH_MIN and word.isascii()]
    if parts and all(word.isascii() for word in found):
        grams = sorted(set().union(*map(trigrams, parts)))[:PARTS_MAX]
        plan.tiers.append([("g" + gram,) for gram in grams])
        plan.parts = tuple(found)


def _vocabulary(connection: Connection, whole: Sequence[str], last: str) -> tuple[dict[str, int], list[str]]:
    """Return the places of words in the vocabulary, and what the last word may stand for.

    That is the word itself, and the most frequent of those that begin with it.
    """
    rows = fetch_at_once(
        connection,
        "SELECT id, word, 0 AS begins FROM vocabulary WHERE word IN (SELECT value FROM json_each(?))"
        " UNION ALL SELECT * FROM (SELECT id, word, 1 FROM (SELECT id, word FROM vocabulary"
        " WHERE word > ? AND word < ? ORDER BY word LIMIT ?) ORDER BY id LIMIT ?)",
        (as_list([*whole, last]), last, last + "\U0010ffff", BEGINNINGS_LOOKED_AT_MAX, BEGINNINGS_MAX),
        ("id", "word", "begins"),
    )
    return {row["word"]: row["id"] for row in rows}, [last, *(row["word"] for row in rows if row["begins"])]


def _count_in_names(connection: Connection, plan: Plan) -> None:
    """Note of the words of names which few names have, or a rare one would come behind facets that many have."""
    clauses = plan.tiers[IN_NAME]
    rows = fetch_at_once(
        connection,
        "SELECT k.key AS at, (SELECT count(*) FROM (SELECT 1 FROM search WHERE search MATCH k.value LIMIT ?)) AS count"
        " FROM json_each(?) AS k",
        (COUNTED_IN_NAMES_MAX, as_list(map(_disjunction, clauses))),
        ("at", "count"),
    )
    plan.counts |= {clauses[row["at"]]: row["count"] for row in rows if row["count"] < COUNTED_IN_NAMES_MAX}


def _conjunction(clauses: Sequence[Clause]) -> str:
    """Return an expression for what has all clauses, the rarest of which come first; empty if there are none.

    FTS5 moves on in the list of each clause of an AND, whether or not the ones before it hold there; and a step
    through a long list takes microseconds. It would take ANDs in each other for one, were there no OR between.
    """
    if not clauses:
        return ""
    found, *others = map(_disjunction, clauses)
    for other in others[:-1][:NESTED_MAX]:
        found = f"(({found} AND {other}) OR {_NOTHING})"
    return " AND ".join([found, *(others[:-1][NESTED_MAX:]), *others[-1:]])


def _disjunction(clause: Clause) -> str:
    quoted = [f'"{token}"' for token in clause]
    return quoted[0] if len(quoted) == 1 else "(" + " OR ".join(quoted) + ")"


# ── small sets ──────────────────────────────────────────────────────────────


def _add_small(connection: Connection, plan: Plan, query: Query) -> None:
    """Note the ids of all that can be found, where the index knows only those."""
    if query.replicas_min:
        rows = connection.execute(
            "SELECT id FROM models WHERE replicas >= ? ORDER BY replicas DESC, id DESC LIMIT ?",
            (query.replicas_min, SMALL_MAX + 1),
        ).fetchall()
        _narrow(plan, [row["id"] for row in rows])
    if query.here:
        rows = connection.execute(
            "SELECT DISTINCT m.id FROM manifests"
            f" CROSS JOIN release_rows AS r ON {is_of('manifests.manifest')}"
            f" CROSS JOIN models AS m ON {IS_SHOWN}"
            f" WHERE {IS_HERE.format('manifests.manifest')} ORDER BY m.id DESC LIMIT ?",
            (SMALL_MAX + 1,),
        ).fetchall()
        _narrow(plan, [row["id"] for row in rows])
    if query.gated:
        rows = connection.execute(
            f"SELECT DISTINCT m.id FROM gate_rows CROSS JOIN models AS m USING (repository) WHERE {_IS_GATED} LIMIT ?",
            (SMALL_MAX + 1,),
        ).fetchall()
        # More are found by their rows.
        if len(rows) <= SMALL_MAX:
            _narrow(plan, [row["id"] for row in rows])
    bounds = [bound for bound in query.metrics if bound.low is not None or bound.high is not None]
    for bound, number in zip(query.metrics, plan.metrics, strict=True):
        if bound not in bounds:
            continue
        most = SMALL_WITH_WORDS_MAX if plan.has_words else SMALL_MAX
        rows = connection.execute(
            f"{ids_sql('what = ?1 AND value BETWEEN ?2 AND ?3')} LIMIT ?4",
            (number, *_limits(bound), most + 1),
        ).fetchall()
        if len(rows) <= most:
            _narrow(plan, [row["id"] for row in rows])


def _narrow(plan: Plan, ids: Sequence[int]) -> None:
    plan.complete = plan.complete and len(ids) <= SMALL_MAX
    kept = set(ids[:SMALL_MAX])
    plan.small = kept if plan.small is None else plan.small & kept


# All files of a manifest are in the store.
IS_HERE = (
    "NOT EXISTS (SELECT 1 FROM manifest_files AS f LEFT JOIN content AS c ON c.root = f.root"
    " WHERE f.manifest = {} AND f.size > 0 AND c.root IS NULL)"
)
