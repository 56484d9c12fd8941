"""A network of membership and gossip machines alone: no node, no sockets, no records (spec/gossip.md §2, §3).

It shows what the machines do together: how far and how fast news spreads, and in how many
copies. The nodes themselves run in the simulator.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from p2phub.core.ids import LogId, NodeId
from p2phub.protocol.gossip import Gossip, Mark
from p2phub.protocol.membership import Ask, Command, Contact, Exchange, Leave, Membership

LATENCY_S = (0.02, 0.2)  # of one way
TIMEOUT_S = 3.0  # until a question that was lost has failed
SAMPLE = 6  # peers told of in one exchange


class GossipWorld:
    """Machines that talk to each other; messages take time, and some are lost."""

    def __init__(self, count: int, *, seed: int, loss: float = 0.01) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.loss = loss
        self.nodes = [NodeId(number.to_bytes(2, "big") + bytes(30)) for number in range(1, count + 1)]
        self.members = {node: Membership(node, random.Random(self.rng.random()), 0.0) for node in self.nodes}
        self.gossips = {node: Gossip(random.Random(self.rng.random())) for node in self.nodes}
        self.logs: dict[NodeId, dict[LogId, Mark]] = {node: {} for node in self.nodes}
        self.copies: Counter[LogId] = Counter()  # messages that brought a log whole
        self.arrivals: dict[tuple[LogId, Mark], dict[NodeId, float]] = {}
        self.gone: set[NodeId] = set()
        self.silent: set[NodeId] = set()  # they answer, and pass nothing on
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = itertools.count()
        for number, node in enumerate(self.nodes):
            if number:
                # All that a newcomer knows is one of three old ones.
                self.members[node].know(Contact(self.nodes[self.rng.randrange(min(number, 3))], None), "added")
            self._later(self.rng.uniform(0, 1), self._tick, node)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, work, arguments = heapq.heappop(self._events)
            work(*arguments)
        self.now = end

    def publish(self, node: NodeId, log: LogId, mark: Mark) -> None:
        """Let a log come further at `node`."""
        self._take(node, log, mark, None)

    def stop(self, node: NodeId) -> None:
        """Let `node` be gone."""
        self.gone.add(node)

    def delays(self, log: LogId, mark: Mark) -> list[float]:
        """Return the seconds that news took to each node that it reached, sorted."""
        times = sorted(self.arrivals.get((log, mark), {}).values())
        return [time - times[0] for time in times]

    # ── messages ────────────────────────────────────────────────────────────

    def _later(self, delay_s: float, work: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._count), work, arguments))

    def _ask(
        self,
        caller: NodeId,
        to: NodeId,
        answer: Callable[[], Any],
        done: Callable[[Any], None],
        *,
        matters: bool = True,
    ) -> None:
        def fail() -> None:
            if matters:
                self.members[caller].failed(to, self.now)
                self.gossips[caller].failed(to)
                self._follow(caller, [])

        if self.rng.random() < self.loss:
            self._later(TIMEOUT_S, fail)
            return

        def arrive() -> None:
            if to in self.gone:
                self._later(TIMEOUT_S, fail)
            else:
                self._later(self.rng.uniform(*LATENCY_S), done, answer())

        self._later(self.rng.uniform(*LATENCY_S), arrive)

    def _tick(self, node: NodeId) -> None:
        if node not in self.gone:
            self._follow(node, self.members[node].tick(self.now))
            self._later(1.0, self._tick, node)

    def _follow(self, node: NodeId, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Ask(to, urgent):
                    self._ask_neighbour(node, to, urgent)
                case Exchange(to):
                    self._exchange(node, to)
                case Leave(to):
                    self._ask(node, to, lambda to=to: self._left(to, node), lambda _: None, matters=False)  # type: ignore[misc]
        self.gossips[node].set_neighbours(self.members[node].active)
        self._flush(node)

    def _left(self, node: NodeId, other: NodeId) -> None:
        self.members[node].left(other, self.now)
        self._follow(node, [])

    def _sample(self, node: NodeId, other: NodeId) -> list[Contact]:
        return [Contact(each, None) for each in self.members[node].sample(SAMPLE, without=other)]

    def _ask_neighbour(self, node: NodeId, to: NodeId, urgent: bool) -> None:
        def answer() -> tuple[bool, list[Contact]]:
            accepted, commands = self.members[to].ask_came(Contact(node, None), urgent=urgent, now=self.now)
            self._follow(to, commands)
            return accepted, self._sample(to, node)

        def done(said: tuple[bool, list[Contact]]) -> None:
            accepted, told = said
            member = self.members[node]
            member.heard(told)
            member.answered(to, self.now)
            commands = []
            if accepted:
                commands = member.accepted(to, self.now)
            else:
                member.refused(to, self.now)
            self._follow(node, commands + member.tick(self.now))

        self._ask(node, to, answer, done)

    def _exchange(self, node: NodeId, to: NodeId) -> None:
        told = self._sample(node, to)

        def answer() -> tuple[bool, list[Contact]]:
            self.members[to].heard(told)
            self.members[to].called(node, self.now)
            return self.members[to].is_active(node), self._sample(to, node)

        def done(said: tuple[bool, list[Contact]]) -> None:
            self.members[node].heard(said[1])
            self.members[node].answered(to, self.now)
            if not said[0]:
                self.members[node].left(to, self.now)
            self._follow(node, [])

        self._ask(node, to, answer, done)

    # ── news ────────────────────────────────────────────────────────────────

    def _take(self, node: NodeId, log: LogId, mark: Mark, source: NodeId | None) -> None:
        self.logs[node][log] = mark
        self.arrivals.setdefault((log, mark), {})[node] = self.now
        if node not in self.silent:
            self.gossips[node].changed(log, mark, 0, self.now, source=source)
            self._flush(node)

    def _flush(self, node: NodeId) -> None:
        gossip = self.gossips[node]
        for telling in gossip.due(self.now):
            marks = {log: self.logs[node][log] for log in (*telling.whole, *telling.word)}

            def answer(to: NodeId = telling.to, whole: dict[LogId, int] = telling.whole,
                       word: tuple[LogId, ...] = telling.word, marks: dict[LogId, Mark] = marks,
                       ) -> tuple[bool, list[LogId]]:  # fmt: skip
                here = self.logs[to]
                was_news = False
                for log in whole:
                    self.copies[log] += 1
                    if here.get(log, (0, 0)) < marks[log]:
                        was_news = True
                        self._take(to, log, marks[log], node)
                    self.gossips[to].knows(node, log, marks[log])
                if whole:
                    self.gossips[to].came(node, was_news=was_news)
                return was_news, [log for log in word if here.get(log, (0, 0)) < marks[log]]

            def done(said: tuple[bool, list[LogId]], telling: Any = telling) -> None:
                wanted = {log: (self.logs[node][log], 0) for log in said[1]}
                gossip.told(telling, wanted=wanted, was_news=said[0], now=self.now)
                self._flush(node)

            self._ask(node, telling.to, answer, done)
        next_at = gossip.next_at()
        if next_at is not None:
            self._later(max(0.0, next_at - self.now) + 1e-6, self._flush, node)
