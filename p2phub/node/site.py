"""Leave to others of the site what they fetch over the expensive link (spec/transfer.md §3.5)."""

from __future__ import annotations

import trio

from p2phub.core.choices import LinkClass
from p2phub.core.ids import NodeId
from p2phub.protocol.lease import PATIENCE_S, Area, allowed, shares

from .download import Download

EXPENSIVE: frozenset[LinkClass] = frozenset({"federation", "internet"})


class Site:
    """The nodes of this site that download the same, as one of them sees it."""

    def __init__(self, own: NodeId, download: Download) -> None:
        self._own = own
        self._download = download
        self._mates: frozenset[NodeId] = frozenset()
        self._areas: list[Area] | None = None  # of the chunks; once there are mates
        self._places: dict[Area, int] = {}

    def set_mates(self, mates: frozenset[NodeId]) -> None:
        """Note who else of this site downloads the same now."""
        if mates == self._mates:
            return
        self._mates = mates
        if self._areas is None:
            self._areas = self._download.areas()
        self._places = shares(set(self._areas), self._own, mates)

    def allowed(self, link: LinkClass, given: bytes | None) -> bytes | None:
        """Return what a provider over `link` may be asked for: a byte a chunk, None for all.

        given: what it sent to somebody lately, in the same way, None for nothing.
        """
        silent_s = trio.current_time() - self._download.last_arrival
        if link not in EXPENSIVE or not self._mates or self._areas is None or silent_s > PATIENCE_S:
            return None
        return allowed(self._areas, self._places, is_missing=self._download.picker.is_wanted, given=given)
