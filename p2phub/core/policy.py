"""Whose records a node takes in, and how many (spec/policy.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from .errors import InvalidName
from .ids import NamespaceId

LISTED_MAX = 10_000  # publishers in a list; spec/policy.md §1

Names = Annotated[tuple[str, ...], Meta(max_length=LISTED_MAX)]  # namespace ids as text, sorted
Most = Annotated[int, Meta(ge=1, le=2**53)]


class Policy(Struct, frozen=True, omit_defaults=True):
    """What the owner of a node has set."""

    mode: Literal["open", "listed"] = "open"  # listed: only of the publishers in `followed`
    followed: Names = ()
    blocked: Names = ()
    records_max: Most | None = None  # of one publisher
    bytes_max: Most | None = None  # of one publisher's records

    def names(self, namespace: NamespaceId) -> bool:
        """Say whether records of this publisher are wanted, as far as the lists go."""
        text = str(namespace)
        return text not in self.blocked and (self.mode == "open" or text in self.followed)


def changed(names: tuple[str, ...], add: tuple[str, ...], remove: tuple[str, ...]) -> tuple[str, ...]:
    """Return a list of publishers with some added and some removed.

    Raises InvalidName if one is no namespace id, or if there are too many.
    """
    for text in (*add, *remove):
        NamespaceId.parse(text)
    found = tuple(sorted({*names, *add} - {*remove}))
    if len(found) > LISTED_MAX:
        raise InvalidName(f"{len(found)} publishers in one list, the limit is {LISTED_MAX}")
    return found
