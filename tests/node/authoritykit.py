"""What the tests of authority share: a node that notes who asks it, and publishers that ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from p2phub.core.access import Caller
from p2phub.core.identity import Identity, IdentityDocument, RetiredKey, Role, open_identity, sign_document
from p2phub.core.ids import ContentId, NamespaceId
from p2phub.core.names import Address
from p2phub.net.bulk import BulkConnection
from p2phub.net.connection import ContentConnection, WantedChunk
from p2phub.net.door import Request
from p2phub.net.frames import FrameConnection
from p2phub.net.peerclient import PeerClient
from p2phub.node.identity import create_identity, own_identity
from p2phub.node.introduce import introduce
from p2phub.node.node import Node
from p2phub.protocol.messages import ByteRange
from p2phub.store.keys import load_key
from p2phub.testing import values
from p2phub.testing.hostile import open_home, serving

ASKED_SIZE = 40_000_000  # bytes of one answer: more than the buffers of two sockets take


@dataclass
class Watched:
    """A serving node, and who asked it for what."""

    node: Node
    address: Address
    seen: list[Request] = field(default_factory=list)
    clients: list[PeerClient] = field(default_factory=list)

    def client(self, asker: Node) -> PeerClient:
        signer = asker.calls.signer(self.node.id)
        client = PeerClient(self.node.id, self.address.host, self.address.port, signer=signer)
        self.clients.append(client)
        return client

    async def callers(self, client: PeerClient) -> list[Caller]:
        """Return as whom `client` is seen."""
        self.seen.clear()
        await client.have([values.file_entry("x", b"x").root])
        return [request.caller for request in self.seen]


@asynccontextmanager
async def watched(home: Path, **settings: Any) -> AsyncIterator[Watched]:
    """Serve a node whose requests can be looked at, each with the caller that the door found."""
    async with open_home(home, **settings) as node:
        seen: list[Request] = []
        identify = node.authority.identify

        async def noting(request: Request) -> Request:
            found = await identify(request)
            seen.append(found)
            return found

        node.authority.identify = noting  # type: ignore[method-assign]
        async with serving(node) as address:
            watch = Watched(node, address, seen)
            try:
                yield watch
            finally:
                for client in watch.clients:
                    client.close()


@asynccontextmanager
async def publisher_home(home: Path) -> AsyncIterator[tuple[Node, NamespaceId]]:
    async with open_home(home) as node:
        yield node, create_identity(node).namespace


def rotated(node: Node) -> Identity:
    """Return the identity of a home with document 2, in which another key publishes."""
    before = own_identity(node)
    key = load_key(node.settings.layout.keys / "publish.key")
    new = values.key("new")
    document = IdentityDocument(
        schema=1,
        version=2,
        created=before.current.created,
        root=before.current.root,
        publish=Role((new.public_key,), 1),
        fresh=before.current.fresh,
        previous=blake3(before.chain[-1].document).digest(),
        retired=(RetiredKey(key.public_key, 0),),
    )
    return open_identity([*before.chain, sign_document(document, [key])])


def restrict(node: Node, allowed: set[NamespaceId]) -> None:
    """Let all content of a node be for nodes alone that act for one of `allowed`."""

    def withheld(caller: Caller, identifiers: Collection[bytes]) -> set[bytes]:
        return set() if caller.namespaces & allowed else set(identifiers)

    node.access.withheld = withheld  # type: ignore[method-assign]


# ── content for few ─────────────────────────────────────────────────────────


@dataclass
class Scene:
    """A node with a model for few, and one of those few."""

    server: Watched
    asker: Node
    client: PeerClient
    namespace: NamespaceId
    allowed: set[NamespaceId]
    root: ContentId

    async def connect(self, way: str) -> ContentConnection:
        if way == "https":
            return BulkConnection(self.client.node, self.client.host, self.client.port, signer=self.client.signer)
        (ticket,) = await self.client.tickets(1) or ()
        return FrameConnection(self.client.node, self.client.host, self.client.port, ticket)

    def chunks(self) -> tuple[list[ByteRange], list[WantedChunk]]:
        """Return what to ask for, again and again until it is much."""
        chunks = self.server.node.store.chunk_lists.find(self.root)
        assert chunks is not None
        spans, wanted, size = [], [], 0
        while size < ASKED_SIZE:
            for index in range(len(chunks)):
                spans.append(ByteRange(self.root, chunks.offset(index), chunks.length(index)))
                wanted.append(WantedChunk(chunks.length(index), chunks.hash(index)))
                size += chunks.length(index)
        return spans, wanted

    def fetch_one(self, connection: ContentConnection) -> None:
        """Fetch one chunk. Blocks."""
        spans, wanted = self.chunks()
        connection.fetch(spans[:1], wanted[:1], lambda place, data: None, deadline_s=30)


@asynccontextmanager
async def scene(server_home: Path, asker_home: Path) -> AsyncIterator[Scene]:
    async with watched(server_home) as server, publisher_home(asker_home) as (asker, namespace):
        allowed = {namespace}
        restrict(server.node, allowed)
        client = server.client(asker)
        await introduce(asker, client)
        manifests = server.node.store.manifests
        files = [entry for each in manifests.all() for entry in (manifests.get(each) or pytest.fail("none")).files]
        root = max(files, key=lambda entry: entry.size).root
        yield Scene(server, asker, client, namespace, allowed, root)
