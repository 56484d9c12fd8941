"""Leave to others of the site what they fetch over the expensive link, or have (spec/transfer.md §3.6)."""

from __future__ import annotations

import math

import trio

from p2phub.core.choices import LinkClass
from p2phub.core.ids import NodeId
from p2phub.protocol.flags import both
from p2phub.protocol.lease import EXPENSIVE, PATIENCE_S, Area, allowed, is_near_enough, shares

from .download import Download

_OPPOSITE = bytes.maketrans(b"\0\1", b"\1\0")


class Site:
    """The nodes of this site that download the same, as one of them sees it."""

    def __init__(self, own: NodeId, download: Download) -> None:
        self._own = own
        self._download = download
        self._mates: frozenset[NodeId] = frozenset()
        self._areas: list[Area] | None = None  # of the chunks; once there are mates
        self._places: dict[Area, int] = {}
        self._tired = -math.inf  # seconds, when nothing had come from anybody for too long

    def set_mates(self, mates: frozenset[NodeId]) -> None:
        """Note who else of this site downloads the same now."""
        if mates == self._mates:
            return
        self._mates = mates
        if self._areas is None:
            self._areas = self._download.areas()
        self._places = shares(set(self._areas), self._own, mates)

    def allowed(
        self,
        link: LinkClass,
        given: bytes | None,
        near: bytes | None,
        rates: tuple[float | None, float | None],
        near_arrival: float,
    ) -> bytes | None:
        """Return what a provider over `link` may be asked for: a byte a chunk, None for all.

        given: what it sent to somebody lately, in the same way, None for nothing.
        near: in the same way what others offer over links that are not expensive; empty: there are none.
        rates: of these together, and of the provider, in bytes a second; None if not known.
        near_arrival: when the last chunk came over a link that is not expensive, in seconds.
        """
        now = trio.current_time()
        if now - self._download.last_arrival > PATIENCE_S:
            self._tired = now
        # What then comes from afar does not make those near by worth waiting for.
        if link not in EXPENSIVE or -math.inf < self._tired >= near_arrival:
            return None
        ours = None
        if self._mates and self._areas is not None:
            ours = allowed(self._areas, self._places, is_missing=self._download.picker.is_wanted, given=given)
        if near == b"" or not is_near_enough(*rates):
            return ours
        far = bytes(self._download.count) if near is None else near.translate(_OPPOSITE)
        return far if ours is None else both(far, ours)
