"""Single files come from their URLs."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from originkit import given, leftovers

from p2phub.core.errors import NotFound
from p2phub.core.ids import ManifestId
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity
from p2phub.node.inspect import info
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.hostile import slowly as slow_peer
from p2phub.testing.webserver import Reply, WebServer, answering, lying_from, slowly

# No test here may hang: whatever the origins do, a download ends.
pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_proxy")]


@pytest.mark.parametrize("profile", ["fixed-1m", "cdc-1m", "tensor-1m"])
async def test_a_single_file_comes_from_its_url_alone(profile, published, tmp_path):
    name = "model-00001-of-00002.safetensors"
    data = (published.folder / name).read_bytes()
    async with open_home(tmp_path / "publisher") as publisher:
        create_identity(publisher)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / name).write_bytes(data)
        result = await publish(publisher, tmp_path / "folder", "x", ignore, profile=profile)
        root = (await info(publisher, result.revision, ignore, refresh=False)).files[0].root
    with WebServer({"any name": data}) as server:
        async with open_home(tmp_path / "home") as node:
            url = f"{server.url}/any%20name?key=1"
            fetched = await fetch(node, root, ignore, to=tmp_path / "out.bin", origins=given(url))
            again = await fetch(node, root, ignore, to=tmp_path / "out.bin", origins=given(url))

    assert (tmp_path / "out.bin").read_bytes() == data
    assert fetched.received == fetched.size == len(data)
    assert again.received == 0


@pytest.mark.parametrize(
    ("match", "behaviours"),
    [
        ("sent another file than was published", [lying_from(100)]),
        ("does not have", [answering(404)]),
        ("does not say how long", [lambda asked, reply: Reply(200, b"x", is_chunked=True)]),
        ("is busy", [answering(429)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_single_file_that_does_not_come_leaves_nothing(match, behaviours, published, tmp_path):
    with WebServer({"x": b"hello"}, *behaviours) as server:
        async with open_home(tmp_path / "home") as node:
            with pytest.raises(NotFound) as failure:
                await fetch(node, "b3:" + "12" * 32, ignore, to=tmp_path / "out", origins=given(f"{server.url}/x"))
            assert not leftovers(node)
            assert not node.store.clearing.roots()

    assert match in f"{failure.value} {failure.value.hint}"
    assert not (tmp_path / "out").exists()


async def test_a_single_file_of_which_a_peer_has_the_chunk_list_comes_from_both(files, copy_of, published, tmp_path):
    name = "model-00001-of-00002.safetensors"
    async with AsyncExitStack() as stack:
        server = stack.enter_context(WebServer(files, slowly(5e6)))
        peer = await stack.enter_async_context(open_home(copy_of("peer")))
        node = await stack.enter_async_context(open_home(tmp_path / "home"))
        root = next(file.root for file in (await info(peer, published.revision, ignore, refresh=False)).files
                    if file.path == name)  # fmt: skip
        node.store.peers.add(await stack.enter_async_context(serving(peer, wrap=slow_peer(5e6))))
        result = await fetch(node, root, ignore, to=tmp_path / "out", origins=given(f"{server.url}/parrot/{name}"))

    assert (tmp_path / "out").read_bytes() == files[f"parrot/{name}"]
    assert all(provider.received > 0 for provider in result.providers)
    assert len(result.providers) == 2


async def test_an_empty_file_comes_too(tmp_path):
    async with open_home(tmp_path / "publisher") as publisher:
        create_identity(publisher)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "empty").touch()
        result = await publish(publisher, tmp_path / "folder", "x", ignore)
        entry = (await info(publisher, result.revision, ignore, refresh=False)).files[0]
        manifest = publisher.store.manifests.data(ManifestId.parse(result.revision))
    with WebServer({"empty": b""}) as server:
        for reference in (entry.root, result.revision):
            async with open_home(tmp_path / reference[:10] / str(reference == entry.root)) as node:
                node.store.manifests.add(manifest)
                url = f"{server.url}/empty" if reference == entry.root else server.url
                fetched = await fetch(
                    node, reference, ignore, to=tmp_path / f"out-{reference[3:9]}", origins=given(url)
                )
                assert fetched.size == 0
    assert (tmp_path / f"out-{entry.root[3:9]}").read_bytes() == b""
