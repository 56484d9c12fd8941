"""Publishers state what is newest, and readers see what is kept from them: freeze, rollback, fast-forward, mixing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from blake3 import blake3
from msgspec.structs import replace

from p2phub.core import merkle
from p2phub.core.checkpoint import Head, parse_head, sign_head
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import InvalidData, NotFound, TooEarly
from p2phub.core.fresh import TTL_S, Fresh, OpenFresh, SignedFresh, open_fresh, read_fresh, sign_fresh, warnings
from p2phub.core.identity import Identity, RetiredKey, Role, new_document, open_identity, sign_document
from p2phub.core.ids import LogId, ManifestId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.records import Entry, Publish, Record, Summary, sign_record
from p2phub.core.signing import SigningKey
from p2phub.net.door import Handler, Request, Response
from p2phub.node.cosigning import vouch
from p2phub.node.events import Event, Notice
from p2phub.node.fresh import freshness_of, must_state, state_newest, take
from p2phub.node.identity import create_identity, own_identity, publish_record
from p2phub.node.node import Node
from p2phub.node.resolve import resolve
from p2phub.node.serve import PeerDoor
from p2phub.protocol.messages import ANSWER_SIZE_MAX, FreshQuery, Statements
from p2phub.store.store import Store
from p2phub.testing import values
from p2phub.testing.hostile import Wrap, open_home, serving, wait_for

pytestmark = pytest.mark.timeout(120)

NOW = float(values.TIME)
LAPTOP, CLUSTER = values.key("laptop"), values.key("cluster")


def identity_of(*keys: SigningKey, fresh: Role | None = None) -> Identity:
    """Return the identity of a publisher with one key for each of his machines."""
    role = Role(tuple(sorted(key.public_key for key in keys)), 1)
    document = replace(new_document(keys[0].public_key, created=values.TIME), publish=role, fresh=fresh or role)
    return open_identity([sign_document(document, [keys[0]])])


def history(identity: Identity, key: SigningKey, size: int, *, word: str = "a") -> list[Entry]:
    entries: list[Entry] = []
    log = identity.log_of(key.public_key)
    while len(entries) < size:
        record = Publish(
            namespace=identity.namespace, log=log, index=len(entries),
            previous=entries[-1].leaf if entries else bytes(32), time=values.TIME, model=f"{word}-{len(entries)}",
            kind="model", manifest=ManifestId(bytes(32)), depth=1, branch="main", summary=Summary(files=1, size=1),
        )  # fmt: skip
        entries.append(sign_record(record, key))
    return entries


def head(entries: Sequence[Entry], key: SigningKey) -> Head:
    return sign_head(entries[0].record.log, len(entries), merkle.root(LOG_TREE, [each.leaf for each in entries]), key)


def give(store: Store, identity: Identity, entries: Sequence[Entry], key: SigningKey) -> None:
    store.logs.add_identity(identity)
    store.logs.extend(identity, head(entries, key), [each.data for each in entries], now=NOW, start=0)


def statement(identity: Identity, heads: Sequence[Head], keys: Sequence[SigningKey], **fields: Any) -> SignedFresh:
    base = Fresh(
        schema=1, namespace=identity.namespace, version=identity.current.version, time=values.TIME,
        expires=values.TIME + TTL_S, heads=tuple(each.text for each in sorted(heads, key=lambda each: each.log)),
    )  # fmt: skip
    changed = replace(base, **fields)
    return sign_fresh(changed, keys)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    from p2phub.store.layout import Layout

    with Store(Layout(tmp_path / "home", tmp_path / "store")) as opened:
        yield opened


# ── what is kept ────────────────────────────────────────────────────────────


def test_a_head_that_is_not_here_is_seen_to_be_missing(store: Store) -> None:
    """Freeze and withholding: peers give 2 records and the publisher states 5."""
    identity = identity_of(LAPTOP)
    give(store, identity, history(identity, LAPTOP, 2), LAPTOP)
    newest = head(history(identity, LAPTOP, 5), LAPTOP)

    assert take(store, identity.namespace, statement(identity, [newest], [LAPTOP]), now=NOW)

    freshness = freshness_of(store, identity.namespace)
    assert [(each.stated, each.here) for each in freshness.behind] == [(5, 2)]
    assert "the publisher stated 5 records" in warnings(freshness, now=NOW)[0]
    give(store, identity, history(identity, LAPTOP, 5), LAPTOP)
    assert warnings(freshness_of(store, identity.namespace), now=NOW) == []


def test_an_old_statement_is_warned_of_and_does_not_come_back(store: Store) -> None:
    """Freeze: the same answers for ever. Rollback: an older statement after a newer one."""
    identity = identity_of(LAPTOP)
    entries = history(identity, LAPTOP, 5)
    give(store, identity, entries, LAPTOP)
    old = statement(identity, [head(entries[:2], LAPTOP)], [LAPTOP])
    new = statement(identity, [head(entries, LAPTOP)], [LAPTOP], time=values.TIME + 60)
    assert take(store, identity.namespace, new, now=NOW + 60)

    assert not take(store, identity.namespace, old, now=NOW + 60)

    assert read_fresh(store.fresh.get(identity.namespace) or old).time == values.TIME + 60
    freshness = freshness_of(store, identity.namespace)
    assert warnings(freshness, now=NOW + 60 + 3 * 86400) == []
    (said,) = warnings(freshness, now=NOW + 61 + 3 * 86400)
    assert "last said 3 days ago" in said


def test_no_later_statement_takes_a_head_back(store: Store) -> None:
    """Rollback: another machine of the publisher, which has heard less, states later."""
    identity = identity_of(LAPTOP, CLUSTER)
    entries = history(identity, LAPTOP, 5)
    give(store, identity, entries[:2], LAPTOP)
    take(store, identity.namespace, statement(identity, [head(entries, LAPTOP)], [LAPTOP]), now=NOW)

    later = statement(identity, [head(entries[:3], LAPTOP)], [CLUSTER], time=values.TIME + 10)
    assert take(store, identity.namespace, later, now=NOW + 10)

    assert [each.stated for each in freshness_of(store, identity.namespace).behind] == [5]


def test_logs_of_different_times_are_seen_not_to_belong_together(store: Store) -> None:
    """Mix-and-match: all of one log, and an old state of the other one."""
    identity = identity_of(LAPTOP, CLUSTER)
    one, other = history(identity, LAPTOP, 4, word="laptop"), history(identity, CLUSTER, 6, word="cluster")
    give(store, identity, one, LAPTOP)
    give(store, identity, other[:1], CLUSTER)

    take(store, identity.namespace, statement(identity, [head(one, LAPTOP), head(other, CLUSTER)], [LAPTOP]), now=NOW)

    (behind,) = freshness_of(store, identity.namespace).behind
    assert (behind.log, behind.stated, behind.here) == (identity.log_of(CLUSTER.public_key), 6, 1)


def test_a_statement_ahead_of_time_keeps_no_later_one_out(store: Store) -> None:
    """Fast-forward: who has the key for a moment states something for the next years."""
    identity = identity_of(LAPTOP)
    give(store, identity, history(identity, LAPTOP, 2), LAPTOP)
    far = statement(identity, [], [LAPTOP], time=values.TIME + 601, expires=values.TIME + 602)

    with pytest.raises(TooEarly):
        take(store, identity.namespace, far, now=NOW)

    assert take(store, identity.namespace, statement(identity, [], [LAPTOP]), now=NOW)


def renewed(identity: Identity, root: SigningKey, **fields: Any) -> Identity:
    document = replace(
        identity.current, version=identity.current.version + 1, previous=blake3(identity.chain[-1].document).digest(),
        **fields,
    )  # fmt: skip
    return open_identity([*identity.chain, sign_document(document, [root])])


def test_a_stolen_key_that_was_retired_states_nothing_more(store: Store) -> None:
    """Fast-forward: what the thief stated is forgotten with his key, and heads behind its end do not count."""
    identity = identity_of(LAPTOP, CLUSTER)
    stolen = history(identity, CLUSTER, 9)
    give(store, identity, stolen[:2], CLUSTER)
    by_thief = statement(identity, [head(stolen, CLUSTER)], [CLUSTER], time=values.TIME + 600)
    assert take(store, identity.namespace, by_thief, now=NOW)
    alone = Role((LAPTOP.public_key,), 1)
    safe = renewed(identity, LAPTOP, publish=alone, fresh=alone, retired=(RetiredKey(CLUSTER.public_key, 2),))
    store.logs.add_identity(safe)

    assert freshness_of(store, identity.namespace).behind == ()
    assert take(store, identity.namespace, statement(safe, [], [LAPTOP]), now=NOW)
    assert not take(store, identity.namespace, by_thief, now=NOW + 600)
    assert read_fresh(store.fresh.get(identity.namespace) or by_thief).time == values.TIME


def test_who_has_only_the_fresh_key_makes_up_no_head(store: Store) -> None:
    identity = identity_of(LAPTOP, fresh=Role((CLUSTER.public_key,), 1))
    give(store, identity, history(identity, LAPTOP, 2), LAPTOP)
    made_up = sign_head(identity.log_of(LAPTOP.public_key), 100, bytes(32), CLUSTER)

    with pytest.raises(InvalidData):
        take(store, identity.namespace, statement(identity, [made_up], [CLUSTER]), now=NOW)


def test_one_key_that_signs_twice_is_not_two(store: Store) -> None:
    pair = Role(tuple(sorted((LAPTOP.public_key, CLUSTER.public_key))), 2)
    identity = identity_of(LAPTOP, fresh=pair)
    once = statement(identity, [], [LAPTOP])

    for signatures in (once.signatures, once.signatures * 2):
        with pytest.raises(InvalidData):
            open_fresh(SignedFresh(once.statement, signatures), identity, now=NOW)
    assert isinstance(open_fresh(statement(identity, [], [LAPTOP, CLUSTER]), identity, now=NOW), OpenFresh)


def test_two_stated_heads_of_one_size_prove_a_fork(store: Store) -> None:
    """Equivocation: the publisher states one history to some and another to others."""
    identity = identity_of(LAPTOP)
    one, other = history(identity, LAPTOP, 4, word="one"), history(identity, LAPTOP, 4, word="other")
    give(store, identity, one[:1], LAPTOP)
    take(store, identity.namespace, statement(identity, [head(one, LAPTOP)], [LAPTOP]), now=NOW)

    later = statement(identity, [head(other, LAPTOP)], [LAPTOP], time=values.TIME + 1)
    take(store, identity.namespace, later, now=NOW + 1)

    fork = store.forks.get(identity.log_of(LAPTOP.public_key))
    assert fork is not None
    assert fork.common == 3


@pytest.mark.parametrize("size", [2, 4])
def test_a_stated_head_of_another_history_than_the_log_here_is_noted(store: Store, size: int) -> None:
    """Equivocation: peers gave one history, and the publisher states another one."""
    identity = identity_of(LAPTOP)
    give(store, identity, history(identity, LAPTOP, 4, word="one"), LAPTOP)
    other = head(history(identity, LAPTOP, size, word="other"), LAPTOP)

    take(store, identity.namespace, statement(identity, [other], [LAPTOP]), now=NOW)

    assert store.forks.suspected() == [other.log]


def test_a_newer_identity_that_is_not_here_is_seen_to_be_missing(store: Store) -> None:
    identity = identity_of(LAPTOP)
    give(store, identity, history(identity, LAPTOP, 1), LAPTOP)

    take(store, identity.namespace, statement(identity, [], [LAPTOP], version=2), now=NOW)

    assert freshness_of(store, identity.namespace).newer_identity == 2


# ── between nodes ───────────────────────────────────────────────────────────


def release(node: Node, model: str) -> None:
    """Publish a record alone, as `publish` does at its end."""
    identity = own_identity(node)

    def make(*, log: LogId, index: int, previous: bytes, time: int) -> Record:
        return Publish(
            namespace=identity.namespace, log=log, index=index, previous=previous, time=time, model=model,
            kind="model", manifest=ManifestId(blake3(f"{model} {index}".encode()).digest()), depth=index + 1,
            branch="main", summary=Summary(files=1, size=1),
        )  # fmt: skip

    publish_record(node, make)


@asynccontextmanager
async def publisher(tmp_path: Path) -> Any:
    async with open_home(tmp_path / "publisher") as node:
        create_identity(node)
        release(node, "parrot")
        yield node


async def resolved(node: Node, name: str) -> list[str]:
    """Return what is said to who resolves `name`."""
    said: list[Event] = []
    await resolve(node, name, said.append, refresh=True)
    return [event.text for event in said if isinstance(event, Notice)]


def withholding(old: Handler) -> Wrap:
    """Answer what is asked about logs and identities as `old` does, a node at which time stopped; all else is true."""

    def wrap(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            kept_back = ("/v1/reconcile", "/v1/heads", "/v1/identities", "/v1/records", "/v1/head/")
            return await (old if request.path.startswith(kept_back) else handler)(request)

        return answer

    return wrap


async def test_a_reader_sees_what_peers_withhold(tmp_path: Path) -> None:
    """Freeze: the only peer shows the log as it was once; what the publisher states it cannot change."""
    async with publisher(tmp_path) as node, trio.open_nursery() as nursery, AsyncExitStack() as stack:
        name = f"{own_identity(node).namespace}/parrot"
        shutil.copytree(node.settings.layout.home, tmp_path / "frozen")
        frozen = await stack.enter_async_context(open_home(tmp_path / "frozen"))
        release(node, "parrot")
        release(node, "owl")
        wrap = withholding(PeerDoor(frozen, nursery).handle)
        liar = await stack.enter_async_context(serving(node, wrap=wrap))
        reader = await stack.enter_async_context(open_home(tmp_path / "reader"))
        reader.store.peers.add(liar)

        (said,) = await resolved(reader, name)
        assert "the publisher stated 3 records" in said
        assert "here are 1" in said
        # Of what was never shown, too.
        told: list[Event] = []
        with pytest.raises(NotFound):
            await resolve(reader, f"{own_identity(node).namespace}/owl", told.append, refresh=True)
        assert any("stated 3 records" in event.text for event in told if isinstance(event, Notice))
        nursery.cancel_scope.cancel()
    async with (
        open_home(tmp_path / "publisher") as node,
        serving(node) as honest,
        open_home(tmp_path / "reader") as again,
    ):
        again.store.peers.add(honest)
        assert await resolved(again, name) == []


async def test_another_machine_of_the_publisher_sees_what_is_withheld_from_it(tmp_path: Path) -> None:
    async with publisher(tmp_path) as node:
        identity = own_identity(node)
        shutil.copytree(node.settings.layout.home, tmp_path / "second")
        release(node, "parrot")
        newest = node.store.fresh.get(identity.namespace)
    assert newest is not None
    async with open_home(tmp_path / "second") as second:
        take(second.store, identity.namespace, newest, now=second.clock())

        (said,) = await resolved(second, f"{identity.namespace}/parrot")

        assert "the publisher stated 2 records" in said


async def test_a_peer_that_holds_statements_back_lets_the_last_one_grow_old(tmp_path: Path) -> None:
    async with publisher(tmp_path) as node, AsyncExitStack() as stack:
        name = f"{own_identity(node).namespace}/parrot"

        def wrap(handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
            async def answer(request: Request) -> Response:
                if request.path == "/v1/fresh" and is_hiding:
                    return Response(200, encode(Statements((None,))))
                return await handler(request)

            return answer

        is_hiding = False
        address = await stack.enter_async_context(serving(node, wrap=wrap))
        reader = await stack.enter_async_context(open_home(tmp_path / "reader"))
        reader.store.peers.add(address)
        assert await resolved(reader, name) == []

        is_hiding = True
        later = reader.clock() + 4 * 86400
        reader.clock = lambda: later

        (said,) = await resolved(reader, name)
        assert "last said 4 days ago" in said


async def test_a_peer_that_makes_up_a_statement_is_banned(tmp_path: Path) -> None:
    async with publisher(tmp_path) as node, AsyncExitStack() as stack:
        identity = own_identity(node)

        def wrap(handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
            async def answer(request: Request) -> Response:
                if request.path != "/v1/fresh":
                    return await handler(request)
                decode(request.body, FreshQuery, size_max=ANSWER_SIZE_MAX)
                made_up = statement(identity, [], [LAPTOP], time=int(node.clock()), expires=int(node.clock()) + 9)
                return Response(200, encode(Statements((made_up,))))

            return answer

        address = await stack.enter_async_context(serving(node, wrap=wrap))
        reader = await stack.enter_async_context(open_home(tmp_path / "reader"))
        reader.store.peers.add(address)

        said = await resolved(reader, f"{identity.namespace}/parrot")

        assert any("a statement that is not right" in text for text in said)
        peer = reader.store.peers.get(node.id)
        assert peer is not None
        assert peer.banned_until > reader.clock()


async def test_offline_it_is_said_how_old_it_is_what_is_used(tmp_path: Path) -> None:
    async with publisher(tmp_path) as node, AsyncExitStack() as stack:
        name = f"{own_identity(node).namespace}/parrot"
        address = await stack.enter_async_context(serving(node))
        reader = await stack.enter_async_context(open_home(tmp_path / "reader"))
        reader.store.peers.add(address)
        await resolved(reader, name)
        later = reader.clock() + 5 * 86400
    async with open_home(tmp_path / "reader", offline=True) as reader:
        reader.clock = lambda: later

        assert await resolved(reader, name) == [
            f"offline: {name} is what was newest here, stated by its publisher 5 days ago"
        ]


async def test_names_that_never_move_are_warned_of_nothing(tmp_path: Path) -> None:
    async with publisher(tmp_path) as node, AsyncExitStack() as stack:
        identity = own_identity(node)
        address = await stack.enter_async_context(serving(node))
        reader = await stack.enter_async_context(open_home(tmp_path / "reader"))
        reader.store.peers.add(address)
        await resolved(reader, f"{identity.namespace}/parrot")
        later = reader.clock() + 50 * 86400
        reader.clock = lambda: later
        claim = reader.store.catalogue.branch(identity.namespace, "parrot", "main")
        assert claim is not None
        assert claim.manifest is not None

        assert await resolved(reader, f"{identity.namespace}/parrot@{claim.manifest.hex()[:16]}") == []


async def test_a_statement_is_made_with_each_record_and_when_it_is_old(tmp_path: Path) -> None:
    async with publisher(tmp_path) as node:
        identity = own_identity(node)
        first = node.store.fresh.get(identity.namespace)
        assert first is not None
        assert parse_head(read_fresh(first).heads[0]).size == 1
        assert not must_state(node)
        release(node, "parrot")
        second = node.store.fresh.get(identity.namespace)
        assert second is not None
        assert parse_head(read_fresh(second).heads[0]).size == 2

        later = node.clock() + 21 * 3600
        node.clock = lambda: later

        assert must_state(node)
        assert state_newest(node) is not None
        assert not must_state(node)


async def test_a_peer_that_knows_no_statements_is_no_error(tmp_path: Path) -> None:
    async with publisher(tmp_path) as node, AsyncExitStack() as stack:

        def wrap(handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
            async def answer(request: Request) -> Response:
                return Response(404) if request.path == "/v1/fresh" else await handler(request)

            return answer

        address = await stack.enter_async_context(serving(node, wrap=wrap))
        reader = await stack.enter_async_context(open_home(tmp_path / "reader"))
        reader.store.peers.add(address)

        assert await resolved(reader, f"{own_identity(node).namespace}/parrot") == [
            "no statement of the publisher is known that this is the newest"
        ]


async def test_a_daemon_renews_what_it_stated(tmp_path: Path) -> None:
    async with publisher(tmp_path) as node, trio.open_nursery() as nursery:
        identity = own_identity(node)
        first = node.store.fresh.get(identity.namespace)
        assert first is not None
        nursery.start_soon(vouch, node)

        later = node.clock() + 21 * 3600
        node.clock = lambda: later
        node.wake_publisher()

        async def renewed() -> bool:
            return node.store.fresh.get(identity.namespace) != first

        await wait_for(renewed, "the statement to be renewed")
        second = node.store.fresh.get(identity.namespace)
        assert second is not None
        assert read_fresh(second).time == int(later)
        nursery.cancel_scope.cancel()
