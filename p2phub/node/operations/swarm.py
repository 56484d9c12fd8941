"""Who has a repository, and who gives it."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from p2phub.core.choices import LinkClass

from . import Operation, Text

SLOW_SHARE = 0.1  # of the rate of the fastest: a provider below is called slow; spec/transfer.md §6


class SwarmProvider(Struct, frozen=True):
    """One who gives, gave or could give a repository."""

    name: str  # node id, or the host of an origin
    state: str  # giving, slow, busy, gone, banned, has nothing, asked; of one just asked also: offers, fetching
    has: float | None  # the share of what is asked for, 0 to 1; None if that is not known
    rate: float  # bytes a second, to this node
    received: int  # bytes
    reason: str | None  # why it does not give


def with_slow(providers: list[SwarmProvider]) -> list[SwarmProvider]:
    """Return the providers, the fastest first, and those called slow that give much less than it."""
    fastest = max((provider.rate for provider in providers), default=0.0)

    def judge(provider: SwarmProvider) -> SwarmProvider:
        is_slow = provider.state == "giving" and 0 < provider.rate < fastest * SLOW_SHARE
        return replace(provider, state="slow") if is_slow else provider

    return [judge(provider) for provider in sorted(providers, key=lambda provider: (-provider.rate, provider.name))]


class SwarmInfo(Struct, frozen=True):
    """Who gives a repository, and how its download goes."""

    reference: str
    revision: str | None  # None for a single file
    files: int
    size: int  # bytes
    here: int  # bytes of it on disk
    fetching: bool  # a download of it runs in this node
    rate: float  # bytes a second
    waiting_for: str | None  # why nothing arrives, if nothing does
    providers: list[SwarmProvider]


class ExplainSwarm(Operation, tag="swarm", frozen=True):
    """Who gives a repository, at which rate, and what its download waits for."""

    result = SwarmInfo

    reference: Text


class KnownProvider(Struct, frozen=True):
    """A node that has a repository, or has some of it."""

    node: str
    addresses: list[str]
    link: LinkClass
    state: str  # offers, fetching: it says so now; said so: it did before; busy, gone: it did, and does not answer now
    has: float | None  # the share of it, 0 to 1
    time: int | None  # when it said so, seconds since 1970
    reason: str | None  # why it does not answer


class Providers(Struct, frozen=True):
    """Who has a repository."""

    reference: str
    revision: str
    asked: int  # peers that were asked now
    providers: list[KnownProvider]


class ListProviders(Operation, tag="providers", frozen=True):
    """Who has a repository, as peers say now and said before."""

    result = Providers

    reference: Text
