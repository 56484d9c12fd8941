"""What one node takes over from another, and what it costs: real nodes, real sockets, every byte counted."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from p2phub.core.checkpoint import sign_head
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import NoSpace, PeerBusy, PeerError, PeerViolation
from p2phub.core.merkle import LOG_TREE, root
from p2phub.net.peerclient import PeerClient
from p2phub.node import greetings, maps, pulling, serve
from p2phub.node.calling import call_peer
from p2phub.node.events import Event, Notice
from p2phub.node.maps import refresh_maps
from p2phub.node.node import Node
from p2phub.node.pulling import Turn, pull
from p2phub.node.syncing import ask_for_news
from p2phub.protocol import messages
from p2phub.protocol.messages import ANSWER_SIZE_MAX, FRAME_SIZE_MAX, BucketsQuery, Heads, Records
from p2phub.store import digests
from p2phub.testing.heads import fill_with_heads
from p2phub.testing.hostile import Link, Wrap, counting, on_answer, open_home, open_link, serving
from p2phub.testing.releases import MadeLog, make_log

pytestmark = pytest.mark.timeout(120)


def give(node: Node, made: MadeLog, size: int | None = None) -> None:
    """Let a node have the first `size` records of a log, or all."""
    size = len(made.entries) if size is None else size
    head = sign_head(made.head.log, size, root(LOG_TREE, [entry.leaf for entry in made.entries[:size]]), made.key)
    node.store.logs.add_identity(made.identity)
    state = node.store.logs.state(made.head.log)
    start = state.size if state else 0
    node.store.logs.extend(made.identity, head, made.data[start:size], now=node.clock())


@asynccontextmanager
async def calling(node: Node, other: Node, *, wrap: Wrap = lambda handler: handler) -> AsyncIterator[PeerClient]:
    """Give a client of `node` for `other`."""
    async with serving(other, wrap=wrap) as address:
        node.store.peers.add(address)
        peer = node.store.peers.get(other.id)
        assert peer is not None
        async with call_peer(node, peer) as client:
            yield client


def sizes(node: Node) -> dict[bytes, int]:
    return {state.log: state.size for state in node.store.logs.states()}


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    async with open_home(tmp_path / "a") as a, open_home(tmp_path / "b") as b:
        yield a, b


async def carried(node: Node, link: Link, client: PeerClient) -> tuple[int, int]:
    """Pull; returns how many records came, and how many bytes passed in both directions."""
    before = link.carried + link.carried_back
    count = await pull(node, client)
    return count, link.carried + link.carried_back - before


async def test_equality_costs_one_question_and_differences_little_more_than_their_records(
    pair: tuple[Node, Node],
) -> None:
    giver, taker = pair
    asked: Counter[str] = Counter()
    made = [make_log(number, 2) for number in range(30)]
    for node in pair:
        fill_with_heads(node.store, 3000)
        for log in made:
            give(node, log, 1)
    for log in made:
        give(giver, log)
    async with (
        serving(giver, wrap=counting(asked)) as address,
        open_link(address.host, address.port) as link,
    ):
        taker.store.peers.add(link.address(giver))
        peer = taker.store.peers.get(giver.id)
        assert peer is not None
        async with call_peer(taker, peer) as client:
            count, size = await carried(taker, link, client)
            first = dict(asked)
            asked.clear()
            nothing, size_equal = await carried(taker, link, client)

    assert count == 30
    assert size <= 1.5 * sum(len(log.data[1]) for log in made) + 30_000
    assert max(first[path] for path in ("/v1/reconcile", "/v1/heads", "/v1/records")) <= 4
    assert nothing == 0
    assert size_equal <= 1000
    assert asked == {"/v1/reconcile": 1}
    assert giver.store.log_digests.root() == taker.store.log_digests.root()


async def test_each_takes_what_the_other_has_until_both_are_equal(pair: tuple[Node, Node]) -> None:
    a, b = pair
    rng = random.Random(1)
    for number in range(60):
        made = make_log(number, 5)
        for node in pair:
            if rng.random() < 0.7:
                give(node, made, rng.randint(1, 5))
    async with calling(a, b) as client:
        await pull(a, client)
    async with calling(b, a) as client:
        await pull(b, client)
    for node in pair:
        await refresh_maps(node)

    assert sizes(a) == sizes(b)
    assert a.store.log_digests.root() == b.store.log_digests.root()
    assert a.store.log_digests.root().count == len(sizes(a)) > 50


async def test_what_does_not_fit_one_answer_comes_in_several(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "HEADS_ANSWER_SIZE", 2000)
    monkeypatch.setattr(maps, "RECORDS_ANSWER_SIZE", 3000)
    monkeypatch.setattr(digests, "BATCH", 7)
    giver, taker = pair
    asked: Counter[str] = Counter()
    for number in range(25):
        give(giver, make_log(number, 1 + number % 7))
    async with calling(taker, giver, wrap=counting(asked)) as client:
        count = await pull(taker, client)

    assert sizes(taker) == sizes(giver)
    assert count == sum(sizes(giver).values())
    assert asked["/v1/heads"] >= 4
    assert asked["/v1/records"] >= 10
    assert asked["/v1/identities"] >= 2


async def test_while_records_are_written_the_next_page_comes_and_is_checked(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "HEADS_ANSWER_SIZE", 2000)
    giver, taker = pair
    asked: Counter[str] = Counter()
    for number in range(25):
        give(giver, make_log(number, 1))
    extend_many = taker.store.logs.extend_many
    has_waited = False

    def extend_later(*args: Any, **kwargs: Any) -> Any:
        """Do not write the first records before others were asked for."""
        nonlocal has_waited
        if not has_waited:
            has_waited = True
            for _ in range(1000):
                if asked["/v1/records"] > 1:
                    break
                time.sleep(0.01)
            assert asked["/v1/records"] > 1
        return extend_many(*args, **kwargs)

    monkeypatch.setattr(taker.store.logs, "extend_many", extend_later)
    async with calling(taker, giver, wrap=counting(asked)) as client:
        assert await pull(taker, client) == 25

    assert has_waited
    assert sizes(taker) == sizes(giver)


async def test_a_disk_that_fails_while_pages_are_taken_over_is_told_as_what_it_is(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "HEADS_ANSWER_SIZE", 2000)
    giver, taker = pair
    asked: Counter[str] = Counter()
    for number in range(40):
        give(giver, make_log(number, 1))

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise NoSpace("no space left", path="index")

    monkeypatch.setattr(taker.store.logs, "extend_many", fail)
    async with calling(taker, giver, wrap=counting(asked)) as client:
        with pytest.raises(NoSpace):
            await pull(taker, client)

    # No more is asked for than what was under way.
    assert asked["/v1/heads"] <= pulling.PAGES_IN_HAND + 1


async def test_a_pull_ends_with_its_turn_and_the_next_goes_on(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "HEADS_ANSWER_SIZE", 2000)
    giver, taker = pair
    for number in range(25):
        give(giver, make_log(number, 1))
    counts = []
    async with calling(taker, giver) as client:
        while True:
            turn = Turn(0.0)
            counts.append(await pull(taker, client, turn))
            if not turn.was_cut:
                break

    assert all(counts[:-1])
    assert len(counts) > 2
    assert sizes(taker) == sizes(giver)


async def test_a_peer_that_is_not_done_summing_up_says_so_and_sends_nothing(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "REFRESHED_MAX", 10)
    monkeypatch.setattr(digests, "BATCH", 10)
    giver, taker = pair
    for number in range(60):
        for node in pair:
            give(node, make_log(number, 1))
    for node in pair:
        await refresh_maps(node)
    # As an upgrade leaves it that sums up in another way.
    with giver.store.database.write() as connection:
        connection.execute("UPDATE digests SET digest = zeroblob(32)")
        connection.execute("INSERT OR IGNORE INTO digests_changed (kind, key) SELECT kind, key FROM digests")
    asked: Counter[str] = Counter()
    async with calling(taker, giver, wrap=counting(asked)) as client:
        with pytest.raises(PeerBusy) as caught:
            await pull(taker, client)
        first = asked.copy()
        asked.clear()
        with trio.fail_after(20):
            while giver.store.log_digests.root() != taker.store.log_digests.root():  # noqa: ASYNC110
                await trio.sleep(0.01)
        # Nobody had to ask again for that.
        assert not asked
        assert await pull(taker, client) == 0

    assert first["/v1/reconcile"] == 1
    assert "/v1/heads" not in first
    assert caught.value.retry_after_s == serve.SUMMING_UP_S
    assert "/v1/heads" not in asked


async def test_a_log_that_the_peer_does_not_have_keeps_no_other_from_coming(pair: tuple[Node, Node]) -> None:
    giver, taker = pair
    for number in range(12):
        give(giver, make_log(number, 3))
    fill_with_heads(giver.store, 3)

    def lose(body: bytes) -> bytes:
        answer = decode(body, Records, size_max=ANSWER_SIZE_MAX)
        return encode(Records(((), *answer.entries[1:])))

    async with calling(taker, giver, wrap=on_answer("/v1/records", lose)) as client:
        with pytest.raises(PeerError) as caught:
            await pull(taker, client)

    assert not isinstance(caught.value, PeerViolation)
    assert sum(size == 3 for size in sizes(taker).values()) == 11


async def test_a_peer_that_goes_on_sending_the_same_is_left(pair: tuple[Node, Node]) -> None:
    giver, taker = pair
    for number in range(3):
        give(giver, make_log(number, 1))

    def again(body: bytes) -> bytes:
        heads = decode(body, Heads, size_max=ANSWER_SIZE_MAX)
        return encode(Heads(heads.heads, 0))

    async with calling(taker, giver, wrap=on_answer("/v1/heads", again)) as client:
        with pytest.raises(PeerViolation):
            await pull(taker, client)


async def test_nodes_learn_of_nodes_that_they_never_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A greeting tells of nobody else.
    monkeypatch.setattr(greetings, "NODES_MAX", 1)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_home(tmp_path / str(number))) for number in range(4)]
        addresses = [await stack.enter_async_context(serving(node)) for node in nodes]
        # Each knows the one after it.
        for node, address in zip(nodes, addresses[1:], strict=False):
            node.store.peers.add(address)
        for node in reversed(nodes):
            for peer in node.store.peers.all():
                if peer.added:
                    async with call_peer(node, peer) as client:
                        await pull(node, client)
        known = {peer.node for peer in nodes[0].store.peers.all()}

    assert known == {node.id for node in nodes[1:]}


async def test_who_has_much_to_sum_up_asks_nobody_yet_and_blames_nobody(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade or a rebuild of a large catalogue."""
    node, other = pair
    made = [make_log(number, 1, seed=5) for number in range(40)]
    for log in made:
        give(node, log)
    give(other, make_log(50, 1, seed=5))
    monkeypatch.setattr(maps, "BATCH", 1)
    monkeypatch.setattr(digests, "BATCH", 1)
    monkeypatch.setattr(maps, "BREAK_S", 0.02)
    told: list[Event] = []
    async with serving(other) as address:
        node.store.peers.add(address)
        begun = trio.current_time()
        await ask_for_news(node, told.append, timeout_s=0.1)

        assert trio.current_time() - begun < 30
        assert [event.text for event in told if isinstance(event, Notice)] == [
            "peers are not asked for news yet: this node has to sum up first what is here, and is at it"
        ]
        peer = node.store.peers.get(other.id)
        assert peer is not None
        assert (peer.failures, peer.last_seen) == (0, None)
        # What was done stays done.
        summed_up = node.store.log_digests.root().count
        assert 0 < summed_up < len(made)
        told.clear()
        await ask_for_news(node, told.append, timeout_s=30)
    assert told == []
    assert len(sizes(node)) == len(made) + 1


