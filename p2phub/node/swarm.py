"""Download the chunks of some files from many providers at once (spec/transfer.md §2, §4).

    peers ──have──▶ Picker ──request──▶ worker threads ──verified chunks──▶ partials ──▶ objects
      ▲                                       │
      └───────── bans, retries ◀── failures ──┘

The picker decides; this module does what it says and tells it what happened. Worker
threads note arrivals in a queue that the one trio task here drains, so that no chunk
waits for the event loop. Nothing waits without a limit: when no provider is left that
could give what is missing, the download ends and says why.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from p2phub.core.errors import (
    NotFound,
    PeerBusy,
    PeerError,
    PeerViolation,
    StoreError,
)
from p2phub.core.ids import NodeId
from p2phub.net.bulk import BulkConnection
from p2phub.net.connection import WantedChunk
from p2phub.net.frames import FrameConnection
from p2phub.net.peerclient import PeerClient
from p2phub.net.threads import run_abortable
from p2phub.protocol.messages import ByteRange
from p2phub.protocol.picker import Picker, Request, deadline_s
from p2phub.store.partial import unpack_bits
from p2phub.store.peers import Peer

from .dedup import find_known
from .disk import on_disk
from .events import Notice, Progress, ProviderRate, Tell
from .node import Node
from .partials import DownloadPartials, WantedFile
from .replicate import ban_peer, call_peer, usable_peers

TICK_S = 0.1  # seconds between looks at what arrived
RATE_S = 0.5  # seconds over which the rate that people see is measured
SAVE_S = 1.0  # seconds between saves of the bitmaps
IDLE_S = 0.25  # seconds until a connection with nothing to do looks again
OFFER_S = 3.0  # seconds between questions to a provider that has not everything
PEERS_S = 5.0  # seconds between looks for new peers
PATIENCE_S = 20.0  # seconds without a provider for what is missing, until the download gives up
PATIENCE_ALONE_S = 5.0  # the same while nobody has given anything
# Seconds without a chunk from those who offer some, until the download gives up. Over a line of 64 KiB/s,
# three connections bring their first chunks of 2 MiB after 96 s.
PATIENCE_SILENT_S = 180.0
PATIENCE_BUSY_S = 600.0  # the same while one of them says that it is busy
QUIET_S = 2.0  # seconds without a chunk until people are told why
RETRY_S = (0.5, 1.0, 2.0, 5.0)  # seconds before a provider that failed is tried again; then it is gone
CONNECTIONS_ALONE = 3  # to the only provider
CONNECTIONS_EACH = 2  # to each of several
PROVIDERS_MAX = 16  # used at once

_FINISHED = -1  # instead of the number of missing chunks: the file is an object now


@dataclass
class ProviderReport:
    """What one provider did for a download."""

    node: str
    received: int = 0  # bytes, verified
    rate: float = 0.0  # bytes a second
    state: str = "asked"  # asked, giving, gone, banned, has nothing
    reason: str | None = None


@dataclass
class DownloadReport:
    """How a download went."""

    received: int = 0  # bytes, verified
    duplicates: int = 0  # bytes that came twice
    here_before: int = 0  # bytes that partials held at the start
    copied: int = 0  # bytes taken from other files here
    seconds: float = 0.0
    providers: list[ProviderReport] = field(default_factory=list)


async def download(node: Node, files: Sequence[WantedFile], tell: Tell) -> DownloadReport:
    """Fetch all of `files` into the store.

    Raises NotFound if nobody offers what is missing, StoreError if the disk fails.
    """
    report = DownloadReport()
    start = trio.current_time()
    partials = DownloadPartials(node.store.blobs, files)
    try:
        have = await on_disk(partials.recover)
        places = await on_disk(find_known, node.store.blobs, [file.chunks for file in files], have)
        if places:
            report.copied = await on_disk(partials.copy_known, have, places)
        swarm = _Swarm(node, files, have, partials, tell, report)
        await swarm.run()
    finally:
        with trio.CancelScope(shield=True):
            await on_disk(partials.close)
            await on_disk(node.store.blobs.sync)
            for provider in report.providers:
                await on_disk(node.store.peers.note_received, NodeId.parse(provider.node), provider.received)
        report.seconds = trio.current_time() - start
    return report


@dataclass
class _Provider:
    """One peer that gives chunks, and its connections."""

    peer: Peer
    client: PeerClient
    report: ProviderReport
    offers: bytes | None = b""  # as the picker takes them
    running: int = 0  # requests in flight
    is_busy: bool = False  # it had no slot for the last request
    failure: PeerError | None = None
    only_tls: bool = False  # it gives no tickets, or something between us lets only TLS pass
    woken: trio.Event = field(default_factory=trio.Event)

    def wake(self) -> None:
        self.woken.set()
        self.woken = trio.Event()


class _Swarm:
    """One download while it runs."""

    def __init__(
        self,
        node: Node,
        files: Sequence[WantedFile],
        have: Sequence[bytearray],
        partials: DownloadPartials,
        tell: Tell,
        report: DownloadReport,
    ) -> None:
        self._node = node
        self._files = files
        self._partials = partials
        self._tell = tell
        self._report = report
        # All chunks of all files in one row: chunk c is chunk c - first[f] of file f.
        self._first = [0]
        sizes: list[int] = []
        for file in files:
            sizes += [file.chunks.length(index) for index in range(len(file.chunks))]
            self._first.append(len(sizes))
        missing = [
            first + index
            for first, flags in zip(self._first, have, strict=False)
            for index, here in enumerate(flags)
            if not here
        ]
        self._sizes = sizes
        self._total = sum(sizes)
        self._picker: Picker[NodeId] = Picker(sizes, missing, rng=random.Random())
        self._left = [flags.count(0) for flags in have]  # missing chunks of each file
        self._done = self._total - sum(sizes[chunk] for chunk in missing)
        report.here_before = self._done - report.copied
        self._arrived: deque[tuple[Request[NodeId], int]] = deque()
        self._providers: dict[NodeId, _Provider] = {}
        self._reports: dict[NodeId, ProviderReport] = {}
        self._failure: StoreError | None = None
        self._limiter = trio.CapacityLimiter(PROVIDERS_MAX * CONNECTIONS_ALONE)
        self._rate = 0.0
        self._last_offer = self._last_arrival = trio.current_time()
        # By peer, in seconds; infinite while it is tried, so that no peer is tried twice at once.
        self._next_try: dict[NodeId, float] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            for place, left in enumerate(self._left):
                if not left:
                    self._nursery.start_soon(self._finish_file, place)
            self._nursery.start_soon(self._find_providers)
            await self._watch()
            self._nursery.cancel_scope.cancel()
        self._report.duplicates = self._picker.duplicate_bytes
        self._report.providers = list(self._reports.values())
        if self._failure:
            raise self._failure
        if not self._is_complete():
            raise self._not_found()

    # ── watching ────────────────────────────────────────────────────────────

    async def _watch(self) -> None:
        """Take note of what arrives, tell how far it is, and end the download when it is over."""
        last_save = last_rate = trio.current_time()
        last_done = self._done
        waiting_for = None
        while not self._is_complete() and not self._failure:
            await trio.sleep(TICK_S)
            self._drain()
            now = trio.current_time()
            if now - last_rate >= RATE_S:
                newest = (self._done - last_done) / (now - last_rate)
                self._rate = newest if self._rate == 0 else 0.6 * self._rate + 0.4 * newest
                last_done, last_rate = self._done, now
                waiting_for = self._waiting_for(now)
            if now - last_save >= SAVE_S:
                await self._save()
                last_save = trio.current_time()
            self._tell(self._progress(waiting_for))
            patience_s = PATIENCE_S if self._providers or self._report.received else PATIENCE_ALONE_S
            # An offer that was taken between two looks shows in what arrived.
            if waiting_for and now - max(self._last_offer, self._last_arrival) > patience_s:
                break
            is_busy = any(provider.is_busy for provider in self._providers.values())
            if now - self._last_arrival > (PATIENCE_BUSY_S if is_busy else PATIENCE_SILENT_S):
                break

    async def _save(self) -> None:
        try:
            await on_disk(self._partials.save)
        except StoreError as exc:
            self._failure = exc

    def _waiting_for(self, now: float) -> str | None:
        """Return why nothing arrives, or None if something may."""
        unoffered = self._picker.unoffered() if self._picker.remaining else []
        if not self._picker.remaining:
            self._last_offer = self._last_arrival = now
            return None
        if self._picker.remaining > len(unoffered):
            self._last_offer = now
            if now - self._last_arrival < QUIET_S:
                return None
            busy = sum(provider.is_busy for provider in self._providers.values())
            return f"a slot at {_count(busy)}, busy now" if busy else f"an answer of {_count(len(self._providers))}"
        if not self._providers:
            return f"a peer that offers the {len(unoffered)} missing chunks"
        return f"{len(unoffered)} chunks that none of {_count(len(self._providers))} has yet"

    def _progress(self, waiting_for: str | None) -> Progress:
        providers = tuple(
            ProviderRate(report.node, report.rate, report.received)
            for report in self._reports.values()
            if report.received or report.state == "giving"
        )
        return Progress("fetching", self._done, self._total, self._rate, providers, waiting_for)

    def _drain(self) -> None:
        """Tell the picker of the chunks that arrived, and finish the files that are complete."""
        now = trio.current_time()
        while self._arrived:
            request, chunk = self._arrived.popleft()
            report = self._reports[request.provider]
            report.received += self._sizes[chunk]
            if not self._picker.chunk_arrived(request, chunk, now):
                continue
            self._last_arrival = now
            report.rate = self._picker.rate(request.provider) or report.rate
            self._report.received += self._sizes[chunk]
            self._done += self._sizes[chunk]
            place = bisect_right(self._first, chunk) - 1
            self._left[place] -= 1
            if self._left[place]:
                continue
            if len(self._files[place].chunks) == 1:
                self._left[place] = _FINISHED  # written whole
            else:
                self._nursery.start_soon(self._finish_file, place)

    async def _finish_file(self, place: int) -> None:
        try:
            with trio.CancelScope(shield=True):
                await on_disk(self._partials.finish, place)
        except StoreError as exc:
            self._failure = exc
        self._left[place] = _FINISHED

    def _is_complete(self) -> bool:
        return all(left == _FINISHED for left in self._left)

    def _not_found(self) -> NotFound:
        reasons = [
            f"{report.node[:12]}…: {report.reason or 'it has not all of this'}"
            for report in self._reports.values()
            if report.reason or report.state == "giving"
        ]
        missing = self._total - self._done
        return NotFound(
            f"no peer we know of gives the {missing} bytes that are missing",
            hint="; ".join(reasons) if reasons else "`p2phub peers ls` shows the peers and when each last answered",
        )

    # ── providers ───────────────────────────────────────────────────────────

    async def _find_providers(self) -> None:
        """Begin with every peer that is not used yet, now and again later: peers come and go."""
        while True:
            for peer in await on_disk(usable_peers, self._node):
                if list(self._next_try.values()).count(math.inf) >= PROVIDERS_MAX:
                    break
                if self._next_try.get(peer.node, 0.0) <= trio.current_time():
                    self._next_try[peer.node] = math.inf
                    self._nursery.start_soon(self._use_peer, peer)
            await trio.sleep(PEERS_S)

    async def _use_peer(self, peer: Peer) -> None:
        """Take chunks from one peer until it fails too often, lies, or is not needed any more."""
        report = self._reports.setdefault(peer.node, ProviderReport(str(peer.node)))
        before = report.received
        pause_s = PATIENCE_S / 4
        try:
            async with call_peer(self._node, peer) as client:
                provider = _Provider(peer, client, report)
                if not await self._ask_offer(provider):
                    report.state, report.reason = "has nothing", "it has nothing of this"
                    return
                report.state, report.reason = "giving", None
                # Who offers and does not give is left alone for longer: its offer would keep us waiting.
                pause_s = PATIENCE_S
                self._providers[peer.node] = provider
                self._share_connections()
                await self._take_from(provider)
        except PeerViolation as exc:
            report.state, report.reason = "banned", str(exc)
            self._tell(Notice(f"banned: {exc}"))
            await ban_peer(self._node, peer.node, str(exc))
        except PeerError as exc:
            report.state, report.reason = "gone", str(exc)
        except StoreError as exc:
            self._failure = exc
        finally:
            self._next_try[peer.node] = trio.current_time() + (PATIENCE_S / 4 if report.received > before else pause_s)
            if self._providers.pop(peer.node, None):
                self._picker.remove_provider(peer.node)
                self._share_connections()
                self._wake_all()

    async def _take_from(self, provider: _Provider) -> None:
        """Keep the connections to one provider busy. Raises PeerError when it is to be given up."""
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS_ALONE):
                nursery.start_soon(self._run_connection, provider, nursery.cancel_scope)
            try:
                while True:
                    await trio.sleep(OFFER_S)
                    if provider.offers is not None:
                        await self._ask_offer(provider)
                        provider.wake()
            except PeerError as exc:
                provider.failure = exc
                nursery.cancel_scope.cancel()
        # Out here, so that the caller meets the error itself and not a group.
        if provider.failure:
            raise provider.failure

    async def _ask_offer(self, provider: _Provider) -> bool:
        """Ask what the provider has now; returns whether it is anything."""
        held = await provider.client.have([file.root for file in self._files])
        offers = bytearray()
        for file, here in zip(self._files, held, strict=True):
            count = len(file.chunks)
            if isinstance(here, bool):
                offers += bytes([here]) * count
            elif len(here) != -(-count // 8):
                raise PeerViolation(f"{provider.client} sent a bitmap of another length", peer=str(provider.peer.node))
            else:
                offers += unpack_bits(here, count)
        if any(offers):
            provider.offers = None if 0 not in offers else bytes(offers)
            if provider.peer.node in self._providers:
                self._picker.set_offer(provider.peer.node, provider.offers, connections=self._connections())
        return any(offers)

    def _connections(self) -> int:
        """Return how many requests one provider is asked at once."""
        return CONNECTIONS_ALONE if len(self._providers) <= 1 else CONNECTIONS_EACH

    def _share_connections(self) -> None:
        for node, provider in self._providers.items():
            self._picker.set_offer(node, provider.offers, connections=self._connections())

    def _wake_all(self) -> None:
        for provider in self._providers.values():
            provider.wake()

    async def _run_connection(self, provider: _Provider, scope: trio.CancelScope) -> None:
        """Keep one connection busy; ends them all through `scope` when the provider is to be given up."""
        node = provider.peer.node
        connection: BulkConnection | FrameConnection | None = None
        failures = 0
        try:
            while True:
                request = None
                if provider.running < self._connections():
                    request = self._picker.next_request(node, trio.current_time())
                if request is None:
                    with trio.move_on_after(IDLE_S):
                        await provider.woken.wait()
                    continue
                wait_s = 0.0
                provider.running += 1
                try:
                    if connection is None or not connection.usable:
                        connection = await self._connect(provider)
                    await self._fetch(connection, request)
                    failures = 0
                    provider.is_busy, provider.report.reason = False, None
                except PeerBusy as exc:
                    provider.is_busy, provider.report.reason = True, str(exc)
                    wait_s = exc.retry_after_s
                except PeerError as exc:
                    provider.report.reason = str(exc)
                    if isinstance(connection, FrameConnection) and not connection.answered:
                        provider.only_tls = True
                    if isinstance(exc, PeerViolation) or failures == len(RETRY_S):
                        provider.failure = exc
                        scope.cancel()
                        return
                    wait_s = RETRY_S[failures]
                    failures += 1
                finally:
                    provider.running -= 1
                    self._picker.request_ended(request)
                    self._wake_all()
                await trio.sleep(wait_s)
        finally:
            if connection is not None:
                connection.close()

    async def _connect(self, provider: _Provider) -> BulkConnection | FrameConnection:
        """Return a new connection to a provider: with encrypted frames if it can, else HTTPS (or HTTP)."""
        node, client, settings = provider.peer.node, provider.client, self._node.settings
        if not settings.plain and not settings.only_tls and not provider.only_tls:
            tickets = await client.tickets(1)
            if tickets:
                return FrameConnection(node, client.host, client.port, tickets[0])
            provider.only_tls = True
        return BulkConnection(node, client.host, client.port, plain=settings.plain)

    async def _fetch(self, connection: BulkConnection | FrameConnection, request: Request[NodeId]) -> None:
        """Do one request in a worker thread, and note what arrived."""
        spans, wanted = self._spans(request)
        deadline = deadline_s(sum(chunk.length for chunk in wanted))
        small: list[tuple[int, int, bytes]] = []  # chunk, file, bytes: files of one chunk

        def sink(place: int, data: memoryview) -> None:
            chunk = request.first + place
            file = bisect_right(self._first, chunk) - 1
            if len(self._files[file].chunks) == 1:
                small.append((chunk, file, bytes(data)))
                return
            # A copy that lost the race brings nothing new.
            if self._picker.is_wanted(chunk):
                self._partials.write(file, chunk - self._first[file], data)
            self._arrived.append((request, chunk))

        def work() -> None:
            try:
                connection.fetch(spans, wanted, sink, deadline_s=deadline)
            finally:
                if small:
                    self._partials.add_small([(file, data) for _, file, data in small])
                    self._arrived.extend((request, chunk) for chunk, _, _ in small)

        try:
            await run_abortable(work, connection.abort, self._limiter)
        except StoreError as exc:
            self._failure = exc
            await trio.sleep_forever()  # the download ends now, and cancels this
        finally:
            # Before the request ends, or what arrived would be asked for again.
            self._drain()

    def _spans(self, request: Request[NodeId]) -> tuple[list[ByteRange], list[WantedChunk]]:
        """Return the byte ranges that cover the chunks of `request`, and the chunks in them."""
        spans: list[ByteRange] = []
        wanted: list[WantedChunk] = []
        chunk = request.first
        end = request.first + request.count
        while chunk < end:
            place = bisect_right(self._first, chunk) - 1
            file = self._files[place]
            first = chunk - self._first[place]
            last = min(end, self._first[place + 1]) - self._first[place]
            offset = file.chunks.offset(first)
            spans.append(ByteRange(file.root, offset, file.chunks.offset(last) - offset))
            wanted += [WantedChunk(file.chunks.length(i), file.chunks.hash(i)) for i in range(first, last)]
            chunk = self._first[place] + last
        return spans, wanted


def _count(providers: int) -> str:
    return "1 provider" if providers == 1 else f"{providers} providers"
