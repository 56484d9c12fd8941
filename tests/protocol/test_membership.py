"""Whom a node keeps in touch with: whatever comes, in any order, late and twice."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2phub.core.ids import NodeId
from p2phub.protocol.membership import (
    ACTIVE_MAX,
    CHOSEN_MIN,
    CLASS_MAX,
    NETWORK_ACTIVE_MAX,
    ORIGINS,
    ROTATE_S,
    Ask,
    Contact,
    Exchange,
    Leave,
    Membership,
)
from p2phub.testing import values

NODES = [NodeId(values.key(f"member {number}").public_key) for number in range(40)]
OWN = NODES[0]
# Three of each network, and some of none: of one organisation's own addresses.
NETWORKS = {node: None if number % 4 == 0 else f"net {number // 3}" for number, node in enumerate(NODES)}

contacts = st.sampled_from([Contact(node, NETWORKS[node]) for node in NODES])
nodes = st.sampled_from(NODES)


class Life(RuleBasedStateMachine):
    """One node among others that do what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.node = Membership(OWN, random.Random(1), self.now)
        self.asked: set[NodeId] = set()
        self.came: set[NodeId] = set()  # neighbours that were not asked
        self.added: set[NodeId] = set()

    def follow(self, commands) -> None:
        for command in commands:
            assert command.node != OWN
            match command:
                case Ask(node, _):
                    assert node not in self.asked
                    assert not self.node.is_active(node)
                    self.asked.add(node)
                case Leave(node):
                    assert not self.node.is_active(node)
                    self.came.discard(node)
                case Exchange(node):
                    pass

    @rule(contact=contacts, origin=st.sampled_from(ORIGINS))
    def know(self, contact, origin):
        self.node.know(contact, origin)

    @rule(told=st.lists(contacts, max_size=8))
    def hear(self, told):
        self.node.heard(told)

    @rule(node=nodes)
    def node_answers(self, node):
        self.node.answered(node, self.now)

    @rule(node=nodes)
    def node_calls(self, node):
        self.node.called(node, self.now)

    @rule(contact=contacts, urgent=st.booleans())
    def ask_comes(self, contact, urgent):
        was_active = self.node.is_active(contact.node)
        accepted, commands = self.node.ask_came(contact, urgent=urgent, now=self.now)
        self.follow(commands)

        assert accepted == self.node.is_active(contact.node)
        if accepted and not was_active:
            self.came.add(contact.node)
            self.asked.discard(contact.node)

    @rule(node=nodes)
    def ask_is_accepted(self, node):
        self.follow(self.node.accepted(node, self.now))
        self.asked.discard(node)

    @rule(node=nodes)
    def ask_is_refused(self, node):
        self.node.refused(node, self.now)
        self.asked.discard(node)

    @rule(node=nodes)
    def node_fails(self, node):
        self.node.failed(node, self.now)
        self.asked.discard(node)
        self.came.discard(node)

        assert not self.node.is_active(node)

    @rule(node=nodes)
    def node_leaves(self, node):
        self.node.left(node, self.now)
        self.came.discard(node)

        assert not self.node.is_active(node)

    @rule(node=nodes)
    def node_is_forgotten(self, node):
        self.node.forget(node)
        self.asked.discard(node)
        self.came.discard(node)

        assert node not in self.node.candidates()

    @rule(seconds=st.floats(0, 200))
    def time_passes(self, seconds):
        self.now += seconds
        self.follow(self.node.tick(self.now))

    @invariant()
    def views_are_bounded_and_apart(self):
        active, candidates = self.node.active, self.node.candidates()

        assert len(active) <= ACTIVE_MAX
        assert len(self.came) <= ACTIVE_MAX - CHOSEN_MIN
        assert self.came <= set(active)
        assert len(candidates) == len(set(candidates)) <= 3 * CLASS_MAX
        assert not set(active) & set(candidates)
        assert not self.asked & (set(active) | set(candidates))
        assert OWN not in active
        assert OWN not in candidates

    @invariant()
    def no_network_has_many_places(self):
        networks = [NETWORKS[node] for node in self.node.active if NETWORKS[node]]

        assert all(networks.count(network) <= NETWORK_ACTIVE_MAX for network in networks)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def member(seed: int = 1) -> Membership:
    return Membership(OWN, random.Random(seed), 0.0)


