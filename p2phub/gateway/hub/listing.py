"""List and search repositories (spec/hub-api.md §5)."""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from typing import Any

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2phub.core.choices import Kind
from p2phub.core.errors import HubError, NotFound
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.manifest import Manifest
from p2phub.core.names import parse_reference
from p2phub.node.disk import on_disk
from p2phub.node.events import ignore
from p2phub.node.node import Node
from p2phub.node.resolve import find_namespace, load_manifest
from p2phub.store.listing import PAGE_MAX, WORDS_MAX, Listed, ListQuery, Order

from .describe import moment, repository_info, summary_tags
from .errors import Refusal
from .lookup import Commit, Repository
from .reading import select
from .requests import is_true, next_page, number, query_fields, value, values

MANIFESTS_AT_ONCE = 8  # asked of peers for one page
MANIFESTS_TIMEOUT_S = 6.0  # for those of one page; what did not come is shown by its summary
PAGE_FULL_MAX = 100  # repositories in a page that shows their files
# What we keep no count of: all are 0, so that the newest come first.
_ORDERS: dict[str, Order] = {
    "lastModified": "modified", "createdAt": "created", "downloads": "modified", "likes": "modified",
    "trendingScore": "modified", "last_modified": "modified", "created_at": "created", "trending_score": "modified",
}  # fmt: skip
_FROM_MANIFEST = {"siblings", "safetensors", "config", "cardData", "usedStorage"}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


class ListingRequests:
    """Answers for those who look for something."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def page(self, request: Request, kind: Kind) -> Response:
        """Return a page of the repositories that match, the newest first."""
        fields = query_fields(request)
        expand = values(fields, "expand")
        full = is_true(fields, "full") or is_true(fields, "config") or bool(_FROM_MANIFEST & set(expand))
        largest = PAGE_FULL_MAX if full or is_true(fields, "cardData") else PAGE_MAX
        limit = number(fields, "limit", default=largest, largest=largest)
        query = await self._query(fields, kind)
        if query is None:
            return JSONResponse([])
        found = await on_disk(self._node.store.listing.page, query, limit + 1)
        shown = found[:limit]
        manifests = await self._manifests(shown) if full or is_true(fields, "cardData") else {}
        rows = [_row(listed, kind, manifests.get(listed.model.revision)) for listed in shown]
        headers = None
        if len(found) > limit:
            headers = next_page(request, _encode_cursor(query.order, shown[-1].place))
        return JSONResponse([select(row, expand) for row in rows], headers=headers)

    async def _query(self, fields: list[tuple[str, str]], kind: Kind) -> ListQuery | None:
        """Return what is asked for; None if nothing can match. Raises Refusal."""
        texts = values(fields, "search")
        filters = [*values(fields, "filter"), *values(fields, "tags")]
        for name in ("library", "language", "license", "task_categories"):
            filters += [f"{name}:{word}" for word in values(fields, name)]
        if max(len(texts), len(filters)) > WORDS_MAX or any(len(text) > 1000 for text in (*texts, *filters)):
            raise Refusal(400, f"more than {WORDS_MAX} filters, or one of more than 1000 characters")
        sort = value(fields, "sort") or "lastModified"
        if sort not in _ORDERS:
            raise Refusal(400, f"cannot sort by {sort}")
        author = value(fields, "author")
        publisher: NamespaceId | None = None
        if author:
            try:
                publisher = await find_namespace(self._node, parse_reference(f"{author}/x"))  # type: ignore[arg-type]
            except NotFound:
                return None
        # Nothing here is gated, run by others, or known to an app.
        if is_true(fields, "gated") or {name for name, _ in fields} & {"inference", "inference_provider", "apps"}:
            return None
        smallest, largest = _parameters(value(fields, "num_parameters"))
        return ListQuery(
            kind=kind,
            texts=tuple(texts),
            publisher=publisher,
            filters=tuple(filters),
            task=value(fields, "pipeline_tag"),
            parameters_min=smallest,
            parameters_max=largest,
            order=_ORDERS[sort],
            after=_decode_cursor(value(fields, "cursor"), _ORDERS[sort]),
        )

    async def _manifests(self, page: list[Listed]) -> dict[str, Manifest]:
        """Return the manifests of a page by revision, as far as they are here or come from peers in time."""
        found: dict[str, Manifest] = {}
        limiter = trio.CapacityLimiter(MANIFESTS_AT_ONCE)

        async def load(text: str) -> None:
            async with limiter:
                with suppress(HubError):
                    found[text] = await load_manifest(self._node, ManifestId.parse(text), ignore)

        with trio.move_on_after(MANIFESTS_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for text in {listed.model.revision for listed in page}:
                    nursery.start_soon(load, text)
        return found


def _row(listed: Listed, kind: Kind, manifest: Manifest | None) -> dict[str, Any]:
    """Return how a repository is shown: by its manifest if that is given, else by its summary."""
    model = listed.model
    name = f"{model.namespace}/{model.model}"
    revision = ManifestId.parse(model.revision)
    row: dict[str, Any] = {
        "_id": revision.commit[:24],
        "id": name,
        "author": model.namespace,
        "sha": revision.commit,
        "lastModified": moment(model.time),
        "createdAt": moment(listed.created),
        "private": False,
        "gated": False,
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
        whole = repository_info(Commit(repository, revision, manifest), created=listed.created, blobs=False)
        row = {**whole, "lastModified": row["lastModified"], "trendingScore": 0}
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


def _encode_cursor(order: Order, place: tuple[int, int]) -> str:
    return base64.urlsafe_b64encode(f"{order}:{place[0]}:{place[1]}".encode()).decode().rstrip("=")


def _decode_cursor(text: str | None, order: Order) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError as exc:
        raise Refusal(400, "the cursor is none of ours") from exc
    match = re.fullmatch(rf"{order}:([0-9]{{1,18}}):([0-9]{{1,18}})", plain)
    if match is None:
        raise Refusal(400, "the cursor is none of ours")
    return int(match[1]), int(match[2])
