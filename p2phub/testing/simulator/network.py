"""The network between simulated nodes: how long each byte takes, what is lost, who is cut off (spec/simulation.md §2).

    socket ──bytes──▶ Pipe ──arrives after latency, and after each loss again──▶ other socket

It carries TCP as programs see it: bytes arrive in order or the connection ends. A lost
packet so is a delay, as the sender repeats it; only a connection that stays without an
answer for long breaks. All that happens later is one list of events in the order of
their times, and chance has one seed, so a run can be repeated.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio

SEGMENT_SIZE = 1448  # bytes of data in one packet
WINDOW_SIZE = 256 * 1024  # bytes on the way and unread at most, in one direction
RETRANSMIT_MIN_S = 0.2  # until a packet that was lost is sent again: as Linux has it
RETRANSMIT_MAX_S = 60.0
CONNECT_RETRY_S = 1.0  # the same for the first packet, whose round trip is not known; RFC 6298 §2
GIVE_UP_S = 900.0  # without an answer
TICK_S = 0.001  # events are at multiples of it: those that fall together cost one step of the loop


@dataclass(frozen=True)
class Weather:
    """How the network is between any two hosts."""

    latency_min_s: float = 0.02  # one way; each pair of hosts has its own, always the same
    latency_max_s: float = 0.2
    jitter: float = 0.1  # of a pair's latency, at most, that a packet takes longer
    loss: float = 0.01  # chance of a packet to be lost


ORDINARY = Weather()


class Clockwork:
    """Calls functions when their time has come, those of one time in the order in which they were added."""

    def __init__(self) -> None:
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._wake = trio.Event()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Let `call` be called in so many seconds."""
        self.at(trio.current_time() + seconds, call)

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Let `call` be called at `time`, a time of trio's clock."""
        time = math.ceil(time / TICK_S - 1e-6) * TICK_S
        if not self._events or time < self._events[0][0]:
            self._wake.set()
        heapq.heappush(self._events, (time, next(self._numbers), call))

    async def run(self) -> None:
        """Call what is due, until cancelled."""
        while True:
            self._wake = trio.Event()
            due = self._events[0][0] if self._events else math.inf
            with trio.CancelScope(deadline=due):
                await self._wake.wait()
            now = trio.current_time()
            while self._events and self._events[0][0] <= now:
                heapq.heappop(self._events)[2]()


@dataclass(eq=False)
class Host:
    """A machine of the network."""

    name: str
    address: str
    is_up: bool = True
    region: int = 0  # hosts of one region reach each other, while the network is cut
    listeners: dict[int, Listener] = field(default_factory=dict)  # by port
    ends: dict[End, None] = field(default_factory=dict)  # of its open connections, the oldest first
    next_port: int = 32768
    sent: int = 0  # bytes
    received: int = 0  # bytes


class Listener:
    """A port where connections are taken."""

    def __init__(self, host: Host, port: int) -> None:
        self.host = host
        self.port = port
        self.waiting: deque[End] = deque()
        self.changed = trio.lowlevel.ParkingLot()
        self.is_closed = False

    def close(self) -> None:
        """Take no more connections."""
        self.is_closed = True
        if self.host.listeners.get(self.port) is self:
            del self.host.listeners[self.port]
        for end in list(self.waiting):
            end.close()
        self.changed.unpark_all()


