"""Keep the connections to each provider in use busy, as many as there should be (spec/transfer.md §3, §5).

    provider ──look──▶ offer ──▶ picker ──▶ requests on up to three connections each ──▶ Download

The picker decides what is asked of whom; this module does it. Nothing waits here without a limit. Who is used at all,
and when again, is for `crowd` to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from msgspec import Struct

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
from p2phub.core.ids import NodeId
from p2phub.net.connection import ContentConnection
from p2phub.protocol.flags import any_of
from p2phub.protocol.lease import EXPENSIVE, PATIENCE_S
from p2phub.protocol.picker import Request

from .disk import on_disk
from .download import Download
from .node import Node, Running
from .providers import CONNECTIONS_EACH, Provider
from .site import Site

IDLE_S = 0.25  # seconds until a connection with nothing to do looks again
# Seconds between questions to a provider that has not everything: a share of the time that is left and of the
# time that has passed, so that what comes early and late in a download spreads fast, and the questions of a long
# one cost little; spec/transfer.md §5.
OFFER_MIN_S, OFFER_MAX_S, OFFER_SHARE_LEFT, OFFER_SHARE_PASSED = 0.25, 3.0, 1 / 8, 1 / 4
OFFER_EACH_S = 0.15  # of that for each provider, at least: questions to many would leave time for nothing else
OFFER_RATE = 256 * 1024  # bytes a second of questions and answers to one provider, at most about
WHOLE_OFFER_S = 1.0  # seconds between questions to a provider of everything, about what it gave to others
RETRY_S = (0.5, 1.0, 2.0, 5.0)  # seconds before a provider that failed is tried again; then it is gone
CONNECTIONS_ALONE = 3  # to the only provider
CONNECTIONS_MANY = 1  # to each of many
MANY = 8  # providers
MANY_NEAR = 3  # of them, where each of those that are near and have everything needs no second connection


class Connections:
    """The providers in use for one download, and the connections to each."""

    def __init__(self, node: Node, download: Download, running: Running) -> None:
        self._node = node
        self._download = download
        self._picker = download.picker
        self._own = running
        self.providers: dict[str, Provider] = {}
        self.failure: StoreError | None = None  # of our own disk: ends the download
        self.rate = 0.0  # bytes a second, of the whole download, as far as is known
        self._shared = trio.Event()  # set when the connections are shared out among other providers
        self._begun = trio.current_time()
        self._site = Site(node.id, download)

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

    async def use(self, provider: Provider) -> None:
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
            connections=self._at_once(provider),
            runs=provider.runs,
        )

    def _at_once(self, provider: Provider) -> int:
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
        line = _Line()
        try:
            while True:
                if number >= self._at_once(provider):
                    await self._shared.wait()
                    continue
                request = None
                if not self._node.is_held(self._own):
                    request = self._picker.next_request(provider.name, trio.current_time())
                if request is None:
                    with trio.move_on_after(IDLE_S):
                        await provider.wait_woken()
                    continue
                await trio.sleep(await self._ask(provider, line, request))
        except PeerError as exc:
            provider.failure = exc
            scope.cancel()
        finally:
            line.close()

    async def _ask(self, provider: Provider, line: _Line, request: Request[str]) -> float:
        """Do one request, and return the seconds until the next. Raises PeerError if there is to be none."""
        try:
            await self._fetch(provider, line, request)
        except PeerBusy as exc:
            provider.is_busy, provider.report.reason = True, str(exc)
            return exc.retry_after_s
        except GivenMeanwhile:
            await provider.look_now()
        except FileRefused as exc:
            provider.report.reason = str(exc)
            provider.file_refused(exc)
            await provider.look_now()
        except PeerError as exc:
            provider.report.reason = str(exc)
            if line.connection is not None:
                provider.connection_failed(line.connection)
            if isinstance(exc, PeerViolation | OtherVersion) or line.failures == len(RETRY_S):
                raise
            line.failures += 1
            return RETRY_S[line.failures - 1]
        except StoreError as exc:
            self.failure = exc
            await trio.sleep_forever()  # the download ends now, and cancels this
        return 0.0

    async def _fetch(self, provider: Provider, line: _Line, request: Request[str]) -> None:
        with self._running(provider, request):
            if line.connection is None or not line.connection.usable:
                line.connection = await provider.connect()
            async with self._node.links.turn_to_ask(provider.link):
                is_usable = await self._download.fetch(
                    line.connection, request, background=self._is_background(provider)
                )
            if not is_usable:
                line.close()
        line.failures = 0
        provider.is_busy, provider.report.reason = False, None

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


class _Line(Struct, eq=False):
    """One of the connections to a provider."""

    connection: ContentConnection | None = None
    failures: int = 0  # one after the other

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


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
