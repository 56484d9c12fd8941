"""Who gives chunks of a download: what it offers, and how to connect to it (spec/transfer.md §2).

What the providers of one download are asked, and when, is up to their `crowd`.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from p2phub.core.choices import LinkClass
from p2phub.core.errors import FileRefused, InvalidData, PeerError, PeerViolation
from p2phub.core.ids import NodeId
from p2phub.net.bulk import BulkConnection
from p2phub.net.connection import ContentConnection
from p2phub.net.frames import FrameConnection
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import Have, Ticket
from p2phub.store.peers import Peer

from .download import Download, ProviderReport
from .node import Node

CONNECTIONS_EACH = 2  # to each of several providers, and tickets that are asked for at once


class Provider:
    """Somebody who gives chunks of a download, as long as it is used."""

    def __init__(self, report: ProviderReport, link: LinkClass) -> None:
        self.report = report
        self.link = report.link = link
        self.since = 0.0  # seconds, when it was begun to be used
        self.remembered: float | None = None  # bytes a second that it gave in earlier downloads
        self.mate: NodeId | None = None  # who it is, if it fetches the same
        self.offers: bytes | None = b""  # as the picker takes them
        self.given: bytes | None = None
        self.runs: Sequence[range] | None = None  # chunks that it gives only together; None: it gives any
        self.running = 0  # requests in flight
        self.is_busy = False  # it had no slot for the last request
        self.failure: PeerError | None = None
        self._woken = trio.Event()
        self._outdated, self._looked = trio.Event(), trio.Event()

    @property
    def name(self) -> str:
        return self.report.name

    async def connect(self) -> ContentConnection:
        """Return a new connection; it connects when it is first used. Raises PeerError."""
        raise NotImplementedError

    async def look(self) -> bool:
        """Find out what it offers now; returns whether it has something or will have. Raises PeerError."""
        raise NotImplementedError

    def connection_failed(self, connection: ContentConnection) -> None:
        """Note that a request on `connection` failed."""

    def file_refused(self, refusal: FileRefused) -> None:
        """Note that it does not give one file."""

    def wake(self) -> None:
        """Let idle connections look for work."""
        self._woken.set()
        self._woken = trio.Event()

    async def wait_woken(self) -> None:
        """Wait until there may be work again."""
        await self._woken.wait()

    async def look_now(self) -> None:
        """Have it asked at once what it offers, and wait until it was."""
        self._outdated.set()
        await self._looked.wait()

    async def wait_outdated(self) -> None:
        """Wait until somebody wants to know at once what it offers."""
        await self._outdated.wait()

    def note_looked(self) -> None:
        """Note that it was asked what it offers."""
        self._looked.set()
        self._outdated, self._looked = trio.Event(), trio.Event()
        self.wake()


class PeerProvider(Provider):
    """A peer that has answered a hello."""

    def __init__(
        self,
        node: Node,
        peer: Peer,
        client: PeerClient,
        report: ProviderReport,
        link: LinkClass,
        download: Download,
    ) -> None:
        super().__init__(report, link)
        self._node = node
        self._peer = peer
        self._client = client
        self._download = download
        self._tickets: list[Ticket] = []
        self._tickets_until = 0.0  # seconds
        self._only_tls = node.settings.only_tls  # or it gives no tickets, or only TLS passes between us

    async def connect(self) -> ContentConnection:
        node, client, is_plain = self._peer.node, self._client, self._node.settings.plain
        pacer = self._node.links.downloading(self.link)
        if not is_plain and not self._only_tls:
            ticket = await self._ticket()
            if ticket:
                return FrameConnection(node, client.host, client.port, ticket, pacer=pacer)
            self._only_tls = True
        return BulkConnection(node, client.host, client.port, plain=is_plain, pacer=pacer, signer=client.signer)

    async def _ticket(self) -> Ticket | None:
        """Return a fresh ticket; several are asked for at once, as the other connections will want theirs."""
        now = trio.current_time()
        if not self._tickets or now > self._tickets_until:
            self._tickets = list(await self._client.tickets(CONNECTIONS_EACH) or ())
            self._tickets_until = now + min((ticket.ttl for ticket in self._tickets), default=0) / 2
        return self._tickets.pop() if self._tickets else None

    def connection_failed(self, connection: ContentConnection) -> None:
        if isinstance(connection, FrameConnection) and not connection.answered:
            self._only_tls = True

    async def look(self) -> bool:
        places = self._download.incomplete()
        answer = await self._client.have([self._download.files[place].root for place in places], self._node.id)
        try:
            self._take(places, answer)
        except InvalidData as exc:
            raise PeerViolation(f"{self._client} sent {exc}", peer=self.name) from exc
        self.mate = self._peer.node if answer.fetching else None
        return answer.fetching or self.offers is None or 1 in self.offers

    def _take(self, places: list[int], answer: Have) -> None:
        self.offers = self._download.offers(places, answer.held)
        self.given = self._download.given(places, answer.given) if answer.given else None
