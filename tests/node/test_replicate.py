"""The catalogue spreads from node to node, and nothing false spreads with it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from p2phub.core.encoding import decode, encode
from p2phub.core.ids import NamespaceId
from p2phub.core.search import Query
from p2phub.net.door import Response
from p2phub.node import inspect, maps, replicate, serve
from p2phub.node.branches import move_branch, yank
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.peerlist import list_peers
from p2phub.node.publish import publish
from p2phub.node.syncing import sync_all
from p2phub.protocol.messages import ANSWER_SIZE_MAX, Heads, Nodes, Records
from p2phub.store import database
from p2phub.testing.hostile import answering, on_answer, open_home, serving, silent, wait_for
from p2phub.testing.processes import copy_home
from p2phub.testing.releases import make_log
from p2phub.testing.together import replicating

pytestmark = pytest.mark.timeout(120)


def folder_with(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(text)
    return folder


async def models(node) -> dict[str, str]:
    return {model.model: model.revision for model in await inspect.search(node, Query(limit=1000))}


async def banned(node) -> dict[str, str]:
    """Return why each banned peer is banned."""
    return {peer.node: peer.ban_reason for peer in await list_peers(node) if peer.banned_until}


async def test_news_of_every_kind_is_pushed_along_a_chain_of_nodes(tmp_path, monkeypatch):
    # Far longer than the test: only a push is quick.
    monkeypatch.setattr(replicate, "PULL_INTERVAL_S", 600.0)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_home(tmp_path / str(number))) for number in range(4)]
        addresses = [await stack.enter_async_context(serving(node)) for node in nodes]
        for node, before in zip(nodes[1:], addresses, strict=False):
            node.store.peers.add(before)
            # Each knows the one before it, and learns of no other.
            monkeypatch.setattr(node.store.peers, "note_record", only_neighbours(node, nodes))
        first, last = nodes[0], nodes[-1]
        monkeypatch.setattr(first.store.peers, "note_record", only_neighbours(first, nodes))
        create_identity(first)
        await stack.enter_async_context(replicating(*nodes))
        for number in range(3):
            folder = folder_with(tmp_path / "folder", f"# {number}\n")
            result = await publish(first, folder, f"chain@{number}.0.0", ignore)

            async def arrived(revision: str = result.revision) -> bool:
                return (await models(last)).get("chain") == revision

            await wait_for(arrived, f"release {number} to arrive")
        await move_branch(first, "chain", "main", "0.0.0", "back", ignore)
        await yank(first, "chain@2.0.0", "bad", ignore)

        async def knows_all() -> bool:
            return len(await inspect.log_lines(last, result.namespace)) == 5

        await wait_for(knows_all, "the branch and the yank to arrive")
        lines = [await inspect.log_lines(node, result.namespace) for node in nodes]

    assert lines[0] == lines[1] == lines[2] == lines[3]


def only_neighbours(node, nodes):
    """Return a `note_record` of `node` that keeps the records of its neighbours alone."""
    note_record = node.store.peers.note_record
    place = nodes.index(node)
    neighbours = {other.id for other in nodes[max(0, place - 1) : place + 2]}

    def note(signed) -> bool:
        return signed.record.node in neighbours and note_record(signed)

    return note


async def test_a_node_that_was_away_catches_up_by_pulling(tmp_path):
    async with open_home(tmp_path / "a") as a, open_home(tmp_path / "b") as b:
        create_identity(a)
        for number in range(5):
            await publish(a, folder_with(tmp_path / "folder", f"# {number}\n"), f"model-{number}", ignore)
        async with serving(a) as address:
            b.store.peers.add(address)
            failures = await sync_all(b, timeout_s=30)
        found = await models(b), await models(a)

    assert failures == []
    assert found[0] == found[1]
    assert len(found[0]) == 5


async def test_a_peer_that_sums_up_is_pulled_from_again_when_it_said(tmp_path, monkeypatch):
    # Far longer than the test: only what the peer said is soon.
    monkeypatch.setattr(replicate, "PULL_INTERVAL_S", 600.0)
    # None for a question: what it has is summed up behind the first.
    monkeypatch.setattr(serve, "REFRESHED_MAX", 0)
    monkeypatch.setattr(serve, "SUMMING_UP_S", 1)
    async with open_home(tmp_path / "a") as a, open_home(tmp_path / "b") as b:
        create_identity(a)
        await publish(a, folder_with(tmp_path / "folder", "# here\n"), "here", ignore)
        async with serving(a) as address, replicating(b):
            b.store.peers.add(address)

            async def arrived() -> bool:
                return "here" in await models(b)

            await wait_for(arrived, "what the peer had before")


async def test_a_pull_that_was_cut_goes_on_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(replicate, "PULL_INTERVAL_S", 600.0)
    monkeypatch.setattr(replicate, "PULL_AGAIN_S", 0.1)
    monkeypatch.setattr(replicate, "TURN_S", 0.0)
    monkeypatch.setattr(maps, "HEADS_ANSWER_SIZE", 300)  # of one log
    async with open_home(tmp_path / "a") as a, open_home(tmp_path / "b") as b:
        for number in range(5):
            made = make_log(number, 1)
            a.store.logs.add_identity(made.identity)
            a.store.logs.extend(made.identity, made.head, made.data, now=a.clock())
        async with serving(a) as address, replicating(b):
            b.store.peers.add(address)
            await wait_for(lambda: len(b.store.logs.states()) == 5, "all logs")


async def test_a_node_passes_on_what_others_signed(tmp_path):
    async with (
        open_home(tmp_path / "a") as a,
        open_home(tmp_path / "b") as b,
        open_home(tmp_path / "c") as c,
    ):
        create_identity(a)
        await publish(a, folder_with(tmp_path / "folder", "# One\n"), "passed-on", ignore)
        async with serving(a) as address:
            b.store.peers.add(address)
            await sync_all(b, timeout_s=30)
        # The publisher is gone.
        async with serving(b) as address:
            c.store.peers.add(address)
            await sync_all(c, timeout_s=30)
        found = await models(c)

    assert set(found) == {"passed-on"}


async def test_one_silent_peer_does_not_keep_the_news_of_others(tmp_path):
    async with AsyncExitStack() as stack:
        mute = await stack.enter_async_context(open_home(tmp_path / "mute"))
        good = await stack.enter_async_context(open_home(tmp_path / "good"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        create_identity(good)
        await publish(good, folder_with(tmp_path / "folder", "# One\n"), "heard", ignore)
        node.store.peers.add(await stack.enter_async_context(serving(mute, wrap=silent("/v1/hello"))))
        node.store.peers.add(await stack.enter_async_context(serving(good)))
        failures = await sync_all(node, timeout_s=3)
        found = await models(node)
        peers = {peer.node: peer for peer in await list_peers(node)}

    assert set(found) == {"heard"}
    assert len(failures) == 1
    assert str(mute.id)[:12] in failures[0]
    assert "did not answer within" in peers[str(mute.id)].last_error
    assert peers[str(mute.id)].failures == 1
    assert peers[str(mute.id)].banned_until is None


def _forge_entry(body: bytes) -> bytes:
    (entries,) = decode(body, Records, size_max=ANSWER_SIZE_MAX).entries
    changed = [bytearray(entry) for entry in entries]
    changed[-1][-1] ^= 1
    return encode(Records((tuple(bytes(entry) for entry in changed),)))


def _forge_head(body: bytes) -> bytes:
    heads = decode(body, Heads, size_max=ANSWER_SIZE_MAX)
    text = bytearray(heads.heads[0].head)
    text[-3] ^= 1
    return encode(replace(heads, heads=(replace(heads.heads[0], head=bytes(text)),)))


def _claim_other_namespace(body: bytes) -> bytes:
    heads = decode(body, Heads, size_max=ANSWER_SIZE_MAX)
    return encode(replace(heads, heads=(replace(heads.heads[0], namespace=NamespaceId(os.urandom(32))),)))


def _swap_entries(body: bytes) -> bytes:
    (entries,) = decode(body, Records, size_max=ANSWER_SIZE_MAX).entries
    return encode(Records((tuple(reversed(entries)),)))


def _twice(body: bytes) -> bytes:
    heads = decode(body, Heads, size_max=ANSWER_SIZE_MAX)
    return encode(replace(heads, heads=heads.heads * 2))


def _leave_out(body: bytes) -> bytes:
    return encode(Heads((), 0))


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/v1/records", _forge_entry),
        ("/v1/records", _swap_entries),
        ("/v1/records", lambda body: body[:-1]),
        ("/v1/heads", _forge_head),
        ("/v1/heads", _twice),
        ("/v1/heads", _leave_out),
        ("/v1/heads", lambda body: b"\x00"),
        ("/v1/identities", lambda body: body[:-40] + bytes(40)),
        ("/v1/reconcile", lambda body: b"\xa0"),
        ("/v1/hello", lambda body: body + b"\x00"),
    ],
    ids=[
        "forged entry", "swapped entries", "cut page", "forged head", "a head twice", "no head, and more to come",
        "no heads", "forged identity", "no maps", "extra byte",
    ],
)  # fmt: skip
async def test_who_sends_what_nobody_signed_is_banned_and_nothing_of_it_counts(path, change, tmp_path):
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(tmp_path / "liar"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        create_identity(liar)
        for number in range(3):
            await publish(liar, folder_with(tmp_path / "folder", f"# {number}\n"), "lies", ignore)
        address = await stack.enter_async_context(serving(liar, wrap=on_answer(path, change)))
        node.store.peers.add(address)
        failures = await sync_all(node, timeout_s=30)
        found, bans = await models(node), await banned(node)

    assert found == {}
    assert set(bans) == {str(liar.id)}
    assert failures


async def test_a_head_of_another_namespace_brings_nothing(tmp_path):
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(tmp_path / "liar"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        create_identity(liar)
        await publish(liar, folder_with(tmp_path / "folder", "# One\n"), "lies", ignore)
        wrap = on_answer("/v1/heads", _claim_other_namespace)
        node.store.peers.add(await stack.enter_async_context(serving(liar, wrap=wrap)))
        failures = await sync_all(node, timeout_s=30)
        found = await models(node)

    assert found == {}
    assert failures


async def test_two_histories_of_one_log_are_kept_as_proof_and_neither_grows(tmp_path):
    # A home restored from a backup signs on from an old state: two machines, one key.
    async with open_home(tmp_path / "a") as a:
        create_identity(a)
        await publish(a, folder_with(tmp_path / "folder", "# Common\n"), "common", ignore)
    copy_home(tmp_path / "a", tmp_path / "twin")
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(open_home(tmp_path / "a"))
        twin = await stack.enter_async_context(open_home(tmp_path / "twin"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        await publish(a, folder_with(tmp_path / "folder", "# A\n"), "from-a", ignore)
        await publish(twin, folder_with(tmp_path / "folder", "# Twin\n"), "from-twin", ignore)
        address = await stack.enter_async_context(serving(a))
        twin_address = await stack.enter_async_context(serving(twin))
        node.store.peers.add(address)
        await sync_all(node, timeout_s=30)
        before = await models(node)
        node.store.peers.remove(address.node)
        node.store.peers.add(twin_address)
        await sync_all(node, timeout_s=30)
        after = await models(node)
        status = await inspect.status(node)
        bans = await banned(node)
        (model, *_) = await inspect.search(node, Query())
        logs = {line.log for line in await inspect.log_lines(node, model.namespace)}

    assert set(before) == {"common", "from-a"}
    # Up to where the histories part, whichever came first.
    assert set(after) == {"common"}
    assert status.forked_logs == list(logs)
    # Who relays a fork is no liar: both heads are signed.
    assert bans == {}


async def test_a_peer_that_answers_nonsense_about_others_teaches_nothing(tmp_path):
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(tmp_path / "liar"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        address = await stack.enter_async_context(serving(liar))
        own = liar.record()
        broken = own[:-1] + bytes([own[-1] ^ 1])
        second = await stack.enter_async_context(open_home(tmp_path / "second"))
        second_address = await stack.enter_async_context(
            serving(second, wrap=answering("/v1/hello", Response(200, encode(Nodes((broken, b"nonsense"))))))
        )
        node.store.peers.add(second_address)
        await sync_all(node, timeout_s=30)
        peers = [peer.node for peer in await list_peers(node)]

    assert str(address.node) not in peers
    assert peers == [str(second.id)]


async def test_an_index_that_is_locked_for_long_does_not_end_a_node(tmp_path, monkeypatch, caplog):
    # Another process may be busy with it, in a rebuild for example.
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(replicate, "PULL_INTERVAL_S", 0.5)
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(open_home(tmp_path / "a"))
        b = await stack.enter_async_context(open_home(tmp_path / "b"))
        create_identity(a)
        address = await stack.enter_async_context(serving(a))
        await stack.enter_async_context(serving(b))
        b.store.peers.add(address)
        await stack.enter_async_context(replicating(a, b))
        locks = [sqlite3.connect(tmp_path / name / "index.sqlite", isolation_level=None) for name in ("a", "b")]
        for lock in locks:
            lock.execute("BEGIN IMMEDIATE")
        await trio.sleep(2)
        for lock in locks:
            lock.execute("ROLLBACK")
            lock.close()
        await publish(a, folder_with(tmp_path / "folder", "# Later\n"), "later", ignore)

        async def has_it() -> bool:
            return "later" in await models(b)

        await wait_for(has_it, "the news to arrive after the lock is gone")

    assert "database is locked" in caplog.text


async def test_who_lies_while_the_index_is_locked_does_not_end_a_node(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(tmp_path / "liar"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        create_identity(liar)
        await publish(liar, folder_with(tmp_path / "folder", "# One\n"), "lies", ignore)
        lock = sqlite3.connect(tmp_path / "node" / "index.sqlite", isolation_level=None)

        def lock_and_lie(body: bytes) -> bytes:
            if not lock.in_transaction:
                lock.execute("BEGIN IMMEDIATE")
            return b"\x00"

        node.store.peers.add(await stack.enter_async_context(serving(liar, wrap=on_answer("/v1/heads", lock_and_lie))))
        failures = await sync_all(node, timeout_s=30)
        (peer,) = node.store.peers.all()
        await replicate._pull_quietly(node, peer.node, trio.CapacityLimiter(1))
        lock.close()

    assert len(failures) == 1
