"""What to search the catalogue for, and what is found (spec/local-api.md §2)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

SEARCH_LIMIT_MAX = 1000  # rows in one answer

Sort = Literal["relevance", "newest", "size", "parameters", "name"]


class Query(Struct, frozen=True, forbid_unknown_fields=True):
    """What to search for; every condition given must hold."""

    text: Annotated[str, Meta(max_length=1000)] = ""
    kind: str | None = None
    task: str | None = None
    library: str | None = None
    license: str | None = None
    publisher: str | None = None  # namespace id as text
    parameters_min: int | None = None
    parameters_max: int | None = None
    sort: Sort = "relevance"
    limit: Annotated[int, Meta(ge=1, le=SEARCH_LIMIT_MAX)] = 20


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
