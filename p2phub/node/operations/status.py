"""How the node is."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from p2phub.core.limits import Limit

from . import Operation
from .federations import FederationState
from .pledges import PledgeState


class ConfirmedBy(Struct, frozen=True):
    """Another node that said to have the own log."""

    node: str
    records: int
    time: int  # seconds since 1970


class UpstreamState(Struct, frozen=True):
    """The hub that is asked for what no peer has."""

    url: str
    hub: str  # HOST[:PORT] of the hub whose names it has
    token: bool  # whether one is shown to it
    state: Literal["ready", "busy", "down"]  # busy: it asked to be left alone; down: it did not answer lately


class ClockState(Struct, frozen=True):
    """How this machine's clock agrees with those of the peers that answered lately."""

    peers: int
    apart: int  # of these, with which it differs by more than it may
    ahead: int  # seconds that the clocks of those are ahead of this machine's: the one in the middle


class EarlyRecords(Struct, frozen=True):
    """Records of the own log that others do not take in yet, as the clock was ahead when they were signed."""

    first: int  # index of the first of them
    count: int
    ahead: int  # seconds that the newest is ahead of this machine's clock


class Status(Struct, frozen=True):
    """The node as a whole."""

    node_id: str
    namespace: str | None
    addresses: list[str]
    serving: bool
    started: int | None  # seconds since 1970
    home: str
    store: str
    offline: bool
    peers: int
    peers_seen: int  # in the last five minutes
    models: int
    logs: int
    records: int
    forked_logs: list[str]
    manifests: int
    uploaded: int  # bytes since the start
    uploads: int  # running now
    limits: list[Limit]  # of classes of links that have any
    neighbours: list[str]  # node ids of those with which news is exchanged
    own_records: int  # in the log that this home publishes in
    confirmed: list[ConfirmedBy]  # who said to have how many of them, the latest first
    pledged: PledgeState
    federations: list[FederationState]
    upstream: UpstreamState | None = None  # None: no hub is asked by itself
    clock: ClockState | None = None  # None: it agrees with all
    early: EarlyRecords | None = None  # None: no record of the own log is ahead of the clock
    policy_trouble: str = ""  # why the policy file cannot be understood, so that nothing is given to anybody


class GetStatus(Operation, tag="status", frozen=True):
    """Show how the node is."""

    result = Status
