"""What may be used of each class of links."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from p2phub.core.choices import LinkClass
from p2phub.core.limits import RATE_MAX, LinkSettings

from . import Operation, Text


class ShowLimits(Operation, tag="limits", frozen=True):
    """Show what may be used of each class of links, and what belongs to which."""

    result = LinkSettings


class SetLimit(Operation, tag="limits-set", frozen=True):
    """Change what may be used of a class of links; None leaves as it is."""

    result = LinkSettings

    link: LinkClass
    up: Annotated[int, Meta(ge=0, le=RATE_MAX)] | None = None  # bytes a second; 0: no limit
    down: Annotated[int, Meta(ge=0, le=RATE_MAX)] | None = None
    background: bool | None = None


class SetRange(Operation, tag="limits-range", frozen=True):
    """Let addresses in a range belong to a class of links, or to what they would without (None)."""

    result = LinkSettings

    range: Text  # CIDR, or one address
    link: LinkClass | None


class SetLabel(Operation, tag="limits-label", frozen=True):
    """Let nodes with a label, as cluster or site, belong to a class of links, or to what they would without (None)."""

    result = LinkSettings

    label: Text
    link: LinkClass | None
