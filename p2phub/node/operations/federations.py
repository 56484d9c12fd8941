"""Federations that this home belongs to, coordinates or is invited to."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2phub.core.choices import LinkClass
from p2phub.core.terms import INVITE_SIZE_MAX, OFFER_DAYS_MAX, Terms

from . import Operation, Text


class InviteInfo(Struct, frozen=True):
    """An invitation to a federation."""

    name: str
    federation: str  # its id
    text: str  # to be passed on: whoever has it can use it
    expires: int  # seconds since 1970
    namespace: str | None  # who alone may use it


class FederationTerms(Struct, frozen=True):
    """What members do for each other."""

    publishers: list[str]  # whose repositories it is about; none: the members'
    kinds: list[str]
    licenses: list[str]
    replicas: int  # copies that are kept together; 0: nothing is mirrored
    up: int | None  # bytes a second
    down: int | None
    link: LinkClass


class FederationMember(Struct, frozen=True):
    """A member, and whether its word stands."""

    namespace: str
    state: str  # member, left, other terms, over, key retired, unknown
    nodes: list[str]  # that act for it
    until: int | None  # seconds since 1970


class FederationState(Struct, frozen=True):
    """A federation that this home belongs to, or did not leave."""

    name: str
    member: bool  # this home is in force
    members: int  # that are
    warning: str | None


class FederationInfo(Struct, frozen=True):
    """A federation as far as it is known here."""

    name: str
    federation: str  # its id
    coordinator: str
    version: int  # of its charter
    expires: int  # seconds since 1970
    member: bool  # this home is one now
    members: list[FederationMember]
    terms: FederationTerms
    invitations: int = 0  # that were given out here and not used yet
    contradicted: bool = False  # its coordinator signed two charters of one version
    warning: str | None = None  # what speaks against it


FederationText = Annotated[str, Meta(min_length=1, max_length=64)]  # its name, or its id


class FederationInvite(Operation, tag="federation-invite", frozen=True):
    """Invite somebody to a federation, which is founded with `terms` if there is none of this name."""

    result = InviteInfo

    name: FederationText
    namespace: Text | None = None  # who alone may use it
    days: Annotated[int, Meta(ge=1, le=OFFER_DAYS_MAX)] = 7
    terms: Terms | None = None


class FederationRead(Operation, tag="federation-read", frozen=True):
    """Show what an invitation invites to."""

    result = FederationInfo

    text: Annotated[str, Meta(min_length=1, max_length=INVITE_SIZE_MAX)]


class FederationJoin(Operation, tag="federation-join", frozen=True):
    """Agree to the terms of an invitation, and become a member."""

    result = FederationInfo

    text: Annotated[str, Meta(min_length=1, max_length=INVITE_SIZE_MAX)]


class FederationList(Operation, tag="federation-ls", frozen=True):
    """Show the federations that are known, or one."""

    result = list[FederationInfo]

    name: FederationText | None = None


class FederationLeave(Operation, tag="federation-leave", frozen=True):
    """Be a member of a federation no longer."""

    result = FederationInfo

    name: FederationText


class FederationAccept(Operation, tag="federation-accept", frozen=True):
    """Agree to the terms as they are now."""

    result = FederationInfo

    name: FederationText


class FederationSetTerms(Operation, tag="federation-terms", frozen=True):
    """Change the terms of a federation that this home coordinates."""

    result = FederationInfo

    name: FederationText
    terms: Terms


class FederationRemove(Operation, tag="federation-rm", frozen=True):
    """Let a member belong to it no longer."""

    result = FederationInfo

    name: FederationText
    namespace: Text
