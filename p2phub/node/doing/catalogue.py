"""Do what operations about records say: search, show, and what a publisher says of his own."""

from __future__ import annotations

from msgspec.structs import replace

from p2phub.core.search import Page

from .. import assessing, branches, inspect
from ..conflicts import list_conflicts, reopen_log
from ..disk import on_disk
from ..events import Tell
from ..handlers import Handlers
from ..identity import own_identity, tell_identity
from ..names import find
from ..node import Node
from ..operations import (
    AssessContent,
    Info,
    ListConflicts,
    Log,
    MoveBranch,
    RecallRevision,
    ReopenLog,
    Search,
    TellIdentity,
    YankVersion,
)
from ..results import AssessResult, BranchResult, ConflictInfo, Done, LogLine, RecallResult, RepositoryInfo, YankResult
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


async def _reopen(node: Node, op: ReopenLog, tell: Tell) -> Done:
    closed = await on_disk(reopen_log, node, op.size)
    node.note_news(closed, 0)
    return Done()


async def _tell_identity(node: Node, op: TellIdentity, tell: Tell) -> Done:
    identity = await on_disk(own_identity, node)
    await tell_identity(node, identity.namespace)
    return Done()


async def _move_branch(node: Node, op: MoveBranch, tell: Tell) -> BranchResult:
    return await branches.move_branch(node, op.model, op.branch, op.revision, op.message, tell)


async def _yank(node: Node, op: YankVersion, tell: Tell) -> YankResult:
    return await branches.yank(node, op.name, op.message, tell)


async def _recall(node: Node, op: RecallRevision, tell: Tell) -> RecallResult:
    return await branches.recall(node, op.name, op.message, tell)


async def _assess(node: Node, op: AssessContent, tell: Tell) -> AssessResult:
    return await assessing.assess(
        node,
        op.reference,
        op.claim,
        op.verdict,
        path=op.path,
        metric=op.metric,
        tool=op.tool,
        message=op.message,
        tell=tell,
    )


HANDLERS: Handlers = {
    Search: _search,
    Info: _info,
    Log: _log,
    ListConflicts: _conflicts,
    ReopenLog: _reopen,
    TellIdentity: _tell_identity,
    MoveBranch: _move_branch,
    YankVersion: _yank,
    RecallRevision: _recall,
    AssessContent: _assess,
}
