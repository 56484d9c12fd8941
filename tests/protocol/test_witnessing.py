"""A witness at its work, by the requests that others published and by ones that try to make it sign two histories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core import merkle
from p2phub.core.ids import PublicKey
from p2phub.core.merkle import LOG_TREE
from p2phub.core.notes import split_note
from p2phub.core.signing import check_note_signature
from p2phub.core.witness import AddCheckpoint, Checkpoint, parse_checkpoint, parse_request
from p2phub.protocol.witnessing import Cosigned, Refusal, check_request
from p2phub.testing import c2sp


class Machine:
    """A witness that keeps what it cosigned in memory."""

    def __init__(self) -> None:
        self.known: Cosigned | None = None

    def ask(self, request: AddCheckpoint, checkpoint: Checkpoint) -> Refusal | None:
        refusal = check_request(request, checkpoint, self.known)
        if refusal is None:
            self.known = Cosigned(checkpoint.size, checkpoint.root, request.note)
        return refusal

    def send(self, body: str) -> int:
        """Ask as others' tests do; returns the status."""
        request = parse_request(body.encode())
        text, lines = split_note(request.note)
        check_note_signature(PublicKey(c2sp.LITEWITNESS_LOG_KEY), text, lines[0].signature)
        refusal = self.ask(request, parse_checkpoint(text))
        return refusal.status if refusal else 200


def test_requests_that_others_published_are_answered_as_they_say() -> None:
    machine = Machine()

    assert machine.send(c2sp.LITEWITNESS_1) == 200
    assert machine.send(c2sp.LITEWITNESS_1_TO_3.replace("KgEAAA", "KgIAAA", 1)) == 422
    assert machine.send(c2sp.LITEWITNESS_1_TO_3.replace("KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "")) == 422
    assert machine.send(c2sp.LITEWITNESS_1_TO_3) == 200
    assert machine.send(c2sp.LITEWITNESS_1_TO_5) == 409
    assert machine.known is not None
    assert machine.known.size == 3


def test_the_smaller_of_two_heads_that_come_at_once_does_not_take_the_larger_back() -> None:
    machine = Machine()
    machine.send(c2sp.LITEWITNESS_1)

    assert machine.send(c2sp.LITEWITNESS_1_TO_5) == 200
    assert machine.send(c2sp.LITEWITNESS_1_TO_3) == 409
    assert machine.known is not None
    assert machine.known.root.hex() == "42bb57ad06420afa4882c4a63ac6a1ec77480b330b2f20dfc53a0caa5f564e36"


def leaves(count: int, history: str = "one") -> list[bytes]:
    return [LOG_TREE.leaf(f"{history} {number}".encode()) for number in range(count)]


def head_of(entries: list[bytes]) -> Checkpoint:
    return Checkpoint("log", len(entries), merkle.root(LOG_TREE, entries))


def growth(entries: list[bytes], old: int) -> AddCheckpoint:
    return AddCheckpoint(old, merkle.consistency_proof(LOG_TREE, entries, old), b"")


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_a_log_that_only_grows_is_cosigned_at_every_size(sizes: list[int]) -> None:
    machine, old = Machine(), 0
    for size in sorted(sizes):
        assert machine.ask(growth(leaves(size), old), head_of(leaves(size))) is None
        old = size


@given(common=st.integers(0, 20), one=st.integers(1, 10), other=st.integers(1, 10), old=st.integers(0, 40))
def test_no_second_history_is_cosigned(common: int, one: int, other: int, old: int) -> None:
    shared = leaves(common)
    first, second = shared + leaves(one, "a"), shared + leaves(other, "b")
    machine = Machine()
    assert machine.ask(growth(first, 0), head_of(first)) is None

    old = min(old, len(second))
    refusal = machine.ask(growth(second, old), head_of(second))

    assert refusal is not None
    assert refusal.is_fork == (len(second) == len(first))
    assert machine.known == Cosigned(len(first), head_of(first).root, b"")


def test_the_same_head_is_cosigned_again() -> None:
    machine = Machine()
    machine.ask(growth(leaves(5), 0), head_of(leaves(5)))

    assert machine.ask(AddCheckpoint(5, (), b""), head_of(leaves(5))) is None
    assert machine.ask(AddCheckpoint(5, (bytes(32),), b""), head_of(leaves(5))) == Refusal(
        422, "the consistency proof does not hold: consistency proof does not fit"
    )


@pytest.mark.parametrize(
    ("old", "proof", "size", "root", "status"),
    [
        (6, (), 5, None, 400),
        (0, (bytes(32),), 5, None, 422),
        (0, (), 0, bytes(32), 422),
        (1, (), 5, None, 409),
    ],
)
def test_the_first_head_of_a_log_needs_an_empty_proof_from_nothing(
    old: int, proof: tuple[bytes, ...], size: int, root: bytes | None, status: int
) -> None:
    refusal = check_request(
        AddCheckpoint(old, proof, b""), Checkpoint("log", size, root or head_of(leaves(size)).root), None
    )

    assert refusal is not None
    assert refusal.status == status


def test_who_does_not_know_the_size_is_told_it() -> None:
    machine = Machine()
    machine.ask(growth(leaves(5), 0), head_of(leaves(5)))

    refusal = machine.ask(growth(leaves(9), 0), head_of(leaves(9)))

    assert refusal is not None
    assert (refusal.status, refusal.size) == (409, 5)
