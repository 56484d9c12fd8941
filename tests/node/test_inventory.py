"""It is known who has what, and how old that knowledge is."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import pytest
import trio

from p2phub.core.ids import ManifestId
from p2phub.node import inventory, replicate
from p2phub.node.calling import call_peer
from p2phub.node.dispatch import run
from p2phub.node.events import ignore
from p2phub.node.operations.swarm import ListProviders
from p2phub.testing.hostile import open_home, serving, wait_for

pytestmark = pytest.mark.timeout(120)


async def test_what_a_neighbour_has_is_learned_and_stays_known_when_it_is_gone(copy_of, published, tmp_path):
    async with open_home(copy_of("seed")) as seed, open_home(tmp_path / "node") as node, serving(node):
        async with serving(seed) as address, trio.open_nursery() as nursery:
            node.store.peers.add(address)
            nursery.start_soon(replicate.replicate, node)

            async def is_known() -> bool:
                return bool(node.store.holdings.of(ManifestId.parse(published.revision)))

            await wait_for(is_known, "the inventory")
            now = await run(node, ListProviders(published.name), ignore)
            nursery.cancel_scope.cancel()
        node.calls.close()
        later = await run(node, ListProviders(published.name), ignore)

    (provider,) = now.providers
    assert (provider.node, provider.state, provider.has) == (str(seed.id), "offers", 1.0)
    assert abs(provider.time - time.time()) < 60
    (provider,) = later.providers
    assert (provider.node, provider.state, provider.has) == (str(seed.id), "gone", 1.0)
    assert provider.reason
    assert later.asked == 1


async def test_an_inventory_of_many_pages_is_read_whole_and_what_is_withheld_is_not_in_it(
    copy_of, published, tmp_path, monkeypatch
):
    monkeypatch.setattr("p2phub.node.serve.INVENTORY_PAGE", 1)
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        revision = ManifestId.parse(published.revision)
        manifest = seed.store.manifests.get(revision)
        # Of a second one only some files are here.
        with seed.store.database.write() as connection:
            connection.execute("INSERT INTO manifests (manifest, kind, size) VALUES (?, 'model', ?)", (bytes(32), 1000))
            connection.execute("INSERT INTO manifest_files VALUES (?, ?, ?)", (bytes(32), manifest.files[0].root, 250))
            connection.execute("INSERT INTO manifest_files VALUES (?, ?, ?)", (bytes(32), bytes(32), 750))
        node.store.peers.add(await stack.enter_async_context(serving(seed)))
        peer = node.store.peers.get(seed.id)
        async with call_peer(node, peer) as client:
            await inventory.learn_inventory(node, client)
            both = {each: node.store.holdings.of(each)[0].share for each in (ManifestId(bytes(32)), revision)}
            seed.store.mirrors.withhold([revision])
            # Not again so soon.
            await inventory.learn_inventory(node, client)
            assert node.store.holdings.of(revision)
            node.neighbours.inventories.clear()
            await inventory.learn_inventory(node, client)

        assert both == {ManifestId(bytes(32)): 250, revision: 1000}
        assert node.store.holdings.of(revision) == []
