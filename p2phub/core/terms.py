"""What members of a federation do for each other, as a value (spec/federation.md §1).

Apart from what is signed, so that a command that only passes terms on does not load what signs.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from .choices import Kind, LinkClass
from .ids import NamespaceId
from .limits import Rate

MEMBERS_MAX = 64  # spec/federation.md §1
OFFER_DAYS_MAX = 30  # spec/federation.md §3
INVITE_SIZE_MAX = 16 * 1024  # characters; spec/federation.md §3

Members = Annotated[tuple[NamespaceId, ...], Meta(max_length=MEMBERS_MAX)]
License = Annotated[str, Meta(min_length=1, max_length=128)]


class Terms(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What members of a federation do for each other. What is not said does not limit."""

    publishers: Members = ()  # whose repositories it is about, sorted; none: the members'
    kinds: Annotated[tuple[Kind, ...], Meta(max_length=2)] = ()  # sorted; none: all
    licenses: Annotated[tuple[License, ...], Meta(max_length=64)] = ()  # SPDX ids, sorted; none: all
    replicas: Annotated[int, Meta(ge=0, le=100)] = 0  # copies that members keep together; 0: nothing is mirrored
    up: Rate | None = None  # bytes a second that a node gives the others together, at most
    down: Rate | None = None  # bytes a second that it takes of them
    # Class of the links between members. Always written: a text that is left out would have to be this very object.
    link: LinkClass = field(default_factory=lambda: "federation")

    def __post_init__(self) -> None:
        is_sorted = (
            list(self.publishers) == sorted(set(self.publishers)),
            list(self.kinds) == sorted(set(self.kinds)),
            list(self.licenses) == sorted(set(self.licenses)),
        )
        if not all(is_sorted):
            raise ValueError("lists of terms are sorted, and each item stands once")
