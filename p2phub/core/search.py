"""What to search the catalogue for, and what is found (spec/search.md)."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterator
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from .choices import GateApproval
from .errors import InvalidData

SEARCH_LIMIT_MAX = 1000  # repositories in one page; spec/search.md §1
CONDITIONS_MAX = 16  # values of one condition that is a list; spec/search.md §3
COUNTS_MAX = 20  # values of a facet that are counted for an answer; spec/search.md §5
CURSOR_LENGTH_MAX = 500  # characters; spec/search.md §4

Sort = Literal["relevance", "newest", "created", "size", "parameters", "name", "replicas", "metric"]
SORTS: tuple[Sort, ...] = get_args(Sort)

# What repositories are told apart and counted by. The place of each is part of the index: add at the end.
Facet = Literal[
    "kind", "task", "library", "license", "language", "tag", "base_model", "dataset", "publisher", "tensor_type",
    "architecture", "variant", "metric",
]  # fmt: skip
FACETS: tuple[Facet, ...] = get_args(Facet)

VALUE_LENGTH_MAX = 400  # characters of a condition; spec/search.md §3

Value = Annotated[str, Meta(min_length=1, max_length=VALUE_LENGTH_MAX)]
Values = Annotated[tuple[Value, ...], Meta(max_length=CONDITIONS_MAX)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# JSON has no infinity, and nothing is greater or less than what is no number.
Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]


class MetricBound(Struct, frozen=True, forbid_unknown_fields=True):
    """A result that the card has to claim: of `metric`, from `low` to `high`, both included."""

    metric: Value  # METRIC, DATASET/METRIC or TASK/DATASET/METRIC
    low: Finite | None = None
    high: Finite | None = None


class Query(Struct, frozen=True, forbid_unknown_fields=True):
    """What to search for; every condition given must hold."""

    text: Annotated[str, Meta(max_length=1000)] = ""
    kind: Value | None = None
    task: Value | None = None
    library: Value | None = None
    license: Value | None = None
    publisher: Value | None = None  # namespace id as text
    languages: Values = ()
    tags: Values = ()
    base_models: Values = ()
    datasets: Values = ()
    tensor_types: Values = ()
    architecture: Value | None = None
    variants: Values = ()  # "*": it has any
    filters: Values = ()  # each a library, task, architecture, tag or language
    metrics: Annotated[tuple[MetricBound, ...], Meta(max_length=4)] = ()
    parameters_min: Number | None = None
    parameters_max: Number | None = None
    size_min: Number | None = None  # bytes of all files
    size_max: Number | None = None
    fits: Number | None = None  # bytes that its smallest variant may have
    replicas_min: Number | None = None  # other nodes that were seen to hold it
    here: bool = False  # all of its files are in the store
    gated: bool | None = None  # a licence must be accepted first, or none
    sort: Sort = "relevance"
    limit: Annotated[int, Meta(ge=0, le=SEARCH_LIMIT_MAX)] = 20
    cursor: Annotated[str, Meta(max_length=CURSOR_LENGTH_MAX)] | None = None
    facets: bool = False  # count the values of each facet, too


class Result(Struct, frozen=True):
    """A value of a metric that the publisher claims."""

    metric: str  # TASK/DATASET/METRIC
    value: str  # decimal


class VariantInfo(Struct, frozen=True):
    """One choice among the files of a repository."""

    name: str
    size: int  # bytes


class Model(Struct, frozen=True):
    """A repository as search shows it: what its newest release says."""

    namespace: str
    model: str
    kind: str
    revision: str
    version: str | None
    time: int  # seconds since 1970
    files: int
    size: int  # bytes
    parameters: int | None
    task: str | None
    library: str | None
    license: str | None
    languages: list[str]
    tags: list[str]
    base_models: list[str]
    datasets: list[str]
    tensor_types: list[str]
    architecture: str | None
    title: str
    excerpt: str
    created: int = 0  # seconds since 1970; of its first release
    variants: list[VariantInfo] = []
    results: list[Result] = []
    replicas: int = 0  # other nodes that were seen to hold all of it
    replicas_seen: int | None = None  # seconds since 1970, when the last of them was
    here: bool = False  # all of its files are in the store
    gate: GateApproval | None = None  # a licence must be accepted first, and whether that is enough


class FacetCount(Struct, frozen=True):
    """How many repositories have a value."""

    value: str
    count: int


class FacetCounts(Struct, frozen=True):
    """How often the values of each facet occur, the frequent first."""

    facets: dict[str, list[FacetCount]]
    of: int  # repositories that were counted
    complete: bool  # these are all that match; else they are the newest


class Page(Struct, frozen=True):
    """Some of the repositories that match, in the order asked for."""

    models: list[Model]
    cursor: str | None = None  # for the next page; None: there is none
    # False: the page stands in the right order among the newest matches only, or looking for more was cut short.
    complete: bool = True
    counts: FacetCounts | None = None

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, index: int) -> Model:
        return self.models[index]


_NO_CURSOR = "without a cursor the first page is shown, and each page shows the cursor of the next one"

Place = tuple[int | float | str, ...]  # the key of the last repository of a page, by which the next one goes on


def encode_cursor(query: Query, place: Place) -> str:
    """Return the text that a query for the next page carries."""
    data = msgspec.json.encode([_fingerprint(query), *place])
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode_cursor(query: Query) -> Place | None:
    """Return where the page of `query` begins; None: with the first. Raises InvalidData if that is no place of it."""
    if query.cursor is None:
        return None
    try:
        data = base64.urlsafe_b64decode(query.cursor + "=" * (-len(query.cursor) % 4))
        fingerprint, *place = msgspec.json.decode(data, type=list[int | float | str])
    except ValueError as exc:
        raise InvalidData("the cursor is none of ours", hint=_NO_CURSOR) from exc
    if fingerprint != _fingerprint(query):
        text = "the cursor belongs to another search: the conditions have to be the same for all pages"
        raise InvalidData(text, hint=_NO_CURSOR)
    return tuple(place)


def check_query(query: Query) -> Place | None:
    """Return where the page of `query` begins, as `decode_cursor` does. Raises InvalidData if it cannot be answered."""
    place = decode_cursor(query)
    if query.sort == "metric" and not query.metrics:
        raise InvalidData("to sort by a metric, say by which one", hint="such as --metric 'DATASET/METRIC'")
    return place


def _fingerprint(query: Query) -> str:
    """Return a few characters that differ between queries whose pages do not follow each other."""
    same = msgspec.structs.replace(query, cursor=None, limit=0, facets=False)
    from blake3 import blake3  # commands that ask nothing load this module, too

    return blake3(msgspec.json.encode(same)).hexdigest()[:8]


_BOUND = re.compile(r"(?P<metric>[^<>=]+?)\s*(?:(?P<sign>>=|<=|=)\s*(?P<value>-?[0-9]+(?:\.[0-9]+)?))?")


def parse_metric(text: str) -> MetricBound:
    """Return the condition that `TASK/DATASET/METRIC>=60` writes; `<=` and `=` work alike, and so does none.

    Raises InvalidData, whose text is for people.
    """
    match = _BOUND.fullmatch(text.strip())
    if match is None:
        raise InvalidData(f"'{text}' is no condition such as text-ranking/mteb/ndcg_at_10>=60")
    value = float(match["value"]) if match["value"] else None
    low = value if match["sign"] in (">=", "=") else None
    high = value if match["sign"] in ("<=", "=") else None
    return MetricBound(match["metric"].strip("/ "), low, high)