def fill(node: Membership, others, *, now: float = 0.0) -> None:
    """Let all of `others` become neighbours that `node` has asked."""
    for other in others:
        node.know(Contact(other, None), "heard")
    while asks := [command for command in node.tick(now) if isinstance(command, Ask)]:
        for ask in asks:
            node.accepted(ask.node, now)


def test_those_who_call_leave_places_for_those_whom_the_node_chooses():
    node = member()
    accepted = [node.ask_came(Contact(other, None), urgent=True, now=0.0)[0] for other in NODES[1:]]

    assert accepted[: ACTIVE_MAX - CHOSEN_MIN] == [True] * (ACTIVE_MAX - CHOSEN_MIN)
    assert len(node.active) == ACTIVE_MAX - CHOSEN_MIN


def test_of_one_network_few_become_neighbours():
    node = member()
    asked = [node.ask_came(Contact(other, "9.9.0.0/16"), urgent=True, now=0.0)[0] for other in NODES[1:5]]

    assert asked == [True, True, False, False]


def test_who_asks_urgently_takes_the_place_of_one_that_came_by_itself():
    node = member()
    fill(node, NODES[1 : CHOSEN_MIN + 1])
    chosen = set(node.active)
    for second in range(3600):
        node.ask_came(Contact(NODES[10 + second % 30], None), urgent=True, now=float(second))

        assert chosen <= set(node.active)
    assert set(node.active) - chosen <= set(NODES[10:])


def test_neighbours_that_a_node_chose_are_not_displaced_by_those_who_call():
    node = member()
    fill(node, NODES[1 : ACTIVE_MAX + 1])
    chosen = node.active
    for second in range(3600):
        node.ask_came(Contact(NODES[10 + second % 30], None), urgent=True, now=float(second))

    assert node.active == chosen


def test_a_node_that_knows_only_liars_as_neighbours_comes_to_ask_one_that_the_user_added():
    liars = NODES[1 : ACTIVE_MAX + 1]
    friend = NODES[20]
    node = member()
    fill(node, liars)
    node.know(Contact(friend, None), "added")
    now = 0.0
    while not node.is_active(friend):
        now += 5.0
        # They tell of one another, day and night.
        node.heard([Contact(other, None) for other in NODES[21:]])
        for command in node.tick(now):
            if isinstance(command, Ask):
                node.accepted(command.node, now)

        assert now < 30 * ROTATE_S


def test_what_others_tell_does_not_displace_what_was_reached():
    node = member()
    reached = NODES[1:6]
    for other in reached:
        node.know(Contact(other, None), "reached")
    for _ in range(100):
        node.heard([Contact(other, None) for other in NODES[6:39]])

    assert set(reached) <= set(node.candidates())


def test_a_candidate_that_does_not_answer_is_not_called_before_its_time():
    node = member()
    node.know(Contact(NODES[1], None), "added")
    asked = []
    for second in range(24 * 3600):
        for command in node.tick(float(second)):
            if command.node == NODES[1]:
                asked.append(second)
                node.failed(NODES[1], float(second), 3600.0)

    assert 16 <= len(asked) <= 35


def test_who_has_no_place_is_not_asked_again_soon_but_can_be_compared_with():
    node = member()
    node.know(Contact(NODES[1], None), "added")
    (ask,) = [command for command in node.tick(0.0) if isinstance(command, Ask)]
    node.refused(ask.node, 0.0)

    assert not [command for command in node.tick(1.0) if isinstance(command, Ask)]
    assert node.partner(1.0) == NODES[1]


def test_a_dead_candidate_does_not_keep_living_ones_from_being_asked():
    node = member()
    dead, living = NODES[1:21], NODES[21:24]
    for other in dead:
        node.know(Contact(other, None), "added")
    for other in living:
        node.know(Contact(other, None), "reached")
    now = 0.0
    while not set(living) <= set(node.active):
        now += 1.0
        for command in node.tick(now):
            if command.node in living:
                node.accepted(command.node, now)
            else:
                node.failed(command.node, now)

        assert now < 60


def test_equal_chance_gives_equal_choices():
    def choices() -> list:
        node = member(seed=7)
        for other in NODES[1:30]:
            node.know(Contact(other, NETWORKS[other]), "heard")
        commands = []
        for second in range(600):
            for command in node.tick(float(second)):
                commands.append(command)
                if isinstance(command, Ask):
                    node.accepted(command.node, float(second))
        return [commands, node.sample(6, without=OWN)]

    assert choices() == choices()
