"""Count the values of facets that repositories have (spec/search.md §5)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from sqlite3 import Connection

from p2phub.core.search import COUNTS_MAX, FACETS, FacetCount, FacetCounts

from .facets import FACET_NUMBERS, facet_code

ValuesOf = Callable[[Collection[int]], dict[int, str]]  # what numbers of values of facets stand for

BETWEEN = b"\xff" * 4  # stands between what repositories have; no value has this number


def all_counts(connection: Connection) -> FacetCounts:
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


def counts_of(values: ValuesOf, packed: bytes, wanted: Sequence[tuple[int, ...]], complete: bool) -> FacetCounts:
    """Return the counts of the values that some repositories have.

    packed: the numbers of values of one repository after the other, with BETWEEN them. wanted: of each of these,
    a repository must have one to be counted.
    """
    import numpy as np  # slow to import, and most searches count nothing

    numbers = np.frombuffer(packed, np.uint32)
    is_between = numbers == np.frombuffer(BETWEEN, np.uint32)
    of_repository = np.cumsum(is_between)
    counted = np.ones(of_repository[-1] + 1 if len(numbers) else 0, bool)
    for some in wanted:
        has = np.zeros_like(counted)
        has[of_repository[np.isin(numbers, some)]] = True
        counted &= has
    numbers, found = np.unique(numbers[counted[of_repository] & ~is_between], return_counts=True)
    # By facet, the frequent first, and of equals those with the lower number.
    order = np.lexsort((numbers, -found, numbers % FACET_NUMBERS))
    numbers, found = numbers[order], found[order]
    ends = np.searchsorted(numbers % FACET_NUMBERS, np.arange(len(FACETS) + 1)).tolist()
    shown: dict[str, list[tuple[int, int]]] = {}
    for facet in FACETS:
        begin, end = ends[facet_code(facet)], ends[facet_code(facet) + 1]
        best = slice(begin, min(end, begin + COUNTS_MAX))
        if begin < end:
            shown[facet] = list(zip(numbers[best].tolist(), found[best].tolist(), strict=True))
    named = values({number for counts in shown.values() for number, _ in counts})
    facets = {facet: [FacetCount(named[number], count) for number, count in counts] for facet, counts in shown.items()}
    return FacetCounts(facets, int(counted.sum()), complete)
