"""Nodes on real sockets find each other, tell each other news, and are not led astray."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AsyncExitStack, suppress

import pytest
import trio

from p2phub.core.certificate import certificate
from p2phub.core.checkpoint import sign_head
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import PeerBusy, PeerError
from p2phub.core.ids import LogId, NodeId
from p2phub.core.names import Address
from p2phub.core.noderecord import NodeRecord, open_node_record, sign_node_record
from p2phub.core.search import Query
from p2phub.core.signing import SigningKey
from p2phub.net.door import Request
from p2phub.net.peerclient import PeerClient
from p2phub.node import gossip, greetings, inspect, neighbours, replicate
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.news import compose
from p2phub.node.peerlist import list_peers
from p2phub.node.publish import publish
from p2phub.node.serve import PeerDoor
from p2phub.protocol.messages import ANSWER_SIZE_MAX, Hello, LogHead, Nodes
from p2phub.protocol.talk import Ask, Exchange, Push, Reply, Whole, Word, sign_talk
from p2phub.store.keys import load_key
from p2phub.testing import values
from p2phub.testing.hostile import counting, open_home, serving, wait_for
from p2phub.testing.together import replicating

pytestmark = pytest.mark.timeout(120)


async def publish_text(node, folder, name: str, text: str):
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(text)
    return await publish(node, folder, name, ignore)


async def models(node) -> set[str]:
    return {model.model for model in await inspect.search(node, Query(limit=1000))}


@pytest.fixture
def no_pulls(monkeypatch):
    """Let news come by gossip alone."""

    async def pull(node, client, turn):
        return 0

    monkeypatch.setattr(replicate, "pull", pull)


@pytest.fixture
def talker(tmp_path):
    """Return a function that says something to a node in the name of another, and gives the answer."""

    async def talk(speaker, address: Address, say, *, with_record: bool = True, to=None, now=None) -> Reply:
        record = speaker.record() if with_record else None
        message = sign_talk(say, speaker.key, to or address.node, now=now or time.time(), record=record)
        client = PeerClient(address.node, address.host, address.port)
        try:
            return await client.talk(message)
        finally:
            client.close()

    return talk


async def test_nodes_that_know_one_of_them_find_each_other_and_news_reaches_all(tmp_path, no_pulls):
    async with AsyncExitStack() as stack:
        asked = [Counter() for _ in range(8)]
        nodes = [await stack.enter_async_context(open_home(tmp_path / str(number))) for number in range(8)]
        addresses = [
            await stack.enter_async_context(serving(node, wrap=counting(count)))
            for node, count in zip(nodes, asked, strict=True)
        ]
        for node in nodes[1:]:
            node.store.peers.add(addresses[0])
        create_identity(nodes[3])
        await stack.enter_async_context(replicating(*nodes))

        async def all_have_neighbours() -> bool:
            return all(len(node.neighbours.members.active) >= 3 for node in nodes)

        await wait_for(all_have_neighbours, "neighbours")
        for number in range(3):
            await publish_text(nodes[3], tmp_path / "folder", f"model-{number}", f"# {number}\n")

            async def all_have_it(name: str = f"model-{number}") -> bool:
                return all([name in await models(node) for node in nodes])

            await wait_for(all_have_it, "news")
        status = [await inspect.status(node) for node in nodes]

    assert {each.records for each in status} == {3}
    # What proves it came along: nobody asked for anything.
    assert not {"/v1/reconcile", "/v1/heads", "/v1/identities", "/v1/records"} & {path for one in asked for path in one}


async def test_what_was_published_while_nobody_listened_reaches_those_who_come(tmp_path, no_pulls):
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(open_home(tmp_path / "a"))
        b = await stack.enter_async_context(open_home(tmp_path / "b"))
        create_identity(a)
        await publish_text(a, tmp_path / "folder", "early", "# Early\n")
        b.store.peers.add(await stack.enter_async_context(serving(a)))
        await stack.enter_async_context(serving(b))
        await stack.enter_async_context(replicating(a, b))

        async def has_it() -> bool:
            return await models(b) == {"early"}

        await wait_for(has_it, "the news")


async def test_more_than_fits_a_message_is_pulled_from_the_neighbour(tmp_path, monkeypatch):
    monkeypatch.setattr(replicate, "PULL_INTERVAL_S", 3600.0)
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(open_home(tmp_path / "a"))
        b = await stack.enter_async_context(open_home(tmp_path / "b"))
        create_identity(a)
        b.store.peers.add(await stack.enter_async_context(serving(a)))
        await stack.enter_async_context(serving(b))
        await stack.enter_async_context(replicating(a, b))

        async def are_neighbours() -> bool:
            return a.neighbours.members.is_active(b.id) and b.neighbours.members.is_active(a.id)

        await wait_for(are_neighbours, "each other")
        for number in range(60):
            result = await publish_text(a, tmp_path / "folder", f"model-{number}", f"# {number}\n" + "word " * 300)

        async def has_all() -> bool:
            return len(await inspect.log_lines(b, result.namespace)) == 60 if await models(b) else False

        await wait_for(has_all, "all of it")


async def test_who_talks_must_be_who_he_says_and_talk_to_us_now(tmp_path, talker):
    async with AsyncExitStack() as stack:
        speaker = await stack.enter_async_context(open_home(tmp_path / "speaker"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        address = await stack.enter_async_context(serving(node))
        await stack.enter_async_context(serving(speaker))

        assert (await talker(speaker, address, Exchange())).neighbour is False
        with pytest.raises(PeerError, match="said to another node"):
            await talker(speaker, address, Exchange(), to=speaker.id)
        for now in (time.time() - 660, time.time() + 660):
            with pytest.raises(PeerError, match="the clocks differ"):
                await talker(speaker, address, Exchange(), now=now)
        message = bytearray(sign_talk(Ask(), speaker.key, node.id, now=time.time()))
        message[-1] ^= 1
        client = PeerClient(address.node, address.host, address.port)
        with pytest.raises(PeerError, match="signature"):
            await client.talk(bytes(message))
        stranger = sign_talk(Ask(), values.key("stranger"), node.id, now=time.time(), record=speaker.record())
        with pytest.raises(PeerError, match="record is of another node"):
            await client.talk(stranger)
        client.close()


async def test_only_what_is_signed_is_believed_and_passed_on(tmp_path, talker):
    async with AsyncExitStack() as stack:
        speaker = await stack.enter_async_context(open_home(tmp_path / "speaker"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        create_identity(speaker)
        await publish_text(speaker, tmp_path / "folder", "true", "# True\n")
        await stack.enter_async_context(serving(speaker))
        address = await stack.enter_async_context(serving(node))
        node.neighbours.is_running = True
        (state,) = speaker.store.logs.states()
        (true,) = compose(speaker.store, {state.log: 0}, ()).push.whole
        own_key = load_key(speaker.settings.layout.keys / "publish.key")
        forged = sign_head(state.log, 1, bytes(32), values.key("stranger")).text
        entry = bytearray(true.entries[0])
        entry[-1] ^= 1
        identity = values.identity("other")
        other = type(true.identity)(identity.chain)
        lies = {
            "another identity": Whole(true.head, 0, true.entries, other),
            "another's signature": Whole(LogHead(state.namespace, 1, forged), 0, true.entries, true.identity),
            "no head": Whole(LogHead(state.namespace, 1, b"nonsense"), 0, true.entries, true.identity),
            "another root": Whole(
                LogHead(state.namespace, 1, sign_head(state.log, 1, bytes(32), own_key).text), 0, true.entries,
                true.identity,
            ),
            "a changed entry": Whole(true.head, 0, (bytes(entry),), true.identity),
        }  # fmt: skip
        replies = {why: await talker(speaker, address, Push((lie,))) for why, lie in lies.items()}

        assert {why for why, reply in replies.items() if reply.holds or reply.neighbour} == set()
        assert node.neighbours.news == {}
        assert await models(node) == set()
        assert (await talker(speaker, address, Push((true,)))).holds
        assert list(node.neighbours.news) == [state.log]
        assert await models(node) == {"true"}
        again = await talker(speaker, address, Push((true,), (Word(state.log, 1, 1), Word(LogId(bytes(32)), 5, 1))))
        assert (again.was_news, again.holds) == (False, True)
        assert [(want.index, want.size) for want in again.wanted] == [(1, 0)]
        # Who lied is kept away from for a while; who could be made to look a liar would be banned for longer.
        assert [peer.node for peer in await list_peers(node) if peer.banned_until] == []


async def test_a_flood_is_stopped_by_node_and_by_network(tmp_path, talker, monkeypatch):
    monkeypatch.setattr(neighbours, "TALKS_OF_NODE", neighbours.Allowance(5, 0.01))
    monkeypatch.setattr(neighbours, "TALKS_OF_NETWORK", neighbours.Allowance(12, 0.01))
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_home(tmp_path / "first"))
        second = await stack.enter_async_context(open_home(tmp_path / "second"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        address = await stack.enter_async_context(serving(node))
        served = 0
        for speaker in [first] * 8 + [second] * 8:
            with suppress(PeerBusy):
                await talker(speaker, address, Exchange(), with_record=False)
                served += 1

    # 5 of the first; its 3 refused ones count for the network, which leaves 4 to the second.
    assert served == 9


async def test_a_public_network_that_asks_too_much_is_told_to_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "QUERIES_OF_NETWORK", neighbours.Allowance(3, 0.01))
    async with open_home(tmp_path / "node") as node, trio.open_nursery() as nursery:
        door = PeerDoor(node, nursery)

        async def ask(host: str) -> int:
            return (await door.handle(Request("GET", "/v1/inventory", {}, b"", host))).status

        statuses = [await ask(f"9.9.9.{number}") for number in range(5)]

        assert statuses == [200, 200, 200, 429, 429]
        assert await ask("9.9.8.1") == 200
        assert [await ask("10.0.0.1") for _ in range(5)] == [200] * 5
        nursery.cancel_scope.cancel()


async def test_whoever_says_hello_under_many_ids_is_told_on_for_few_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(greetings, "GREETED_MAX", 5)
    async with open_home(tmp_path / "node") as node, trio.open_nursery() as nursery:
        door = PeerDoor(node, nursery)
        made_up = [SigningKey(bytes([number]) * 32) for number in range(1, 13)]
        for number, key in enumerate(made_up):
            record = NodeRecord(
                schema=1, node=NodeId(key.public_key), addresses=(f"10.1.{number}.1:8627",),
                certificate=certificate(key), time=int(node.clock()), ttl=3600,
            )  # fmt: skip
            hello = encode(Hello(sign_node_record(record, key).data))
            answer = await door.handle(Request("POST", "/v1/hello", {}, hello, "10.0.0.1"))

        records = decode(answer.body, Nodes, size_max=ANSWER_SIZE_MAX).records
        told = {open_node_record(each, now=node.clock()).record.node for each in records}

        assert told == {node.id, *(NodeId(key.public_key) for key in made_up[-5:-1])}
        nursery.cancel_scope.cancel()


async def test_a_flood_of_new_keys_is_not_taken_in(tmp_path, talker, monkeypatch):
    monkeypatch.setattr(neighbours, "NEW_LOGS_OF_NODE", neighbours.Allowance(3, 0.001))
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        address = await stack.enter_async_context(serving(node))
        speaker = await stack.enter_async_context(open_home(tmp_path / "speaker"))
        for number in range(6):
            publisher = await stack.enter_async_context(open_home(tmp_path / f"publisher {number}"))
            create_identity(publisher)
            await publish_text(publisher, tmp_path / "folder", f"model-{number}", "# Spam\n")
            (state,) = publisher.store.logs.states()
            push = compose(publisher.store, {state.log: 0}, ()).push
            reply = await talker(speaker, address, push)
            if number == 0:
                known = publisher
        # Logs that are known come further all the same.
        assert len(await models(node)) == 3
        assert not reply.holds
        await publish_text(known, tmp_path / "folder", "more", "# More\n")
        (state,) = known.store.logs.states()
        assert (await talker(speaker, address, compose(known.store, {state.log: 1}, ()).push)).holds


async def test_a_peer_that_was_typed_wrong_is_called_less_and_less(tmp_path, monkeypatch):
    monkeypatch.setattr(gossip, "TEND_S", 0.05)
    monkeypatch.setattr(gossip, "CANDIDATES_S", 0.1)
    calls = Counter()
    real = gossip.converse

    async def converse(node, peer, message):
        calls[peer.node] += 1
        return await real(node, peer, message)

    monkeypatch.setattr(gossip, "converse", converse)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        await stack.enter_async_context(serving(node))
        live = await stack.enter_async_context(open_home(tmp_path / "live"))
        wrong = [Address(values.node_record(f"wrong {number}").node, "127.0.0.1", 9) for number in range(20)]
        for address in wrong:
            node.store.peers.add(address)
        node.store.peers.add(await stack.enter_async_context(serving(live)))
        await stack.enter_async_context(replicating(node, live))

        async def found_the_live_one() -> bool:
            return node.neighbours.members.is_active(live.id)

        await wait_for(found_the_live_one, "the one that lives")
        await trio.sleep(3)
        peers = {peer.node: peer for peer in node.store.peers.all()}

    assert max(calls[address.node] for address in wrong) == 1
    assert all(peers[address.node].next_try > time.time() + 10 for address in wrong if calls[address.node])
