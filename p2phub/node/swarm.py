"""Download some files from many providers at once (spec/transfer.md §2, §4).

    what is here ──▶ Download (chunks, picker) ◀── Connections (requests) ◀── Crowd (providers)
                          │
                          └──▶ progress, saves, complete files ──▶ objects

This module begins a download, watches it, and ends it: with all files as objects, or
with the reason why not. Nothing waits without a limit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import trio

from p2phub.core.errors import NotFound, StoreError
from p2phub.core.ids import NodeId

from .connections import Connections
from .crowd import Crowd
from .dedup import find_known
from .disk import on_disk
from .download import Download, DownloadReport, ProviderReport, link_rates
from .events import Progress, ProviderRate, Tell
from .node import Arriving, Node, Reader, Running, SwarmState
from .origins import Origin, Origins
from .partials import DownloadPartials, WantedFile

TICK_S = 0.1  # seconds between looks at what arrived
TELL_S = 0.25  # seconds between words on how far it is
RATE_S = 0.5  # seconds over which the rate that people see is measured
SAVE_S = 1.0  # seconds between saves of the bitmaps
PATIENCE_S = 20.0  # seconds without a provider for what is missing, until the download gives up
PATIENCE_ALONE_S = 5.0  # the same while nobody has given anything
# Seconds without a chunk from those who offer some, until the download gives up. Over a line of 16 KiB/s,
# three connections bring their first chunks of 2 MiB after 384 s.
PATIENCE_SILENT_S = 400.0
PATIENCE_BUSY_S = 600.0  # the same while one of them says that it is busy
PATIENCE_BACKGROUND_S = 24 * 3600.0  # the same in the background, where others may be first for long
TOLD_STATES = ("giving", "slow", "busy", "gone", "banned")  # of providers in progress, also of those that gave nothing
REMEMBERED_SIZE = 1024 * 1024  # bytes that a provider must have given for its rate to be remembered
QUIET_S = 2.0  # seconds without a chunk until people are told why


async def download(
    node: Node, files: Sequence[WantedFile], running: Running, tell: Tell, *, origins: Origins | None = None
) -> DownloadReport:
    """Fetch all of `files` into the store.

    running: says, also while it runs, whether the download is in the background.
    origins: who gives them besides peers.
    Raises NotFound if nobody offers what is missing, StoreError if the disk fails.
    """
    report = DownloadReport()
    start = trio.current_time()
    partials = DownloadPartials(node.store, files)
    try:
        have = await on_disk(partials.recover)
        places = await on_disk(find_known, node.store, [file.chunks for file in files], have)
        if places:
            copied = await on_disk(partials.copy_known, have, places)
            report.copied, report.shared = copied.size, copied.shared
        await _Swarm(node, files, have, partials, running, tell, report).run(origins or Origins())
    finally:
        with trio.CancelScope(shield=True):
            await on_disk(partials.close)
            await on_disk(node.store.blobs.sync)
            for provider in report.providers:
                if not provider.is_origin:
                    await on_disk(node.store.peers.note_received, NodeId.parse(provider.name), provider.received)
            if not running.background:  # it would be the rate that others left
                await on_disk(node.store.rates.note, _rates(report.providers), time.time())
        report.seconds = trio.current_time() - start
    return report


def _rates(reports: Sequence[ProviderReport]) -> dict[str, float]:
    """Return the rates that are worth remembering, by provider."""
    return {report.name: report.rate for report in reports if report.received >= REMEMBERED_SIZE and report.rate}


class _Swarm:
    """One download while it runs."""

    def __init__(
        self,
        node: Node,
        files: Sequence[WantedFile],
        have: Sequence[bytearray],
        partials: DownloadPartials,
        running: Running,
        tell: Tell,
        report: DownloadReport,
    ) -> None:
        self._node = node
        self._partials = partials
        self._running = running
        self._tell = tell
        self._report = report
        self._download = Download(files, have, partials, self._complete)
        self._connections = Connections(node, self._download, running)
        report.here_before = self._download.done - report.copied
        self._unfinished = len(files)
        self._over = trio.Event()  # all files are here, or the disk failed
        self._failure: StoreError | None = None
        self._rate = 0.0  # bytes a second
        self._waiting: str | None = None  # for what, if nothing arrives
        self._last_offer = trio.current_time()

    async def run(self, origins: Origins) -> None:
        arriving = {file.root: flags for file, flags in zip(self._download.files, self._download.have, strict=True)}
        try:
            async with trio.open_nursery() as self._nursery:
                self._crowd = Crowd(self._node, self._download, self._connections, self._tell, self._nursery)
                for place, (root, flags) in enumerate(arriving.items()):
                    note_reader = partial(self._note_reader, place)
                    self._node.arriving[root] = Arriving(flags, self._crowd.note_mate, self._explain, note_reader)
                    for reader, offset in self._node.readers.get(root, {}).items():
                        note_reader(reader, offset)
                incomplete = set(self._download.incomplete())
                for place in range(len(self._download.files)):
                    if place not in incomplete:
                        self._nursery.start_soon(self._finish_file, place)
                self._nursery.start_soon(self._crowd.gather)
                for origin in origins.origins:
                    self._nursery.start_soon(self._use_origin, origin)
                await self._watch()
                self._nursery.cancel_scope.cancel()
        finally:
            for root in arriving:
                self._node.arriving.pop(root, None)
            self._report.received = self._download.received
            self._report.duplicates = self._download.picker.duplicate_bytes
            self._report.providers = list(self._download.reports.values())
        if failure := self._failure or self._connections.failure:
            raise failure
        if self._unfinished:
            raise self._not_found()

    async def _use_origin(self, origin: Origin) -> None:
        from .originprovider import OriginProvider  # most downloads have none

        report = ProviderReport(origin.name, is_origin=True)
        self._download.reports[origin.name] = report
        links = self._node.links
        link = await links.class_of(origin.host)
        await self._crowd.use_always(OriginProvider(origin, report, link, links, self._download))

    def _note_reader(self, place: int, reader: Reader, offset: int | None) -> None:
        """Ask for what lies before somebody who reads one of the files before anything else."""
        self._download.note_reader(place, reader, offset)
        self._connections.wake_all()

    async def _watch(self) -> None:
        """Take note of what arrives, tell how far it is, and return when the download is over."""
        last_save = last_rate = last_told = trio.current_time()
        last_done = self._download.done
        self._tell(self._progress())
        while self._unfinished and not self._failure and not self._connections.failure:
            with trio.move_on_after(TICK_S):
                await self._over.wait()
            self._download.drain()
            now = trio.current_time()
            if now - last_rate >= RATE_S:
                newest = (self._download.done - last_done) / (now - last_rate)
                self._rate = newest if self._rate == 0 else 0.6 * self._rate + 0.4 * newest
                self._connections.rate = self._rate
                last_done, last_rate = self._download.done, now
                self._waiting = self._waiting_for(now)
            if now - last_save >= SAVE_S:
                await self._save()
                await self._node.links.refresh()
                last_save = trio.current_time()
            if now - last_told >= TELL_S or not self._unfinished:
                self._tell(self._progress())
                last_told = now
            if self._is_hopeless(now):
                break

    def _is_hopeless(self, now: float) -> bool:
        """Say whether the download is to be given up."""
        last_arrival = self._download.last_arrival
        is_known = not self._crowd.is_deserted and (self._connections.providers or self._download.received)
        patience_s = PATIENCE_S if is_known else PATIENCE_ALONE_S
        # An offer that was taken between two looks shows in what arrived.
        if self._waiting and now - max(self._last_offer, last_arrival) > patience_s:
            return True
        if not self._connections.busy:
            return now - last_arrival > PATIENCE_SILENT_S
        return now - last_arrival > (PATIENCE_BACKGROUND_S if self._running.background else PATIENCE_BUSY_S)

    async def _save(self) -> None:
        try:
            await on_disk(self._partials.save)
        except StoreError as exc:
            self._failure = exc

    def _waiting_for(self, now: float) -> str | None:
        """Return why nothing arrives, or None if something may."""
        picker, providers = self._download.picker, self._connections.providers
        unoffered = picker.unoffered() if picker.remaining else []
        if not picker.remaining:
            self._last_offer = self._download.last_arrival = now
            return None
        if self._node.is_held(self._running):
            self._last_offer = self._download.last_arrival = now
            return "a download in the foreground, which goes first"
        if picker.remaining > len(unoffered):
            self._last_offer = now
            if now - self._download.last_arrival < QUIET_S:
                return None
            busy = self._connections.busy
            return f"a slot at {_count(busy)}, busy now" if busy else f"an answer of {_count(len(providers))}"
        if not providers:
            return f"a peer that offers the {len(unoffered)} missing chunks"
        return f"{len(unoffered)} chunks that none of {_count(len(providers))} has yet"

    def _progress(self) -> Progress:
        reports = self._download.reports
        known = [provider for provider in self._crowd.explain() if provider.received or provider.state in TOLD_STATES]
        providers = tuple(
            ProviderRate(
                None if reports[provider.name].is_origin else provider.name,
                provider.rate,
                provider.received,
                provider.name if reports[provider.name].is_origin else None,
                provider.state,
                provider.reason,
            )
            for provider in known
        )
        here = self._report.here_before + self._report.copied
        done, total = self._download.done, self._download.total
        return Progress(
            "fetching",
            done,
            total,
            self._rate,
            providers,
            self._waiting,
            here,
            link_rates(reports.values()),
            self._left_s(),
        )

    def _left_s(self) -> float | None:
        """Return the seconds that the rest should take: at the rate so far, else at those of earlier downloads."""
        rate = self._rate or self._connections.remembered_rate()
        return None if self._waiting or not rate else (self._download.total - self._download.done) / rate

    def _explain(self) -> SwarmState:
        return SwarmState(self._rate, self._waiting, self._crowd.explain())

    def _complete(self, place: int) -> None:
        """Make an object of a file whose last chunk arrived."""
        if self._download.is_small(place):
            self._note_finished()  # written whole
        else:
            self._nursery.start_soon(self._finish_file, place)

    def _note_finished(self) -> None:
        self._unfinished -= 1
        if not self._unfinished:
            self._over.set()

    async def _finish_file(self, place: int) -> None:
        try:
            with trio.CancelScope(shield=True):
                await on_disk(self._partials.finish, place)
        except StoreError as exc:
            self._failure = exc
        else:
            self._note_finished()

    def _not_found(self) -> NotFound:
        reasons = [
            f"{report.shown}: {report.reason or 'it has not all of this'}"
            for report in self._download.reports.values()
            if report.reason or report.state == "giving"
        ]
        missing = self._download.total - self._download.done
        return NotFound(
            f"no peer we know of gives the {missing} bytes that are missing",
            hint="; ".join(reasons) if reasons else "`p2phub peers ls` shows the peers and when each last answered",
        )


def _count(providers: int) -> str:
    return "1 provider" if providers == 1 else f"{providers} providers"
