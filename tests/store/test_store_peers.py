from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storekit import TIME, open_store

from p2phub.core.ids import NodeId
from p2phub.core.names import Address
from p2phub.core.noderecord import SignedNodeRecord, sign_node_record
from p2phub.store import peers as module
from p2phub.store.peers import BAN_S, FORGET_S, Peers
from p2phub.store.store import Store
from p2phub.testing import values


def node(name: str = "node") -> NodeId:
    return NodeId(values.key(name).public_key)


def record(
    name: str = "node", *, time: int = TIME, addresses: tuple[str, ...] = ("192.0.2.1:7447",)
) -> SignedNodeRecord:
    plain = msgspec.structs.replace(values.node_record(name), time=time, addresses=addresses)
    return sign_node_record(plain, values.key(name))


@pytest.fixture
def peers(store: Store) -> Peers:
    return store.peers


# ── addresses ───────────────────────────────────────────────────────────────


def test_an_address_that_was_added_is_tried_first(peers: Peers) -> None:
    peers.add(Address(node(), "one.example", 1))
    peers.add(Address(node(), "two.example", 2))
    peers.add(Address(node(), "one.example", 1))
    peer = peers.get(node())
    assert peer is not None

    assert peer.added
    assert peer.endpoints == (("one.example", 1), ("two.example", 2))
    assert peer.addresses == [f"p2phub://{node()}@one.example:1", f"p2phub://{node()}@two.example:2"]


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "node.example"])
def test_addresses_of_every_kind_are_kept(peers: Peers, host: str) -> None:
    peers.add(Address(node(), host, 65535))
    peer = peers.get(node())
    assert peer is not None

    assert peer.endpoints == ((host, 65535),)


def test_what_the_user_typed_stays_in_front_of_what_records_say(peers: Peers) -> None:
    peers.add(Address(node(), "typed.example", 1))
    assert peers.note_record(record(addresses=("10.0.0.1:5", "typed.example:1")))
    peer = peers.get(node())
    assert peer is not None
    assert peer.endpoints == (("typed.example", 1), ("10.0.0.1", 5))
    assert peer.record == record(addresses=("10.0.0.1:5", "typed.example:1")).data
    assert peers.note_record(record(time=TIME + 1, addresses=("10.0.0.2:5",)))
    peer = peers.get(node())
    assert peer is not None

    assert peer.endpoints == (("typed.example", 1), ("10.0.0.2", 5))


def test_a_node_that_moves_often_is_found_where_it_is_now(peers: Peers) -> None:
    """As one on a laptop does, or one that listens on another port after each start."""
    peers.add(Address(node(), "typed.example", 1))
    peers.add(Address(node(), "also-typed.example", 1))
    for number in range(40):
        assert peers.note_record(record(time=TIME + number, addresses=(f"10.0.0.{number}:5", f"10.0.1.{number}:5")))
    peer = peers.get(node())
    assert peer is not None

    assert peer.endpoints == (
        ("also-typed.example", 1), ("typed.example", 1), ("10.0.0.39", 5), ("10.0.1.39", 5),
    )  # fmt: skip


def test_a_peer_that_nobody_added_is_where_its_newest_record_says(peers: Peers) -> None:
    assert peers.note_record(record(addresses=("10.0.0.1:5", "10.0.0.2:5")))
    assert peers.note_record(record(time=TIME + 1, addresses=("10.0.0.3:5",)))
    peer = peers.get(node())
    assert peer is not None

    assert not peer.added
    assert peer.endpoints == (("10.0.0.3", 5),)


def test_a_peer_known_by_its_record_can_be_added(peers: Peers) -> None:
    peers.note_record(record(addresses=("10.0.0.1:5",)))
    peers.add(Address(node(), "typed.example", 1))
    peer = peers.get(node())
    assert peer is not None

    assert peer.added
    assert peer.endpoints == (("typed.example", 1), ("10.0.0.1", 5))
    assert peer.record == record(addresses=("10.0.0.1:5",)).data


@settings(max_examples=10)
@given(st.permutations([0, 1, 2, 3]))
def test_the_newest_record_is_kept_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    with open_store(tmp_path_factory.mktemp("peers")) as store:
        newest = -1
        for number in order:
            fresh = store.peers.note_record(record(time=TIME + number, addresses=(f"10.0.0.{number}:5",)))
            assert fresh is (number > newest)
            newest = max(newest, number)
        peer = store.peers.get(node())
        assert peer is not None

        assert peer.record == record(time=TIME + 3, addresses=("10.0.0.3:5",)).data


