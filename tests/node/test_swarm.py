"""Downloads from providers at their best and worst, on real sockets."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections import Counter
from contextlib import AsyncExitStack

import pytest
import trio

from p2phub.core.encoding import decode, encode
from p2phub.core.errors import HubError, NotFound, StoreError
from p2phub.core.filetree import TreePage
from p2phub.core.ids import ContentId, ManifestId
from p2phub.gateway.control import outcome
from p2phub.net.door import Response
from p2phub.node import swarm
from p2phub.node.events import Notice, Progress, ignore
from p2phub.node.fetch import FetchResult, fetch
from p2phub.node.identity import create_identity
from p2phub.node.node import Node
from p2phub.node.operations.content import Fetch
from p2phub.node.peerlist import list_peers
from p2phub.node.publish import publish
from p2phub.protocol.messages import ANSWER_SIZE_MAX, Have, Trees
from p2phub.store import database
from p2phub.testing.hostile import (
    answering,
    claim_everything,
    counting,
    flip_bits,
    open_home,
    open_linked,
    serving,
    shortened,
    silent,
    slowly,
    wait_for,
)
from p2phub.testing.processes import tree

SPAN = 16 * 1024 * 1024  # bytes: the largest request

# No test here may hang: whatever the peers do, a download ends.
pytestmark = pytest.mark.timeout(120)


# Content travels in encrypted frames, and over HTTPS where only that passes.
both_ways = pytest.mark.parametrize("only_tls", [False, True], ids=["frames", "https"])


def by_node(result: FetchResult) -> dict[str, object]:
    return {provider.node: provider for provider in result.providers}


def held_bytes(node: Node, revision: str) -> int:
    """Return the bytes of verified chunks in the store of `node`."""
    manifest = node.store.manifests.get(ManifestId.parse(revision))
    total = 0
    for file in manifest.files if manifest else ():
        chunks = node.store.chunk_lists.find(file.root)
        if node.store.blobs.find(file.root):
            total += file.size
        elif chunks:
            have = node.store.partials.recover(file.root, chunks)
            total += sum(chunks.length(index) for index, here in enumerate(have) if here)
    return total


async def test_two_providers_give_to_one_download(published, copy_of, tmp_path):
    async with AsyncExitStack() as stack:
        addresses = []
        for name in ("a", "b"):
            node = await stack.enter_async_context(open_home(copy_of(name)))
            addresses.append(await stack.enter_async_context(serving(node, wrap=slowly(20e6))))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        for address in addresses:
            fetcher.store.peers.add(address)
        result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files
    assert {provider.node for provider in result.providers if provider.received} == {str(a.node) for a in addresses}
    assert sum(provider.received for provider in result.providers) == result.received + result.duplicates
    assert result.received == published.size


@both_ways
async def test_a_liar_among_three_is_named_and_banned_and_not_asked_again(only_tls, published, copy_of, tmp_path):
    asked: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(copy_of("liar")))
        good = [await stack.enter_async_context(open_home(copy_of(name))) for name in ("a", "b")]
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))

        def lie(handler):
            return counting(asked)(flip_bits(liar)(handler))

        fetcher.store.peers.add(await stack.enter_async_context(serving(liar, wrap=lie)))
        for node in good:
            fetcher.store.peers.add(await stack.enter_async_context(serving(node, wrap=slowly(20e6))))
        notices: list[str] = []
        result = await fetch(
            fetcher,
            published.name,
            lambda event: notices.append(event.text) if isinstance(event, Notice) else None,
            to=tmp_path / "out",
        )
        asked_then = sum(asked.values())
        peers = {peer.node: peer for peer in await list_peers(fetcher)}
        # All gone, so that it has to ask again.
        for path in (fetcher.settings.layout.store / "objects").glob("??/*"):
            path.unlink()
        again = await fetch(fetcher, published.name, ignore, to=tmp_path / "again")

    liar_id = str(liar.id)
    assert tree(tmp_path / "out") == published.files
    assert by_node(result)[liar_id].state == "banned"
    assert by_node(result)[liar_id].received == 0
    assert "wrong bytes" in by_node(result)[liar_id].reason
    assert any(liar_id[:12] in text and "banned" in text for text in notices)
    assert peers[liar_id].banned_until
    assert "wrong bytes" in peers[liar_id].ban_reason
    assert [node for node, peer in peers.items() if peer.banned_until] == [liar_id]
    assert asked["/v1/spans"]
    assert tree(tmp_path / "again") == published.files
    assert sum(asked.values()) == asked_then
    assert liar_id not in by_node(again)


@both_ways
async def test_nothing_that_a_liar_sent_is_kept(only_tls, published, copy_of, tmp_path, impatient):
    async with open_home(copy_of("liar")) as liar, open_home(tmp_path / "fetcher", only_tls=only_tls) as fetcher:
        async with serving(liar, wrap=flip_bits(liar)) as address:
            fetcher.store.peers.add(address)
            with pytest.raises(NotFound) as failure:
                await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

        assert "wrong bytes" in f"{failure.value} {failure.value.hint}"
        assert held_bytes(fetcher, published.revision) == 0
        for path in (tmp_path / "fetcher" / "store" / "partial").glob("??/*.data"):
            assert path.stat().st_blocks == 0
        assert not list((tmp_path / "fetcher" / "store" / "objects").glob("??/*"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lie", [shortened, claim_everything], ids=["one byte less", "says it has all"])
async def test_a_provider_that_is_wrong_about_sizes_or_stock_costs_nothing_but_time(
    lie, published, copy_of, tmp_path, impatient
):
    async with AsyncExitStack() as stack:
        if lie is claim_everything:
            bad_home = copy_of("bad")
            for path in (bad_home / "store" / "objects").glob("??/*"):
                path.unlink()
        else:
            bad_home = copy_of("bad")
        bad = await stack.enter_async_context(open_home(bad_home))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        fetcher.store.peers.add(await stack.enter_async_context(serving(bad, wrap=lie)))
        fetcher.store.peers.add(await stack.enter_async_context(serving(good, wrap=slowly(20e6))))
        result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files
    # It may have given whole files that are smaller than a request, never a wrong byte.
    assert by_node(result)[str(good.id)].received > 0


async def test_a_provider_that_says_it_has_all_and_answers_404_ends_the_download_with_its_words(
    published, copy_of, tmp_path, impatient
):
    home = copy_of("bad")
    for path in (home / "store" / "objects").glob("??/*"):
        path.unlink()
    async with (
        open_home(home) as bad,
        open_home(tmp_path / "fetcher") as fetcher,
        serving(bad, wrap=claim_everything) as address,
    ):
        fetcher.store.peers.add(address)
        with pytest.raises(NotFound) as failure, trio.fail_after(60):
            await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert "404" in str(failure.value.hint)


async def test_a_provider_that_is_always_busy_ends_the_download_with_that_reason(
    published, copy_of, tmp_path, impatient, monkeypatch
):
    monkeypatch.setattr(swarm, "PATIENCE_BUSY_S", 3.0)
    monkeypatch.setattr(swarm, "PATIENCE_SILENT_S", 1.0)
    busy = answering("/v1/spans", Response(429, b"busy", "text/plain", {"retry-after": "1"}))
    waiting: list[str] = []
    async with open_home(copy_of("busy")) as seed, open_home(tmp_path / "fetcher") as fetcher:
        async with serving(seed, wrap=busy) as address:
            fetcher.store.peers.add(address)
            with pytest.raises(NotFound) as failure, trio.fail_after(60):
                await fetch(
                    fetcher,
                    published.name,
                    lambda event: waiting.append(event.waiting_for or "") if isinstance(event, Progress) else None,
                    to=tmp_path / "out",
                )
        peer = (await list_peers(fetcher))[0]

    assert "busy" in str(failure.value.hint)
    assert any("busy" in text for text in waiting), "it says why nothing arrives"
    assert peer.banned_until is None


async def test_a_provider_that_was_busy_is_used_once_it_has_time(published, copy_of, tmp_path, impatient):
    refused = 0

    def busy_first(handler):
        async def answer(request):
            nonlocal refused
            if request.path == "/v1/spans" and refused < 5:
                refused += 1
                return Response(429, b"busy", "text/plain", {"retry-after": "1"})
            return await handler(request)

        return answer

    async with (
        open_home(copy_of("seed")) as seed,
        open_home(tmp_path / "fetcher") as fetcher,
        serving(seed, wrap=busy_first) as address,
    ):
        fetcher.store.peers.add(address)
        await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert refused == 5
    assert tree(tmp_path / "out") == published.files


@both_ways
async def test_a_provider_that_leaves_in_the_middle_is_replaced_by_another(
    only_tls, published, copy_of, tmp_path, impatient
):
    async with AsyncExitStack() as stack:
        leaver = await stack.enter_async_context(open_home(copy_of("leaver")))
        stayer = await stack.enter_async_context(open_home(copy_of("stayer")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))
        link = await stack.enter_async_context(open_linked(leaver, rate=10e6))
        link.cut_at = 2_000_000
        fetcher.store.peers.add(link.address(leaver))
        fetcher.store.peers.add(await stack.enter_async_context(serving(stayer, wrap=slowly(10e6))))
        result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files
    assert link.is_down
    assert by_node(result)[str(stayer.id)].received > 0


async def test_when_all_leave_at_half_the_error_says_so_and_a_later_run_goes_on(
    published, copy_of, tmp_path, impatient
):
    async with AsyncExitStack() as stack:
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        links = []
        for name in ("a", "b"):
            node = await stack.enter_async_context(open_home(copy_of(name)))
            link = await stack.enter_async_context(open_linked(node, rate=8e6))
            link.cut_at = published.size // 4
            links.append(link)
            fetcher.store.peers.add(link.address(node))
        with pytest.raises(NotFound) as failure, trio.fail_after(60):
            await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
        carried = sum(link.carried for link in links)
        kept = held_bytes(fetcher, published.revision)
        for link in links:
            link.mend()
            link.rate = None
        result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    missing = published.size - kept
    assert f"{missing} bytes" in str(failure.value)
    assert 0 < kept < published.size
    # What was lost is less than a chunk of each connection; TLS and control take some too.
    assert carried - kept < 5 * 2 * 1024 * 1024 + 1024 * 1024
    assert result.here_before == kept
    assert result.received == missing
    assert tree(tmp_path / "out") == published.files


async def test_a_provider_that_comes_back_is_used_again(published, copy_of, tmp_path, impatient, monkeypatch):
    monkeypatch.setattr(swarm, "PATIENCE_S", 8.0)
    monkeypatch.setattr(swarm, "PATIENCE_SILENT_S", 30.0)
    async with (
        open_home(copy_of("seed")) as seed,
        open_home(tmp_path / "fetcher") as fetcher,
        open_linked(seed, rate=10e6) as link,
        trio.open_nursery() as nursery,
    ):
        fetcher.store.peers.add(link.address(seed))
        link.cut_at = published.size // 2

        async def come_back() -> None:
            await wait_for(lambda: link.is_down, "the link to break")
            # Long enough for all retries to fail.
            await trio.sleep(1.5)
            link.mend()

        nursery.start_soon(come_back)
        with trio.fail_after(60):
            result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert result.received == published.size
    assert tree(tmp_path / "out") == published.files


@both_ways
async def test_a_stalled_provider_is_left_for_one_that_sends(only_tls, published, copy_of, tmp_path, impatient):
    async with AsyncExitStack() as stack:
        stalled = await stack.enter_async_context(open_home(copy_of("stalled")))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))
        link = await stack.enter_async_context(open_linked(stalled, rate=10e6))
        link.stall_at = 3_000_000
        fetcher.store.peers.add(link.address(stalled))
        fetcher.store.peers.add(await stack.enter_async_context(serving(good, wrap=slowly(10e6))))
        with trio.fail_after(60):
            await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files


async def test_a_stall_of_the_only_provider_ends_with_an_error_and_its_end_with_the_rest(
    published, copy_of, tmp_path, impatient
):
    async with (
        open_home(copy_of("seed")) as seed,
        open_home(tmp_path / "fetcher") as fetcher,
        open_linked(seed, rate=10e6) as link,
    ):
        fetcher.store.peers.add(link.address(seed))
        link.stall_at = published.size // 2
        with pytest.raises(NotFound) as failure, trio.fail_after(60):
            await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
        kept = held_bytes(fetcher, published.revision)
        link.go_on()
        result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert kept > 0
    assert failure.value.hint
    assert result.here_before == kept
    assert tree(tmp_path / "out") == published.files


async def test_a_provider_whose_content_never_comes_does_not_hold_a_download_for_ever(
    published, copy_of, tmp_path, impatient
):
    async with (
        open_home(copy_of("seed")) as seed,
        open_home(tmp_path / "fetcher") as fetcher,
        serving(seed, wrap=silent("/v1/spans")) as address,
    ):
        fetcher.store.peers.add(address)
        with pytest.raises(NotFound) as failure, trio.fail_after(60):
            await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert "too slow" in str(failure.value.hint)


@pytest.mark.parametrize("path", ["/v1/hello", "/v1/reconcile", "/v1/have", "/v1/trees", "/v1/spans"])
async def test_a_peer_that_never_answers_a_question_does_not_keep_a_good_one_from_giving(
    path, published, copy_of, tmp_path, impatient
):
    async with AsyncExitStack() as stack:
        mute = await stack.enter_async_context(open_home(copy_of("mute")))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        fetcher.store.peers.add(await stack.enter_async_context(serving(mute, wrap=silent(path))))
        fetcher.store.peers.add(await stack.enter_async_context(serving(good)))
        with trio.fail_after(60):
            await fetch(fetcher, published.revision, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files


async def test_a_peer_that_answers_hello_late_is_not_lost_when_it_is_tried_twice(
    published, copy_of, tmp_path, impatient, monkeypatch
):
    # Two attempts run at once; the second must not take away what the first one uses.
    monkeypatch.setattr(swarm, "PATIENCE_S", 1.0)
    monkeypatch.setattr(swarm, "PATIENCE_ALONE_S", 5.0)
    begun = False

    def late(handler):
        async def answer(request):
            nonlocal begun
            if begun and request.path == "/v1/hello":
                await trio.sleep(0.8)
            begun = begun or request.path == "/v1/trees"
            return await handler(request)

        return answer

    async with (
        open_home(copy_of("seed")) as seed,
        open_home(tmp_path / "fetcher") as fetcher,
        open_linked(seed, wrap=late, rate=6e6) as link,
    ):
        fetcher.store.peers.add(link.address(seed))
        with trio.fail_after(60):
            result = await fetch(fetcher, published.revision, ignore, to=tmp_path / "out")

    assert result.received == published.size
    assert result.duplicates == 0
    assert tree(tmp_path / "out") == published.files


async def test_a_bitmap_of_another_length_is_a_lie(published, copy_of, tmp_path, impatient):
    manifest_files = len(published.files)
    wrong = answering("/v1/have", Response(200, encode(Have((b"\xff" * 1000,) * manifest_files))))
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(copy_of("liar")))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        fetcher.store.peers.add(await stack.enter_async_context(serving(liar, wrap=wrong)))
        fetcher.store.peers.add(await stack.enter_async_context(serving(good, wrap=slowly(10e6))))
        result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files
    assert by_node(result)[str(liar.id)].state == "banned"
    assert "bitmap" in by_node(result)[str(liar.id)].reason


async def test_a_wrong_chunk_list_is_a_lie_and_another_peer_is_asked(published, copy_of, tmp_path):
    def twist(handler):
        async def answer(request):
            response = await handler(request)
            if request.path != "/v1/trees":
                return response
            pages = []
            for page in decode(response.body, Trees, size_max=ANSWER_SIZE_MAX).pages:
                if page is not None and page.chunks:
                    chunks = bytearray(page.chunks)
                    chunks[-1] ^= 1
                    fields = {name: getattr(page, name) for name in TreePage.__struct_fields__}
                    page = TreePage(**{**fields, "chunks": bytes(chunks)})
                pages.append(page)
            return Response(200, encode(Trees(tuple(pages))))

        return answer

    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(copy_of("liar")))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        fetcher.store.peers.add(await stack.enter_async_context(serving(liar, wrap=twist)))
        with pytest.raises(NotFound):
            await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
        fetcher.store.peers.add(await stack.enter_async_context(serving(good)))
        await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
        peers = {peer.node: peer for peer in await list_peers(fetcher)}

    assert tree(tmp_path / "out") == published.files
    assert "chunk list" in peers[str(liar.id)].ban_reason
    assert peers[str(good.id)].banned_until is None


async def test_a_wrong_manifest_is_a_lie_and_another_peer_is_asked(published, copy_of, tmp_path):
    path = f"/v1/manifest/{published.revision.removeprefix('b3:')}"
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(copy_of("liar")))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        fetcher.store.peers.add(
            await stack.enter_async_context(serving(liar, wrap=answering(path, Response(200, b"something else"))))
        )
        with pytest.raises(NotFound):
            await fetch(fetcher, published.revision, ignore, to=tmp_path / "out")
        fetcher.store.peers.add(await stack.enter_async_context(serving(good)))
        await fetch(fetcher, published.revision, ignore, to=tmp_path / "out")
        peers = {peer.node: peer for peer in await list_peers(fetcher)}

    assert tree(tmp_path / "out") == published.files
    assert "manifest" in str(peers[str(liar.id)].ban_reason)


async def test_a_provider_that_still_downloads_gives_what_it_has(published, copy_of, tmp_path, impatient):
    progress: list[tuple[str, int]] = []

    def tell(who: str):
        return lambda event: progress.append((who, event.done)) if isinstance(event, Progress) else None

    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        middle = await stack.enter_async_context(open_home(tmp_path / "middle"))
        end = await stack.enter_async_context(open_home(tmp_path / "end"))
        seed_link = await stack.enter_async_context(open_linked(seed, rate=6e6))
        middle_address = await stack.enter_async_context(serving(middle))
        middle.store.peers.add(seed_link.address(seed))
        end.store.peers.add(middle_address)
        # The end knows the middle alone: a record of the seed would lead it there.
        end.store.peers.note_record = lambda signed: False
        async with trio.open_nursery() as nursery:

            async def first() -> None:
                await fetch(middle, published.revision, tell("middle"), to=tmp_path / "middle-out")

            nursery.start_soon(first)
            await wait_for(lambda: bool(progress) and progress[-1][1] > 2_000_000, "the middle to have something")
            result = await fetch(end, published.revision, tell("end"), to=tmp_path / "end-out")

    assert tree(tmp_path / "middle-out") == published.files
    assert tree(tmp_path / "end-out") == published.files
    assert {provider.node for provider in result.providers if provider.received} == {str(middle.id)}
    # It did not wait for the middle to be done, and asked again for what came later.
    middle_done = progress.index(("middle", published.size))
    assert max(done for who, done in progress[:middle_done] if who == "end") > published.size // 2


async def test_a_peer_that_is_added_during_a_download_is_used(published, copy_of, tmp_path, impatient):
    async with AsyncExitStack() as stack:
        slow = await stack.enter_async_context(open_home(copy_of("slow")))
        late = await stack.enter_async_context(open_home(copy_of("late")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        link = await stack.enter_async_context(open_linked(slow, rate=2e6))
        late_address = await stack.enter_async_context(serving(late))
        fetcher.store.peers.add(link.address(slow))

        def tell(event):
            if isinstance(event, Progress) and event.done > 1_000_000:
                fetcher.store.peers.add(late_address)

        result = await fetch(fetcher, published.revision, tell, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files
    assert by_node(result)[str(late.id)].received > 0


@pytest.mark.parametrize("reference", ["manifest", "file"])
async def test_two_fetches_of_the_same_content_in_one_node_download_it_once(reference, published, copy_of, tmp_path):
    async with open_home(copy_of("seed")) as seed, open_home(tmp_path / "fetcher") as fetcher:
        manifest = seed.store.manifests.get(ManifestId.parse(published.revision))
        file = max(manifest.files, key=lambda file: file.size)
        text, size = (published.revision, published.size) if reference == "manifest" else (str(file.root), file.size)
        async with serving(seed, wrap=slowly(20e6)) as address, trio.open_nursery() as nursery:
            fetcher.store.peers.add(address)
            results: list[FetchResult] = []

            async def one(number: int) -> None:
                results.append(await fetch(fetcher, text, ignore, to=tmp_path / f"out-{number}"))

            for number in range(3):
                nursery.start_soon(one, number)

        assert sum(result.received for result in results) == size
        assert seed.uploaded == size
    for number in range(3):
        if reference == "manifest":
            assert tree(tmp_path / f"out-{number}") == published.files
        else:
            assert (tmp_path / f"out-{number}").read_bytes() == (published.folder / file.path).read_bytes()


async def test_a_fetch_that_waits_for_another_goes_on_by_itself_when_that_one_is_cancelled(
    published, copy_of, tmp_path
):
    async with open_home(copy_of("seed")) as seed, open_home(tmp_path / "fetcher") as fetcher:
        async with open_linked(seed, rate=10e6) as link, trio.open_nursery() as nursery:
            fetcher.store.peers.add(link.address(seed))
            first = trio.CancelScope()

            async def cancelled() -> None:
                with first:
                    await fetch(fetcher, published.revision, ignore, to=tmp_path / "first")

            nursery.start_soon(cancelled)
            await wait_for(lambda: link.carried > 4_000_000, "the first fetch to run")

            async def second() -> None:
                await fetch(fetcher, published.revision, ignore, to=tmp_path / "second")

            nursery.start_soon(second)
            await wait_for(lambda: link.carried > 8_000_000, "the first fetch to be in the middle")
            first.cancel()

        # What the first one had is not fetched again.
        assert link.carried < published.size + 4 * 2 * 1024 * 1024 + 1024 * 1024
    assert tree(tmp_path / "second") == published.files
    assert not (tmp_path / "first").exists()


async def test_a_cancelled_fetch_keeps_what_came(published, copy_of, tmp_path):
    async with (
        open_home(copy_of("seed")) as seed,
        open_home(tmp_path / "fetcher") as fetcher,
        open_linked(seed, rate=10e6) as link,
    ):
        fetcher.store.peers.add(link.address(seed))
        with trio.CancelScope() as scope:

            def tell(event):
                if isinstance(event, Progress) and event.done > 8_000_000:
                    scope.cancel()

            await fetch(fetcher, published.revision, tell, to=tmp_path / "out")
        assert scope.cancelled_caught
        assert fetcher.downloads == {}
        link.rate = None
        result = await fetch(fetcher, published.revision, ignore, to=tmp_path / "out")

    assert result.here_before > 8_000_000
    assert tree(tmp_path / "out") == published.files


async def test_files_of_any_shape_arrive(tmp_path):
    rng = random.Random(1)
    folder = tmp_path / "folder"
    shapes = {
        "README.md": b"# Shapes\n",
        "empty": b"",
        "also/empty.txt": b"",
        "one": b"1",
        "deep/er/and/deeper/é-ü-漢字 with spaces.bin": rng.randbytes(3_000_000),
        "exact": rng.randbytes(2 * 1024 * 1024),
        "zeros": bytes(5_000_000),
        "twice/a": rng.randbytes(1_500_000),
    }
    shapes["twice/b"] = shapes["twice/a"]
    shapes.update({f"small/{number:03}": rng.randbytes(number) for number in range(300)})
    for path, data in shapes.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    async with open_home(tmp_path / "seed") as seed, open_home(tmp_path / "fetcher") as fetcher:
        create_identity(seed)
        result = await publish(seed, folder, "shapes", ignore)
        async with serving(seed) as address:
            fetcher.store.peers.add(address)
            await fetch(fetcher, result.revision, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == tree(folder)
    assert len(tree(folder)) == len(shapes)


async def test_a_download_leaves_no_partial_and_no_lock_file(published, copy_of, tmp_path):
    async with (
        open_home(copy_of("seed")) as seed,
        open_home(tmp_path / "fetcher") as fetcher,
        serving(seed) as address,
    ):
        fetcher.store.peers.add(address)
        await fetch(fetcher, published.revision, ignore, to=tmp_path / "out")

    names = [path.name for path in (tmp_path / "fetcher").rglob("*") if path.is_file()]
    assert not [name for name in names if "lock" in name or name.endswith((".data", ".map")) or name.startswith(".new")]


async def test_a_network_error_is_of_a_class_that_programs_can_catch(published, tmp_path):
    async with open_home(tmp_path / "fetcher") as fetcher:
        with pytest.raises(HubError, match="no peers are known"):
            await fetch(fetcher, published.revision, ignore)
        root = ContentId(os.urandom(32))
        with pytest.raises(NotFound, match="no peers are known"):
            await fetch(fetcher, str(root), ignore)


async def test_an_index_that_is_locked_during_a_download_ends_it_with_that_reason(
    published, copy_of, tmp_path, monkeypatch
):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    async with (
        open_home(copy_of("seed")) as seed,
        open_home(tmp_path / "fetcher") as fetcher,
        serving(seed, wrap=slowly(20e6)) as address,
    ):
        fetcher.store.peers.add(address)
        lock = sqlite3.connect(tmp_path / "fetcher" / "index.sqlite", isolation_level=None)

        def tell(event):
            if isinstance(event, Progress) and not lock.in_transaction:
                lock.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreError, match="locked"):
            await fetch(fetcher, published.revision, tell, to=tmp_path / "out")
        answer = json.loads(await outcome(fetcher, Fetch(published.revision, to=str(tmp_path / "out")), ignore))
        lock.execute("ROLLBACK")
        lock.close()
        await fetch(fetcher, published.revision, ignore, to=tmp_path / "out")

    # A node tells it to its clients as what it is, and not as a fault of its own.
    assert answer["error"]["type"] == "StoreError"
    assert tree(tmp_path / "out") == published.files
