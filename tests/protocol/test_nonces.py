from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2phub.core.errors import InvalidData
from p2phub.core.ids import NodeId
from p2phub.protocol.nonces import Nonces, TooManyRequests
from p2phub.testing import values

NODES = [NodeId(values.key(name).public_key) for name in "abc"]


def test_a_request_counts_once() -> None:
    nonces = Nonces()
    nonces.note(NODES[0], b"one", 10, 0)
    nonces.note(NODES[1], b"one", 10, 0)

    with pytest.raises(InvalidData, match="came before"):
        nonces.note(NODES[0], b"one", 10, 10)


def test_what_nobody_believes_any_more_is_forgotten() -> None:
    nonces = Nonces()
    for number in range(100):
        nonces.note(NODES[0], bytes([number]), 10, 0)
    nonces.note(NODES[0], b"new", 30, 11)

    assert len(nonces) == 1


def test_a_node_that_asks_too_much_is_sent_away_and_no_other() -> None:
    nonces = Nonces(node_max=3)
    for number in range(3):
        nonces.note(NODES[0], bytes([number]), 10, 0)

    with pytest.raises(TooManyRequests):
        nonces.note(NODES[0], b"more", 10, 0)
    nonces.note(NODES[1], b"more", 10, 0)
    nonces.note(NODES[0], b"more", 30, 11)


def test_a_network_that_comes_with_ever_more_keys_takes_nothing_from_others() -> None:
    nonces = Nonces(network_max=2, total_max=4)
    nonces.note(NODES[0], b"one", 10, 0, network="a")
    nonces.note(NODES[1], b"one", 10, 0, network="a")

    with pytest.raises(TooManyRequests):
        nonces.note(NODES[2], b"one", 10, 0, network="a")
    nonces.note(NODES[2], b"one", 10, 0, network="b")
    nonces.note(NODES[2], b"two", 30, 11, network="a")


def test_a_flood_of_keys_makes_nothing_be_forgotten() -> None:
    nonces = Nonces(total_max=2)
    nonces.note(NODES[0], b"one", 10, 0)
    nonces.note(NODES[1], b"one", 10, 0)

    with pytest.raises(TooManyRequests):
        nonces.note(NODES[2], b"one", 10, 0)
    with pytest.raises(InvalidData, match="came before"):
        nonces.note(NODES[0], b"one", 10, 0)


class Replays(RuleBasedStateMachine):
    """Whatever comes in whatever order: nothing is taken twice while anybody would believe it."""

    def __init__(self) -> None:
        super().__init__()
        self.nonces = Nonces(node_max=4, total_max=6)
        self.now = 0.0
        self.taken: dict[tuple[NodeId, bytes], float] = {}

    @rule(seconds=st.floats(0, 5))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(node=st.sampled_from(NODES), number=st.integers(0, 5), lasts=st.floats(0, 10))
    def ask(self, node: NodeId, number: int, lasts: float) -> None:
        nonce = bytes([number])
        good_until = self.taken.get((node, nonce), -1.0)
        try:
            self.nonces.note(node, nonce, self.now + lasts, self.now)
        except InvalidData:
            assert good_until >= self.now
        except TooManyRequests:
            assert good_until < self.now
        else:
            assert good_until < self.now
            self.taken[node, nonce] = self.now + lasts

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.nonces) <= 6


TestReplays = Replays.TestCase
