"""A world of real nodes on a simulated network, under a clock that jumps (spec/simulation.md).

    async def scenario(world):
        await world.add(20)
        head = await world.nodes[0].publish("parrot")
        await world.wait_until(lambda: all(node.has(head) for node in world.nodes), 60)

    simulate(scenario, seed=7)

Nodes run as they do in a daemon: store, peer door, replication. Only what they stand on
is simulated: network, time and chance. Equal seeds give equal traces.
"""

from __future__ import annotations

import contextlib
import logging
import random
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import trio
import trio.testing

from p2phub.core import signing
from p2phub.core.ids import PublicKey
from p2phub.node.disk import work_inline
from p2phub.store.layout import Layout
from p2phub.store.store import Store

from .network import ORDINARY, Host, Network, Weather
from .nodes import SimulatedNode
from .sockets import Sockets
from .trace import LogLines, Trace

EPOCH = 1_767_225_600  # seconds since 1970 at the start of a world: 2026-01-01
POLL_S = 0.05  # virtual seconds between looks at a condition

T = TypeVar("T")
MakeNode = Callable[["World", str, Host], SimulatedNode]


class Unmet(AssertionError):
    """What must happen in a world did not."""

    def __init__(self, text: str, world: World) -> None:
        super().__init__(f"{text} (seed {world.seed}, after {trio.current_time():.1f} s)")


class World:
    """Nodes and their network. Made by `simulate`."""

    def __init__(
        self, seed: int, folder: Path, nursery: trio.Nursery, trace: Trace, *, weather: Weather, plain: bool
    ) -> None:
        self.seed = seed
        self.trace = trace
        self.plain = plain  # nodes do without TLS
        self.rng = random.Random(f"{seed} world")  # for the scenario's own choices
        self.network = Network(weather, str(seed), lambda host, text: trace.note("net", host.name, text))
        self.nodes: list[SimulatedNode] = []
        self.nursery = nursery
        self.folder = folder
        self._addresses = random.Random(f"{seed} addresses")
        self._empty_index: bytes | None = None

    @property
    def now(self) -> float:
        """Seconds since 1970, as clocks that are right show them."""
        return EPOCH + trio.current_time()

    def say(self, text: str) -> None:
        """Note in the trace what the scenario does."""
        self.trace.note("world", "-", text)

    async def add(
        self,
        count: int = 1,
        make: MakeNode = SimulatedNode,
        *,
        knows: int = 3,
        prefix: str = "",
        told: Sequence[SimulatedNode] = (),
    ) -> list[Any]:
        """Start `count` nodes; each was told of `knows` of those that run already, chosen at random.

        make: the class of the nodes. told: other nodes that each was told of, too. prefix: of
        their addresses ("198.51."); else they are spread wide.
        """
        made = []
        for _ in range(count):
            number = len(self.nodes)
            name = f"n{number:03}"
            node = make(self, name, self.network.add_host(name, self._free_address(prefix)))
            node.told += [other.address for other in told]
            known = [other for other in self.nodes if other.is_running]
            for other in self.rng.sample(known, min(knows, len(known))):
                node.told.append(other.address)
            self.nodes.append(node)
            made.append(node)
            await node.start()
        return made

    async def run(self, seconds: float) -> None:
        """Let the world go on for a while."""
        await trio.sleep(seconds)

    async def wait_until(self, condition: Callable[[], bool], seconds: float, what: str = "it") -> float:
        """Wait until `condition` holds; returns the seconds that took. Raises Unmet if it takes too long."""
        begun = trio.current_time()
        while not condition():
            if trio.current_time() - begun >= seconds:
                raise Unmet(f"{what} did not happen within {seconds:g} s", self)
            await trio.sleep(POLL_S)
        return trio.current_time() - begun

    def cut(self, *groups: Sequence[SimulatedNode]) -> None:
        """Let only nodes of the same group reach each other."""
        self.say("the network is cut: " + " | ".join(_names(group) for group in groups))
        self.network.cut([[node.host for node in group] for group in groups])

    def heal(self) -> None:
        """Let all nodes reach each other again."""
        self.say("the network is whole")
        self.network.heal()

    def new_home(self, name: str) -> Layout:
        """Return the layout of a new home with an empty index."""
        home = self.folder / name
        layout = Layout(home, home / "store")
        layout.create()
        if self._empty_index is None:
            # Made once: its tables take longer than all else that starts a node.
            first = Layout(self.folder / "empty", self.folder / "empty" / "store")
            Store(first).close()
            self._empty_index = first.index.read_bytes()
        layout.index.parent.mkdir(parents=True, exist_ok=True)
        layout.index.write_bytes(self._empty_index)
        return layout

    def _free_address(self, prefix: str) -> str:
        while True:
            # Addresses that are routed on the internet, as nodes treat those of a private network otherwise.
            parts = [part for part in prefix.split(".") if part] or [str(self._addresses.randint(20, 99))]
            parts += [str(self._addresses.randint(1, 254)) for _ in range(4 - len(parts))]
            address = ".".join(parts)
            if self.network.host_at(address) is None:
                return address


def simulate(
    scenario: Callable[[World], Awaitable[T]],
    *,
    seed: int,
    weather: Weather = ORDINARY,
    plain: bool = True,
    trace: Trace | None = None,
) -> T:
    """Return what `scenario` returns, run in a new world. Raises what it raises."""
    trace = trace if trace is not None else Trace()
    # In memory where there is one: nothing in it is kept.
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="p2phub-", dir=fast if fast.is_dir() else None) as folder:

        async def main() -> T:
            work_inline()
            async with trio.open_nursery() as nursery:
                world = World(seed, Path(folder), nursery, trace, weather=weather, plain=plain)
                sockets = Sockets(world.network)
                trio.socket.set_custom_socket_factory(sockets)
                trio.socket.set_custom_hostname_resolver(sockets)
                nursery.start_soon(world.network.clockwork.run)
                try:
                    result = await scenario(world)
                finally:
                    for node in world.nodes:
                        await node.stop()
                nursery.cancel_scope.cancel()
            return result

        with _in_order(seed), _logged(trace), _remembered():
            return _unwrapped(main)


def _unwrapped(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main`, and raise its error itself instead of the group of a nursery."""
    try:
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        inner: BaseException = group
        while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
            inner = inner.exceptions[0]
        raise inner from None


@contextlib.contextmanager
def _in_order(seed: int) -> Iterator[None]:
    """Let trio choose which task goes first by a seed.

    As its own plugin for Hypothesis does: there is no public way.
    """
    scheduler = trio._core._run
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r = random.Random(f"{seed} tasks")
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r = before  # type: ignore[misc]


@contextlib.contextmanager
def _remembered() -> Iterator[None]:
    """Check each signature once for all nodes of a world, which all check the same ones."""
    check = signing._check
    good: set[bytes] = set()

    def check_once(key: PublicKey, message: bytes, signature: bytes, what: str) -> None:
        seen = blake2b(key + signature + message, digest_size=16).digest()
        if seen not in good:
            check(key, message, signature, what)
            good.add(seen)

    signing._check = check_once
    try:
        yield
    finally:
        signing._check = check


@contextlib.contextmanager
def _logged(trace: Trace) -> Iterator[None]:
    """Take what nodes log into the trace."""
    logger = logging.getLogger("p2phub")
    handler = LogLines(trace)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def _names(nodes: Sequence[SimulatedNode]) -> str:
    shown = [node.name for node in nodes[:8]]
    return " ".join(shown) + (f" and {len(nodes) - 8} more" if len(nodes) > 8 else "")
