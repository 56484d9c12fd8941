"""Peers that are dead cost little, and one that moved is found again."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from p2phub.core.ids import NodeId
from p2phub.core.names import Address
from p2phub.core.signing import SigningKey
from p2phub.node import syncing
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.syncing import sync_all
from p2phub.testing.hostile import open_home, serving, silent, wait_for
from p2phub.testing.processes import Stranger, free_port, tree

pytestmark = pytest.mark.timeout(120)


def nobody(port: int, number: int) -> Address:
    """Return an address of a node that is not there."""
    return Address(NodeId(SigningKey(bytes([number]) * 32).public_key), "127.0.0.1", port)


async def test_a_name_is_fetched_while_dead_peers_are_still_silent(published, copy_of, tmp_path, monkeypatch):
    # As long as the test: whoever waits for one of them does not pass.
    monkeypatch.setattr("p2phub.node.resolve.SYNC_TIMEOUT_S", 100.0)
    with Stranger("silent") as mute:
        async with AsyncExitStack() as stack:
            live = await stack.enter_async_context(open_home(copy_of("live")))
            fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
            for number in range(3):
                fetcher.store.peers.add(nobody(mute, number))
            fetcher.store.peers.add(nobody(free_port(), 3))
            fetcher.store.peers.add(await stack.enter_async_context(serving(live)))
            with trio.fail_after(60):
                await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
            failures = {peer.node: peer.failures for peer in fetcher.store.peers.all()}

    assert tree(tmp_path / "out") == published.files
    assert failures.pop(live.id) == 0
    assert all(failures.values())


async def test_who_has_said_hello_is_waited_for_however_long_it_takes_to_tell_all(
    published, copy_of, tmp_path, monkeypatch
):
    monkeypatch.setattr(syncing, "GRACE_S", 0.1)
    async with AsyncExitStack() as stack:
        empty = await stack.enter_async_context(open_home(tmp_path / "empty"))
        slow = await stack.enter_async_context(open_home(copy_of("slow")))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        node.store.peers.add(await stack.enter_async_context(serving(empty)))
        node.store.peers.add(await stack.enter_async_context(serving(slow, wrap=silent("/v1/reconcile"))))
        begun = trio.current_time()
        failures = await sync_all(node, timeout_s=3.0)

    assert len(failures) == 1
    assert trio.current_time() - begun >= 3.0


@pytest.mark.parametrize("what", ["name", "revision"])
async def test_a_node_that_moved_is_found_through_others(what, published, copy_of, tmp_path, impatient):
    async with AsyncExitStack() as stack:
        moving = await stack.enter_async_context(open_home(copy_of("moving")))
        friend = await stack.enter_async_context(open_home(tmp_path / "friend"))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        friend_address = await stack.enter_async_context(serving(friend))
        async with serving(moving) as old:
            fetcher.store.peers.add(old)
            fetcher.store.peers.add(friend_address)
            await sync_all(fetcher, timeout_s=30)
        fetcher.calls.close()
        # It is elsewhere now, and tells only the friend. Its records have times in whole seconds.
        await trio.sleep(1.1)
        new = await stack.enter_async_context(serving(moving))
        moving.store.peers.add(friend_address)
        await sync_all(moving, timeout_s=30)
        await wait_for(lambda: friend.store.peers.get(moving.id) is not None, "the friend to know it")
        with trio.fail_after(60):
            result = await fetch(fetcher, getattr(published, what), ignore, to=tmp_path / "out")
        known = fetcher.store.peers.get(moving.id)

    assert old.port != new.port
    assert tree(tmp_path / "out") == published.files
    assert [provider.node for provider in result.providers if provider.received] == [str(moving.id)]
    assert known is not None
    assert (new.host, new.port) in known.endpoints
