"""All who may give to one download: find them, use those that have something, leave those that fail or lie.

    known peers ──have──▶ ╮
    HTTP origins ───────▶ ┴─▶ Connections, until one fails ──▶ later again

Every provider's report says what became of it.
"""

from __future__ import annotations

import math

import trio

from p2phub.core.errors import FileRefused, PeerError, PeerViolation, StoreError
from p2phub.core.filetree import CHUNK_SIZE_MAX
from p2phub.core.ids import NodeId
from p2phub.store.peers import Peer

from .allowed import peers_about
from .calling import ban_peer, call_peer
from .connections import Connections
from .download import Download, ProviderReport
from .events import Notice, Tell
from .node import Node
from .operations.swarm import SwarmProvider, with_slow
from .providers import PeerProvider, Provider
from .receipts import show_receipts

PEERS_S = 5.0  # seconds between looks for new peers
MATE_S = 1.0  # seconds between visits to a peer that says again and again that it fetches the same
PAUSE_S = 5.0  # seconds until a provider that had nothing is asked anew
PAUSE_SILENT_S = 20.0  # the same for one that offered and did not give
PROVIDERS_MAX = 16  # used at once
ADDED_FIRST = 4  # of the peers that the user added, tried before those that fetch the same


class Crowd:
    """All who may give to one download."""

    def __init__(
        self, node: Node, download: Download, connections: Connections, tell: Tell, nursery: trio.Nursery
    ) -> None:
        """nursery: where each provider is used; the caller cancels it when the download is over."""
        self._node = node
        self._download = download
        self._roots = [file.root for file in download.files]
        self._connections = connections
        self._tell = tell
        self._nursery = nursery
        # By peer, in seconds; infinite while it is tried, so that no peer is tried twice at once.
        self._next_try: dict[NodeId, float] = {}
        self._mates: dict[NodeId, float] = {}  # who said that it fetches the same, and when it was last visited for it
        self._called = trio.Event()
        self._knows_peers = True
        self._origins = 0  # that may give something yet

    @property
    def is_deserted(self) -> bool:
        """Whether nobody is known who could give anything."""
        return not self._knows_peers and not self._origins

    def explain(self) -> list[SwarmProvider]:
        """Return what is known of everybody who gave, gives or could not give, the fastest first."""
        return with_slow([self._explain(report) for report in self._download.reports.values()])

    def _explain(self, report: ProviderReport) -> SwarmProvider:
        provider = self._connections.providers.get(report.name)
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
                await self._connections.use(provider)
        except PeerViolation as exc:
            report.state, report.reason = "banned", str(exc)
            self._tell(Notice(f"banned: {exc}"))
            await ban_peer(self._node, peer.node, str(exc))
        except PeerError as exc:
            report.state, report.reason = "gone", str(exc)
        except StoreError as exc:
            self._connections.failure = exc
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
                await self._connections.use(provider)
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
                self._connections.failure = exc
            await trio.sleep(PAUSE_S if report.received > before else PAUSE_SILENT_S)
