"""A node takes in what its owner wants, and drops the rest before it costs."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack

import pytest
import trio

from p2phub.core.errors import InvalidName, NotFound
from p2phub.core.ids import NamespaceId
from p2phub.node import inspect, replicate
from p2phub.node.dispatch import run
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity, own_identity
from p2phub.node.news import compose, take
from p2phub.node.operations.policy import ChangePolicy, ShowPolicy
from p2phub.node.publish import publish
from p2phub.node.syncing import sync_all
from p2phub.protocol.talk import Push, Word
from p2phub.testing.hostile import counting, open_home, serving, wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def shelf(tmp_path):
    """Give a node with three publishers' models, two each, and the publishers by name."""
    async with AsyncExitStack() as stack:
        asked: Counter[str] = Counter()
        hub = await stack.enter_async_context(open_home(tmp_path / "hub"))
        address = await stack.enter_async_context(serving(hub, wrap=counting(asked)))
        names = {}
        for who in ("ann", "bob", "cyd"):
            publisher = await stack.enter_async_context(open_home(tmp_path / who))
            names[who] = str(create_identity(publisher).namespace)
            for number in range(2):
                await release(publisher, tmp_path, f"{who}-{number}")
            give(publisher, hub)
        yield hub, address, names, asked


async def release(node, folder, name: str):
    (folder / "folder").mkdir(exist_ok=True)
    (folder / "folder" / "README.md").write_text(f"# {name}\n")
    return await publish(node, folder / "folder", name, ignore)


def give(publisher, other):
    """Let another node take over what a publisher has."""
    (state,) = publisher.store.logs.states()
    push = compose(publisher.store, {state.log: 0}, ()).push
    return take(other.store, other.following, push, now=publisher.clock())


async def models(node) -> set[str]:
    found = set()
    for state in node.store.logs.states():
        found |= {line.model for line in await inspect.log_lines(node, str(state.namespace))}
    return found


async def test_only_the_publishers_that_are_followed_are_taken_in(shelf, tmp_path):
    hub, address, names, asked = shelf
    async with open_home(tmp_path / "node") as node:
        node.store.peers.add(address)
        await run(node, ChangePolicy(mode="listed", follow=(names["bob"],)), ignore)
        await sync_all(node, timeout_s=30)
        first = await models(node)
        before = asked.copy()
        await sync_all(node, timeout_s=30)
        # The others cost nothing, however often.
        again = asked - before
        await run(node, ChangePolicy(follow=(names["cyd"],)), ignore)
        await sync_all(node, timeout_s=30)
        second = await models(node)
        await run(node, ChangePolicy(mode="open"), ignore)
        await sync_all(node, timeout_s=30)

        assert first == {"bob-0", "bob-1"}
        assert again["/v1/records"] == again["/v1/heads"] == 0
        assert second == {"bob-0", "bob-1", "cyd-0", "cyd-1"}
        assert await models(node) == await models(hub)


async def test_a_blocked_publisher_is_dropped_at_the_head_and_not_looked_at_again(shelf, tmp_path):
    hub, address, names, asked = shelf
    async with open_home(tmp_path / "node") as node:
        node.store.peers.add(address)
        await run(node, ChangePolicy(block=(names["ann"],)), ignore)
        await sync_all(node, timeout_s=30)
        assert await models(node) == {"bob-0", "bob-1", "cyd-0", "cyd-1"}
        assert node.store.logs.identity(NamespaceId.parse(names["ann"])) is None
        (refused,) = node.following.refused
        before = asked.copy()
        await sync_all(node, timeout_s=30)
        assert (asked - before)["/v1/identities"] == (asked - before)["/v1/records"] == 0
        # Nor is it wanted when neighbours tell of it.
        (ann,) = [state for state in hub.store.logs.states() if str(state.namespace) == names["ann"]]
        whole = compose(hub.store, {ann.log: 0}, ()).push
        taken = take(node.store, node.following, whole, now=node.clock())
        assert (taken.news, taken.was_news, taken.holds) == ({}, False, False)
        word = Push((), (Word(ann.log, 9, 1),))
        assert take(node.store, node.following, word, now=node.clock()).wanted == []
        assert refused == ann.log
        await run(node, ChangePolicy(unblock=(names["ann"],)), ignore)
        await sync_all(node, timeout_s=30)

        assert await models(node) == await models(hub)