def test_the_same_record_twice_is_no_news(peers: Peers) -> None:
    assert peers.note_record(record())
    assert not peers.note_record(record())


def test_no_more_strangers_are_kept_than_the_limit(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PEERS_MAX", 3)
    peers.add(Address(node("friend"), "friend.example", 1))
    for number in range(3):
        assert peers.note_record(record(f"stranger {number}"))
    peers.note_seen(node("stranger 0"), TIME)
    peers.note_seen(node("stranger 1"), TIME)
    # One that never answered makes room, one that did does not.
    assert peers.note_record(record("stranger 3"))
    left = ("friend", "stranger 0", "stranger 1", "stranger 3")
    assert {peer.node for peer in peers.all()} == {node(name) for name in left}
    peers.note_seen(node("stranger 3"), TIME)
    assert not peers.note_record(record("stranger 4"))
    peers.note_found(Address(node("stranger 4"), "192.0.2.9", 1))
    assert peers.get(node("stranger 4")) is None
    # Those who are known are kept up to date, and the user may add more.
    assert peers.note_record(record("stranger 1", time=TIME + 1))
    assert peers.note_record(record("friend"))
    peers.add(Address(node("stranger 4"), "friend.example", 1))
    assert peers.note_record(record("stranger 4"))
    assert len(peers.all()) == 5


def test_where_a_peer_was_found_is_tried_first_and_what_is_known_of_it_stays(peers: Peers) -> None:
    peers.note_record(record(addresses=("192.0.2.1:1",)))
    peers.note_found(Address(node(), "10.0.0.7", 2))
    peer = peers.get(node())
    assert peer is not None

    assert peer.endpoints == (("10.0.0.7", 2), ("192.0.2.1", 1))
    assert not peer.added
    assert peer.record is not None


def test_a_record_may_come_again_and_again_before_anybody_looks_what_changed(peers: Peers) -> None:
    assert [peers.note_record(record(time=TIME + number)) for number in range(3)] == [True, True, True]


# ── how it goes ─────────────────────────────────────────────────────────────


def test_failures_are_counted_until_the_peer_answers(peers: Peers) -> None:
    peers.add(Address(node(), "typed.example", 1))
    for number in range(3):
        peers.note_failure(node(), f"no answer {number}", TIME)
    peer = peers.get(node())
    assert peer is not None
    assert (peer.failures, peer.last_error, peer.last_seen) == (3, "no answer 2", None)
    peers.note_seen(node(), TIME + 0.9)
    peer = peers.get(node())
    assert peer is not None

    assert (peer.failures, peer.last_error, peer.last_seen) == (0, None, TIME)


def waits(peers: Peers, now: float, count: int) -> list[int]:
    """Return the seconds until the next try after each of `count` failures, each as soon as it may be."""
    found = []
    for _ in range(count):
        found.append(peers.note_failure(node(), "no answer", now))
        now += found[-1]
    return found


def test_a_peer_that_does_not_answer_is_called_less_and_less(peers: Peers) -> None:
    peers.add(Address(node(), "typed.example", 1))
    assert waits(peers, TIME, 14)[:5] == [30, 60, 120, 240, 480]
    # It may have been typed wrong: that is not to cost for ever.
    assert waits(peers, TIME, 1) == [24 * 3600]
    peers.note_seen(node(), TIME)
    assert waits(peers, TIME, 5) == [30, 60, 120, 120, 120]
    assert waits(peers, TIME + 10 * 24 * 3600, 3)[-1] == 3600


def test_a_peer_is_callable_when_its_time_has_come_or_it_was_added_again(peers: Peers) -> None:
    peers.add(Address(node(), "typed.example", 1))
    peers.note_record(record("seen"))
    peers.note_record(record("unseen"))
    peers.note_seen(node("seen"), TIME)
    assert peers.callable(TIME, added=True) == [node()]
    assert peers.callable(TIME, added=False) == [node("seen")]
    peers.note_failure(node(), "no answer", TIME)
    peers.ban(node("seen"), "it lied", TIME)
    assert peers.callable(TIME, added=True) == peers.callable(TIME, added=False) == []
    assert peers.callable(TIME + 31, added=True) == [node()]
    peers.add(Address(node(), "typed.example", 2))

    assert peers.callable(TIME, added=True) == [node()]


def test_bytes_received_add_up(peers: Peers) -> None:
    peers.add(Address(node(), "typed.example", 1))
    for size in (1, 2**40, 0):
        peers.note_received(node(), size)
    peer = peers.get(node())
    assert peer is not None

    assert peer.received == 2**40 + 1


def test_of_a_peer_that_is_not_known_nothing_is_noted(peers: Peers) -> None:
    peers.note_seen(node(), TIME)
    peers.note_failure(node(), "x", TIME)
    peers.note_received(node(), 5)

    assert peers.get(node()) is None
    assert not peers.remove(node())


def test_peers_are_listed_the_users_own_first_and_then_those_seen_last(peers: Peers) -> None:
    for number, name in enumerate("abcd"):
        peers.note_record(record(name))
        peers.note_seen(node(name), TIME + number)
    peers.add(Address(node("b"), "b.example", 1))
    peers.add(Address(node("e"), "e.example", 1))

    assert [peer.node for peer in peers.all()] == [node(name) for name in "bedca"]


# ── bans ────────────────────────────────────────────────────────────────────


def test_a_ban_lasts_an_hour_and_after_that_a_day(peers: Peers) -> None:
    peers.add(Address(node(), "typed.example", 1))
    assert BAN_S == (3600, 24 * 3600)
    for number, lasts_s in enumerate([3600, 86400, 86400], start=1):
        until = peers.ban(node(), f"lie {number}", TIME + 0.5)
        peer = peers.get(node())
        assert peer is not None

        assert until == peer.banned_until == TIME + lasts_s
        assert (peer.bans, peer.ban_reason) == (number, f"lie {number}")


def test_a_ban_outlives_records_additions_and_the_process(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.peers.note_record(record())
        until = store.peers.ban(node(), "a lie", TIME)
        store.peers.note_record(record(time=TIME + 5))
        store.peers.note_seen(node(), TIME + 5)
        store.peers.add(Address(node(), "typed.example", 1))
    with open_store(tmp_path) as store:
        store.rebuild(lambda text: None)
        peer = store.peers.get(node())
        assert peer is not None

        assert (peer.banned_until, peer.bans, peer.ban_reason) == (until, 1, "a lie")


def test_a_stranger_is_banned_too(peers: Peers) -> None:
    """A node that announces itself and lies in the same breath may not be in the list yet."""
    until = peers.ban(node(), "a lie", TIME)
    peer = peers.get(node())
    assert peer is not None
    assert (peer.banned_until, peer.bans, peer.endpoints, peer.added) == (until, 1, (), False)
    assert peers.note_record(record())
    peer = peers.get(node())
    assert peer is not None

    assert (peer.banned_until, peer.endpoints) == (until, (("192.0.2.1", 7447),))


def test_removing_a_peer_forgives_it(peers: Peers) -> None:
    peers.add(Address(node(), "typed.example", 1))
    peers.ban(node(), "a lie", TIME)
    assert peers.remove(node())
    assert peers.get(node()) is None
    peers.add(Address(node(), "typed.example", 1))

    peer = peers.get(node())
    assert peer is not None
    assert (peer.bans, peer.banned_until) == (0, 0)


# ── forgetting ──────────────────────────────────────────────────────────────


def test_only_strangers_that_were_not_seen_for_long_are_forgotten(peers: Peers) -> None:
    peers.add(Address(node("added"), "typed.example", 1))
    for name in ("old", "seen", "renewed", "banned", "was banned"):
        peers.note_record(record(name))
    later = TIME + FORGET_S + 1
    peers.note_seen(node("old"), TIME)
    peers.note_seen(node("seen"), later - 10)
    peers.note_record(record("renewed", time=later - 10))
    peers.ban(node("banned"), "a lie", later - 10)
    peers.ban(node("was banned"), "a lie", TIME)
    peers.forget_old(later)

    assert {peer.node for peer in peers.all()} == {node(name) for name in ("added", "seen", "renewed", "banned")}
    peers.forget_old(later + FORGET_S)
    assert {peer.node for peer in peers.all()} == {node("added")}


@pytest.mark.parametrize("ahead_s", [0, 1])
def test_a_ban_in_force_is_never_forgotten(peers: Peers, ahead_s: int) -> None:
    peers.note_record(record())
    until = peers.ban(node(), "a lie", TIME + 10 * FORGET_S)
    peers.forget_old(until - ahead_s)

    assert peers.get(node()) is not None
    peers.forget_old(until + 1)
    assert peers.get(node()) is None


def test_what_was_put_off_by_a_clock_that_was_ahead_is_not_put_off_for_longer_than_can_be(peers: Peers) -> None:
    peers.note_record(record())
    now, month_s = TIME, 30 * 86_400
    peers.note_failure(node(), "it is away", now + month_s)
    peers.ban(node(), "it lied", now + month_s)
    peers.forget_old(now)

    found = peers.get(node())
    assert found is not None
    assert now < found.next_try <= now + 86_400
    assert now < found.banned_until <= now + 86_400
