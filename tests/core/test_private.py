"""Who may read a private repository is decided by what its logs say, in whatever order they are heard."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.checkpoint import sign_head
from p2phub.core.errors import InvalidData
from p2phub.core.ids import NodeId
from p2phub.core.private import (
    Granted,
    Grantee,
    PrivateHead,
    granted_by,
    in_force,
    names_caller,
    open_private_head,
    private_log_id,
)
from p2phub.core.records import GRANT_MAX_S, Grant, Ungrant, log_id
from p2phub.testing.values import TIME, identity, key

ALICE = identity("alice").namespace
LOGS = [private_log_id(ALICE, key("alice").public_key, bytes([number] * 32)) for number in range(3)]
grantees = st.builds(Grantee, st.sampled_from(["namespace", "node"]), st.sampled_from([b"a" * 32, b"b" * 32]))
said = st.builds(
    Granted,
    grantees,
    st.sampled_from([0, 100, 200]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(LOGS),
)


@given(st.lists(said, max_size=8, unique_by=lambda each: (each.log, each.index)), st.randoms())
def test_the_order_in_which_logs_are_heard_does_not_matter(found: list[Granted], rng: random.Random) -> None:
    mixed = list(found)
    rng.shuffle(mixed)

    assert {who: (each.until, each.time) for who, each in in_force(mixed).items()} == {
        who: (each.until, each.time) for who, each in in_force(found).items()
    }


def test_the_last_word_counts_and_to_take_back_counts_more_at_the_same_second() -> None:
    who = Grantee("namespace", b"a" * 32)
    granted, taken = Granted(who, 500, 10, 7, LOGS[0]), Granted(who, 0, 10, 0, LOGS[1])

    assert in_force([granted, taken])[who].until == 0
    assert in_force([granted, Granted(who, 0, 9, 0, LOGS[1])])[who].until == 500


def record(type_: type[Grant] | type[Ungrant], **fields: object) -> Grant | Ungrant:
    place = {"namespace": ALICE, "log": LOGS[0], "index": 3, "previous": bytes(32), "time": TIME, "model": "parrot"}
    return type_(**place, to=b"a" * 32, to_kind="node", **fields)  # type: ignore[arg-type]


def test_no_grant_counts_for_more_than_thirty_days() -> None:
    assert granted_by(record(Grant, until=TIME + 100)).until == TIME + 100
    assert granted_by(record(Grant, until=2**53)).until == TIME + GRANT_MAX_S
    assert granted_by(record(Ungrant)).until == 0


def test_a_grantee_is_met_by_what_a_caller_proved() -> None:
    node = NodeId(key("node").public_key)
    caller = Caller(node, frozenset({ALICE}))

    assert names_caller(Grantee("namespace", bytes(ALICE)), caller)
    assert names_caller(Grantee("node", bytes(node)), caller)
    # The same bytes as an id of the other kind are somebody else.
    assert not names_caller(Grantee("node", bytes(ALICE)), caller)
    assert not names_caller(Grantee("namespace", bytes(node)), caller)
    assert not names_caller(Grantee("node", bytes(node)), ANYBODY)


def test_a_private_log_is_none_that_the_key_alone_leads_to() -> None:
    public_key = key("alice").public_key

    assert private_log_id(ALICE, public_key, bytes(32)) != log_id(ALICE, public_key)
    assert len({private_log_id(ALICE, public_key, bytes([n] * 32)) for n in range(5)}) == 5


@pytest.mark.parametrize("wrong", ["secret", "key", "namespace", "signature"])
def test_a_head_must_be_of_the_log_that_key_and_secret_name(wrong: str) -> None:
    publisher, alice = identity("publisher"), key("alice")
    signer = key("publisher")
    secret = bytes([7] * 32)
    log = private_log_id(publisher.namespace, signer.public_key, secret)
    head = sign_head(log, 1, bytes(32), alice if wrong == "signature" else signer).text
    told = PrivateHead(
        ALICE if wrong == "namespace" else publisher.namespace,
        1,
        alice.public_key if wrong == "key" else signer.public_key,
        bytes(32) if wrong == "secret" else secret,
        head,
    )

    with pytest.raises(InvalidData):
        open_private_head(told, publisher)
    assert open_private_head(
        PrivateHead(publisher.namespace, 1, signer.public_key, secret, sign_head(log, 1, bytes(32), signer).text),
        publisher,
    ).size == 1  # fmt: skip


def test_secrets_do_not_reach_a_log() -> None:
    told = PrivateHead(ALICE, 1, key("alice").public_key, b"s" * 32, b"")

    assert "s" * 8 not in repr(told)
