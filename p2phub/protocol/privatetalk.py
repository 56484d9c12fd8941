"""What nodes tell each other of private logs (spec/private.md §7). All of it is asked and told in signed requests."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2phub.core.private import PrivateHead

from .messages import EnvelopeBytes, Hash, IdentityChain

PRIVATE_HEADS_MAX = 512  # in one answer; spec/private.md §7
PRIVATE_ENTRIES_MAX = 512  # in one message of news; spec/private.md §7
ACTS_MAX = 16  # delegations of one node; spec/private.md §7


class PrivateHeadsQuery(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Asks for the private logs that the asker may read."""

    after: Hash | None = None  # only those whose id sorts after this one


class PrivateHeads(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Private logs, sorted by id, and what says for whom the answering node acts."""

    logs: Annotated[tuple[PrivateHead, ...], Meta(max_length=PRIVATE_HEADS_MAX)] = ()
    more: bool = False
    acts: Annotated[tuple[EnvelopeBytes, ...], Meta(max_length=ACTS_MAX)] = ()  # its delegations


class PrivateNews(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Tells how far a private log is, with the entries that are likely to be new."""

    log: PrivateHead
    start: Annotated[int, Meta(ge=0, le=2**53)] = 0  # index of the first entry
    entries: Annotated[tuple[EnvelopeBytes, ...], Meta(max_length=PRIVATE_ENTRIES_MAX)] = ()
    identity: IdentityChain | None = None


class PrivateTaken(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Says how many records of the log are here; to who may not read it, none."""

    size: Annotated[int, Meta(ge=0, le=2**53)] = 0
