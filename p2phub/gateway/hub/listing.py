"""List and search repositories (spec/hub-api.md §5)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from heapq import merge
from itertools import islice
from typing import Annotated, Any

import msgspec
import trio
from msgspec import Meta
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2phub.core.choices import Kind
from p2phub.core.errors import HubError, InvalidData
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.manifest import Manifest
from p2phub.core.search import (
    CONDITIONS_MAX,
    CURSOR_LENGTH_MAX,
    SEARCH_LIMIT_MAX,
    VALUE_LENGTH_MAX,
    Model,
    Page,
    Query,
    Sort,
)
from p2phub.node.disk import on_disk
from p2phub.node.node import Node

from .audience import Audience
from .describe import gated, moment, repository_info, summary_tags
from .errors import Refusal
from .lookup import Commit, Lookup, Repository
from .mirrorlist import ListedMirror, MirrorList
from .reading import select
from .requests import is_true, next_page, number, query_fields, value, values

MANIFESTS_AT_ONCE = 8  # asked of peers for one page
MANIFESTS_TIMEOUT_S = 6.0  # for those of one page; what did not come is shown by its summary
PARAMETERS_MAX = 2**63 - 1  # no model has as many
PAGE_FULL_MAX = 100  # repositories in a page that shows their files
# What we keep no count of: all are 0, so that the newest come first.
_ORDERS: dict[str, Sort] = {
    "lastModified": "newest", "createdAt": "created", "downloads": "newest", "likes": "newest",
    "trendingScore": "newest", "last_modified": "newest", "created_at": "created", "trending_score": "newest",
}  # fmt: skip
_FROM_MANIFEST = {"siblings", "safetensors", "config", "cardData", "usedStorage"}
# What a filter with a prefix means; of the first a repository has one at most.
_SINGLE = {"license": "license", "library": "library", "pipeline_tag": "task", "task_categories": "task"}
_SEVERAL = {"dataset": "datasets", "base_model": "base_models", "language": "languages"}
Cursor = Annotated[str, Meta(max_length=CURSOR_LENGTH_MAX)]
Number = Annotated[int, Meta(ge=-(2**62), le=2**62)]
Name = Annotated[str, Meta(max_length=200)]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True)
class _Place:
    """Where a page begins: in what the catalogue finds, and among mirrors."""

    cursor: str | None = None  # of the catalogue; None: at its beginning
    is_over: bool = False  # nothing more of the catalogue
    mirror: tuple[int, str] | None = None  # the last one that was shown

    def encode(self) -> str:
        data = msgspec.json.encode([self.cursor, self.is_over, self.mirror])
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str | None) -> _Place:
        """Return the place that a cursor holds; None: the beginning. Raises Refusal."""
        if text is None:
            return cls()
        try:
            if len(text) > 2 * CURSOR_LENGTH_MAX:
                raise ValueError("too long")
            data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            place = cls(*msgspec.json.decode(data, type=tuple[Cursor | None, bool, tuple[Number, Name] | None]))
        except (ValueError, msgspec.ValidationError) as exc:
            raise Refusal(400, "the cursor is none of ours") from exc
        return place


@dataclass(frozen=True)
class _Wanted:
    """What somebody looks for."""

    query: Query  # of the catalogue
    owner: str | None  # whose repositories, if that is no publisher of ours: what another hub calls him


class ListingRequests:
    """Answers for those who look for something."""

    def __init__(self, node: Node, audience: Audience) -> None:
        self._node = node
        self._lookup = Lookup(node, audience)
        self._mirrors = MirrorList(node, audience)
        # By the public door nothing is fetched, so that what is not here cannot be had there.
        self._only_here = audience is Audience.PUBLIC
        self._shows_private = audience is Audience.OWNER

    async def page(self, request: Request, kind: Kind) -> Response:
        """Return a page of the repositories that match, the newest first."""
        fields = query_fields(request)
        expand = values(fields, "expand")
        is_whole = bool(_FROM_MANIFEST & set(expand)) or any(
            is_true(fields, name) for name in ("full", "config", "cardData")
        )
        largest = PAGE_FULL_MAX if is_whole else SEARCH_LIMIT_MAX
        limit = number(fields, "limit", default=largest, largest=largest)
        place = _Place.decode(value(fields, "cursor"))
        wanted = await self._wanted(fields, kind, limit, place.cursor)
        if wanted is None:
            return JSONResponse([])
        items, behind = await self._items(wanted, place)
        rows = await self._rows(items, value(fields, "author") if wanted.query.publisher else None, is_whole=is_whole)
        rows = [*await self._private_rows(wanted.query, kind, value(fields, "author")), *rows]
        headers = next_page(request, behind.encode()) if behind else None
        return JSONResponse([select(row, expand) for row in rows], headers=headers)

    async def _items(self, wanted: _Wanted, place: _Place) -> tuple[list[Model | ListedMirror], _Place | None]:
        """Return what stands on a page, in order, and where the next one begins, if there is one. Raises Refusal."""
        query = wanted.query
        mirrors: list[ListedMirror] = []
        if query.publisher is None:
            mirrors = await self._mirrors.find(query, wanted.owner, place.mirror)
        found = Page([]) if place.is_over or wanted.owner else await self._find(query)
        both: Iterator[Model | ListedMirror] = merge(found.models, mirrors, key=partial(_age, sort=query.sort))
        items = list(islice(both, query.limit))
        shown = [item for item in items if isinstance(item, ListedMirror)]
        models, cursor = len(items) - len(shown), found.cursor
        is_over = cursor is None
        if models < len(found.models):
            # The next page goes on behind the last one of these.
            cursor = (await self._find(replace(query, limit=models))).cursor if models else query.cursor
            is_over = False
        if is_over and len(shown) == len(mirrors):
            return items, None
        return items, _Place(cursor, is_over, shown[-1].place if shown else place.mirror)

    async def _find(self, query: Query) -> Page:
        try:
            return await on_disk(self._node.store.search.find, query)
        except InvalidData as exc:
            raise Refusal(400, str(exc)) from exc

    async def _rows(
        self, items: list[Model | ListedMirror], author: str | None, *, is_whole: bool
    ) -> list[dict[str, Any]]:
        """Return how repositories are shown.

        author: what the client calls their publisher; None: by ids, which mean the same everywhere. is_whole: with
        all that manifests say, as far as these can be had in time.
        """
        manifests: dict[str, Manifest] = {}
        mirrored: dict[str, dict[str, Any]] = {}
        if is_whole:
            with trio.move_on_after(MANIFESTS_TIMEOUT_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(
                        self._load_manifests, [each for each in items if isinstance(each, Model)], manifests
                    )
                    nursery.start_soon(
                        self._mirrors.load_rows, [each for each in items if isinstance(each, ListedMirror)], mirrored
                    )
        return [
            _row(item, manifests.get(item.revision), author)
            if isinstance(item, Model)
            else mirrored.get(item.name, item.row)
            for item in items
        ]

    async def _private_rows(self, query: Query, kind: Kind, author: str | None) -> list[dict[str, Any]]:
        """Return the private repositories of one publisher that match, which search does not know: for the owner.

        They stand on the first page. A condition beside words of the name is met by none.
        """
        # None of them has a gate.
        plain = Query(
            text=query.text,
            kind=kind,
            publisher=query.publisher,
            sort=query.sort,
            limit=query.limit,
            gated=False if query.gated is False else None,
        )
        if not self._shows_private or query.publisher is None or query != plain:
            return []
        rows = []
        for repository in await on_disk(self._node.store.private.repositories):
            wanted = query.text.lower() in repository.model.lower()
            if str(repository.namespace) == query.publisher and wanted:
                with suppress(Refusal, HubError):
                    commit = await self._lookup.commit(kind, f"{author}/{repository.model}")
                    created = await on_disk(self._node.store.listing.created, repository.namespace, repository.model)
                    rows.append(repository_info(commit, created=created or commit.created, blobs=False))
        return rows

    async def _wanted(
        self, fields: list[tuple[str, str]], kind: Kind, limit: int, cursor: str | None
    ) -> _Wanted | None:
        """Return what is asked for; None if nothing can match. Raises Refusal."""
        text = " ".join(values(fields, "search"))
        filters = [*values(fields, "filter"), *values(fields, "tags")]
        for name in ("library", "language", "license", "task_categories"):
            filters += [f"{name}:{word}" for word in values(fields, name)]
        if len(filters) > CONDITIONS_MAX or any(len(word) > 1000 for word in (text, *filters)):
            raise Refusal(400, f"more than {CONDITIONS_MAX} filters, or a text of more than 1000 characters")
        sort = value(fields, "sort") or "lastModified"
        if sort not in _ORDERS:
            raise Refusal(400, f"cannot sort by {sort}")
        author = value(fields, "author")
        publisher: NamespaceId | None = None
        if author:
            publisher = await self._lookup.publisher(author)
        # Nothing here is run by others, or known to an app.
        if {name for name, _ in fields} & {"inference", "inference_provider", "apps"}:
            return None
        smallest, largest = _parameters(value(fields, "num_parameters"))
        conditions = _conditions(filters, value(fields, "pipeline_tag"))
        if conditions is None:
            return None
        query = Query(
            text=text,
            kind=kind,
            publisher=str(publisher) if publisher else None,
            parameters_min=smallest,
            parameters_max=largest,
            sort=_ORDERS[sort],
            limit=limit,
            cursor=cursor,
            here=self._only_here,
            gated=is_true(fields, "gated") if value(fields, "gated") else None,
            **conditions,
        )
        return _Wanted(query, owner=author if publisher is None else None)

    async def _load_manifests(self, page: list[Model], found: dict[str, Manifest]) -> None:
        """Put the manifests of a page into `found`, by revision, as they come."""
        limiter = trio.CapacityLimiter(MANIFESTS_AT_ONCE)

        async def load(text: str) -> None:
            async with limiter:
                with suppress(HubError, Refusal):
                    found[text] = await self._lookup.manifest(ManifestId.parse(text))

        async with trio.open_nursery() as nursery:
            for text in {model.revision for model in page}:
                nursery.start_soon(load, text)


def _age(item: Model | ListedMirror, sort: Sort) -> int:
    """Return what lists are in the order of, the smallest first."""
    if isinstance(item, ListedMirror):
        return -item.time
    return -(item.created if sort == "created" else item.time)


def _row(model: Model, manifest: Manifest | None, author: str | None) -> dict[str, Any]:
    """Return how a repository is shown: by its manifest if that is given, else by its summary.

    author: what the client calls its publisher; None: by his id.
    """
    author = author or model.namespace
    name = f"{author}/{model.model}"
    kind: Kind = "dataset" if model.kind == "dataset" else "model"
    revision = ManifestId.parse(model.revision)
    row: dict[str, Any] = {
        "_id": revision.commit[:24],
        "id": name,
        "author": author,
        "sha": revision.commit,
        "lastModified": moment(model.time),
        "createdAt": moment(model.created),
        "private": False,
        "gated": gated(model.gate),
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "trendingScore": 0,
        "tags": summary_tags(msgspec.to_builtins(model)),
    }
    if kind == "model":
        row["modelId"] = name
        if model.task:
            row["pipeline_tag"] = model.task
        if model.library:
            row["library_name"] = model.library
    elif model.excerpt:
        row["description"] = model.excerpt
    if manifest is not None:
        repository = Repository(name, kind, NamespaceId.parse(model.namespace), model.model)
        whole = repository_info(Commit(repository, revision, manifest), created=model.created, blobs=False)
        row = {**whole, "lastModified": row["lastModified"], "gated": row["gated"], "trendingScore": 0}
    return row


def _parameters(text: str | None) -> tuple[int | None, int | None]:
    """Return the bounds that `min:3B,max:12B` writes. Raises Refusal."""
    bounds: dict[str, int | None] = {"min": None, "max": None}
    for part in text.split(",") if text else ():
        match = re.fullmatch(r"(min|max):([0-9]{1,12})(\.[0-9]{1,6})?([KMBT]?)", part.strip())
        if match is None:
            raise Refusal(400, f"'{part}' is no bound of parameters: expected min:3B or max:12B")
        wanted = int(float(match[2] + (match[3] or "")) * _UNITS[match[4]])
        bounds[match[1]] = min(wanted, PARAMETERS_MAX)
    return bounds["min"], bounds["max"]


def _conditions(filters: list[str], task: str | None) -> dict[str, Any] | None:
    """Return the conditions of a query that `license:mit` and the like mean; None if no repository can meet them."""
    single: dict[str, set[str]] = {"task": {task.lower()} if task else set()}
    several: dict[str, list[str]] = {}
    for word in filters:
        prefix, colon, rest = word.partition(":")
        if colon and prefix in _SINGLE:
            single.setdefault(_SINGLE[prefix], set()).add(rest.lower())
        elif colon and prefix in _SEVERAL:
            several.setdefault(_SEVERAL[prefix], []).append(rest)
        else:
            several.setdefault("filters", []).append(word)
    texts = [text for found in (*single.values(), *several.values()) for text in found]
    if any(len(found) > 1 for found in single.values()) or not all(0 < len(text) <= VALUE_LENGTH_MAX for text in texts):
        return None
    return {
        **{name: found.pop() for name, found in single.items() if found},
        **{name: tuple(found) for name, found in several.items()},
    }
