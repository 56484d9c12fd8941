"""Nodes that do not keep to the protocol, or whose machine is wrong (spec/simulation.md §5).

Each is a real node that does one thing otherwise. Where it can, it lies through its store,
whatever the questions are that peers ask of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

import trio
from msgspec.structs import replace

from p2phub.core.certificate import certificate
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import HubError
from p2phub.core.identity import new_document, open_identity, sign_document
from p2phub.core.ids import LogId, ManifestId, NamespaceId, NodeId
from p2phub.core.noderecord import TTL_MAX_S, NodeRecord, sign_node_record
from p2phub.core.records import Publish, Record, Summary
from p2phub.core.signing import SigningKey
from p2phub.net.door import Handler, Request, Response
from p2phub.net.peerclient import open_peer
from p2phub.node.node import Node
from p2phub.protocol.messages import (
    ANSWER_SIZE_MAX,
    FRAME_SIZE_MAX,
    IdentityChain,
    LogHead,
    MapAnswer,
    Reconciled,
    ReconcileQuery,
)
from p2phub.protocol.talk import TOLD_MAX, Ask, Exchange, Push, Reply, Say, Whole, sign_talk
from p2phub.store.arrivals import LogPart, Outcome

from .network import Host
from .nodes import PORT, SimulatedNode
from .sockets import on_host

if TYPE_CHECKING:
    from .world import World


class Liar(SimulatedNode):
    """A node that is not to be trusted."""

    lies = 0  # that it told

    def others(self) -> list[SimulatedNode]:
        """Return the nodes that it may harm: it knows them all."""
        return [node for node in self.world.nodes if not isinstance(node, Liar) and node.is_running]

    async def tell(self, peer: SimulatedNode, say: Say) -> None:
        """Say something to a peer in its own name."""
        message = sign_talk(say, self.key, peer.id, now=self.clock(), record=self.node.record())
        with contextlib.suppress(HubError):
            async with open_peer(peer.id, peer.host.address, PORT, plain=self.world.plain) as client:
                await client.talk(message)


class Withholder(Liar):
    """Takes nothing more from a moment on: to all who ask it, what is newer does not exist."""

    def withhold(self) -> None:
        """Begin."""
        self.say("withholds all that is newer")
        self.node.store.logs.extend_many = self._drop  # type: ignore[method-assign]

    def _drop(self, parts: Sequence[LogPart], *, now: float) -> list[Outcome]:
        self.lies += len(parts)
        return [0 for _ in parts]


class Replayer(Liar):
    """Tells everybody again and again the state in which logs were at a moment."""

    def __init__(self, world: World, name: str, host: Host) -> None:
        super().__init__(world, name, host)
        self._old: list[Whole] = []

    def remember(self) -> None:
        """Keep the state of all logs as what is told from now on."""
        self.say("tells what is now for ever")
        store = self.node.store
        for state in store.logs.states():
            identity = store.logs.identity(state.namespace)
            assert identity is not None
            head = LogHead(state.namespace, state.version, state.head)
            entries = store.logs.entries(state.log, 0, size_max=FRAME_SIZE_MAX // 4)
            self._old.append(Whole(head, 0, tuple(entries), IdentityChain(identity.chain)))

    async def live(self, node: Node) -> None:
        """Tell it, beside what a node does."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().live, node)
            while True:
                for peer in self.others() if self._old else ():
                    nursery.start_soon(self.tell, peer, Push(tuple(self._old[:8])))
                    self.lies += 1
                await trio.sleep(3.0)