async def test_what_a_publisher_may_fill_is_bounded(shelf, tmp_path):
    hub, address, _, _ = shelf
    async with open_home(tmp_path / "node") as node, open_home(tmp_path / "ann") as ann:
        node.store.peers.add(address)
        await run(node, ChangePolicy(records_max=2), ignore)
        await sync_all(node, timeout_s=30)
        assert len(await models(node)) == 6
        await release(ann, tmp_path, "ann-2")
        give(ann, hub)
        await sync_all(node, timeout_s=30)
        assert len(await models(node)) == 6
        await run(node, ChangePolicy(records_max=0, bytes_max=100), ignore)
        await sync_all(node, timeout_s=30)
        assert len(await models(node)) == 6
        await run(node, ChangePolicy(bytes_max=0), ignore)
        await sync_all(node, timeout_s=30)

        assert len(await models(node)) == 7


async def test_ones_own_records_are_kept_whatever_is_followed(tmp_path):
    async with open_home(tmp_path / "a") as a, open_home(tmp_path / "b") as b:
        identity = create_identity(a)
        await run(a, ChangePolicy(mode="listed", block=(str(identity.namespace),), records_max=1), ignore)
        for number in range(2):
            await release(a, tmp_path, f"own-{number}")
        give(a, b)
        (state,) = a.store.logs.states()
        await run(a, ShowPolicy(), ignore)

        assert own_identity(a).namespace == identity.namespace
        assert not a.following.refuses(identity.namespace, state.log, 100)
        assert await models(a) == {"own-0", "own-1"}


async def test_news_of_followed_publishers_arrives_by_gossip(tmp_path, monkeypatch):
    monkeypatch.setattr(replicate, "PULL_INTERVAL_S", 3600.0)
    async with AsyncExitStack() as stack:
        ann = await stack.enter_async_context(open_home(tmp_path / "ann"))
        bob = await stack.enter_async_context(open_home(tmp_path / "bob"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        names = {}
        for who, home in (("ann", ann), ("bob", bob)):
            names[who] = str(create_identity(home).namespace)
        await run(node, ChangePolicy(mode="listed", follow=(names["ann"],)), ignore)
        address = await stack.enter_async_context(serving(node))
        for home in (ann, bob):
            await stack.enter_async_context(serving(home))
            home.store.peers.add(address)
        nursery = await stack.enter_async_context(trio.open_nursery())
        for home in (ann, bob, node):
            nursery.start_soon(replicate.replicate, home)

        async def are_neighbours() -> bool:
            return all(home.neighbours.members.is_active(node.id) for home in (ann, bob))

        await wait_for(are_neighbours, "neighbours")
        await release(bob, tmp_path, "unwanted")
        await release(ann, tmp_path, "wanted")

        async def has_it() -> bool:
            return "wanted" in await models(node)

        await wait_for(has_it, "the news")
        found = await models(node)
        nursery.cancel_scope.cancel()

    assert found == {"wanted"}


async def test_what_is_no_publisher_cannot_be_followed(tmp_path):
    async with open_home(tmp_path / "node") as node:
        with pytest.raises(InvalidName, match="no namespace"):
            await run(node, ChangePolicy(follow=("Lab",)), ignore)
        with pytest.raises(NotFound, match="no publisher is known here by the name 'lab'"):
            await run(node, ChangePolicy(follow=("lab",)), ignore)

        assert (await run(node, ShowPolicy(), ignore)).mode == "open"
