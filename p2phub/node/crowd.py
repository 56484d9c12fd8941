"""All who give to one download: find them, keep the connections to each busy, leave those that fail or lie.

    known peers ──have──▶ offers ──▶ picker ──▶ requests on up to three connections each ──▶ Download
    HTTP origins ───────────┘

The picker decides what is asked of whom; this module does it. Nothing waits here without
a limit, and every provider's report says what became of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from msgspec.structs import replace

from p2phub.core.choices import LINK_CLASSES
from p2phub.core.errors import (
    FileRefused,
    GivenMeanwhile,
    OtherVersion,
    PeerBusy,
    PeerError,
    PeerViolation,
    StoreError,
)
from p2phub.core.filetree import CHUNK_SIZE_MAX
from p2phub.core.ids import NodeId
from p2phub.net.connection import ContentConnection
from p2phub.protocol.flags import any_of
from p2phub.protocol.lease import EXPENSIVE, PATIENCE_S
from p2phub.protocol.picker import Request
from p2phub.store.peers import Peer

from .allowed import peers_about
from .calling import ban_peer, call_peer
from .disk import on_disk
from .download import Download, ProviderReport
from .events import Notice, Tell
from .node import Node, Running
from .operations.swarm import SwarmProvider
from .providers import CONNECTIONS_EACH, PeerProvider, Provider
from .receipts import show_receipts
from .site import Site

IDLE_S = 0.25  # seconds until a connection with nothing to do looks again
# Seconds between questions to a provider that has not everything: a share of the time that is left and of the
# time that has passed, so that what comes early and late in a download spreads fast, and the questions of a long
# one cost little; spec/transfer.md §5.
OFFER_MIN_S, OFFER_MAX_S, OFFER_SHARE_LEFT, OFFER_SHARE_PASSED = 0.25, 3.0, 1 / 8, 1 / 4
OFFER_EACH_S = 0.15  # of that for each provider, at least: questions to many would leave time for nothing else
OFFER_RATE = 256 * 1024  # bytes a second of questions and answers to one provider, at most about
WHOLE_OFFER_S = 1.0  # seconds between questions to a provider of everything, about what it gave to others
PEERS_S = 5.0  # seconds between looks for new peers
MATE_S = 1.0  # seconds between visits to a peer that says again and again that it fetches the same
PAUSE_S = 5.0  # seconds until a provider that had nothing is asked anew
PAUSE_SILENT_S = 20.0  # the same for one that offered and did not give
RETRY_S = (0.5, 1.0, 2.0, 5.0)  # seconds before a provider that failed is tried again; then it is gone
CONNECTIONS_ALONE = 3  # to the only provider
CONNECTIONS_MANY = 1  # to each of many
MANY = 8  # providers
MANY_NEAR = 3  # of them, where each of those that are near and have everything needs no second connection
PROVIDERS_MAX = 16  # used at once
SLOW_SHARE = 0.1  # of the rate of the fastest: a provider below is called slow; spec/transfer.md §6
ADDED_FIRST = 4  # of the peers that the user added, tried before those that fetch the same


class Crowd:
    """All who give to one download."""

    def __init__(self, node: Node, download: Download, running: Running, tell: Tell, nursery: trio.Nursery) -> None:
        """nursery: where each provider is used; the caller cancels it when the download is over."""
        self._node = node
        self._download = download
        self._roots = [file.root for file in download.files]
        self._picker = download.picker
        self._own = running
        self._tell = tell
        self._nursery = nursery
        self.providers: dict[str, Provider] = {}
        self.failure: StoreError | None = None  # of our own disk: ends the download
        self.rate = 0.0  # bytes a second, of the whole download, as far as is known
        # By peer, in seconds; infinite while it is tried, so that no peer is tried twice at once.
        self._next_try: dict[NodeId, float] = {}
        self._mates: dict[NodeId, float] = {}  # who said that it fetches the same, and when it was last visited for it
        self._called = trio.Event()
        self._shared = trio.Event()  # set when the connections are shared out among other providers
        self._knows_peers = True
        self._origins = 0  # that may give something yet
        self._begun = trio.current_time()
        self._site = Site(node.id, download)

    @property
    def is_deserted(self) -> bool:
        """Whether nobody is known who could give anything."""
        return not self._knows_peers and not self._origins

    @property
    def busy(self) -> int:
        """How many providers have no slot for us."""
        return sum(provider.is_busy for provider in self.providers.values())

    def remembered_rate(self) -> float:
        """Return the rate that those who give now had in earlier downloads, in bytes a second; 0: nothing is known."""
        total = 0.0
        for link in LINK_CLASSES:
            rate = sum(provider.remembered or 0.0 for provider in self.providers.values() if provider.link == link)
            total += min(rate, self._node.links.settings.limit(link).down or math.inf)
        return total

    def explain(self) -> list[SwarmProvider]:
        """Return what is known of everybody who gave, gives or could not give, the fastest first."""
        return with_slow([self._explain(report) for report in self._download.reports.values()])

    def _explain(self, report: ProviderReport) -> SwarmProvider:
        provider = self.providers.get(report.name)
        if provider is None:
            return SwarmProvider(report.name, report.state, None, 0.0, report.received, report.reason)
        offers = provider.offers
        has = 1.0 if offers is None else offers.count(1) / len(offers) if offers else 0.0
        state = "busy" if provider.is_busy else report.state
        # While nothing comes from it, it gives less than a chunk on each connection in that time; spec/transfer.md §6.
        silent_s = trio.current_time() - max(report.last_arrival, provider.since)
        rate = min(report.rate, provider.running * CHUNK_SIZE_MAX / silent_s) if silent_s > 0 else report.rate
        return SwarmProvider(report.name, state, has, rate, report.received, report.reason)

    def note_mate(self, node: NodeId) -> None:
        """Note that a peer fetches the same, so that it has something or soon will."""
        now = trio.current_time()
        if self._next_try.get(node) == math.inf or now - self._mates.get(node, -math.inf) < MATE_S:
            return
        self._mates[node] = now
        self._next_try.pop(node, None)
        self._called.set()

    async def gather(self) -> None:
        """Begin with every peer that is not used yet, now and again later: peers come and go."""
        while True:
            self._called = trio.Event()
            peers = await peers_about(self._node, self._roots)
            self._knows_peers = bool(peers)
            for peer in self._in_order(peers):
                if list(self._next_try.values()).count(math.inf) >= PROVIDERS_MAX:
                    break
                if self._next_try.get(peer.node, 0.0) <= trio.current_time():
                    self._next_try[peer.node] = math.inf
                    self._nursery.start_soon(self._use_peer, peer)
            with trio.move_on_after(PEERS_S):
                await self._called.wait()

    def _in_order(self, peers: list[Peer]) -> list[Peer]:
        """Return the peers in the order in which they are to be tried.

        By chance, or all who fetch the same would ask the same few: some that the user added, then
        those that fetch the same, then the rest; last those that did not answer the last time.
        """
        self._node.rng.shuffle(peers)
        first = {peer.node for peer in [peer for peer in peers if peer.added][:ADDED_FIRST]}

        def rank(peer: Peer) -> tuple[bool, bool, bool]:
            return peer.failures > 0, peer.node not in first, peer.node not in self._mates

        return sorted(peers, key=rank)

    async def _use_peer(self, peer: Peer) -> None:
        """Take chunks from one peer until it fails too often, lies, or is not needed any more."""
        name = str(peer.node)
        report = self._download.reports.setdefault(name, ProviderReport(name))
        before = report.received
        pause_s = PAUSE_S
        try:
            async with call_peer(self._node, peer) as client:
                link = await self._node.links.class_of(peer, client.host)
                await show_receipts(self._node, client, [file.root for file in self._download.files])
                provider = PeerProvider(self._node, peer, client, report, link, self._download)
                if not await provider.look():
                    report.state, report.reason = "has nothing", "it has nothing of this"
                    return
                # Who offers and does not give is left alone for longer: its offer would keep us waiting.
                pause_s = PAUSE_SILENT_S
                await self._use(provider)
        except PeerViolation as exc:
            report.state, report.reason = "banned", str(exc)
            self._tell(Notice(f"banned: {exc}"))
            await ban_peer(self._node, peer.node, str(exc))
        except PeerError as exc:
            report.state, report.reason = "gone", str(exc)
        except StoreError as exc:
            self.failure = exc
        finally:
            self._next_try[peer.node] = trio.current_time() + (PAUSE_S if report.received > before else pause_s)

    async def use_always(self, provider: Provider) -> None:
        """Take chunks from a provider that is no peer, as long as it may have something."""
        self._origins += 1
        try:
            await self._use_again_and_again(provider)
        finally:
            self._origins -= 1

    async def _use_again_and_again(self, provider: Provider) -> None:
        report = provider.report
        while True:
            before = report.received
            try:
                await provider.look()
                await self._use(provider)
            except PeerViolation as exc:
                # Nothing to ban: an origin is an address, not an identity.
                report.state, report.reason = "banned", str(exc)
                self._tell(Notice(f"not asked any more: {exc}"))
                return
            except FileRefused as exc:
                report.state, report.reason = "giving" if report.received else "has nothing", str(exc)
                self._tell(Notice(str(exc)))
                return
            except PeerError as exc:
                report.state, report.reason = "gone", str(exc)
            except StoreError as exc:
                self.failure = exc
            await trio.sleep(PAUSE_S if report.received > before else PAUSE_SILENT_S)

    async def _use(self, provider: Provider) -> None:
        """Keep the connections to a provider busy. Raises PeerError when it is to be given up."""
        provider.remembered = (await on_disk(self._node.store.rates.of, [provider.name])).get(provider.name)
        provider.report.state, provider.report.reason = "giving", None
        provider.failure = None
        provider.since = trio.current_time()
        self.providers[provider.name] = provider
        self._share_connections()
        try:
            async with trio.open_nursery() as nursery:
                for number in range(CONNECTIONS_ALONE):
                    nursery.start_soon(self._run_connection, provider, number, nursery.cancel_scope)
                await self._follow(provider, nursery.cancel_scope)
        finally:
            del self.providers[provider.name]
            self._picker.remove_provider(provider.name)
            self._share_connections()
            self.wake_all()
        # Out here, so that the caller meets the error itself and not a group.
        if provider.failure:
            raise provider.failure

    async def _follow(self, provider: Provider, scope: trio.CancelScope) -> None:
        """Ask a provider again and again what it has, as long as that may change."""
        try:
            while True:
                with trio.move_on_after(self._interval_s(provider)) as interval:
                    await provider.wait_outdated()
                is_outdated = not interval.cancelled_caught
                if is_outdated or provider.offers is not None or provider.given or len(self.providers) > 1:
                    await provider.look()
                    self._site.set_mates(self._site_mates())
                    self._set_offer(provider)
                provider.note_looked()
        except PeerError as exc:
            provider.failure = exc
            scope.cancel()

    def _interval_s(self, provider: Provider) -> float:
        """Return the seconds until a provider is asked again what it has."""
        left_s = self._picker.missing_bytes / self.rate if self.rate else 0.0
        passed_s = trio.current_time() - self._begun
        return offer_interval_s(
            len(self.providers),
            is_whole=provider.offers is None,
            left_s=left_s,
            passed_s=passed_s,
            size=40 * len(self._download.incomplete()),
        )

    def _site_mates(self) -> frozenset[NodeId]:
        """Return who of this site fetches the same."""
        return frozenset(
            provider.mate
            for provider in self.providers.values()
            if provider.mate is not None and provider.link not in EXPENSIVE
        )

    def _set_offer(self, provider: Provider) -> None:
        self._picker.set_offer(
            provider.name,
            provider.offers,
            given=provider.given,
            allowed=self._allowed(provider),
            connections=self._connections(provider),
            runs=provider.runs,
        )

    def _connections(self, provider: Provider) -> int:
        """Return how many requests `provider` is asked at once."""
        is_near_and_whole = provider.offers is None and provider.link not in EXPENSIVE
        return connections_to_each(len(self.providers), is_near_and_whole=is_near_and_whole)

    def _allowed(self, provider: Provider) -> bytes | None:
        """Return what `provider` may be asked for: a byte a chunk, None for all."""
        if provider.link not in EXPENSIVE:
            return None
        near = [other for other in self.providers.values() if other.link not in EXPENSIVE and other.offers != b""]
        # Who says that it has all and gives nothing keeps nobody waiting.
        lately = trio.current_time() - PATIENCE_S
        lively = [other for other in near if max(other.since, other.report.last_arrival) >= lately]
        known = [rate for other in lively if (rate := self._picker.rate(other.name))]
        far = self._picker.rate(provider.name) or provider.remembered
        return self._site.allowed(
            provider.link,
            provider.given,
            any_of(other.offers for other in lively),
            (sum(known) if known else None, far),
            max((other.report.last_arrival for other in near), default=-math.inf),
        )

    def _share_connections(self) -> None:
        for provider in self.providers.values():
            self._set_offer(provider)
        self._shared.set()
        self._shared = trio.Event()

    def wake_all(self) -> None:
        """Let every provider look at once for something to fetch."""
        for provider in self.providers.values():
            provider.wake()

    async def _run_connection(self, provider: Provider, number: int, scope: trio.CancelScope) -> None:
        """Keep one connection busy; ends them all through `scope` when the provider is to be given up.

        number: of the connections to this provider, from 0.
        """
        connection: ContentConnection | None = None
        failures = 0
        try:
            while True:
                if number >= self._connections(provider):
                    await self._shared.wait()
                    continue
                request = None
                if not self._node.is_held(self._own):
                    request = self._picker.next_request(provider.name, trio.current_time())
                if request is None:
                    with trio.move_on_after(IDLE_S):
                        await provider.wait_woken()
                    continue
                wait_s = 0.0
                try:
                    with self._running(provider, request):
                        if connection is None or not connection.usable:
                            connection = await provider.connect()
                        async with self._node.links.turn_to_ask(provider.link):
                            is_usable = await self._download.fetch(
                                connection, request, background=self._is_background(provider)
                            )
                        if not is_usable:
                            connection.close()
                            connection = None
                    failures = 0
                    provider.is_busy, provider.report.reason = False, None
                except PeerBusy as exc:
                    provider.is_busy, provider.report.reason = True, str(exc)
                    wait_s = exc.retry_after_s
                except GivenMeanwhile:
                    await provider.look_now()
                except FileRefused as exc:
                    provider.report.reason = str(exc)
                    provider.file_refused(exc)
                    await provider.look_now()
                except PeerError as exc:
                    provider.report.reason = str(exc)
                    if connection is not None:
                        provider.connection_failed(connection)
                    if isinstance(exc, PeerViolation | OtherVersion) or failures == len(RETRY_S):
                        provider.failure = exc
                        scope.cancel()
                        return
                    wait_s = RETRY_S[failures]
                    failures += 1
                except StoreError as exc:
                    self.failure = exc
                    await trio.sleep_forever()  # the download ends now, and cancels this
                await trio.sleep(wait_s)
        finally:
            if connection is not None:
                connection.close()

    def _is_background(self, provider: Provider) -> bool:
        return self._own.background or self._node.links.is_background(provider.link)

    @contextmanager
    def _running(self, provider: Provider, request: Request[str]) -> Iterator[None]:
        """Count a request of `provider` as running during the block."""
        provider.running += 1
        try:
            yield
        finally:
            provider.running -= 1
            # Before the request ends, or what arrived would be asked for again.
            self._download.drain()
            if self._picker.request_ended(request):
                self.wake_all()


def offer_interval_s(provider_count: int, *, is_whole: bool, left_s: float, passed_s: float, size: int = 0) -> float:
    """Return the seconds until one of several providers is asked again what it has; spec/transfer.md §5.

    is_whole: it has everything. left_s, passed_s: of the download. size: bytes of the question and its answer, about.
    """
    least_s = WHOLE_OFFER_S if is_whole else OFFER_MIN_S
    share_s = min(left_s * OFFER_SHARE_LEFT, passed_s * OFFER_SHARE_PASSED)
    each_s = provider_count * OFFER_EACH_S
    return min(OFFER_MAX_S, max(least_s, share_s, each_s, size / OFFER_RATE))


def connections_to_each(provider_count: int, *, is_near_and_whole: bool = False) -> int:
    """Return how many requests each of so many providers is asked at once; spec/transfer.md §3.2.

    is_near_and_whole: it answers within a moment, and never has to be waited for. More connections than keep the
    processors busy take turns, and every turn costs.
    """
    if provider_count <= 1:
        return CONNECTIONS_ALONE
    many = MANY_NEAR if is_near_and_whole else MANY
    return CONNECTIONS_EACH if provider_count < many else CONNECTIONS_MANY


def with_slow(providers: list[SwarmProvider]) -> list[SwarmProvider]:
    """Return the providers, the fastest first, and those called slow that give much less than it."""
    fastest = max((provider.rate for provider in providers), default=0.0)

    def judge(provider: SwarmProvider) -> SwarmProvider:
        is_slow = provider.state == "giving" and 0 < provider.rate < fastest * SLOW_SHARE
        return replace(provider, state="slow") if is_slow else provider

    return [judge(provider) for provider in sorted(providers, key=lambda provider: (-provider.rate, provider.name))]