class Eclipser(Liar):
    """Presses itself on everybody as a neighbour, knows only its accomplices, and hears and tells nothing."""

    def wrap(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            response = await handler(request)
            if request.path == "/v1/talk" and response.status == 200 and isinstance(response.body, bytes):
                self.lies += 1
                return Response(200, encode(Reply(neighbour=True, records=self._accomplices())))
            if request.path == "/v1/reconcile" and response.status == 200:
                return self._same(request)
            return response

        return answer

    def _same(self, request: Request) -> Response:
        """Say that the maps are the same, whatever is asked."""
        query = decode(request.body, ReconcileQuery, size_max=FRAME_SIZE_MAX)
        logs, nodes = (MapAnswer(asked.root, ()) if asked else None for asked in (query.logs, query.nodes))
        return Response(200, encode(Reconciled(logs, nodes)))

    def _accomplices(self) -> tuple[bytes, ...]:
        others = [node for node in self.world.nodes if isinstance(node, Eclipser) and node.is_running]
        return tuple(node.node.record() for node in self.world.rng.sample(others, min(len(others), TOLD_MAX)))

    async def live(self, node: Node) -> None:
        """Ask all to be a neighbour, urgently."""
        async with trio.open_nursery() as nursery:
            while True:
                for peer in self.others():
                    nursery.start_soon(self.tell, peer, Ask(urgent=True))
                    nursery.start_soon(self.tell, peer, Exchange(self._accomplices()))
                await trio.sleep(10.0)


class Echo(Liar):
    """Has another map than everybody who asks, and the same in each part of it."""

    def wrap(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            if request.path != "/v1/reconcile":
                return await handler(request)
            query = decode(request.body, ReconcileQuery, size_max=FRAME_SIZE_MAX)
            # What is asked about another map is answered in full.
            asked = [replace(part, root=self._other()) if part else None for part in (query.logs, query.nodes)]
            response = await handler(replace(request, body=encode(ReconcileQuery(query.salt, *asked))))
            assert isinstance(response.body, bytes)
            said = decode(response.body, Reconciled, size_max=ANSWER_SIZE_MAX)
            told = [replace(part, root=self._other()) if part else None for part in (said.logs, said.nodes)]
            self.lies += 1
            return Response(200, encode(Reconciled(*told)))

        return answer

    def _other(self) -> bytes:
        return self.world.rng.randbytes(32)


class Twin(Liar):
    """Has the publishing key of another node, and signs a history of its own with it."""

    def copy_identity(self, other: SimulatedNode) -> None:
        """Copy identity and key of another node, but not its log."""
        theirs, ours = other.node.settings.layout, self.node.settings.layout
        ours.keys.mkdir(parents=True, exist_ok=True)
        for path in (theirs.own_identity, theirs.keys / "publish.key"):
            target = ours.home / path.relative_to(theirs.home)
            target.write_bytes(path.read_bytes())
            target.chmod(path.stat().st_mode & 0o777)


class RecordMover(Liar):
    """Sends in place of the last record of a log one that was signed for another index."""

    def live(self, node: Node) -> Any:
        entries = node.store.logs.entries

        def moved(log: LogId, start: int, **limits: Any) -> list[bytes]:
            found = entries(log, start, **limits)
            if start + len(found) > 1:
                found[-1:] = entries(log, 0, **limits)[:1]
                self.lies += 1
            return found

        node.store.logs.entries = moved  # type: ignore[method-assign]
        return super().live(node)


class FastClock(Liar):
    """Its clock is 11 minutes ahead: a minute more than is borne with."""

    skew_s = 11 * 60.0


class Shouter(Liar):
    """Answers everything with more bytes than any answer may have, and sends queries that are too large."""

    def wrap(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            if request.path == "/v1/hello":
                return await handler(request)
            self.lies += 1
            return Response(200, bytes(ANSWER_SIZE_MAX + 1))

        return answer

    async def live(self, node: Node) -> None:
        """Shout at all peers, beside what a node does."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().live, node)
            while True:
                for peer in self.others():
                    nursery.start_soon(self._shout, peer.host.address)
                await trio.sleep(10.0)

    async def _shout(self, address: str) -> None:
        with contextlib.suppress(OSError, trio.BrokenResourceError, trio.TooSlowError), trio.fail_after(60):
            stream = await trio.open_tcp_stream(address, PORT)
            async with stream:
                size = 64 * FRAME_SIZE_MAX
                await stream.send_all(b"POST /v1/hello HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
                for _ in range(64):
                    await stream.send_all(bytes(FRAME_SIZE_MAX))


class Pretender(Liar):
    """Shows peers ever new nodes that it made up, all to be reached at one address: that of a victim."""

    victim: Host
    pause_s = 3.0  # between two for one peer

    async def live(self, node: Node) -> None:
        """Pretend, beside what a node does."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().live, node)
            while True:
                for peer in self.others():
                    nursery.start_soon(self._show, peer)
                    nursery.start_soon(self.tell, peer, Exchange(tuple(self._made_up() for _ in range(TOLD_MAX))))
                await trio.sleep(self.pause_s)

    def wrap(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            response = await handler(request)
            if request.path != "/v1/talk" or response.status != 200:
                return response
            return Response(200, encode(Reply(neighbour=True, records=(self._made_up(),))))

        return answer

    async def _show(self, peer: SimulatedNode) -> None:
        with contextlib.suppress(HubError):
            async with open_peer(peer.id, peer.host.address, PORT, plain=self.world.plain) as client:
                await client.hello(self._made_up())

    def _made_up(self) -> bytes:
        """Return the record of a node that does not exist."""
        self.lies += 1
        key = SigningKey(self._seed(f"made up {self.lies}"))
        record = NodeRecord(
            schema=1, node=NodeId(key.public_key), addresses=(f"{self.victim.address}:{PORT}",),
            certificate=certificate(key), time=int(self.clock()), ttl=TTL_MAX_S,
        )  # fmt: skip
        return sign_node_record(record, key).data


class Flooder(Liar):
    """Publishes in the names of ever new publishers."""

    async def flood(self, count: int, rate: float) -> None:
        """Publish one record of each of `count` publishers, `rate` a second."""
        logs = self.node.store.logs
        for _ in range(count):
            self.lies += 1
            key = SigningKey(self._seed(f"flood {self.lies}"))
            identity = open_identity([sign_document(new_document(key.public_key, created=int(self.clock())), [key])])
            logs.add_identity(identity)
            entry = logs.append_own(identity.namespace, key, partial(self._spam, identity.namespace))
            self.node.note_news(entry.record.log, 0)
            await trio.sleep(1.0 / rate)

    def _spam(
        self, namespace: NamespaceId, connection: Connection, log: LogId, index: int, previous: bytes, since: int
    ) -> Record:
        return Publish(
            namespace=namespace, log=log, index=index, previous=previous, time=int(self.clock()), model="spam",
            kind="model", manifest=ManifestId(bytes(32)), depth=1, branch="main", summary=Summary(files=1, size=1),
        )  # fmt: skip


class Bystander:
    """A host that has nothing to do with nodes, and counts who calls it."""

    def __init__(self, world: World, name: str, address: str) -> None:
        self.host: Host = world.network.add_host(name, address)
        self.calls: dict[str, int] = {}  # by the name of the caller
        self._world = world

    async def listen(self) -> None:
        """Take all calls and close them; runs until cancelled."""
        with on_host(self.host):
            (listener,) = await trio.open_tcp_listeners(PORT, host=self.host.address)
        await trio.serve_listeners(self._take, [listener])

    async def _take(self, stream: trio.SocketStream) -> None:
        caller = self._world.network.host_at(stream.socket.getpeername()[0])
        name = caller.name if caller else "?"
        self.calls[name] = self.calls.get(name, 0) + 1
        await stream.aclose()
