"""What is promised to be kept."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2phub.core.choices import PLEDGE_DAYS_MAX, PLEDGE_REPLICAS_MAX

from . import Operation, Text


class Pledger(Struct, frozen=True):
    """A node that promised to keep the same, and counts."""

    node: str
    holds: int  # revisions of it
    gone: bool  # it was not seen for so long that it is not counted on
    lied: bool  # it said to have some of it, and did not give it


class PledgeInfo(Struct, frozen=True):
    """A promise that a node keeps something."""

    subject: str  # revision, NAMESPACE/MODEL or namespace
    namespace: str  # who promised
    node: str  # which node of his
    own: bool  # it is this node
    replicas: int | None  # that all who pledge so keep together; None: the node keeps one
    until: int  # seconds since 1970
    revisions: int  # that it is about now
    here: int  # of these, whole on this node
    size: int  # bytes of those whose manifest is here
    have: int | None  # copies, of the revision that lacks the most; None: this node did not promise it
    needed: int | None
    short: int  # revisions of which there are fewer copies than were promised
    others: int  # further nodes that have all of it, and promised nothing that counts
    pledgers: list[Pledger]
    problem: str | None  # why some of it does not come


class PledgeState(Struct, frozen=True):
    """How all that this node promised is kept."""

    pledges: int
    revisions: int
    here: int  # of these, whole on this node
    short: int  # of which there are fewer copies than were promised
    problem: str | None  # why one of them does not come


class PledgeAdd(Operation, tag="pledge-add", frozen=True):
    """Promise that this node keeps a repository, a revision, or all of a publisher."""

    result = PledgeInfo

    reference: Text  # REF, or a namespace
    replicas: Annotated[int, Meta(ge=1, le=PLEDGE_REPLICAS_MAX)] | None = None
    days: Annotated[int, Meta(ge=1, le=PLEDGE_DAYS_MAX)] = 365


class PledgeList(Operation, tag="pledge-ls", frozen=True):
    """Show what this node promised, or who promised to keep `reference`."""

    result = list[PledgeInfo]

    reference: Text | None = None


class PledgeRemove(Operation, tag="pledge-rm", frozen=True):
    """Take a pledge back."""

    result = PledgeInfo

    reference: Text
