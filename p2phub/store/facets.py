"""The values of facets that repositories have, and the numbers that stand for them (spec/search.md §2).

number of a value = its place among all values × FACET_NUMBERS + place of its facet in FACETS
"""

from __future__ import annotations

from sqlite3 import Connection

from p2phub.core.records import Score, Summary
from p2phub.core.search import FACETS, Facet

FACET_NUMBERS = 16  # what is left of a number divided by this says the facet
CACHED_MAX = 200_000  # values that are remembered
ANY_VARIANT = "*"  # a value of the facet `variant`: there are some

_CODES: dict[str, int] = {facet: code for code, facet in enumerate(FACETS)}


def facet_of(number: int) -> Facet:
    """Return the facet of which `number` is a value."""
    return FACETS[number % FACET_NUMBERS]


def find_facet(connection: Connection, facet: Facet, value: str) -> int | None:
    """Return the number of a value of a facet, in whatever case it is written; None if nothing has it."""
    row = connection.execute("SELECT id FROM facets WHERE facet = ? AND value = ?", (_CODES[facet], value)).fetchone()
    return row[0] if row else None


def facet_code(facet: Facet) -> int:
    """Return how the table `facets` names a facet."""
    return _CODES[facet]


def facet_values(summary: Summary, *, kind: str) -> list[tuple[Facet, str]]:
    """Return the values of facets that a release has, its publisher left out."""
    found: list[tuple[Facet, str]] = [("kind", kind)]
    single: tuple[tuple[Facet, str | None], ...] = (
        ("task", summary.task), ("library", summary.library), ("license", summary.license),
        ("architecture", summary.architecture),
    )  # fmt: skip
    found += [(facet, value) for facet, value in single if value]
    several: tuple[tuple[Facet, tuple[str, ...]], ...] = (
        ("language", summary.languages), ("tag", summary.tags), ("base_model", summary.base_models),
        ("dataset", summary.datasets), ("tensor_type", summary.tensor_types),
        ("variant", (ANY_VARIANT, *(variant.name for variant in summary.variants)) if summary.variants else ()),
        ("metric", tuple(name for score in summary.scores for name in metric_names(score))),
    )  # fmt: skip
    return found + [(facet, value) for facet, values in several for value in values]


def metric_names(score: Score) -> tuple[str, str, str]:
    """Return how people may name what was measured: by the metric, on a dataset, for a task."""
    on_dataset = f"{score.dataset}/{score.metric}"
    return score.metric, on_dataset, f"{score.task}/{on_dataset}"


class FacetValues:
    """The numbers that are given to values, some of them remembered."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}
        self._last = 0  # that was given, or a larger one

    def begin(self, connection: Connection) -> None:
        """Look, in a transaction, which numbers are given."""
        (self._last,) = connection.execute("SELECT coalesce(max(id), 0) FROM facets").fetchone()

    def number(self, connection: Connection, facet: Facet, value: str) -> int:
        """Return the number of a value, a new one if it has none. Inside a transaction."""
        number = self._known.get((facet, value))
        if number is None:
            number = self.look_up(connection, facet, value)
            if len(self._known) > CACHED_MAX:
                self._known.clear()
            self._known[facet, value] = number
        return number

    def look_up(self, connection: Connection, facet: Facet, value: str) -> int:
        """Do what `number` does, and do not remember it: for values that come once, as publishers do."""
        number = find_facet(connection, facet, value)
        if number is None:
            number = (self._last // FACET_NUMBERS + 1) * FACET_NUMBERS + _CODES[facet]
            self._last = number
            connection.execute(
                "INSERT INTO facets (id, facet, value, count) VALUES (?, ?, ?, 0)", (number, _CODES[facet], value)
            )
        return number

    def clear(self) -> None:
        self._known.clear()
