"""A simulated node: the real code of a daemon's node on a simulated host."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING

import trio

from p2phub.core.checkpoint import Head, parse_head
from p2phub.core.companion import CompanionKey
from p2phub.core.encoding import decode
from p2phub.core.envelope import Envelope
from p2phub.core.errors import InvalidData
from p2phub.core.ids import LogId, ManifestId, NodeId
from p2phub.core.names import Address
from p2phub.core.recipient import RecipientKey
from p2phub.core.records import Publish, Record, Summary
from p2phub.core.signing import SigningKey
from p2phub.net.door import Handler, Request, Response
from p2phub.node.identity import PUBLISH_FILE, create_identity, own_identity, publish_record
from p2phub.node.node import Node, open_node
from p2phub.node.replicate import replicate
from p2phub.node.serve import open_peer_door
from p2phub.node.settings import Settings
from p2phub.protocol.messages import FRAME_SIZE_MAX
from p2phub.protocol.talk import Push, Talk
from p2phub.store.keys import keep_companion, keep_key, keep_recipient

from .network import Host
from .sockets import on_host

if TYPE_CHECKING:
    from .world import World

PORT = 8627


class SimulatedNode:
    """A node that keeps to the protocol. Others are made by overriding what they do otherwise."""

    skew_s = 0.0  # seconds by which its clock is ahead

    def __init__(self, world: World, name: str, host: Host) -> None:
        self.world = world
        self.name = name
        self.host = host
        self.told: list[Address] = []  # peers that its user added
        self.key = SigningKey(self._seed("node key"))
        self.asked: dict[str, int] = {}  # requests that it answered, by path without what varies
        self.heard: dict[tuple[LogId, int], int] = {}  # how often peers told it of a head, by log and size
        self._layout = world.new_home(name)
        self._scope: trio.CancelScope | None = None
        self._stopped = trio.Event()
        self._node: Node | None = None
        self._starts = 0
        keep_key(self._layout.keys / "node.key", self.key)

    @property
    def id(self) -> NodeId:
        return NodeId(self.key.public_key)

    @property
    def address(self) -> Address:
        """Where it can be reached."""
        return Address(self.id, self.host.address, PORT)

    @property
    def node(self) -> Node:
        """The running node itself."""
        assert self._node is not None, f"{self.name} is not running"
        return self._node

    @property
    def is_running(self) -> bool:
        return self._node is not None

    def clock(self) -> float:
        """Return the time that its clock shows, in seconds since 1970."""
        return self.world.now + self.skew_s

    def say(self, text: str) -> None:
        """Note in the trace what it does."""
        self.world.trace.note("world", self.name, text)

    # ── life ────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Start it, as `p2phub node` does; returns when it serves."""
        self._starts += 1
        self.host.is_up = True
        self._stopped = trio.Event()
        self.say(f"starts at {self.host.address}")
        with on_host(self.host):
            await self.world.nursery.start(self._run)

    async def stop(self) -> None:
        """Stop it in order."""
        if self._scope is not None:
            self._scope.cancel()
            await self._stopped.wait()

    async def kill(self) -> None:
        """End it at once, its connections with it."""
        self.say("is killed")
        self.world.network.crash(self.host)
        self.world.network.unplug(self.host)
        await self.stop()

    async def _run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        settings = Settings(self._layout, plain=self.world.plain)
        rng = random.Random(self._seed(f"chance {self._starts}"))
        try:
            with trio.CancelScope() as self._scope:
                async with open_node(settings, clock=self.clock, rng=rng) as node, trio.open_nursery() as nursery:
                    _spare(node)
                    self._node = node
                    for address in self.told:
                        node.store.peers.add(address)
                    await open_peer_door(node, self.host.address, PORT, nursery, wrap=self._watched)
                    task_status.started()
                    await self.live(node)
        finally:
            self._scope = self._node = None
            self._stopped.set()

    async def live(self, node: Node) -> None:
        """Do what it does by itself, until cancelled."""
        await replicate(node)

    # ── what it knows ───────────────────────────────────────────────────────

    def publish(self, model: str, summary: Summary | None = None) -> Head:
        """Publish a release of `model`; returns the head that covers it."""
        node = self.node
        if not node.settings.layout.own_identity.exists():
            keys = node.settings.layout.keys
            keep_key(keys / PUBLISH_FILE, SigningKey(self._seed("publish key")))
            keep_companion(keys, CompanionKey(self._seed("companion key")))
            keep_recipient(keys, RecipientKey(self._seed("recipient key")))
            create_identity(node)
        revision = ManifestId(self._seed(f"manifest {model} {self._starts} {self.clock()}"))

        def make(*, log: LogId, index: int, previous: bytes, time: int) -> Record:
            return Publish(
                namespace=own_identity(node).namespace, log=log, index=index, previous=previous,
                time=int(self.clock()), model=model, kind="model", manifest=revision, depth=index + 1, branch="main",
                summary=summary or Summary(files=1, size=1000),
            )  # fmt: skip

        entry = publish_record(node, make)
        node.note_news(entry.record.log, entry.record.index)
        state = node.store.logs.state(entry.record.log)
        assert state is not None
        self.say(f"publishes {model}, record {entry.record.index} of log {str(state.log)[:8]}")
        return parse_head(state.head)

    def has(self, head: Head) -> bool:
        """Say whether it has all that `head` covers."""
        state = self.node.store.logs.state(head.log)
        return state is not None and (state.size, state.root) >= (head.size, head.root)

    def heads(self) -> dict[LogId, tuple[int, bytes]]:
        """Return size and root of each log that it has."""
        return {state.log: (state.size, state.root) for state in self.node.store.logs.states()}

    # ── what it answers ─────────────────────────────────────────────────────

    def wrap(self, handler: Handler) -> Handler:
        """Return what answers peers in place of `handler`, which is right."""
        return handler

    def _watched(self, handler: Handler) -> Handler:
        handler = self.wrap(handler)

        async def answer(request: Request) -> Response:
            path = "/".join(request.path.split("/")[:3])
            self.asked[path] = self.asked.get(path, 0) + 1
            for log, size in _heads_in(request):
                self.heard[log, size] = self.heard.get((log, size), 0) + 1
            response = await handler(request)
            asker = self.world.network.host_at(request.host)
            size = len(response.body) if isinstance(response.body, bytes) else sum(p.length for p in response.body)
            sizes = f"{len(request.body)} → {response.status} {size}"
            self.world.trace.note("ask", self.name, f"{asker.name if asker else '?'} {request.method} {path} {sizes}")
            return response

        return answer

    def _seed(self, what: str) -> bytes:
        """Return 32 bytes that are chance, but the same for the same world, node and `what`."""
        return blake2b(f"{self.world.seed} {self.name} {what}".encode(), digest_size=32).digest()


def _heads_in(request: Request) -> Iterator[tuple[LogId, int]]:
    """Yield log and size of each head that is told whole."""
    if request.path == "/v1/talk":
        with contextlib.suppress(InvalidData):
            payload = decode(request.body, Envelope, size_max=FRAME_SIZE_MAX).payload
            said = decode(payload, Talk, size_max=FRAME_SIZE_MAX).say
            for whole in said.whole if isinstance(said, Push) else ():
                head = parse_head(whole.head.head)
                yield head.log, head.size


def _spare(node: Node) -> None:
    """Let the index of a node use little memory and no syncs: a thousand are open, and none outlives the run."""
    with node.store.database.read() as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -256")
        connection.execute("PRAGMA wal_autocheckpoint = 64")
