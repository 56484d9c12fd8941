"""List and search repositories (spec/hub-api.md §5)."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import msgspec
import trio
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
    Query,
    Sort,
)
from p2phub.node.disk import on_disk
from p2phub.node.node import Node

from .audience import Audience
from .describe import gated, moment, repository_info, summary_tags
from .errors import Refusal
from .lookup import Commit, Lookup, Repository
from .reading import select
from .requests import is_true, next_page, number, query_fields, value, values

MANIFESTS_AT_ONCE = 8  # asked of peers for one page
MANIFESTS_TIMEOUT_S = 6.0  # for those of one page; what did not come is shown by its summary
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
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


class ListingRequests:
    """Answers for those who look for something."""

    def __init__(self, node: Node, audience: Audience) -> None:
        self._node = node
        self._lookup = Lookup(node, audience)
        # By the public door nothing is fetched, so that what is not here cannot be had there.
        self._only_here = audience is Audience.PUBLIC
        self._shows_private = audience is Audience.OWNER

    async def page(self, request: Request, kind: Kind) -> Response:
        """Return a page of the repositories that match, the newest first."""
        fields = query_fields(request)
        expand = values(fields, "expand")
        full = is_true(fields, "full") or is_true(fields, "config") or bool(_FROM_MANIFEST & set(expand))
        largest = PAGE_FULL_MAX if full or is_true(fields, "cardData") else SEARCH_LIMIT_MAX
        limit = number(fields, "limit", default=largest, largest=largest)
        query = await self._query(fields, kind, limit)
        if query is None:
            return JSONResponse([])
        try:
            found = await on_disk(self._node.store.search.find, query)
        except InvalidData as exc:
            raise Refusal(400, str(exc)) from exc
        manifests = await self._manifests(found.models) if full or is_true(fields, "cardData") else {}
        # What the client calls a publisher, where all are of one; else the ids, which mean the same everywhere.
        author = value(fields, "author") if query.publisher else None
        rows = [_row(model, kind, manifests.get(model.revision), author) for model in found.models]
        rows = [*await self._private_rows(query, kind, value(fields, "author")), *rows]
        headers = next_page(request, found.cursor) if found.cursor else None
        return JSONResponse([select(row, expand) for row in rows], headers=headers)

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

    async def _query(self, fields: list[tuple[str, str]], kind: Kind, limit: int) -> Query | None:
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
        if author and (publisher := await self._lookup.publisher(author)) is None:
            return None
        # Nothing here is run by others, or known to an app.
        if {name for name, _ in fields} & {"inference", "inference_provider", "apps"}:
            return None
        smallest, largest = _parameters(value(fields, "num_parameters"))
        conditions = _conditions(filters, value(fields, "pipeline_tag"))
        if conditions is None:
            return None
        cursor = value(fields, "cursor")
        if cursor is not None and len(cursor) > CURSOR_LENGTH_MAX:
            raise Refusal(400, "the cursor is none of ours")
        return Query(
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

    async def _manifests(self, page: list[Model]) -> dict[str, Manifest]:
        """Return the manifests of a page by revision, as far as they are here or come from peers in time."""
        found: dict[str, Manifest] = {}
        limiter = trio.CapacityLimiter(MANIFESTS_AT_ONCE)

        async def load(text: str) -> None:
            async with limiter:
                with suppress(HubError, Refusal):
                    found[text] = await self._lookup.manifest(ManifestId.parse(text))

        with trio.move_on_after(MANIFESTS_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for text in {model.revision for model in page}:
                    nursery.start_soon(load, text)
        return found


def _row(model: Model, kind: Kind, manifest: Manifest | None, author: str | None) -> dict[str, Any]:
    """Return how a repository is shown: by its manifest if that is given, else by its summary.

    author: what the client calls its publisher; None: by his id.
    """
    author = author or model.namespace
    name = f"{author}/{model.model}"
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
        bounds[match[1]] = int(float(match[2] + (match[3] or "")) * _UNITS[match[4]])
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
