"""What a node may use of its links, as its owner has set it (spec/links.md §1, §2).

Values alone, so that a command that only asks for them loads nothing more.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from .choices import LINK_CLASSES, LinkClass

RATE_MIN = 50_000  # bytes a second; spec/links.md §2
RATE_MAX = 2**50  # bytes a second; spec/links.md §2
RULES_MAX = 1000  # ranges, and labels; spec/links.md §1

Rate = Annotated[int, Meta(ge=RATE_MIN, le=RATE_MAX)]  # bytes a second


class Limit(Struct, frozen=True):
    """What may be used of one class of links."""

    link: LinkClass
    up: Rate | None = None  # bytes a second; None: no limit
    down: Rate | None = None
    background: bool = False  # yields to everything else


class RangeRule(Struct, frozen=True):
    """The class of peers with an address in a range."""

    range: str  # canonical CIDR, as `links.parse_range` gives it
    link: LinkClass


class LabelRule(Struct, frozen=True):
    """The class of peers whose record has a label, as cluster or site."""

    label: str
    link: LinkClass


class LinkSettings(Struct, frozen=True):
    """What the owner of a node has said about its links."""

    limits: tuple[Limit, ...] = tuple(Limit(link) for link in LINK_CLASSES)  # one for each class
    ranges: tuple[RangeRule, ...] = ()
    labels: tuple[LabelRule, ...] = ()

    def limit(self, link: LinkClass) -> Limit:
        """Return what may be used of `link`."""
        return next((limit for limit in self.limits if limit.link == link), Limit(link))