class End:
    """One end of a connection: what arrived for it, and what it sends to the other."""

    def __init__(self, network: Network, host: Host, port: int) -> None:
        self.host = host
        self.port = port
        self.other: End
        self.unread = bytearray()
        self.is_ended = False  # nothing more will arrive
        self.is_closed = False  # by its owner
        self.error: OSError | None = None
        self.readable = trio.lowlevel.ParkingLot()
        self.writable = trio.lowlevel.ParkingLot()
        self._network = network
        self._way: deque[tuple[float, bytes | None]] = deque()  # to the other: when it arrives, what; None: the end
        self._way_size = 0  # bytes
        self._is_shut = False  # nothing more is sent
        self._lost_since = math.inf  # seconds: since when the oldest did not get through

    @property
    def room(self) -> int:
        """How many bytes may be sent now."""
        return max(0, WINDOW_SIZE - self._way_size - len(self.other.unread))

    def send(self, data: bytes) -> None:
        """Send `data`, for which there must be room."""
        self.host.sent += len(data)
        self._way_size += len(data)
        self._put(data)

    def shut(self) -> None:
        """Tell the other end that nothing more comes."""
        if not self._is_shut:
            self._is_shut = True
            self._put(None)

    def read(self, size: int, *, keep: bool = False) -> bytes:
        """Return bytes that arrived, at most `size`."""
        data = bytes(self.unread[:size])
        if not keep:
            del self.unread[:size]
            if data:
                self.other.writable.unpark_all()
        return data

    def close(self) -> None:
        """Close it as the kernel does: with a reset if something was not read."""
        if self.is_closed:
            return
        self.is_closed = True
        self.host.ends.pop(self, None)
        if self.unread:
            self._network.reset(self)
        else:
            self.shut()
        self.wake()

    def vanish(self) -> None:
        """Be gone without a word to the other end."""
        self.is_closed = True
        self.host.ends.pop(self, None)
        self._way.clear()

    def fail(self, error: OSError) -> None:
        """Let the connection be broken for its owner."""
        if self.error is None and not self.is_closed:
            self.error = error
            self._way.clear()
            self.host.ends.pop(self, None)
            self.wake()

    def wake(self) -> None:
        """Let all who wait look again."""
        self.readable.unpark_all()
        self.writable.unpark_all()

    def _put(self, data: bytes | None) -> None:
        if self.error is not None:
            return
        due = trio.current_time() + self._network.way_s(self.host, self.other.host, len(data or b""))
        if self._way:
            due = max(due, self._way[-1][0])  # in order
        self._way.append((due, data))
        if len(self._way) == 1:
            self._network.clockwork.at(due, self._arrive)

    def _arrive(self) -> None:
        """Deliver what is first on the way."""
        if not self._way:  # it broke meanwhile
            return
        clockwork, other = self._network.clockwork, self.other
        if not self._network.can_reach(self.host, other.host):
            now = trio.current_time()
            self._lost_since = min(self._lost_since, now)
            if now - self._lost_since > GIVE_UP_S:
                self.fail(TimeoutError(110, "Connection timed out"))
            else:
                # Twice as long each time: by then it has been lost for about as long.
                wait_s = min(max(RETRANSMIT_MIN_S, now - self._lost_since), RETRANSMIT_MAX_S)
                clockwork.after(wait_s, self._arrive)
            return
        self._lost_since = math.inf
        _, data = self._way.popleft()
        self._way_size -= len(data or b"")
        if other.is_closed:
            # Nobody is there to take it: the kernel answers with a reset.
            if data is not None:
                self._network.reset(other)
        elif data is None:
            other.is_ended = True
            other.readable.unpark_all()
        else:
            other.host.received += len(data)
            other.unread += data
            other.readable.unpark_all()
        if self._way:
            clockwork.at(max(trio.current_time(), self._way[0][0]), self._arrive)


