"""What must be accepted for a repository."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2phub.core.choices import LICENCE_SIZE_MAX, GateApproval, GatePer

from . import AbsolutePath, Done, Operation, Text


class ReceiptInfo(Struct, frozen=True):
    """Who accepted what a gate asks for."""

    namespace: str
    node: str | None  # where each person must accept
    time: int  # seconds since 1970
    state: str  # good, waiting, refused


class GateInfo(Struct, frozen=True):
    """What must be accepted for a repository."""

    reference: str  # NAMESPACE/MODEL
    gate: str  # leaf hash of its record, in hex
    name: str  # of the licence
    licence: str  # its text
    per: str  # person or institution
    approval: str  # automatic or manual
    time: int  # when it was set, seconds since 1970
    state: str  # yours; asked, waiting (for the publisher's word), good, refused
    receipts: list[ReceiptInfo]  # of one's own gate: what was shown to this node


class GateSet(Operation, tag="gate-set", frozen=True):
    """Let whoever wants the content of one's own model accept a licence first."""

    result = GateInfo

    model: Text
    name: Annotated[str, Meta(min_length=1, max_length=128)]  # of the licence
    licence: Annotated[str, Meta(min_length=1, max_length=LICENCE_SIZE_MAX)]
    per: GatePer = "institution"
    approval: GateApproval = "automatic"


class GateOff(Operation, tag="gate-off", frozen=True):
    """Let everybody have the content of one's own model again."""

    result = Done

    model: Text
    message: Annotated[str, Meta(max_length=4096)] = ""


class GateShow(Operation, tag="gate-show", frozen=True):
    """What must be accepted for a repository."""

    result = GateInfo

    reference: Text


class Accepted(Struct, frozen=True):
    """What was accepted here."""

    reference: str  # NAMESPACE/MODEL
    name: str  # of the licence
    namespace: str  # who accepted
    state: str  # good, waiting (for the publisher's word), refused
    told: int  # peers that took the receipt now
    file: str | None  # where it was written


class GateAccept(Operation, tag="gate-accept", frozen=True):
    """Accept what a repository's gate asks for."""

    result = Accepted

    reference: Text
    gate: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None  # as it was shown; None: what it asks for now
    to: AbsolutePath | None = None  # a file for the receipt
    given: AbsolutePath | None = None  # such a file of another machine of the same institution


class GateDecide(Operation, tag="gate-decide", frozen=True):
    """Approve or refuse what somebody gave for one's own model."""

    result = GateInfo

    model: Text
    who: Text  # a publisher, or the path of the file that `gate-accept` wrote
    approved: bool = True
    days: Annotated[int, Meta(ge=1, le=36500)] | None = None  # None: as long as the gate stands
    message: Annotated[str, Meta(max_length=4096)] = ""


class GateList(Operation, tag="gate-ls", frozen=True):
    """The own gates, and who accepted what they ask for."""

    result = list[GateInfo]


class GateAccepted(Operation, tag="gate-accepted", frozen=True):
    """What was accepted here."""

    result = list[Accepted]
