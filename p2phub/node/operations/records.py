"""Say something in the own log of what is published already."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2phub.core.choices import Judgement, Verdict

from . import Done, Operation, Text


class BranchResult(Struct, frozen=True):
    """Where a branch stands now."""

    model: str
    branch: str
    revision: str | None  # None: it was deleted
    log_index: int


class MoveBranch(Operation, tag="branch", frozen=True):
    """Let a branch stand for another revision of the repository, or delete it (`revision` None)."""

    result = BranchResult

    model: Text
    branch: Text
    revision: str | None
    message: Annotated[str, Meta(max_length=4096)] = ""


class YankResult(Struct, frozen=True):
    """A version that is not chosen any more."""

    model: str
    version: str
    log_index: int


class YankVersion(Operation, tag="yank", frozen=True):
    """Let a version not be chosen any more."""

    result = YankResult

    name: Text  # MODEL@VERSION
    message: Annotated[str, Meta(max_length=4096)] = ""


class RecallResult(Struct, frozen=True):
    """A revision that was recalled."""

    model: str
    revision: str
    log_index: int


class RecallRevision(Operation, tag="recall", frozen=True):
    """Say that a revision of one's own must not be used any more, for ever."""

    result = RecallResult

    name: Text  # MODEL@REVISION
    message: Annotated[str, Meta(max_length=4096)] = ""


class AssessResult(Struct, frozen=True):
    """What was signed of some content."""

    subject: str  # id of a manifest or a file
    claim: str
    verdict: str
    log_index: int


class AssessContent(Operation, tag="attest", frozen=True):
    """Say what was found of a repository, or of a file of it."""

    result = AssessResult

    reference: Text
    claim: Judgement
    verdict: Verdict
    path: str | None = None
    metric: str | None = None  # TASK/DATASET/METRIC=VALUE
    tool: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    message: Annotated[str, Meta(max_length=4096)] = ""


class ReopenLog(Operation, tag="reopen", frozen=True):
    """Say which history of this home's log counts, which forked, and go on in a new one."""

    result = Done

    size: Annotated[int, Meta(ge=0)] | None = None  # records that count; None: all that are here


class TellIdentity(Operation, tag="id-tell", frozen=True):
    """Tell other nodes of the own identity, which changed."""

    result = Done
