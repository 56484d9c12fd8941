"""News reaches every neighbour, whatever happens meanwhile, and a network of machines in few copies."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2phub.core.ids import LogId, NodeId
from p2phub.protocol.gossip import EAGER_MIN, LAZY_S, PENDING_MAX, Gossip, Telling
from p2phub.testing.gossipsim import GossipWorld

NODES = [NodeId(bytes([number]) * 32) for number in range(1, 8)]
LOGS = [LogId(bytes([number]) * 32) for number in range(5)]


class Telltale(RuleBasedStateMachine):
    """One node's news, and neighbours that come, go, fail and answer in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.gossip = Gossip(random.Random(1))
        self.neighbours: list[NodeId] = []
        self.sizes: dict[LogId, int] = {}
        self.owed: dict[NodeId, set[LogId]] = {}
        self.underway: dict[NodeId, Telling] = {}

    @rule(nodes=st.lists(st.sampled_from(NODES), unique=True))
    def neighbours_change(self, nodes):
        self.gossip.set_neighbours(nodes)
        self.neighbours = nodes
        self.owed = {node: self.owed.get(node, set()) for node in nodes}
        self.underway = {node: telling for node, telling in self.underway.items() if node in nodes}

    @rule(log=st.sampled_from(LOGS), source=st.none() | st.sampled_from(NODES))
    def log_grows(self, log, source):
        start = self.sizes.get(log, 0)
        self.sizes[log] = start + 1
        self.gossip.changed(log, (start + 1, 1), start, self.now, source=source)
        for node in self.neighbours:
            if node != source:
                self.owed[node].add(log)

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds):
        self.now += seconds
        self.send()

    def send(self) -> None:
        for telling in self.gossip.due(self.now):
            assert telling.to in self.neighbours
            assert telling.to not in self.underway
            assert not set(telling.whole) & set(telling.word)
            told = {*telling.whole, *telling.word}
            assert told
            assert told <= self.owed[telling.to]
            self.owed[telling.to] -= told
            self.underway[telling.to] = telling

    @precondition(lambda self: self.underway)
    @rule(data=st.data())
    def answer_comes(self, data):
        node = data.draw(st.sampled_from(sorted(self.underway)))
        telling = self.underway.pop(node)
        wanted = data.draw(st.sets(st.sampled_from(telling.word))) if telling.word else set()
        was_news = data.draw(st.booleans())
        self.gossip.told(
            telling,
            wanted={log: ((self.sizes[log], 1), 0) for log in sorted(wanted)},
            was_news=was_news,
            now=self.now,
        )
        self.owed[node] |= wanted

    @precondition(lambda self: self.underway)
    @rule(data=st.data())
    def message_is_put_off(self, data):
        node = data.draw(st.sampled_from(sorted(self.underway)))
        telling = self.underway.pop(node)
        told = [*telling.whole, *telling.word]
        self.gossip.put_off(telling, {log: (self.sizes[log], 1) for log in told}, self.now + 5)
        self.owed[node] |= set(told)

    @precondition(lambda self: self.underway)
    @rule(data=st.data())
    def message_fails(self, data):
        node = data.draw(st.sampled_from(sorted(self.underway)))
        del self.underway[node]
        self.gossip.failed(node)

    @rule(node=st.sampled_from(NODES), was_news=st.booleans())
    def something_comes(self, node, was_news):
        self.gossip.came(node, was_news=was_news)

    @rule(node=st.sampled_from(NODES), log=st.sampled_from(LOGS))
    def neighbour_has(self, node, log):
        self.gossip.knows(node, log, (self.sizes.get(log, 0), 1))
        self.owed.get(node, set()).discard(log)

    @invariant()
    def some_links_are_eager(self):
        assert len(self.gossip.eager()) >= min(EAGER_MIN, len(self.neighbours))

    @invariant()
    def what_is_owed_has_a_time(self):
        if any(self.owed[node] for node in self.neighbours if node not in self.underway):
            assert self.gossip.next_at() is not None

    def teardown(self):
        for _ in range(3):
            for telling in self.underway.values():
                self.gossip.told(telling, wanted={}, was_news=True, now=self.now)
            self.underway.clear()
            self.now += 10
            self.send()

        assert not any(self.owed.values())


TestTelltale = Telltale.TestCase
TestTelltale.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_source_of_news_is_not_told_it():
    gossip = Gossip(random.Random(1))
    gossip.set_neighbours(NODES[:3])
    gossip.changed(LOGS[0], (1, 1), 0, 0.0, source=NODES[0])

    assert {telling.to for telling in gossip.due(2 * LAZY_S)} == {NODES[1], NODES[2]}


def test_a_log_that_changes_often_waits_for_a_neighbour_once():
    gossip = Gossip(random.Random(1))
    gossip.set_neighbours(NODES[:1])
    for size in range(100):
        gossip.changed(LOGS[0], (size + 1, 1), size, 0.0)

    assert gossip.due(0.0) == [Telling(NODES[0], {LOGS[0]: 0}, ())]
    assert gossip.next_at() is None


def test_a_neighbour_that_never_answers_costs_bounded_memory():
    gossip = Gossip(random.Random(1))
    gossip.set_neighbours(NODES[:1])
    for number in range(PENDING_MAX + 500):
        gossip.changed(LogId(number.to_bytes(32, "big")), (1, 1), 0, 0.0)
    told = 0
    while tellings := gossip.due(0.0):
        told += sum(len(telling.whole) for telling in tellings)
        gossip.told(tellings[0], wanted={}, was_news=True, now=0.0)

    assert told == PENDING_MAX


@pytest.mark.parametrize("seed", [1, 2])
def test_news_reaches_a_network_of_machines_soon_and_in_few_copies(seed):
    world = GossipWorld(150, seed=seed, loss=0.01)
    world.run(60)
    for number in range(10):
        log = LogId(number.to_bytes(32, "big"))
        world.publish(world.rng.choice(world.nodes), log, (1, 1))
        world.run(10)
    copies = [world.copies[log] / len(world.nodes) for log in world.copies]
    reached = [len(world.delays(log, (1, 1))) for log in world.copies]

    assert len(copies) == 10
    assert max(copies) <= 3
    # The first news found out which links brought it twice.
    assert sum(copies[5:]) / len(copies[5:]) <= 2.1
    assert min(reached) >= 0.99 * len(world.nodes)


def test_news_passes_a_network_of_which_half_is_gone():
    world = GossipWorld(100, seed=3)
    world.run(60)
    for node in world.nodes[::2]:
        world.stop(node)
    world.run(60)
    world.publish(world.nodes[1], LOGS[0], (1, 1))
    world.run(10)

    assert len(world.delays(LOGS[0], (1, 1))) == 50


def test_news_passes_those_who_pass_nothing_on():
    world = GossipWorld(100, seed=4, loss=0.0)
    world.silent.update(world.nodes[::3])
    world.run(60)
    world.publish(world.nodes[1], LOGS[0], (1, 1))
    world.run(10)
    reached = set(world.arrivals[LOGS[0], (1, 1)])

    assert len(set(world.nodes) - world.silent - reached) <= 1


def test_equal_seeds_give_equal_worlds():
    def trace() -> dict:
        world = GossipWorld(40, seed=9)
        world.run(30)
        world.publish(world.nodes[5], LOGS[0], (1, 1))
        world.run(5)
        return world.arrivals

    assert trace() == trace()
