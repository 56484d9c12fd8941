"""Do what operations say that search and show."""

from __future__ import annotations

from msgspec.structs import replace

from p2phub.core.search import Page

from .. import inspect
from ..conflicts import list_conflicts
from ..events import Tell
from ..handlers import Handlers
from ..names import find
from ..node import Node
from ..operations.catalogue import ConflictInfo, Info, ListConflicts, Log, LogLine, RepositoryInfo, Search
from ..syncing import ask_for_news

SEARCH_SYNC_S = 5.0  # seconds that a search without a daemon waits for news


async def _search(node: Node, op: Search, tell: Tell) -> Page:
    # A daemon hears news by itself; a lone command asks for them first.
    if not node.endpoints:
        await ask_for_news(node, tell, timeout_s=SEARCH_SYNC_S)
    query = op.query
    if query.publisher is not None:
        query = replace(query, publisher=str(await find(node, query.publisher.lower(), tell)))
    return await inspect.search(node, query, op.query)


async def _info(node: Node, op: Info, tell: Tell) -> RepositoryInfo:
    return await inspect.info(node, op.reference, tell, refresh=True)


async def _log(node: Node, op: Log, tell: Tell) -> list[LogLine]:
    if not node.endpoints:
        await ask_for_news(node, tell, timeout_s=SEARCH_SYNC_S)
    return await inspect.log_lines(node, op.name, tell)


async def _conflicts(node: Node, op: ListConflicts, tell: Tell) -> list[ConflictInfo]:
    return await list_conflicts(node, op.namespace, tell)


HANDLERS: Handlers = {
    Search: _search,
    Info: _info,
    Log: _log,
    ListConflicts: _conflicts,
}
