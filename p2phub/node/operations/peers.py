"""Which peers are known."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2phub.core.choices import LinkClass

from . import Done, Operation, Text


class PeerInfo(Struct, frozen=True):
    """One peer."""

    node: str
    addresses: list[str]
    link: LinkClass
    added: bool
    last_seen: int | None  # seconds since 1970
    last_error: str | None
    failures: int
    received: int  # bytes of content
    banned_until: int | None  # seconds since 1970
    ban_reason: str | None
    skew: str | None = None  # what it said last that this version does not know; None: it is understood


class ListPeers(Operation, tag="peers", frozen=True):
    """Show the peers that are known."""

    result = list[PeerInfo]


class AddPeers(Operation, tag="peers-add", frozen=True):
    """Note peers, and where they are."""

    result = list[PeerInfo]

    addresses: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=100)]
    news: bool = True  # ask them for news at once


class RemovePeer(Operation, tag="peers-rm", frozen=True):
    """Forget a peer."""

    result = Done

    node: Text  # node id or address
