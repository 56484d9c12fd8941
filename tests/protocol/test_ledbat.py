"""The rate of what yields, on links that a few lines of arithmetic stand for."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.protocol.ledbat import RATE_MAX, RATE_START, STEP_S, TARGET_MIN_S, TARGET_S, Ledbat, Sample

FLOOR = 24 * 1024  # bytes a second
PACKET = 1448  # bytes


@dataclass
class Yielding:
    """A background sender on a link."""

    ledbat: Ledbat = field(default_factory=lambda: Ledbat(FLOOR))
    queued: float = 0.0  # bytes
    delivered: float = 0.0  # bytes
    rtt_s: float = 0.0
    base_s: float = 9.0
    lost_at: float = -9.0
    next_step: float = 0.0

    def step(self, now: float) -> None:
        losing = now - self.lost_at < 0.1
        self.ledbat.step(Sample(self.rtt_s, self.base_s, int(self.delivered), losing, True), now)


@dataclass
class Tcp:
    """A foreground flow: its window grows by a packet a round trip, and shrinks when it loses one."""

    begin: float
    end: float
    window: float = 64 * 1024.0  # bytes
    window_max: float = math.inf  # bytes, as a small buffer of its sender has it
    queued: float = 0.0
    delivered: float = 0.0
    lost_at: float = -9.0


class Path:
    """A link with a queue that flows share in the order in which their bytes come."""

    def __init__(
        self, yielding: list[Yielding], tcp: Tcp | None = None, *, rate: float = 2.5e6, queue_s: float = 0.2,
        delay_s: float = 0.001, begin: float = 0.0,
    ) -> None:  # fmt: skip
        self.yielding = yielding
        self.tcp = tcp
        self.rate = rate  # bytes a second
        self.room = rate * queue_s  # bytes
        self.delay_s = delay_s
        self.begin = begin  # seconds, of the background
        self.now = 0.0
        self.longest_s = 0.0
        self._random = random.Random(1)

    def run(self, until: float, tick_s: float = 0.002) -> None:
        while self.now < until:
            self._tick(tick_s)
            self.now += tick_s

    @property
    def queued(self) -> float:
        return sum(flow.queued for flow in self.yielding) + (self.tcp.queued if self.tcp else 0.0)

    def _tick(self, tick_s: float) -> None:
        rtt_s = self.delay_s + self.queued / self.rate
        self.longest_s = max(self.longest_s, rtt_s)
        for flow in self.yielding if self.now >= self.begin else ():
            size = min(flow.ledbat.rate * tick_s, self.room - self.queued)
            if size < flow.ledbat.rate * tick_s:
                flow.lost_at = self.now
            flow.queued += size
        if self.tcp and self.tcp.begin <= self.now < self.tcp.end:
            self._tick_tcp(self.tcp, tick_s, rtt_s)
        self._carry(tick_s, rtt_s)
        for flow in self.yielding if self.now >= self.begin else ():
            if self.now >= flow.next_step:
                flow.next_step = self.now + STEP_S * (1 + 0.3 * self._random.random())
                flow.step(self.now)

    def _tick_tcp(self, tcp: Tcp, tick_s: float, rtt_s: float) -> None:
        wanted = min(max(0.0, tcp.window - tcp.queued), 3 * self.rate * tick_s)
        if wanted > self.room - self.queued and self.now - tcp.lost_at > rtt_s:
            tcp.window *= 0.7
            tcp.lost_at = self.now
        tcp.queued += min(wanted, self.room - self.queued)
        if tcp.queued > 0.9 * tcp.window:
            tcp.window = min(tcp.window + PACKET * tick_s / rtt_s, tcp.window_max)

    def _carry(self, tick_s: float, rtt_s: float) -> None:
        queued, carried = self.queued, min(self.queued, self.rate * tick_s)
        for flow in [*self.yielding, *([self.tcp] if self.tcp else [])]:
            size = carried * flow.queued / queued if queued else 0.0
            flow.queued -= size
            flow.delivered += size
            if isinstance(flow, Yielding) and size:
                # As the kernel smooths it: an eighth for each acknowledgement, of two packets.
                flow.rtt_s += min(1.0, size / PACKET / 16) * (rtt_s - flow.rtt_s)
                flow.base_s = min(flow.base_s, rtt_s)


def carried(path: Path, until: float) -> tuple[float, float]:
    """Run `path`; returns the shares of the link that the background and the foreground got."""
    background = sum(flow.delivered for flow in path.yielding)
    foreground = path.tcp.delivered if path.tcp else 0.0
    capacity = (until - path.now) * path.rate
    path.run(until)
    after = path.tcp.delivered if path.tcp else 0.0
    return (sum(flow.delivered for flow in path.yielding) - background) / capacity, (after - foreground) / capacity


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("rate", [0.5e6, 2.5e6, 100e6])
@pytest.mark.parametrize("delay_s", [0.001, 0.05])
def test_an_idle_link_is_used_and_its_queue_kept_short(count: int, rate: float, delay_s: float) -> None:
    path = Path([Yielding() for _ in range(count)], rate=rate, delay_s=delay_s)
    path.run(8.0)
    path.longest_s = 0.0
    share, _ = carried(path, 20.0)

    assert share > 0.85
    assert path.longest_s < delay_s + 3 * TARGET_S


@pytest.mark.parametrize("rate", [2.5e6, 10e6, 100e6])
@pytest.mark.parametrize("delay_s", [0.001, 0.02])
def test_an_idle_link_is_used_soon(rate: float, delay_s: float) -> None:
    path = Path([Yielding() for _ in range(3)], rate=rate, delay_s=delay_s)
    share, _ = carried(path, 5.0)

    assert share > 0.75


@pytest.mark.parametrize("count", [1, 3])
def test_a_foreground_flow_gets_all_but_a_little_once_it_fills_the_queue(count: int) -> None:
    path = Path([Yielding() for _ in range(count)], Tcp(6.0, 16.0))
    path.run(8.0)
    behind, _ = carried(path, 16.0)

    assert behind < 0.1


@pytest.mark.parametrize("count", [1, 3])
def test_a_foreground_flow_gets_most_of_the_link_and_the_rest_comes_back_after_it(count: int) -> None:
    path = Path([Yielding() for _ in range(count)], Tcp(6.0, 16.0))
    path.run(8.0)
    behind, before = carried(path, 16.0)
    path.run(22.0)
    again, _ = carried(path, 28.0)

    assert before > 0.8
    assert behind > 0
    assert again > 0.8


def test_a_foreground_flow_that_fills_little_of_the_queue_is_soon_given_way_too() -> None:
    # What it has under way waits twice as long as the target at most.
    window = 2.5e6 * 2 * TARGET_S
    path = Path([Yielding() for _ in range(3)], Tcp(6.0, 16.0, window, window))
    path.run(7.0)
    behind, _ = carried(path, 9.0)

    assert behind < 0.09


@pytest.mark.parametrize("count", [1, 3])
def test_who_comes_late_takes_no_queue_of_others_for_the_length_of_the_way(count: int) -> None:
    path = Path([Yielding() for _ in range(count)], Tcp(0.0, 20.0), begin=8.0)
    path.run(10.0)
    _, before = carried(path, 20.0)

    assert before > 0.75


def test_where_queues_are_short_the_target_is_shorter() -> None:
    # Packets are lost before they ever wait as long as the target.
    path = Path([Yielding()], Tcp(6.0, 16.0), queue_s=TARGET_S / 2)
    path.run(8.0)
    _, before = carried(path, 16.0)

    assert before > 0.7


def sample(at: float, *, rate: float = 1e6, queue_s: float = 0.0, losing: bool = False, held: bool = True) -> Sample:
    return Sample(0.01 + queue_s, 0.01, int(rate * at), losing, held)


def test_it_begins_slowly_and_grows_only_by_what_arrives() -> None:
    ledbat = Ledbat(FLOOR)
    rates = [ledbat.step(sample(step / 10, rate=50_000), step / 10) for step in range(50)]

    assert ledbat.rate == rates[0] == RATE_START


def test_what_something_else_holds_back_teaches_nothing() -> None:
    ledbat = Ledbat(FLOOR)
    for step in range(50):
        ledbat.step(sample(step / 10, held=False), step / 10)

    assert ledbat.rate == RATE_START


def test_a_rest_is_not_taken_for_a_slow_link() -> None:
    ledbat = Ledbat(FLOOR)
    for step in range(20):
        ledbat.step(sample(step / 10), step / 10)
    before = ledbat.rate
    ledbat.rest()

    assert ledbat.step(sample(2.0), 100.0) == before


def test_no_news_changes_nothing() -> None:
    ledbat = Ledbat(FLOOR)
    ledbat.step(sample(1.0), 1.0)
    ledbat.step(sample(1.1), 1.1)
    before = ledbat.rate

    assert ledbat.step(sample(1.1, queue_s=1.0), 5.0) == before


def test_packets_lost_halve_the_rate_once() -> None:
    ledbat = Ledbat(FLOOR)
    for step in range(40):
        ledbat.step(sample(step / 10, rate=ledbat.rate), step / 10)
    at = 4.0
    before = ledbat.step(sample(at, rate=1e6), at)
    first = ledbat.step(sample(at + 0.1, rate=1e6, losing=True), at + 0.1)
    second = ledbat.step(sample(at + 0.2, rate=1e6, losing=True), at + 0.2)

    assert first <= before / 2
    assert second >= first


samples = st.lists(
    st.tuples(st.floats(0, 10), st.floats(0, 10), st.integers(0, 10**9), st.booleans(), st.booleans(), st.floats(0, 5)),
    max_size=60,
)


@given(samples)
def test_whatever_the_kernel_says_the_rate_stays_within_its_bounds(found) -> None:
    ledbat = Ledbat(FLOOR)
    now, delivered = 0.0, 0
    for rtt_s, base_s, size, losing, held, pause_s in found:
        now += pause_s
        delivered += size
        rate = ledbat.step(Sample(rtt_s, base_s, delivered, losing, held), now)

        assert FLOOR <= rate <= RATE_MAX
        assert TARGET_MIN_S <= ledbat._target_s <= TARGET_S
