"""Files that are read while peers still deliver them."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
import trio
from doorkit import open_door

from p2phub.core.ids import ManifestId
from p2phub.gateway.hub import files
from p2phub.net import asgi, web
from p2phub.node import connections, reading
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.testing.hostile import Link, flip_bits, open_home, open_linked, serving, wait_for
from p2phub.testing.processes import flip_byte
from p2phub.testing.webserver import WebServer

pytestmark = pytest.mark.timeout(120)


def url(shelf) -> str:
    return f"/{shelf.name}/resolve/main/weights.onnx"


@asynccontextmanager
async def open_cold(copy_of, tmp_path) -> AsyncIterator[tuple[httpx.AsyncClient, Node, Link]]:
    """Give the door of a node that holds nothing, the node, and the link to the only one that has the shelf."""
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        link = await stack.enter_async_context(open_linked(seed))
        node = await stack.enter_async_context(open_home(tmp_path / "cold"))
        node.store.peers.add(link.address(seed))
        yield await stack.enter_async_context(open_door(node)), node, link


async def read_until_it_breaks(client: httpx.AsyncClient, path: str) -> bytes:
    """Return what comes of a body that ends too early, with a plain close."""
    got = b""

    async def read() -> None:
        nonlocal got
        async with client.stream("GET", path) as answer:
            assert answer.status_code == 200
            async for piece in answer.aiter_raw():
                got += piece

    with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
        await read()
    return got


@pytest.fixture
def one_connection(monkeypatch):
    """Let chunks come in the order in which they are asked for: several connections share a slow link by chance."""
    monkeypatch.setattr(connections, "CONNECTIONS_ALONE", 1)


async def test_the_first_byte_comes_before_the_last_is_here(copy_of, shelf, tmp_path, one_connection, monkeypatch):
    monkeypatch.setattr(files, "FIRST_BYTE_S", 60.0)  # after which it looks without having been woken
    data = shelf.files["weights.onnx"]
    async with open_cold(copy_of, tmp_path) as (client, node, link):
        await client.head(url(shelf))
        link.rate = 1e6
        # Not even half of it can pass.
        link.stall_at = link.carried + 5_000_000

        async with client.stream("GET", url(shelf)) as answer:
            pieces = answer.aiter_raw()
            got = await anext(pieces)
            assert data.startswith(got)
            assert node.downloads
            await wait_for(lambda: link.stall_at is not None and link.carried >= link.stall_at, "the link to stall")
            link.rate = None
            link.go_on()
            async for piece in pieces:
                got += piece

    assert got == data


async def test_clients_read_what_an_origin_gives_that_the_publisher_named(tmp_path, no_proxy, monkeypatch):
    data = os.urandom(3_000_000)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.onnx").write_bytes(data)
    # As if the loopback were the internet.
    monkeypatch.setattr(web, "is_public", lambda address: True)
    with WebServer({"x/weights.onnx": data}) as server:
        async with open_home(tmp_path / "home") as node, open_door(node) as client:
            create_identity(node)
            origin = f"{server.url}/x/{{path}}"
            result = await publish(node, tmp_path / "model", "small", ignore, origin_urls=[origin])
            shutil.rmtree(node.settings.layout.store / "objects")
            answer = await client.get(f"/{result.namespace}/small/resolve/main/weights.onnx")

    assert answer.status_code == 200
    assert answer.content == data
    assert server.asked


async def test_what_lies_before_a_reader_is_fetched_first(tmp_path):
    data = os.urandom(60_000_000)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "large.onnx").write_bytes(data)
    async with open_home(tmp_path / "seed") as seed, open_linked(seed) as link, open_home(tmp_path / "cold") as node:
        create_identity(seed)
        name = "{0.namespace}/{0.model}".format(await publish(seed, tmp_path / "model", "large", ignore))
        node.store.peers.add(link.address(seed))
        async with open_door(node) as client:
            await client.head(f"/{name}/resolve/main/large.onnx")
            before, link.rate = link.carried, 10e6
            answer = await client.get(f"/{name}/resolve/main/large.onnx", headers={"range": "bytes=40000000-40000009"})
            carried = link.carried - before

    assert answer.content == data[40_000_000:40_000_010]
    # What three connections were asked for at first, and no more.
    assert carried < 16_000_000


async def test_readers_of_one_file_share_a_download(copy_of, shelf, tmp_path):
    data = shelf.files["weights.onnx"]
    async with open_cold(copy_of, tmp_path) as (client, _node, link):
        await client.head(url(shelf))
        before = link.carried
        same = 0

        async def read() -> None:
            nonlocal same
            answer = await client.get(url(shelf))
            same += answer.content == data

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(read)
        carried = link.carried - before

    assert same == 16
    assert carried < 1.5 * len(data)


async def test_no_wrong_byte_leaves_when_a_peer_lies(copy_of, shelf, tmp_path):
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(copy_of("liar")))
        address = await stack.enter_async_context(serving(liar, wrap=flip_bits(liar)))
        node = await stack.enter_async_context(open_home(tmp_path / "cold"))
        node.store.peers.add(address)
        client = await stack.enter_async_context(open_door(node))
        await client.head(url(shelf))

        answer = await client.get(url(shelf))

    assert answer.status_code == 504, answer.text
    assert "error" in answer.json()


async def test_what_cannot_be_had_any_more_ends_the_answer_early(copy_of, shelf, tmp_path, impatient, one_connection):
    data = shelf.files["weights.onnx"]
    async with open_cold(copy_of, tmp_path) as (client, _node, link):
        await client.head(url(shelf))
        link.rate = 4e6
        link.cut_at = link.carried + 6_000_000

        got = await read_until_it_breaks(client, url(shelf))
        link.rate = None
        link.mend()
        rest = await client.get(url(shelf), headers={"range": f"bytes={len(got)}-"})

    assert 0 < len(got) < len(data)
    assert rest.status_code == 206
    assert got + rest.content == data


async def test_headers_go_out_when_the_first_chunk_takes_long(copy_of, shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FIRST_BYTE_S", 0.5)
    async with open_cold(copy_of, tmp_path) as (client, _node, link):
        await client.head(url(shelf))
        link.stall()
        async with client.stream("GET", url(shelf)) as answer:
            assert answer.headers["content-length"] == "9000000"
            link.go_on()
            body = await answer.aread()

    assert body == shelf.files["weights.onnx"]


async def test_a_download_that_nobody_reads_ends(copy_of, shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LINGER_S", 0.3)
    async with open_cold(copy_of, tmp_path) as (client, node, link):
        await client.head(url(shelf))
        link.rate = 500e3
        async with client.stream("GET", url(shelf)) as answer:
            assert answer.status_code == 200
            assert node.downloads
        await wait_for(lambda: not node.downloads, "the download to end")
        link.rate = None
        again = await client.get(url(shelf))

    assert again.content == shelf.files["weights.onnx"]


async def test_bytes_that_went_bad_are_fetched_again_and_never_sent(copy_of, shelf, tmp_path):
    data = shelf.files["weights.onnx"]
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        address = await stack.enter_async_context(serving(seed))
        node = await stack.enter_async_context(open_home(copy_of("here")))
        node.store.peers.add(address)
        client = await stack.enter_async_context(open_door(node))
        manifest = node.store.manifests.get(ManifestId.parse(shelf.tip))
        held = node.store.blobs.find(manifest.file("weights.onnx").root)
        flip_byte(held.path, 4_000_000, keep_time=True)

        answer = await client.get(url(shelf))

    assert answer.content == data


async def test_bytes_that_went_bad_are_not_sent_when_nobody_has_others(copy_of, shelf, tmp_path):
    data = shelf.files["weights.onnx"]
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(copy_of("here")))
        client = await stack.enter_async_context(open_door(node))
        manifest = node.store.manifests.get(ManifestId.parse(shelf.tip))
        held = node.store.blobs.find(manifest.file("weights.onnx").root)
        flip_byte(held.path, 7_000_000, keep_time=True)

        got = await read_until_it_breaks(client, url(shelf))

    assert len(got) <= 7_000_000
    assert data.startswith(got)


@asynccontextmanager
async def open_small(tmp_path, count: int) -> AsyncIterator[tuple[httpx.AsyncClient, Node, Node, str]]:
    """Give the door of a node that holds nothing, it, the node that has published small files, and their address."""
    (tmp_path / "model").mkdir()
    for number in range(count):
        (tmp_path / "model" / f"{number:04}.txt").write_text(f"file {number}\n")
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(tmp_path / "seed"))
        address = await stack.enter_async_context(serving(seed))
        create_identity(seed)
        result = await publish(seed, tmp_path / "model", "small", ignore)
        node = await stack.enter_async_context(open_home(tmp_path / "cold"))
        node.store.peers.add(address)
        client = await stack.enter_async_context(open_door(node))
        yield client, node, seed, f"/{result.namespace}/small/resolve/main"


@pytest.fixture
def downloads(monkeypatch) -> list[int]:
    """Return a list to which each download for readers adds the number of its files."""
    counts: list[int] = []
    bring = reading.bring_files

    async def counted(node, files, *args, **kwargs):
        counts.append(len(files))
        return await bring(node, files, *args, **kwargs)

    monkeypatch.setattr(reading, "bring_files", counted)
    return counts


async def test_small_files_come_together(tmp_path, downloads):
    async with open_small(tmp_path, 700) as (client, _node, _seed, url):
        same = []

        async def read(some: range) -> None:
            for number in some:
                answer = await client.get(f"{url}/{number:04}.txt")
                same.append(answer.text == f"file {number}\n")

        async with trio.open_nursery() as nursery:
            for worker in range(8):
                nursery.start_soon(read, range(worker, 700, 8))

    assert same == [True] * 700
    assert sorted(downloads) == [700 - reading.BATCH_FILES_MAX, reading.BATCH_FILES_MAX]


async def test_small_files_come_in_the_same_batches_whichever_is_read_first(tmp_path, downloads):
    async with open_small(tmp_path, 700) as (client, node, seed, url):
        (revision,) = seed.store.manifests.all()
        roots = [file.root for file in seed.store.manifests.get(revision).files]

        async def is_over() -> bool:
            return len(node.store.blobs.find_all(roots)) == sum(downloads)

        for number in (3, 0, 600, 503):
            assert (await client.get(f"{url}/{number:04}.txt")).text == f"file {number}\n"
            await wait_for(is_over, "the others of the batch")

    assert downloads == [reading.BATCH_FILES_MAX, 700 - reading.BATCH_FILES_MAX]


async def test_small_files_bring_no_more_than_some_megabytes(tmp_path, downloads, monkeypatch):
    monkeypatch.setattr(reading, "SMALL_SIZE_MAX", 10)
    monkeypatch.setattr(reading, "BATCH_SIZE_MAX", 50)
    async with open_small(tmp_path, 120) as (client, _node, _seed, url):
        texts = [(await client.get(f"{url}/{number:04}.txt")).text for number in (110, 50)]

    assert texts == ["file 110\n", "file 50\n"]
    # These have 9 and 8 bytes, and so have those that follow.
    assert downloads == [5, 6]


async def test_a_small_file_comes_though_others_beside_it_are_nowhere(tmp_path, downloads, impatient):
    async with open_small(tmp_path, 20) as (client, _node, seed, url):
        await client.head(f"{url}/0000.txt")
        (revision,) = seed.store.manifests.all()
        for file in seed.store.manifests.get(revision).files:
            if file.path != "0007.txt":
                seed.store.clearing.remove(file.root)
        answer = await client.get(f"{url}/0007.txt")

    assert answer.text == "file 7\n"
    assert downloads == [20, 1]


async def test_a_slow_reader_gets_every_byte_once(door, shelf, monkeypatch):
    monkeypatch.setattr(asgi, "STALL_S", 0.01)
    turns = 0
    pour = reading.Reading.pour

    def counted(self, offset, end, put):
        nonlocal turns
        turns += 1
        return pour(self, offset, end, put)

    monkeypatch.setattr(reading.Reading, "pour", counted)
    got = bytearray()
    with trio.socket.socket() as client:
        client.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 50_000)
        await client.connect((door.base_url.host, door.base_url.port))
        host = door.base_url.netloc.decode()
        await client.send(f"GET {url(shelf)} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        reads = 0
        while data := await client.recv(1_000_000):
            got += data
            reads += 1
            if reads <= 30:
                await trio.sleep(0.03)

    assert got.endswith(b"\r\n\r\n" + shelf.files["weights.onnx"])
    assert turns > 2
