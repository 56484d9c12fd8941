"""A real node among callers that would keep others out: what they do must not keep anybody from fetching."""

from __future__ import annotations

import random
import resource
from contextlib import AsyncExitStack

import pytest
import trio

from p2phub.core.encoding import encode
from p2phub.core.ids import ManifestId
from p2phub.net import receivers
from p2phub.net.peerclient import open_peer
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.protocol.messages import BULK_PREFACE, ByteRange, SpansQuery, TicketsQuery
from p2phub.protocol.slots import SLOTS, SLOTS_EACH
from p2phub.testing.askers import Talker, call, call_secure, is_open, post, silent, slow_readers, talkers
from p2phub.testing.hostile import open_home, serving, wait_for
from p2phub.testing.processes import tree

pytestmark = pytest.mark.timeout(120)

both_ways = pytest.mark.parametrize("only_tls", [False, True], ids=["frames", "https"])

MIB = 1024 * 1024


def largest(node: Node, revision: str) -> ByteRange:
    """Return the range of the largest file of a model that `node` holds."""
    manifest = node.store.manifests.get(ManifestId.parse(revision))
    assert manifest is not None
    file = max(manifest.files, key=lambda file: file.size)
    return ByteRange(file.root, 0, file.size)


@pytest.mark.parametrize("after", ["nothing", "half a hello", "handshake", "half a head", "half a preface", "preface"])
async def test_a_hundred_connections_that_ask_nothing_keep_nobody_out(after, published, copy_of, tmp_path):
    async with (
        open_home(copy_of("seed")) as seed,
        open_home(tmp_path / "fetcher") as fetcher,
        serving(seed) as address,
        silent(address, 100, after) as strangers,
    ):
        fetcher.store.peers.add(address)
        with trio.fail_after(30):
            await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
        still_open = [await is_open(stream) for stream in strangers]

    assert tree(tmp_path / "out") == published.files
    # It was not because they had been let go.
    assert all(still_open)


@both_ways
async def test_one_address_that_reads_nothing_does_not_hold_all_slots(
    only_tls, published, copy_of, tmp_path, impatient
):
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))
        address = await stack.enter_async_context(serving(seed))
        spans = [largest(seed, published.revision)] * 2
        await stack.enter_async_context(slow_readers(address, 16, spans, only_tls=only_tls))
        await wait_for(lambda: seed.links.uploads == SLOTS_EACH, "the slots to be taken")
        fetcher.store.peers.add(address)
        with trio.fail_after(60):
            await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
        taken_then = seed.links.uploads

    assert tree(tmp_path / "out") == published.files
    # It was not because they had been cut off.
    assert taken_then >= SLOTS_EACH


@both_ways
async def test_many_addresses_that_read_nothing_are_cut_off_when_others_wait(
    only_tls, published, copy_of, tmp_path, impatient, monkeypatch
):
    monkeypatch.setattr(receivers, "RECEIVER_WINDOW_S", 1.0)
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))
        address = await stack.enter_async_context(serving(seed))
        spans = [largest(seed, published.revision)] * 2
        sources = [f"127.0.0.{number}" for number in range(2, 18)]
        readers = slow_readers(address, 16, spans, only_tls=only_tls, sources=sources)
        await stack.enter_async_context(readers)
        await wait_for(lambda: seed.links.uploads == SLOTS, "the slots to be taken")
        fetcher.store.peers.add(address)
        with trio.fail_after(60):
            await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files


@pytest.fixture
def few_descriptors():
    """Let this process open no more files than a process may on most systems."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@both_ways
async def test_thousands_of_tiny_ranges_do_not_use_up_the_descriptors(only_tls, tmp_path, few_descriptors):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1500):
        (folder / f"{number:04}").write_bytes(b"%d" % number * 50)
    (folder / "large").write_bytes(random.Random(0).randbytes(8 * MIB))
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(tmp_path / "seed"))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))
        create_identity(seed)
        revision = (await publish(seed, folder, "many", ignore)).revision
        address = await stack.enter_async_context(serving(seed))
        manifest = seed.store.manifests.get(ManifestId.parse(revision))
        files = sorted(manifest.files, key=lambda file: -file.size)
        # The large file first, so that the answers stay under way: nobody reads them.
        spans = [ByteRange(file.root, 0, file.size) for file in files[:1000]]
        several = await stack.enter_async_context(talkers(address, SLOTS_EACH))
        for talker in several:
            await talker.ask(spans)
        await wait_for(lambda: seed.links.uploads == SLOTS_EACH, "the answers to begin")
        fetcher.store.peers.add(address)
        with trio.fail_after(60):
            await fetch(fetcher, revision, ignore, to=tmp_path / "out")
        taken_then = seed.links.uploads
        answer = await several[0].answer()
        whole = await several[0].content(answer.size)

    assert tree(tmp_path / "out") == tree(folder)
    assert taken_then == SLOTS_EACH
    assert whole == b"".join((folder / file.path).read_bytes() for file in files[:1000])


async def test_a_flood_of_queries_for_tickets_takes_them_from_nobody(published, copy_of):
    async with open_home(copy_of("seed")) as seed, serving(seed) as address:
        spans = [largest(seed, published.revision)]
        async with talkers(address, 1, source="127.0.0.1") as (before,):
            async with open_peer(address.node, address.host, address.port) as client:
                waiting = await client.tickets(4) or ()
            stream = await call_secure(address)
            flood = post("/v1/tickets", encode(TicketsQuery(16)))
            for _ in range(20):
                # Many at once, on one connection.
                await stream.send_all(flood * 15)
                answered = b""
                while answered.count(b"HTTP/1.1 200") < 15:
                    answered += await stream.receive_some(1024 * 1024)
            await trio.aclose_forcefully(stream)
            late = await call(address, source="127.0.0.1")
            after = Talker(late, waiting[0])
            await late.send_all(BULK_PREFACE + waiting[0].id)
            for talker in (before, after):
                await talker.ask(spans)
                answer = await talker.answer()
                assert len(await talker.content(answer.size)) == spans[0].length
            await trio.aclose_forcefully(late)


async def test_queries_that_come_all_at_once_take_one_slot_and_are_answered_in_order(published, copy_of, tmp_path):
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        address = await stack.enter_async_context(serving(seed))
        file = largest(seed, published.revision)
        sizes = [4 * MIB - number for number in range(30)]
        stream = await call_secure(address)
        pipelined = [post("/v1/spans", encode(SpansQuery((ByteRange(file.root, 0, size),)))) for size in sizes]
        await stream.send_all(b"".join(pipelined))
        await wait_for(lambda: seed.links.uploads == 1, "the first answer")
        fetcher.store.peers.add(address)
        with trio.fail_after(60):
            await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
        taken_then = seed.links.uploads
        data = bytearray()
        got: list[int] = []
        while len(got) < len(sizes):
            head, end, rest = bytes(data).partition(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) if end else 0
            if not end or len(rest) < size:
                data += await stream.receive_some(4 * MIB)
                continue
            got.append(size)
            del data[: len(head) + 4 + size]
        await trio.aclose_forcefully(stream)

    assert tree(tmp_path / "out") == published.files
    assert taken_then == 1
    assert got == sizes