class Network:
    """Hosts, and what lies between them."""

    def __init__(self, weather: Weather, seed: str, note: Callable[[Host, str], None]) -> None:
        """seed: of all chance. note: told what a host meets."""
        self.weather = weather
        self.clockwork = Clockwork()
        self.note = note
        self.connections = 0  # opened so far
        self._seed = seed
        self._rng = random.Random(f"{seed} network")
        self._hosts: dict[str, Host] = {}  # by address
        self._latency: dict[tuple[str, str], float] = {}  # seconds, by the two names
        self._is_cut = False

    def add_host(self, name: str, address: str) -> Host:
        """Connect a new host."""
        assert address not in self._hosts
        host = self._hosts[address] = Host(name, address)
        return host

    def host_at(self, address: str) -> Host | None:
        """Return the host with an address."""
        return self._hosts.get(address)

    # ── what goes wrong ─────────────────────────────────────────────────────

    def cut(self, groups: Iterable[Iterable[Host]]) -> None:
        """Let only hosts of the same group reach each other; who is in none belongs to the first."""
        for host in self._hosts.values():
            host.region = 0
        for number, group in enumerate(groups):
            for host in group:
                host.region = number
        self._is_cut = True

    def heal(self) -> None:
        """Let all hosts reach each other again."""
        self._is_cut = False

    def can_reach(self, here: Host, there: Host) -> bool:
        """Say whether packets get from one host to another."""
        return here.is_up and there.is_up and not (self._is_cut and here.region != there.region)

    def crash(self, host: Host) -> None:
        """End all connections of a host, as when its process is killed: its kernel resets them. Its tasks end next."""
        for end in list(host.ends):
            self.reset(end)
            end.vanish()
        # Who waits at them is not told: it ends, too.
        host.listeners.clear()

    def unplug(self, host: Host) -> None:
        """Let a host vanish without a word."""
        host.is_up = False

    def plug(self, host: Host) -> None:
        """Connect a host that vanished again."""
        host.is_up = True

    # ── packets ─────────────────────────────────────────────────────────────

    def latency_s(self, here: Host, there: Host) -> float:
        """Return the least seconds from one host to another."""
        pair = (here.name, there.name) if here.name < there.name else (there.name, here.name)
        if pair not in self._latency:
            chance = random.Random(f"{self._seed} {pair}").random()
            spread = self.weather.latency_max_s - self.weather.latency_min_s
            self._latency[pair] = self.weather.latency_min_s + chance * spread
        return self._latency[pair]

    def way_s(self, here: Host, there: Host, size: int) -> float:
        """Return the seconds until `size` bytes that are sent now have arrived, losses included."""
        latency_s = self.latency_s(here, there)
        way_s = latency_s * (1 + self._rng.random() * self.weather.jitter)
        packets = max(1, math.ceil(size / SEGMENT_SIZE))
        wait_s = max(RETRANSMIT_MIN_S, 2 * latency_s)
        while self._rng.random() < 1 - (1 - self.weather.loss) ** packets:
            way_s += wait_s
            wait_s = min(2 * wait_s, RETRANSMIT_MAX_S)
            packets = 1  # that which was lost
        return way_s

    def reset(self, end: End) -> None:
        """Tell the other end that this one is gone, if it can be reached."""
        other = end.other
        if self.can_reach(end.host, other.host):
            error = ConnectionResetError(104, "Connection reset by peer")
            self.clockwork.after(self.latency_s(end.host, other.host), lambda: other.fail(error))

    async def connect(self, here: Host, address: str, port: int) -> End:
        """Return our end of a new connection. Raises OSError."""
        there = self._hosts.get(address)
        if there is None:
            await trio.lowlevel.checkpoint()
            raise OSError(101, "Network is unreachable")
        begun, retry_s = trio.current_time(), CONNECT_RETRY_S
        while not self.can_reach(here, there) or self._rng.random() < 1 - (1 - self.weather.loss) ** 2:
            if trio.current_time() - begun > GIVE_UP_S:
                raise TimeoutError(110, "Connection timed out")
            await trio.sleep(retry_s)
            retry_s *= 2
        await trio.sleep(2 * self.latency_s(here, there))
        listener = there.listeners.get(port)
        if listener is None or not here.is_up:
            self.note(here, f"is refused by {there.name}")
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = End(self, here, here.next_port), End(self, there, port)
        ours.other, theirs.other = theirs, ours
        here.next_port = here.next_port + 1 if here.next_port < 60999 else 32768
        here.ends[ours] = there.ends[theirs] = None
        self.connections += 1
        self.note(here, f"connects to {there.name}")

        def accept() -> None:
            if there.listeners.get(port) is not listener:
                theirs.close()
            else:
                listener.waiting.append(theirs)
                listener.changed.unpark_all()

        self.clockwork.after(self.latency_s(here, there), accept)
        return ours
