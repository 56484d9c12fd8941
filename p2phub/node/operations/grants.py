"""Who may read private repositories."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2phub.core.choices import GranteeKind

from . import Operation, Text


class GrantInfo(Struct, frozen=True):
    """Somebody who may read a private repository."""

    kind: GranteeKind
    to: str  # namespace id or node id
    until: int  # seconds since 1970
    renewed: bool  # the publisher's node means to renew it


class PrivateInfo(Struct, frozen=True):
    """A private repository, and who may read it beside its publisher."""

    namespace: str
    model: str
    kind: str | None  # None: nothing of it counts
    grants: list[GrantInfo]
    told: int = 0  # nodes that may read it and took what was just said of it


class GrantAccess(Operation, tag="grant", frozen=True):
    """Let somebody read a private repository of one's own."""

    result = PrivateInfo

    name: Text
    who: Text  # a namespace, a name of one, or a node
    days: Annotated[int, Meta(ge=1, le=30)] | None = None  # None: renewed as long as the node runs


class RevokeAccess(Operation, tag="revoke", frozen=True):
    """Take back what was granted."""

    result = PrivateInfo

    name: Text
    who: Text
    message: Annotated[str, Meta(max_length=4096)] = ""


class ListGrants(Operation, tag="grants", frozen=True):
    """Show who may read private repositories that are here."""

    result = list[PrivateInfo]

    name: Text | None = None