async def test_a_peer_that_is_not_done_summing_up_tells_of_the_publisher_that_somebody_waits_for(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_done(*_: object, **__: object) -> bool:
        return False

    giver, taker = pair
    wanted, other = make_log(1, 3), make_log(2, 1)
    for made in (wanted, other):
        give(giver, made)
    monkeypatch.setattr(serve, "refresh_maps", not_done)
    told: list[Event] = []
    async with serving(giver) as address:
        taker.store.peers.add(address)
        await ask_for_news(taker, told.append, timeout_s=30)
        assert sizes(taker) == {}
        await ask_for_news(taker, told.append, timeout_s=30, about=[wanted.identity.namespace])

    assert sizes(taker) == {wanted.head.log: 3}
    # Somebody is to know that the rest may be old.
    assert ["is busy" in event.text for event in told if isinstance(event, Notice)] == [True, True]


async def test_questions_fit_their_frame_and_answers_their_limit_whatever_is_in_the_maps(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    giver, taker = pair
    fill_with_heads(giver.store, 3000)
    fill_with_heads(taker.store, 3000, name="other")
    seen: list[tuple[int, int]] = []

    def watch(handler):  # type: ignore[no-untyped-def]
        async def answer(request):  # type: ignore[no-untyped-def]
            response = await handler(request)
            seen.append((len(request.body), len(response.body)))
            return response

        return answer

    # Nobody knows the publishers, so that nothing comes of it.
    async with calling(taker, giver, wrap=watch) as client:
        with pytest.raises(PeerError):
            await pull(taker, client)

    assert len(seen) > 5
    assert max(size for size, _ in seen) <= FRAME_SIZE_MAX
    assert max(size for _, size in seen) <= messages.HEADS_ANSWER_SIZE + 10_000


async def test_a_question_about_everything_is_answered_in_bounded_pieces(pair: tuple[Node, Node]) -> None:
    giver, taker = pair
    fill_with_heads(giver.store, 3000)
    async with calling(taker, giver) as client:
        await client.reconcile(messages.ReconcileQuery(bytes(32), messages.MapQuery(bytes(32), ())))
        page = await client.heads(BucketsQuery(bytes(32), (messages.Bucket(""),) * 128))

    assert page.complete == 0
    assert sum(len(head.head) for head in page.heads) <= messages.HEADS_ANSWER_SIZE


async def test_records_of_a_time_that_has_not_come_are_left_for_later_and_nobody_is_blamed(
    pair: tuple[Node, Node],
) -> None:
    giver, taker = pair
    early, late = sorted((make_log(number, 1) for number in range(2)), key=lambda made: made.entries[0].record.time)
    give(giver, early)
    give(giver, late)
    clock = taker.clock
    async with calling(taker, giver) as client:
        taker.clock = lambda: late.entries[0].record.time - 601
        with pytest.raises(PeerError) as caught:
            await pull(taker, client)
        first = sizes(taker)
        taker.clock = clock
        await pull(taker, client)

    assert not isinstance(caught.value, PeerViolation)
    assert first == {early.head.log: 1}
    assert sizes(taker) == sizes(giver)
