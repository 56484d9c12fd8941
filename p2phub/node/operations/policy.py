"""Whose records are taken in."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from p2phub.core.policy import Policy

from . import Namespaces, Operation


class ShowPolicy(Operation, tag="policy", frozen=True):
    """Show whose records are taken in."""

    result = Policy


class ChangePolicy(Operation, tag="policy-set", frozen=True):
    """Change whose records are taken in; None leaves as it is, and 0 is no limit."""

    result = Policy

    mode: Literal["open", "listed"] | None = None
    follow: Namespaces = ()
    unfollow: Namespaces = ()
    block: Namespaces = ()
    unblock: Namespaces = ()
    records_max: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    bytes_max: Annotated[int, Meta(ge=0, le=2**53)] | None = None
