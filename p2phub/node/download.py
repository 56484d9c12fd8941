"""The chunks of one download: which are missing, which byte ranges they are, and what arrives.

    Request ──▶ byte ranges ──worker thread──▶ verified chunks ──▶ partials
                                                   └──▶ queue ──drain──▶ picker, counts, complete files

Worker threads note arrivals in a queue that one trio task drains, so that no chunk
waits for the event loop.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import trio
from msgspec import Struct, field

from p2phub.core.choices import LINK_CLASSES, LinkClass
from p2phub.core.errors import InvalidData, PeerError
from p2phub.net.connection import ContentConnection, WantedChunk
from p2phub.net.threads import run_abortable
from p2phub.protocol.lease import Area, area_of
from p2phub.protocol.messages import AREA_SIZE, ByteRange
from p2phub.protocol.picker import Picker, Request
from p2phub.protocol.rates import deadline_s
from p2phub.store.partial import unpack_bits

from .events import LinkRate
from .node import Reader
from .partials import DownloadPartials, WantedFile

if TYPE_CHECKING:
    from p2phub.protocol.forecast import Forecast

HURRY_CHUNKS = 32  # ahead of a reader, that are fetched before others; spec/transfer.md §3.5
THREADS_MAX = 64  # requests under way at once, of all providers together


class ProviderReport(Struct):
    """What one provider did for a download."""

    name: str  # node id, or host and port of an origin
    received: int = 0  # bytes, verified
    rate: float = 0.0  # bytes a second
    state: str = "asked"  # asked, giving, gone, banned, has nothing
    reason: str | None = None
    is_origin: bool = False
    link: LinkClass | None = None  # between it and this node, once that is known
    last_arrival: float = -math.inf  # seconds, of a chunk

    @property
    def shown(self) -> str:
        """Its name, as short as people know it."""
        return self.name if self.is_origin else f"{self.name[:12]}…"


class DownloadReport(Struct):
    """How a download went."""

    received: int = 0  # bytes, verified
    duplicates: int = 0  # bytes that came twice
    here_before: int = 0  # bytes that partials held at the start
    copied: int = 0  # bytes taken from other files here
    shared: int = 0  # of these, that lie on disk once
    seconds: float = 0.0
    providers: list[ProviderReport] = field(default_factory=list)
    forecast: Forecast | None = None  # of a download that was not done


def link_rates(reports: Iterable[ProviderReport]) -> tuple[LinkRate, ...]:
    """Return what came over each class of links, and at which rate it comes; the cheapest first."""
    rates: dict[LinkClass, float] = {}
    received = Counter[LinkClass]()
    for report in reports:
        if report.link:
            rates[report.link] = rates.get(report.link, 0.0) + (report.rate if report.state == "giving" else 0.0)
            received[report.link] += report.received
    return tuple(LinkRate(link, rates[link], received[link]) for link in LINK_CLASSES if link in rates)


class Download:
    """The chunks of all wanted files in one row: chunk c is chunk c - first[f] of file f."""

    def __init__(
        self,
        files: Sequence[WantedFile],
        have: Sequence[bytearray],
        partials: DownloadPartials,
        complete: Callable[[int], None],
    ) -> None:
        """have: a byte for each chunk of each file, 1 if it is on disk; kept up to date.

        complete: called with the place of each file whose last chunk arrived.
        """
        self.files = files
        self.have = have
        self.reports: dict[str, ProviderReport] = {}
        self._partials = partials
        self._complete = complete
        self._first = [0]
        self._sizes: list[int] = []
        for file in files:
            self._sizes += [file.chunks.length(index) for index in range(len(file.chunks))]
            self._first.append(len(self._sizes))
        missing = [
            first + index
            for first, flags in zip(self._first, have, strict=False)
            for index, here in enumerate(flags)
            if not here
        ]
        self.picker: Picker[str] = Picker(self._sizes, missing, rng=random.Random())
        self._left = [flags.count(0) for flags in have]  # missing chunks of each file
        self._areas: dict[int, list[int]] = {}  # as `_areas_in` gave them
        self.total = sum(self._sizes)  # bytes
        self.done = self.total - sum(self._sizes[chunk] for chunk in missing)  # bytes
        self.received = 0  # bytes
        self._passed = bytearray(len(self._sizes))  # 1 for each chunk that a whole file brought, wanted or not
        self.last_arrival = trio.current_time()
        self._arrived: deque[tuple[Request[str], int]] = deque()
        self._readers: dict[Reader, tuple[int, int]] = {}  # the file and the chunk that each reads next
        self._token = trio.lowlevel.current_trio_token()
        self._running: dict[int, ContentConnection] = {}  # by number of the request
        self._cut: set[int] = set()  # requests that were ended because others brought it all
        self._limiter = trio.CapacityLimiter(THREADS_MAX)

    def incomplete(self) -> list[int]:
        """Return the places of the files that miss a chunk."""
        return [place for place, left in enumerate(self._left) if left]

    @property
    def count(self) -> int:
        """How many chunks there are."""
        return len(self._sizes)

    def chunks_of(self, place: int) -> range:
        """Return the chunks of a file."""
        return range(self._first[place], self._first[place + 1])

    def is_small(self, place: int) -> bool:
        """Say whether a file is one chunk, which is written whole."""
        return len(self.files[place].chunks) == 1

    def note_reader(self, place: int, reader: Reader, offset: int | None) -> None:
        """Let the chunks from byte `offset` of one file on be asked for before others; None: `reader` is gone.

        The reader is woken when the first of them is here.
        """
        chunks = self.files[place].chunks
        if offset is None or offset >= chunks.size:
            self.picker.hurry(reader, range(0))
            self._readers.pop(reader, None)
            return
        index = chunks.index_at(offset)
        first = self._first[place] + index
        self.picker.hurry(reader, range(first, min(first + HURRY_CHUNKS, self._first[place + 1])))
        self._readers[reader] = place, index
        if self.have[place][index]:
            reader.wake()

    def _wake_readers(self) -> None:
        for reader, (place, index) in self._readers.items():
            if self.have[place][index]:
                reader.wake()

    def _note_arrivals(self) -> None:
        """Wake who reads what is here now; from a worker thread."""
        # Who comes between these two lines finds in `have` what arrived before.
        if self._readers:
            self._token.run_sync_soon(self._wake_readers, idempotent=True)

    def drain(self) -> None:
        """Take note of the chunks that arrived."""
        now = trio.current_time()
        while self._arrived:
            request, chunk = self._arrived.popleft()
            size = self._sizes[chunk]
            report = self.reports[request.provider]
            report.received += size
            report.last_arrival = now
            if request.is_whole and not self._passed[chunk]:
                # Over what is here already it comes to what is not. Once, or one that always breaks off never ended.
                self._passed[chunk] = 1
                self.last_arrival = now
            if not self.picker.chunk_arrived(request, chunk, now):
                continue
            self.last_arrival = now
            report.rate = self.picker.rate(request.provider) or report.rate
            self.received += size
            self.done += size
            place = self._place(chunk)
            self._left[place] -= 1
            if not self._left[place]:
                self._complete(place)
        for request in self.picker.take_pointless():
            if connection := self._running.get(request.number):
                # Its provider has others to serve.
                self._cut.add(request.number)
                connection.abort()

    async def fetch(self, connection: ContentConnection, request: Request[str], *, background: bool = False) -> bool:
        """Do one request in a worker thread, and queue what arrives. Raises PeerError, StoreError.

        background: ask the peer to let others go first.
        Returns whether the connection can be used again: not if others brought all that was asked meanwhile.
        """
        spans, wanted = self._spans(request)
        deadline = deadline_s(sum(chunk.length for chunk in wanted))
        small: list[tuple[int, int, bytes]] = []  # chunk, file, bytes: files of one chunk

        def sink(index: int, data: memoryview) -> None:
            chunk = request.first + index
            place = self._place(chunk)
            if self.is_small(place):
                small.append((chunk, place, bytes(data)))
                return
            # A copy that lost the race brings nothing new.
            if self.picker.is_wanted(chunk):
                self._partials.write(place, chunk - self._first[place], data)
                self.have[place][chunk - self._first[place]] = 1
                self._note_arrivals()
            self._arrived.append((request, chunk))

        def work() -> None:
            try:
                connection.fetch(
                    spans,
                    wanted,
                    sink,
                    deadline_s=deadline,
                    first_copy=request.is_first_copy,
                    background=background,
                )
            finally:
                if small:
                    self._partials.add_small([(place, data) for _, place, data in small])
                    for _, place, _ in small:
                        self.have[place][0] = 1
                    self._note_arrivals()
                    self._arrived.extend((request, chunk) for chunk, _, _ in small)

        self._running[request.number] = connection
        try:
            await run_abortable(work, connection.abort, self._limiter)
        except PeerError:
            if request.number not in self._cut:
                raise
        finally:
            del self._running[request.number]
            is_cut = request.number in self._cut
            self._cut.discard(request.number)
        return not is_cut

    def offers(self, places: Sequence[int], held: Sequence[bool | bytes]) -> bytes | None:
        """Return what a provider offers, as the picker takes it: a byte a chunk, None for all.

        held: for each file of `places` all, nothing, or a bitmap of its chunks. Of other files
        nothing is missing, so they do not matter. Raises InvalidData at a bitmap of another length.
        """
        row = bytearray(len(self._sizes))
        is_whole = True
        for place, here in zip(places, held, strict=True):
            first, end = self._first[place], self._first[place + 1]
            flags = _flags(here, end - first)
            row[first:end] = flags
            is_whole = is_whole and 0 not in flags
        return None if is_whole else bytes(row)

    def given(self, places: Sequence[int], areas: Sequence[bool | bytes]) -> bytes | None:
        """Return what a provider sent to somebody lately: a byte a chunk, None for nothing.

        areas: for each file of `places` all, nothing, or a bitmap of its areas. Raises InvalidData as `offers` does.
        """
        row = bytearray(len(self._sizes))
        for place, given in zip(places, areas, strict=True):
            flags = _flags(given, -(-self.files[place].chunks.size // AREA_SIZE))
            if 1 in flags:
                row[self._first[place] : self._first[place + 1]] = bytes(map(flags.__getitem__, self._areas_in(place)))
        return bytes(row) if 1 in row else None

    def _areas_in(self, place: int) -> list[int]:
        """Return the number of the area in which each chunk of a file begins."""
        if place not in self._areas:
            chunks = self.files[place].chunks
            self._areas[place] = [chunks.offset(index) // AREA_SIZE for index in range(len(chunks))]
        return self._areas[place]

    def areas(self) -> list[Area]:
        """Return the area of each chunk, as a site shares them out."""
        return [
            area_of(file.root, file.chunks.offset(index)) for file in self.files for index in range(len(file.chunks))
        ]

    def _place(self, chunk: int) -> int:
        return bisect_right(self._first, chunk) - 1

    def _spans(self, request: Request[str]) -> tuple[list[ByteRange], list[WantedChunk]]:
        """Return the chunks of `request`, as the byte ranges that are asked for and as what must come."""
        spans: list[ByteRange] = []
        wanted: list[WantedChunk] = []
        for chunk in request.chunks:
            place = self._place(chunk)
            file = self.files[place]
            index = chunk - self._first[place]
            length = file.chunks.length(index)
            spans.append(ByteRange(file.root, file.chunks.offset(index), length))
            wanted.append(WantedChunk(length, file.chunks.hash(index)))
        return spans, wanted


def _flags(told: bool | bytes, count: int) -> bytes | bytearray:
    """Return `count` bytes, 0 or 1, for all, nothing or a bitmap."""
    if isinstance(told, bool):
        return bytes([told]) * count
    if len(told) != -(-count // 8):
        raise InvalidData(f"a bitmap of {len(told)} bytes for {count} bits")
    return unpack_bits(told, count)
