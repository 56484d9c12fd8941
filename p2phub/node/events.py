"""What a running operation tells while it runs: for progress bars and for programs.

Events are told through a plain function, so telling never waits. It is called in
trio's thread alone; what runs on the disk's threads goes through `disk.from_thread`.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from p2phub.core.choices import LinkClass


class ProviderRate(Struct, frozen=True):
    """What one provider gives: a peer or an HTTP origin."""

    node: str | None  # node id
    rate: float  # bytes a second
    received: int  # bytes
    origin: str | None = None  # host and port
    state: str = "giving"  # giving, slow, busy, gone, banned
    reason: str | None = None  # why it does not give


class LinkRate(Struct, frozen=True):
    """What comes over links of one class."""

    link: LinkClass
    rate: float  # bytes a second
    received: int  # bytes


class Progress(Struct, frozen=True, tag="progress"):
    """How far a stage has come."""

    stage: str  # "hashing", "fetching", "verifying"
    done: int  # bytes
    total: int  # bytes
    rate: float = 0.0  # bytes a second
    providers: tuple[ProviderRate, ...] = ()
    waiting_for: str | None = None  # why nothing arrives, if nothing does
    here: int = 0  # of `done`: bytes that need not come, as they were here, also in other files
    links: tuple[LinkRate, ...] = ()  # the cheapest first
    left_s: float | None = None  # seconds that the rest should take; None: not known


class Notice(Struct, frozen=True, tag="notice"):
    """Something a person should know, that does not stop the operation."""

    text: str


Event = Progress | Notice
Tell = Callable[[Event], None]


def ignore(_: Event) -> None:
    """Tell nobody."""
