"""What a node pledged it fetches and keeps, and those who pledged the same see to it that there are enough copies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from p2phub.core.errors import AccessDenied, Conflict, InvalidName, NotFound
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.names import Address
from p2phub.net.door import Request, Response
from p2phub.node import inventory, keeping, pledging
from p2phub.node.calling import call_peer
from p2phub.node.dispatch import run
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.housekeeping import collect_garbage
from p2phub.node.identity import create_identity
from p2phub.node.inspect import log_lines, status
from p2phub.node.keeping import keep_promises
from p2phub.node.node import Node
from p2phub.node.operations.pledges import PledgeAdd, PledgeList, PledgeRemove
from p2phub.node.operations.policy import ChangePolicy
from p2phub.node.operations.records import YankVersion
from p2phub.node.operations.storage import StorePin, StoreRebuild, StoreRemove, StoreUnpin
from p2phub.node.publish import publish
from p2phub.node.syncing import sync_all
from p2phub.store.lazily import make_all
from p2phub.testing.hostile import flip_bits, open_home, serving, wait_for

pytestmark = pytest.mark.timeout(120)


@dataclass
class World:
    """Some nodes of this process that know each other."""

    base: Path
    stack: AsyncExitStack
    nursery: trio.Nursery
    nodes: dict[str, Node] = field(default_factory=dict)
    names: dict[str, NamespaceId] = field(default_factory=dict)
    doors: dict[str, trio.CancelScope] = field(default_factory=dict)
    clock_s: float = 0.0  # beyond the real clock

    async def node(self, name: str, *, wrap=lambda handler: handler) -> Node:
        node = await self.stack.enter_async_context(open_home(self.base / name))
        make_all(node)  # As a daemon does. Who calls, and who asks, they tell by the real clock.
        real = node.clock
        node.clock = lambda: real() + self.clock_s
        self.names[name] = create_identity(node).namespace
        address = await self.serve(name, node, wrap)
        for other in self.nodes.values():
            other.store.peers.add(address)
            node.store.peers.add(Address(other.id, *_endpoint(other)))
        self.nodes[name] = node
        return node

    async def serve(self, name: str, node: Node, wrap) -> Address:
        address: Address = await self.nursery.start(self._serve, name, node, wrap)
        return address

    async def _serve(self, name, node, wrap, task_status=trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as scope:
            self.doors[name] = scope
            async with serving(node, wrap=wrap) as address:
                task_status.started(address)
                await trio.sleep_forever()

    async def sync(self) -> None:
        """Let all take over what the others have."""
        for node in self.nodes.values():
            await sync_all(node, timeout_s=30)

    def leave(self, name: str) -> None:
        """Let a node be gone from now on."""
        self.doors[name].cancel()
        left = self.nodes.pop(name)
        left.calls.close()
        for other in self.nodes.values():
            other.calls.close()


def _endpoint(node: Node) -> tuple[str, int]:
    host, _, port = node.endpoints[0].rpartition(":")
    return host, int(port)


@pytest.fixture
async def world(tmp_path, monkeypatch) -> AsyncIterator[World]:
    monkeypatch.setattr(keeping, "ROUND_S", 0.2)
    monkeypatch.setattr(keeping, "GAP_S", 0.1)
    monkeypatch.setattr(keeping, "RETRY_S", 0.2)
    monkeypatch.setattr(inventory, "INVENTORY_S", 0.1)
    # The doors close before the homes.
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        yield World(tmp_path, stack, nursery)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def keeping_promises(*nodes: Node) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(keep_promises, node)
        yield
        nursery.cancel_scope.cancel()


async def release(node: Node, folder: Path, name: str, **options) -> ManifestId:
    where = folder / "files" / name
    where.mkdir(parents=True)
    (where / "README.md").write_text(f"# {name}\n")
    (where / "weights.bin").write_bytes(name.encode() * 100_000)
    return ManifestId.parse((await publish(node, where, name, ignore, **options)).revision)


def has(node: Node, *manifests: ManifestId) -> bool:
    return node.store.holdings.whole(manifests) == set(manifests)


async def wait_has(node: Node, *manifests: ManifestId) -> None:
    async def check() -> bool:
        return has(node, *manifests)

    await wait_for(check, "a copy")


async def test_what_is_pledged_is_fetched_kept_and_followed_until_it_is_let_go(world, tmp_path):
    ann, bob = await world.node("ann"), await world.node("bob")
    first, other = await release(ann, tmp_path, "parrot@1.0.0"), await release(ann, tmp_path, "other@1.0.0")
    await world.sync()
    name = f"{world.names['ann']}/parrot"
    made = await run(bob, PledgeAdd(name), ignore)
    async with keeping_promises(bob):
        await wait_has(bob, first)
        second = await release(ann, tmp_path, "parrot@2.0.0")
        await sync_all(bob, timeout_s=30)
        await wait_has(bob, second)
    assert (made.subject, made.own, made.replicas, made.revisions, made.here) == (name, True, None, 1, 0)
    assert not has(bob, other)
    (shown,) = await run(bob, PledgeList(), ignore)
    assert (shown.revisions, shown.here, shown.have, shown.needed, shown.short) == (2, 2, 1, 1, 0)
    state = (await status(bob)).pledged
    assert (state.pledges, state.revisions, state.here, state.short, state.problem) == (1, 2, 2, 0, None)
    # Neither the garbage collector nor the user takes it by accident.
    await collect_garbage(bob, unpinned=True)
    assert has(bob, first, second)
    with pytest.raises(Conflict, match="pledged"):
        await run(bob, StoreRemove(str(first)), ignore)
    with pytest.raises(Conflict, match="pledged"):
        await run(bob, StoreUnpin(str(first)), ignore)
    await run(bob, StorePin(str(second)), ignore)
    await run(bob, PledgeRemove(name), ignore)
    await collect_garbage(bob, unpinned=True)

    assert await run(bob, PledgeList(), ignore) == []
    assert not has(bob, first)
    assert has(bob, second)
    with pytest.raises(NotFound, match="did not pledge"):
        await run(bob, PledgeRemove(name), ignore)


async def test_what_was_yanked_and_abandoned_is_still_there_by_hash_where_it_is_pledged(world, tmp_path):
    ann, bob = await world.node("ann"), await world.node("bob")
    revision = await release(ann, tmp_path, "parrot@1.0.0")
    await world.sync()
    await run(bob, PledgeAdd(str(world.names["ann"])), ignore)
    async with keeping_promises(bob):
        await wait_has(bob, revision)
        await run(ann, YankVersion("parrot@1.0.0", "never mind"), ignore)
        await world.sync()
        world.leave("ann")
        await collect_garbage(bob, unpinned=True)
        cyd = await world.node("cyd")
        result = await fetch(cyd, str(revision), ignore, to=tmp_path / "cyd-copy")

    assert result.received == result.size > 0
    assert (tmp_path / "cyd-copy" / "README.md").read_text() == "# parrot@1.0.0\n"


async def test_of_those_who_help_each_other_as_many_fetch_as_are_needed_and_the_next_when_one_is_gone(world, tmp_path):
    ann = await world.node("ann")
    revisions = [await release(ann, tmp_path, f"parrot@{number}.0.0") for number in range(1, 5)]
    helpers = [await world.node(name) for name in ("bob", "cyd", "dan")]
    await world.sync()
    for node in helpers:
        follow = tuple(str(world.names[name]) for name in ("ann", "bob", "cyd", "dan"))
        await run(node, ChangePolicy(mode="listed", follow=follow), ignore)
        await run(node, PledgeAdd(str(world.names["ann"]), replicas=2), ignore)
    await world.sync()

    def copies(revision: ManifestId) -> list[Node]:
        return [node for node in helpers if node in world.nodes.values() and has(node, revision)]

    async def enough() -> bool:
        return all(len(copies(revision)) >= 2 for revision in revisions)

    async with keeping_promises(*helpers):
        await wait_for(enough, "two copies of each")
        await trio.sleep(1.0)
        spread = {node.id: [revision for revision in revisions if has(node, revision)] for node in helpers}
        assert [len(copies(revision)) for revision in revisions] == [2] * 4
        # Nobody hears of one of them for long: what he has is fetched by the others, who have it not.
        gone = max(("bob", "cyd", "dan"), key=lambda name: len(spread[world.nodes[name].id]))
        lost, lost_id = spread[world.nodes[gone].id], world.nodes[gone].id
        world.leave(gone)
        left = [node for node in helpers if node.id != lost_id]
        world.clock_s += pledging.GONE_S + 1
        for node in (*left, ann):
            for other in world.nodes.values():
                if other is not node:
                    node.store.peers.note_seen(other.id, node.clock())
        await wait_for(enough, "the copies to be made again")

        async def is_known() -> bool:
            (shown,) = await run(left[0], PledgeList(), ignore)
            return (shown.needed, shown.have, shown.short) == (2, 2, 0)

        await wait_for(is_known, "the copies to be known of")

    assert lost
    assert all(has(node, each) for node in left for each in lost)
    (shown,) = await run(left[0], PledgeList(), ignore)
    assert [each.gone for each in shown.pledgers if each.node == str(lost_id)] == [True]


@pytest.mark.parametrize("what", ["a revision", "a publisher"])
async def test_a_promise_of_somebody_nobody_chose_lets_nobody_off(world, tmp_path, what):
    ann, bob, mallory = [await world.node(name) for name in ("ann", "bob", "mallory")]
    revision = await release(ann, tmp_path, "parrot@1.0.0")
    await world.sync()
    await fetch(mallory, str(revision), ignore, to=tmp_path / "mallory-copy")
    await run(mallory, PledgeAdd(str(revision)), ignore)
    await world.sync()
    subject = str(revision) if what == "a revision" else str(world.names["ann"])
    await run(bob, PledgeAdd(subject, replicas=1), ignore)
    async with keeping_promises(bob):
        await wait_has(bob, revision)

    for other in (ann, mallory):
        async with call_peer(bob, bob.store.peers.get(other.id)) as client:
            await inventory.learn_inventory(bob, client)
    everybody = await run(bob, PledgeList(str(revision)), ignore)
    assert [each.namespace for each in everybody] == [str(world.names["bob"]), str(world.names["mallory"])]
    assert [each.node for each in everybody[0].pledgers] == [str(bob.id)]
    assert (everybody[0].have, everybody[0].needed, everybody[0].others) == (1, 1, 2)


def says_to_hold(revision: list[ManifestId], *, and_gives: bool = False):
    """Let a node claim all of a revision; of its content it gives nothing."""

    def wrap(handler):
        async def answer(request: Request) -> Response:
            if request.path == "/v1/spans" and not and_gives:
                return Response(404, b"", "text/plain")
            return await handler(request)

        return answer

    return wrap


@pytest.mark.parametrize("lie", ["gives nothing", "gives other bytes"])
async def test_who_says_to_hold_what_it_does_not_give_is_found_out_and_not_counted_on(world, tmp_path, lie):
    ann, bob = await world.node("ann"), await world.node("bob")
    revision = await release(ann, tmp_path, "parrot@1.0.0")
    liar = await world.node("liar")
    await world.sync()
    await fetch(liar, str(revision), ignore, to=tmp_path / "liar-copy")
    await run(liar, PledgeAdd(str(revision), replicas=1), ignore)
    await world.sync()
    world.leave("liar")
    wrap = flip_bits(liar) if lie == "gives other bytes" else says_to_hold([revision])
    bob.store.peers.add(await world.serve("liar", liar, wrap))
    await run(bob, ChangePolicy(follow=(str(world.names["liar"]),)), ignore)
    await run(bob, PledgeAdd(str(revision), replicas=1), ignore)
    async with keeping_promises(bob):
        await wait_has(bob, revision)

    (shown,) = await run(bob, PledgeList(), ignore)
    assert (shown.have, shown.needed) == (1, 1)
    (other,) = [each for each in shown.pledgers if each.node == str(liar.id)]
    assert other.lied
    assert other.holds == 0


async def test_who_gives_what_it_says_to_hold_is_counted_on(world, tmp_path):
    ann, bob, cyd = [await world.node(name) for name in ("ann", "bob", "cyd")]
    revision = await release(ann, tmp_path, "parrot@1.0.0")
    await world.sync()
    await fetch(cyd, str(revision), ignore, to=tmp_path / "cyd-copy")
    await run(cyd, PledgeAdd(str(revision), replicas=1), ignore)
    await run(bob, ChangePolicy(follow=(str(world.names["cyd"]),)), ignore)
    await world.sync()
    await run(bob, PledgeAdd(str(revision), replicas=1), ignore)

    async def looked() -> bool:
        return cyd.id in bob.store.pledges.checks(revision)

    async with keeping_promises(bob):
        await wait_for(looked, "a look at cyd")
        await trio.sleep(0.6)
    (shown,) = await run(bob, PledgeList(), ignore)

    assert bob.store.pledges.checks(revision)[cyd.id].is_good
    assert (shown.here, shown.have, shown.needed, shown.short) == (0, 1, 1, 0)


async def test_what_does_not_come_is_said_and_tried_again(world, tmp_path):
    ann, bob = await world.node("ann"), await world.node("bob")
    revision = await release(ann, tmp_path, "parrot@1.0.0")
    await world.sync()
    world.leave("ann")
    await run(bob, PledgeAdd(str(world.names["ann"])), ignore)

    async def is_said() -> bool:
        (shown,) = await run(bob, PledgeList(), ignore)
        return bool(shown.problem)

    async with keeping_promises(bob):
        await wait_for(is_said, "the problem")
        state = (await status(bob)).pledged
        cyd = await world.node("cyd")
        cyd.store.manifests.add(ann.store.manifests.data(revision))
        for file in ann.store.manifests.get(revision).files:
            cyd.store.intake.ingest(ann.store.blobs.find(file.root).path, file.profile)
        await wait_has(bob, revision)

    assert (state.here, state.short) == (0, 1)
    assert "manifest" in state.problem
    (shown,) = await run(bob, PledgeList(), ignore)
    assert shown.problem is None


async def test_a_pledge_ends_at_its_time_and_survives_a_rebuilt_index(world, tmp_path):
    ann, bob = await world.node("ann"), await world.node("bob")
    revision = await release(ann, tmp_path, "parrot@1.0.0")
    await world.sync()
    await run(bob, PledgeAdd(str(revision), days=2), ignore)
    await run(bob, PledgeAdd(str(world.names["ann"]), days=9), ignore)
    await run(bob, PledgeRemove(str(world.names["ann"])), ignore)
    before = await run(bob, PledgeList(), ignore)
    await run(bob, StoreRebuild(), ignore)
    after = await run(bob, PledgeList(), ignore)
    types = [line.type for line in await log_lines(bob, str(world.names["bob"]))]
    world.clock_s += 2 * 24 * 3600 + 1

    assert [each.subject for each in before] == [str(revision)]
    assert after == before
    assert types == ["unpledge", "pledge", "pledge"]
    assert await run(bob, PledgeList(), ignore) == []


async def test_nobody_can_pledge_for_the_node_of_another(world, tmp_path):
    ann, bob = await world.node("ann"), await world.node("bob")
    await release(ann, tmp_path, "parrot@1.0.0")
    await world.sync()
    bob_key, bob.key = bob.key, ann.key  # so that bob says it of ann's node
    await run(bob, PledgeAdd(str(world.names["ann"])), ignore)
    bob.key = bob_key
    await world.sync()
    (said,) = await run(ann, PledgeList(str(world.names["ann"])), ignore)

    assert (said.namespace, said.node) == (str(world.names["bob"]), str(ann.id))
    assert await run(ann, PledgeList(), ignore) == []
    assert pledging.pledged_manifests(ann) == set()


async def test_what_not_everybody_may_know_of_is_not_pledged(world, tmp_path):
    ann = await world.node("ann")
    restricted = await release(ann, tmp_path, "parrot@1.0.0")
    secret = await release(ann, tmp_path, "secret@1.0.0", visibility="private")
    ann.store.mirrors.withhold([restricted])
    for text in (str(restricted), "parrot", str(secret), "secret"):
        with pytest.raises(AccessDenied, match="a pledge is public"):
            await run(ann, PledgeAdd(text), ignore)
    said = [line.type for line in await log_lines(ann, str(world.names["ann"]))]
    await run(ann, PledgeAdd(str(world.names["ann"])), ignore)

    assert "pledge" not in said
    assert pledging.all_duties(ann) == {}


@pytest.mark.parametrize("text", ["hf://org/name", "no such", "a/b/c", "parrot@"])
async def test_what_is_no_reference_cannot_be_pledged(world, text):
    ann = await world.node("ann")
    with pytest.raises((InvalidName, NotFound)):
        await run(ann, PledgeAdd(text), ignore)
