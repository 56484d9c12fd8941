"""Say by what search finds a release, as tokens of a full-text table (spec/search.md §2).

The first letter says what a token is:

    n w     a word of the name; else of what else it says
    x g     the name without what stands between its words; three characters in a row of that
    f z p   a value of a facet; how many bits its size has, of its smallest variant; how many its parameters have

All but the facets follow from the release alone: so whatever verifies a release can say them too.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2phub.core.records import Entry, Summary
from p2phub.core.words import trigrams, words


class ReadyEntry(Entry, frozen=True):
    """An entry of which somebody said already by what search finds it."""

    tokens: str | None = None  # as `release_tokens` says, if it is a release


def release_tokens(model: str, summary: Summary) -> str:
    """Return all by which a release is found but its facets, each token once, with spaces between them."""
    name = words(model)
    squeezed = "".join(name)
    named = dict.fromkeys(name)
    # Each word once, where it counts most.
    said = [word for word in dict.fromkeys(words(_text(summary))) if word not in named]
    grams = sorted(trigrams(squeezed))
    # Letters before words by joining them, which takes half the time of making each token.
    found = [
        *(["n" + " n".join(named)] if named else []),
        *(["w" + " w".join(said)] if said else []),
        "x" + squeezed,
        *(["g" + " g".join(grams)] if grams else []),
        f"z{least_size(summary).bit_length()}",
    ]
    if summary.parameters is not None:
        found.append(f"p{summary.parameters.bit_length()}")
    return " ".join(found)


def word_tokens(tokens: str) -> set[str]:
    """Return those of `release_tokens` that are words: all before the name without what stands between its words."""
    return set() if tokens.startswith("x") else set(tokens.partition(" x")[0].split())


def facet_tokens(facets: Iterable[int]) -> str:
    """Return the tokens of values of facets, by their numbers, with spaces between them."""
    return " ".join([f"f{number}" for number in facets])


def least_size(summary: Summary) -> int:
    """Return the bytes that have to fit: of the smallest variant, or of all files."""
    return min((variant.size for variant in summary.variants), default=summary.size)


def _text(summary: Summary) -> str:
    single = (summary.title, summary.excerpt, summary.task or "", summary.library or "", summary.architecture or "")
    variants = [variant.name for variant in summary.variants]
    lists = (*summary.languages, *summary.tags, *summary.base_models, *summary.datasets, *variants)
    return " ".join((*single, *lists))
