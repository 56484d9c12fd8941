from __future__ import annotations

from p2phub.core.delegation import open_delegation, sign_delegation
from p2phub.core.identity import new_document, open_identity, sign_document
from p2phub.core.ids import NodeId
from p2phub.protocol.sessions import SESSION_TTL_S, Acting, Sessions
from p2phub.testing import values

NOW = values.TIME
NODES = [NodeId(values.key(f"node {number}").public_key) for number in range(5)]


def acting(name: str, ttl_s: int = 3600) -> Acting:
    key = values.key(name)
    identity = open_identity([sign_document(new_document(key.public_key, created=NOW), [key])])
    data = sign_delegation(identity.namespace, NODES[0], key, now=NOW, ttl_s=ttl_s)
    return Acting(open_delegation(data, now=NOW), identity.publish_keys)


def test_a_node_acts_for_each_until_that_delegation_ends() -> None:
    sessions, short, long = Sessions(), acting("short", 60), acting("long", 3600)
    session = sessions.open(NODES[0], b"id", (short, long), NOW)

    assert session.namespaces(NOW) == {short.keys.namespace, long.keys.namespace}
    assert session.namespaces(NOW + 60) == {long.keys.namespace}
    assert session.namespaces(NOW + 3600) == frozenset()


def test_a_session_ends_though_its_delegations_go_on() -> None:
    sessions = Sessions()
    sessions.open(NODES[0], b"id", (acting("a", 2 * SESSION_TTL_S),), NOW)

    assert sessions.find(NODES[0], NOW + SESSION_TTL_S - 1)
    assert sessions.find(NODES[0], NOW + SESSION_TTL_S) is None


def test_what_is_shown_last_counts() -> None:
    sessions = Sessions()
    sessions.open(NODES[0], b"one", (acting("a"), acting("b")), NOW)
    session = sessions.open(NODES[0], b"two", (acting("b"),), NOW)

    assert session.id == b"two"
    assert session.namespaces(NOW) == {acting("b").keys.namespace}


def test_two_processes_of_a_node_that_show_the_same_have_one_session() -> None:
    sessions = Sessions()
    sessions.open(NODES[0], b"one", (acting("a"),), NOW)

    assert sessions.open(NODES[0], b"two", (acting("a"),), NOW + 5).id == b"one"


def test_what_is_no_longer_good_is_taken_away_and_the_node_learns_of_it() -> None:
    sessions, first, second = Sessions(), acting("a"), acting("b")
    session = sessions.open(NODES[0], b"id", (first, second), NOW)

    left = sessions.check(NODES[0], session, (second,), NOW + 1)
    assert left is not None
    assert left.namespaces(NOW + 1) == {second.keys.namespace}
    assert left.id != b"id"

    # When it shows all again, it is a new session.
    assert sessions.open(NODES[0], b"new", (first, second), NOW + 2).id == b"new"


def test_a_check_of_an_old_session_takes_nothing_from_the_new_one() -> None:
    sessions, first, second = Sessions(), acting("a"), acting("b")
    old = sessions.open(NODES[0], b"id", (first,), NOW)
    sessions.open(NODES[0], b"new", (second,), NOW)

    left = sessions.check(NODES[0], old, (), NOW)
    assert left is not None
    assert left.namespaces(NOW) == {second.keys.namespace}


def test_a_network_that_comes_with_ever_more_keys_ends_no_session_of_others() -> None:
    sessions = Sessions(sessions_max=3)
    sessions.open(NODES[0], b"id", (), NOW, network="a")
    for node in NODES[1:]:
        sessions.open(node, b"id", (), NOW, network="greedy")

    assert [sessions.find(node, NOW) is not None for node in NODES] == [True, False, False, True, True]


def test_what_sessions_keep_is_bounded_in_bytes_and_who_fills_it_pays() -> None:
    sessions = Sessions(memory_max=20_000)
    sessions.open(NODES[0], b"id", (acting("a"),), NOW, network="a")
    for node in NODES[1:]:
        sessions.open(node, b"id", tuple(acting(f"b {number}") for number in range(3)), NOW, network="greedy")

    assert [sessions.find(node, NOW) is not None for node in NODES] == [True, False, False, True, True]


def test_of_too_many_the_least_lately_used_is_forgotten() -> None:
    sessions = Sessions(sessions_max=3)
    for node in NODES[:3]:
        sessions.open(node, b"id", (), NOW)
    sessions.find(NODES[0], NOW)
    sessions.open(NODES[3], b"id", (), NOW)

    assert [sessions.find(node, NOW) is not None for node in NODES[:4]] == [True, False, True, True]
    assert len(sessions) == 3
