"""HTTP origins and peers give to one download, on real sockets; who lies or lacks something is left."""

from __future__ import annotations

import shutil
from contextlib import AsyncExitStack

import pytest
import trio
from originkit import base, by_origin, failing, given, host

from p2phub.core import manifest as manifests
from p2phub.core.errors import NotFound
from p2phub.core.ids import ManifestId
from p2phub.node.events import Notice, ignore
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity
from p2phub.node.origins import REFUSALS_MAX
from p2phub.node.peerlist import list_peers
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.hostile import slowly as slow_peer
from p2phub.testing.processes import tree
from p2phub.testing.webserver import WebServer, lying_from, slowly

# No test here may hang: whatever the origins do, a download ends.
pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_proxy")]


async def test_an_origin_and_a_peer_give_to_one_download(files, copy_of, published, tmp_path):
    async with AsyncExitStack() as stack:
        server = stack.enter_context(WebServer(files, slowly(10e6)))
        peer = await stack.enter_async_context(open_home(copy_of("peer")))
        node = await stack.enter_async_context(open_home(tmp_path / "home"))
        node.store.peers.add(await stack.enter_async_context(serving(peer, wrap=slow_peer(20e6))))
        result = await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))
        peers = await list_peers(node)

    assert tree(tmp_path / "out") == published.files
    assert all(provider.received > 0 for provider in result.providers)
    assert {(provider.node, provider.origin) for provider in result.providers} == {
        (str(peer.id), None),
        (None, host(server)),
    }
    assert sum(provider.received for provider in result.providers) == result.received + result.duplicates
    # What the origin gave is nobody's merit among the peers.
    assert [p.received for p in peers] == [p.received for p in result.providers if p.node]


async def test_an_origin_that_lies_from_the_middle_on_is_left_and_only_for_this_download(
    files, copy_of, published, tmp_path
):
    notices: list[str] = []
    async with AsyncExitStack() as stack:
        server = stack.enter_context(WebServer(files, lying_from(3_000_000)))
        peer = await stack.enter_async_context(open_home(copy_of("peer")))
        node = await stack.enter_async_context(open_home(tmp_path / "home"))
        node.store.peers.add(await stack.enter_async_context(serving(peer, wrap=slow_peer(20e6))))
        result = await fetch(
            node,
            published.name,
            lambda event: notices.append(event.text) if isinstance(event, Notice) else None,
            to=tmp_path / "out",
            origins=given(base(server)),
        )
        asked_then = len(server.asked)
        server.behaviours.clear()
        shutil.rmtree(node.settings.layout.store / "objects")
        again = await fetch(node, published.name, ignore, to=tmp_path / "again", origins=given(base(server)))
        peers = await list_peers(node)

    assert tree(tmp_path / "out") == tree(tmp_path / "again") == published.files
    origin = by_origin(result)[host(server)]
    assert origin.state == "banned"
    assert "sent other bytes than were published" in origin.reason
    assert any(host(server) in text and "not asked any more" in text for text in notices)
    assert [peer.banned_until for peer in peers] == [None]
    # It was asked again by the next download, and did well.
    assert len(server.asked) > asked_then
    assert by_origin(again)[host(server)].received > 0


async def test_a_liar_alone_leaves_nothing_that_is_wrong(files, bare_copy_of, published, tmp_path, impatient):
    async with open_home(bare_copy_of("home")) as node:
        with WebServer(files, lying_from(3_000_000)) as server:
            await failing(node, published.name, server, tmp_path / "out")
        with WebServer(files) as server:
            result = await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files
    # What came before the lie was checked and kept.
    assert result.received + result.here_before == published.size


async def test_a_file_that_an_origin_lacks_comes_from_a_peer_and_the_rest_from_both(
    files, copy_of, published, tmp_path
):
    missing = "parrot/model-00002-of-00002.safetensors"
    async with AsyncExitStack() as stack:
        server = stack.enter_context(WebServer({path: data for path, data in files.items() if path != missing}))
        peer = await stack.enter_async_context(open_home(copy_of("peer")))
        node = await stack.enter_async_context(open_home(tmp_path / "home"))
        node.store.peers.add(await stack.enter_async_context(serving(peer, wrap=slow_peer(5e6))))
        result = await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files
    origin = by_origin(result)[host(server)]
    assert origin.received > 0
    assert origin.state == "giving"


async def test_a_file_that_nobody_has_is_named_and_the_rest_is_kept(
    files, bare_copy_of, published, tmp_path, impatient
):
    missing = "model-00002-of-00002.safetensors"
    with WebServer({path: data for path, data in files.items() if not path.endswith(missing)}) as server:
        async with open_home(bare_copy_of("home")) as node:
            said = await failing(node, published.name, server, tmp_path / "out")
            result = await fetch(node, published.name, ignore, to=tmp_path / "out", exclude=[missing])

    assert f"does not have {missing} (404 not found)" in said
    assert result.received == 0


async def test_two_origins_on_one_host_are_told_apart(files, bare_copy_of, published, tmp_path):
    halves = sorted(files)[:4], sorted(files)[4:]
    served = {f"{number}/{path}": files[path] for number, half in enumerate(halves) for path in half}
    with WebServer(served) as server:
        async with open_home(bare_copy_of("home")) as node:
            result = await fetch(
                node,
                published.name,
                ignore,
                to=tmp_path / "out",
                origins=given(f"{server.url}/0/parrot", f"{server.url}/1/parrot"),
            )

    assert tree(tmp_path / "out") == published.files
    assert set(by_origin(result)) == {host(server), f"{host(server)} (2)"}
    assert all(provider.received > 0 for provider in result.providers)


async def test_a_slow_origin_does_not_hold_up_a_fast_peer(files, copy_of, published, tmp_path):
    async with AsyncExitStack() as stack:
        server = stack.enter_context(WebServer(files, slowly(70_000)))
        peer = await stack.enter_async_context(open_home(copy_of("peer")))
        node = await stack.enter_async_context(open_home(tmp_path / "home"))
        node.store.peers.add(await stack.enter_async_context(serving(peer)))
        start = trio.current_time()
        await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files
    # The origin's share of it alone would take minutes.
    assert trio.current_time() - start < 60


@pytest.mark.parametrize("has_lists", [True, False])
async def test_a_server_that_has_nothing_to_do_with_it_is_asked_little(has_lists, tmp_path, impatient):
    (tmp_path / "folder").mkdir()
    for number in range(200):
        (tmp_path / "folder" / f"{number}.txt").write_text(f"{number}\n")
    async with open_home(tmp_path / "publisher") as publisher:
        create_identity(publisher)
        revision = (await publish(publisher, tmp_path / "folder", "many", ignore)).revision
        manifest = publisher.store.manifests.get(ManifestId.parse(revision))
        lists = {file.root: publisher.store.chunk_lists.find(file.root) for file in manifest.files}
    with WebServer({}) as server:
        async with open_home(tmp_path / "home") as node:
            node.store.manifests.add(manifests.encode(manifest))
            if has_lists:
                node.store.chunk_lists.save_all(lists)
            with pytest.raises(NotFound):
                await fetch(node, revision, ignore, to=tmp_path / "out", origins=given(server.url))

    # Two connections may be refused the same file.
    assert REFUSALS_MAX <= len(server.asked) <= 3 * REFUSALS_MAX
