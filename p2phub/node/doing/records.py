"""Do what operations say that sign records about what is published."""

from __future__ import annotations

from .. import assessing, branches
from ..conflicts import reopen_log
from ..disk import on_disk
from ..events import Tell
from ..handlers import Handlers
from ..identity import own_identity, tell_identity
from ..node import Node
from ..operations import Done
from ..operations.records import (
    AssessContent,
    AssessResult,
    BranchResult,
    MoveBranch,
    RecallResult,
    RecallRevision,
    ReopenLog,
    TellIdentity,
    YankResult,
    YankVersion,
)


async def _reopen(node: Node, op: ReopenLog, tell: Tell) -> Done:
    reopened = await on_disk(reopen_log, node, op.size)
    node.note_news(reopened.log, 0)
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
    ReopenLog: _reopen,
    TellIdentity: _tell_identity,
    MoveBranch: _move_branch,
    YankVersion: _yank,
    RecallRevision: _recall,
    AssessContent: _assess,
}
