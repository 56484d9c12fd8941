"""A publisher learns who has what it published, and from nobody else's word."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import pytest
import trio

from p2phub.core.checkpoint import sign_head
from p2phub.core.encoding import encode
from p2phub.core.errors import AccessDenied, NotFound, PeerUnreachable
from p2phub.core.records import log_id
from p2phub.net.door import Response
from p2phub.node import confirm, inspect, replicate
from p2phub.node.calling import converse
from p2phub.node.confirm import wait_confirmed
from p2phub.node.dispatch import run
from p2phub.node.events import Notice, Progress, ignore
from p2phub.node.identity import create_identity, own_identity
from p2phub.node.machines import add_key, join, parse_request, request_key
from p2phub.node.news import compose
from p2phub.node.operations.content import PublishFolder
from p2phub.node.operations.policy import ChangePolicy
from p2phub.node.renewing import revoke_key
from p2phub.protocol.messages import LogHead
from p2phub.protocol.talk import sign_talk
from p2phub.testing import values
from p2phub.testing.hostile import open_home, serving, wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "README.md").write_text("# Parrot\n")
    return tmp_path / "folder"


async def test_a_lone_command_tells_its_peers_and_waits_until_they_have_it(tmp_path, folder):
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        others = [await stack.enter_async_context(open_home(tmp_path / f"other {number}")) for number in range(3)]
        create_identity(node)
        for other in others:
            node.store.peers.add(await stack.enter_async_context(serving(other)))
        result = await run(node, PublishFolder(str(folder), "parrot", wait=2), ignore)
        status = await inspect.status(node)
        has = [len(other.store.logs.states()) for other in others]

    assert 2 <= len(result.confirmed) == sum(has)
    assert set(result.confirmed) <= {str(other.id) for other in others}
    assert {each.node for each in status.confirmed if each.records == status.own_records == 1} == set(result.confirmed)


async def test_what_is_signed_with_a_key_that_is_brought_along_is_handed_over(tmp_path, folder):
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        other = await stack.enter_async_context(open_home(tmp_path / "other"))
        create_identity(node)
        node.store.peers.add(await stack.enter_async_context(serving(other)))
        async with confirm.handing_over(node, ignore):
            await run(node, PublishFolder(str(folder), "parrot"), ignore)
            before = other.store.logs.states()

        assert before == []
        (state,) = other.store.logs.states()
        assert state.size == 1


async def test_what_nobody_takes_over_is_said(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(confirm, "HAND_OVER_MAX_S", 0.3)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        create_identity(node)
        async with confirm.handing_over(node, ignore):  # nothing was signed
            pass
        with pytest.raises(PeerUnreachable, match="no other node has the record"):
            async with confirm.handing_over(node, ignore):
                await run(node, PublishFolder(str(folder), "parrot"), ignore)


async def test_a_node_learns_by_gossip_who_has_its_log(tmp_path, folder):
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        other = await stack.enter_async_context(open_home(tmp_path / "other"))
        create_identity(node)
        node.store.peers.add(await stack.enter_async_context(serving(other)))
        await stack.enter_async_context(serving(node))
        nursery = await stack.enter_async_context(trio.open_nursery())
        for each in (node, other):
            nursery.start_soon(replicate.replicate, each)
        await run(node, PublishFolder(str(folder), "parrot"), ignore)

        async def is_confirmed() -> bool:
            status = await inspect.status(node)
            return [(each.node, each.records) for each in status.confirmed] == [(str(other.id), 1)]

        await wait_for(is_confirmed, "the confirmation")
        status = await inspect.status(node)
        nursery.cancel_scope.cancel()

    assert status.neighbours == [str(other.id)]
    assert abs(status.confirmed[0].time - time.time()) < 60


async def test_it_is_said_who_is_waited_for_and_when_too_few_confirm(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(confirm, "CONFIRM_MAX_S", 1.0)
    told = []
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        other = await stack.enter_async_context(open_home(tmp_path / "other"))
        create_identity(node)
        node.store.peers.add(await stack.enter_async_context(serving(other)))
        result = await run(node, PublishFolder(str(folder), "parrot", wait=3), told.append)

    assert result.confirmed == [str(other.id)]
    waiting = [event.waiting_for for event in told if isinstance(event, Progress) and event.stage == "waiting"]
    assert waiting[0] == "3 more of 3 nodes to confirm that they have it"
    said, waited = [event.text for event in told if isinstance(event, Notice)]
    assert said.startswith("it is published;")
    assert waited == "1 of 3 nodes confirmed it within 1 s"


async def test_it_is_said_why_a_peer_confirms_nothing(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(confirm, "CONFIRM_MAX_S", 1.0)
    told = []
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        other = await stack.enter_async_context(open_home(tmp_path / "other"))
        create_identity(node)
        other.clock = lambda: time.time() + 1000
        node.store.peers.add(await stack.enter_async_context(serving(other)))
        await run(node, PublishFolder(str(folder), "parrot", wait=1), told.append)

    waited = [event.text for event in told if isinstance(event, Notice)][-1]
    assert waited.startswith("0 of 1 nodes confirmed it within 1 s; ")
    assert "the clocks differ" in waited


async def test_without_peers_nobody_is_waited_for(tmp_path, folder):
    async with open_home(tmp_path / "node") as node:
        create_identity(node)
        with pytest.raises(NotFound, match="no peers are known"):
            await run(node, PublishFolder(str(folder), "parrot", wait=1), ignore)


async def test_a_head_that_was_not_signed_here_confirms_nothing(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(confirm, "CONFIRM_MAX_S", 1.0)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        liar = await stack.enter_async_context(open_home(tmp_path / "liar"))
        create_identity(node)
        await run(node, PublishFolder(str(folder), "parrot"), ignore)
        (state,) = node.store.logs.states()
        forged = sign_head(state.log, 1, bytes(32), values.key("stranger")).text

        def wrap(handler):
            async def answer(request):
                if request.path.startswith("/v1/head/"):
                    return Response(200, encode(LogHead(state.namespace, 1, forged)))
                return await handler(request)

            return answer

        node.store.peers.add(await stack.enter_async_context(serving(liar, wrap=wrap)))
        with pytest.raises(NotFound, match="banned"):
            await wait_confirmed(node, 1, ignore)
        status = await inspect.status(node)

    assert status.confirmed == []


@pytest.mark.parametrize("size", [0, 1])
async def test_what_a_revoked_key_signs_is_confirmed_by_nobody(tmp_path, folder, size, monkeypatch):
    monkeypatch.setattr(confirm, "CONFIRM_MAX_S", 5.0)
    async with AsyncExitStack() as stack:
        desk, laptop, other = [
            await stack.enter_async_context(open_home(tmp_path / name)) for name in ("desk", "laptop", "other")
        ]
        address = await stack.enter_async_context(serving(other))
        create_identity(desk)
        request = parse_request(request_key(laptop))
        join(laptop, add_key(desk, request, ["publish"])[1])
        for home, name in ((laptop, "parrot"), (desk, "words")):
            home.store.peers.add(address)
            await run(home, PublishFolder(str(folder), name, wait=1), ignore)
        # The other node hears of it, the machine that has the key does not.
        revoke_key(desk, str(request.key), size)
        await run(desk, PublishFolder(str(folder), "more", wait=1), ignore)

        with pytest.raises(AccessDenied, match="was retired"):
            await run(laptop, PublishFolder(str(folder), "forged", wait=1), ignore)
        confirmed = laptop.store.confirmations.of(log_id(own_identity(laptop).namespace, request.key))

    assert [(each.node, each.size) for each in confirmed] == [(other.id, 1)]


async def test_who_does_not_want_the_log_does_not_confirm_it(tmp_path, folder, monkeypatch):
    """Word of the log is answered by those who have it, and by those who take nothing of its publisher, alike."""
    monkeypatch.setattr(confirm, "CONFIRM_MAX_S", 1.0)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        other = await stack.enter_async_context(open_home(tmp_path / "other"))
        create_identity(node)
        create_identity(other)
        await run(other, ChangePolicy(mode="listed"), ignore)
        await run(node, PublishFolder(str(folder), "parrot"), ignore)
        address = await stack.enter_async_context(serving(other))
        (state,) = node.store.logs.states()
        message = compose(node.store, {}, (state.log,))
        node.store.peers.add(address)
        peer = node.store.peers.get(address.node)
        reply = await converse(node, peer, sign_talk(message.push, node.key, peer.node, now=node.clock()))

    assert message.push.word
    assert reply.wanted == ()
    assert not reply.holds
