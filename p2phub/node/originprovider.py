"""An HTTP origin as a provider of one download (spec/origins.md §2, §4)."""

from __future__ import annotations

from p2phub.core.choices import LinkClass
from p2phub.core.errors import FileRefused, OnlyWhole
from p2phub.net.connection import ContentConnection

from .download import Download, ProviderReport
from .links import Links
from .origins import REFUSALS_MAX, Origin
from .providers import Provider


class OriginProvider(Provider):
    """An origin. It is believed to have all its files whole until it refuses one."""

    def __init__(
        self, origin: Origin, report: ProviderReport, link: LinkClass, links: Links, download: Download
    ) -> None:
        super().__init__(report, link)
        self._origin = origin
        self._links = links
        self._download = download
        self._refused: set[bytes] = set()  # roots of files
        self._last_refusal: FileRefused | None = None
        self._gives_parts = True

    async def connect(self) -> ContentConnection:
        return self._origin.connect(self._links.downloading(self.link))

    async def look(self) -> bool:
        """Raises FileRefused if it has refused everything that is missing, or too much."""
        files = self._download.files
        places = [
            place
            for place in self._download.incomplete()
            if files[place].root in self._origin.files and files[place].root not in self._refused
        ]
        is_stranger = len(self._refused) >= REFUSALS_MAX and not self.report.received
        if self._last_refusal is not None and (not places or is_stranger):
            raise self._last_refusal
        held = set(places)
        incomplete = self._download.incomplete()
        self.offers = self._download.offers(incomplete, [place in held for place in incomplete])
        self.runs = None if self._gives_parts else [self._download.chunks_of(place) for place in places]
        return bool(places)

    def file_refused(self, refusal: FileRefused) -> None:
        if isinstance(refusal, OnlyWhole):
            self._gives_parts = False
        else:
            self._refused.add(refusal.root)
            self._last_refusal = refusal
