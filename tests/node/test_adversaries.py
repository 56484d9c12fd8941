"""Downloads by a real node from providers that are out to spoil them."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio

from p2phub.core.errors import NotFound
from p2phub.core.ids import ContentId, ManifestId
from p2phub.net import door
from p2phub.node import download, swarm
from p2phub.node.events import ignore
from p2phub.node.fetch import FetchResult, fetch
from p2phub.node.peerlist import list_peers
from p2phub.testing.hostile import (
    chunked,
    claim_everything,
    compressed,
    counting,
    elsewhere,
    flip_bits,
    instead,
    lengthened,
    losing,
    open_home,
    open_linked,
    redirecting,
    serving,
    shortened,
    silent,
    slowly,
    wait_for,
)
from p2phub.testing.processes import tree

# No test here may hang: whatever the peers do, a download ends.
pytestmark = pytest.mark.timeout(120)

# Content travels in encrypted frames, and over HTTPS where only that passes.
both_ways = pytest.mark.parametrize("only_tls", [False, True], ids=["frames", "https"])

MIB = 1024 * 1024


@pytest.fixture
def short_deadlines(monkeypatch):
    """Give a request of a mebibyte 3 s instead of 16."""
    monkeypatch.setattr(download, "deadline_s", lambda size: max(2.0, 3.0 * size / MIB))


def reports(result: FetchResult) -> dict[str, swarm.ProviderReport]:
    return {provider.node: provider for provider in result.providers}


# ── slow, or nearly done ────────────────────────────────────────────────────


@both_ways
async def test_a_provider_that_drips_bytes_does_not_hold_up_a_good_one(
    only_tls, published, copy_of, tmp_path, impatient, short_deadlines
):
    async with AsyncExitStack() as stack:
        dripping = await stack.enter_async_context(open_home(copy_of("dripping")))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))
        link = await stack.enter_async_context(open_linked(dripping))
        # Each byte comes before the peer would count as silent.
        link.drip_at, link.drip_s = 2_000_000, 1.0
        fetcher.store.peers.add(link.address(dripping))
        fetcher.store.peers.add(await stack.enter_async_context(serving(good, wrap=slowly(10e6))))
        with trio.fail_after(60):
            result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert link.carried >= link.drip_at
    assert tree(tmp_path / "out") == published.files
    assert reports(result)[str(good.id)].received > published.size // 2


@both_ways
async def test_a_download_from_a_dripping_provider_alone_ends_with_that_reason(
    only_tls, published, copy_of, tmp_path, impatient, short_deadlines
):
    async with (
        open_home(copy_of("dripping")) as dripping,
        open_home(tmp_path / "fetcher", only_tls=only_tls) as fetcher,
        open_linked(dripping) as link,
    ):
        link.drip_at, link.drip_s = 2_000_000, 1.0
        fetcher.store.peers.add(link.address(dripping))
        with pytest.raises(NotFound) as failure, trio.fail_after(60):
            await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert "too slow" in str(failure.value.hint) or "no answer in time" in str(failure.value.hint)


@both_ways
async def test_a_provider_that_stalls_at_99_percent_costs_only_what_is_left(
    only_tls, published, copy_of, tmp_path, impatient
):
    async with AsyncExitStack() as stack:
        stalling = await stack.enter_async_context(open_home(copy_of("stalling")))
        late = await stack.enter_async_context(open_home(copy_of("late")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))
        link = await stack.enter_async_context(open_linked(stalling, rate=20e6))
        link.stall_at = published.size * 99 // 100
        fetcher.store.peers.add(link.address(stalling))
        address = await stack.enter_async_context(serving(late))

        async def join() -> None:
            await wait_for(lambda: link.carried >= link.stall_at, "the stall")
            fetcher.store.peers.add(address)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join)
            with trio.fail_after(60):
                result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files
    # What stalled are requests of some connections; what had come before is not asked for again.
    assert reports(result)[str(late.id)].received <= 8 * MIB
    assert result.received == published.size


# ── lies ────────────────────────────────────────────────────────────────────


@both_ways
@pytest.mark.parametrize("lie", ["elsewhere", "shortened", "lengthened"])
async def test_who_sends_something_else_is_banned_and_the_rest_comes_from_others(
    lie, only_tls, published, copy_of, tmp_path, impatient
):
    asked: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(copy_of("liar")))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))
        wrap = {
            "elsewhere": elsewhere(liar),
            "shortened": shortened,
            "lengthened": lengthened,
        }[lie]
        liar_address = await stack.enter_async_context(serving(liar, wrap=lambda h: counting(asked)(wrap(h))))
        fetcher.store.peers.add(liar_address)
        fetcher.store.peers.add(await stack.enter_async_context(serving(good, wrap=slowly(20e6))))
        result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
        peers = {peer.node: peer for peer in await list_peers(fetcher)}

    assert asked["/v1/spans"]
    assert tree(tmp_path / "out") == published.files
    assert reports(result)[str(liar.id)].state == "banned"
    assert [node for node, peer in peers.items() if peer.banned_until] == [str(liar.id)]


@pytest.mark.parametrize("answer", [compressed, chunked], ids=lambda answer: answer.__name__)
async def test_content_in_a_coding_of_http_is_a_violation(answer, published, copy_of, tmp_path, impatient):
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(copy_of("liar")))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=True))
        fetcher.store.peers.add(await stack.enter_async_context(serving(liar, wrap=instead(answer))))
        fetcher.store.peers.add(await stack.enter_async_context(serving(good, wrap=slowly(20e6))))
        result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files
    assert reports(result)[str(liar.id)].state == "banned"
    assert reports(result)[str(liar.id)].received == 0


@both_ways
async def test_a_redirect_is_not_followed_and_its_sender_is_given_up(only_tls, published, copy_of, tmp_path, impatient):
    asked: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(open_home(copy_of("target")))
        sender = await stack.enter_async_context(open_home(copy_of("sender")))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))
        place = await stack.enter_async_context(serving(target, wrap=counting(asked)))
        away = instead(redirecting(f"https://{place.host}:{place.port}/v1/spans"))
        fetcher.store.peers.add(await stack.enter_async_context(serving(sender, wrap=away)))
        fetcher.store.peers.add(await stack.enter_async_context(serving(good, wrap=slowly(10e6))))
        result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files
    assert not asked
    assert reports(result)[str(sender.id)].received == 0
    assert "307" in str(reports(result)[str(sender.id)].reason)


@both_ways
@pytest.mark.parametrize("how", ["claims what it never had", "loses every second answer"])
async def test_lies_about_what_is_there_cost_nothing_but_time(how, only_tls, published, copy_of, tmp_path, impatient):
    home = copy_of("liar")
    if how == "claims what it never had":
        for path in (home / "store" / "objects").glob("??/*"):
            path.unlink()
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(home))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))
        wrap = claim_everything if how == "claims what it never had" else losing(0.5)
        fetcher.store.peers.add(await stack.enter_async_context(serving(liar, wrap=wrap)))
        fetcher.store.peers.add(await stack.enter_async_context(serving(good, wrap=slowly(20e6))))
        with trio.fail_after(60):
            result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
        peers = await list_peers(fetcher)

    assert tree(tmp_path / "out") == published.files
    assert reports(result)[str(good.id)].received > 0
    # To have lost something is no lie that can be proved.
    assert not [peer for peer in peers if peer.banned_until]


@both_ways
async def test_nine_of_ten_providers_lie_and_the_tenth_is_enough(only_tls, published, copy_of, tmp_path, impatient):
    empty = copy_of("claims")
    for path in (empty / "store" / "objects").glob("??/*"):
        path.unlink()
    async with AsyncExitStack() as stack:
        homes = {
            name: await stack.enter_async_context(open_home(copy_of(name)))
            for name in ("flips", "moves", "flips too", "short", "long", "drips", "mute", "redirects", "good")
        }
        homes["claims"] = await stack.enter_async_context(open_home(empty))
        wraps = {
            "flips": flip_bits(homes["flips"]),
            "flips too": flip_bits(homes["flips too"]),
            "moves": elsewhere(homes["moves"]),
            "short": shortened,
            "long": lengthened,
            "mute": silent("/v1/spans"),
            "redirects": instead(redirecting("https://127.0.0.1:1/v1/spans")),
            "claims": claim_everything,
            "good": slowly(10e6),
        }
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))
        link = await stack.enter_async_context(open_linked(homes["drips"]))
        link.drip_at, link.drip_s = 1_000_000, 1.0
        fetcher.store.peers.add(link.address(homes["drips"]))
        for name, wrap in wraps.items():
            fetcher.store.peers.add(await stack.enter_async_context(serving(homes[name], wrap=wrap)))
        with trio.fail_after(90):
            result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
        banned = {peer.node for peer in await list_peers(fetcher) if peer.banned_until}

    assert len(homes) == 10
    assert tree(tmp_path / "out") == published.files
    assert reports(result)[str(homes["good"].id)].received > published.size // 2
    assert banned == {str(homes[name].id) for name in ("flips", "flips too", "moves", "short", "long")}


# ── the end ─────────────────────────────────────────────────────────────────


@both_ways
async def test_the_end_of_a_download_brings_hardly_anything_twice(only_tls, published, copy_of, tmp_path):
    async with AsyncExitStack() as stack:
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher", only_tls=only_tls))
        links = []
        for rate in (1e6, 4e6, 8e6, 20e6):
            node = await stack.enter_async_context(open_home(copy_of(f"{rate:.0f}")))
            links.append(await stack.enter_async_context(open_linked(node, rate=rate)))
            fetcher.store.peers.add(links[-1].address(node))
        result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files
    assert sum(provider.received > 0 for provider in result.providers) >= 3
    assert result.duplicates <= 0.05 * published.size


@both_ways
async def test_those_who_download_finish_from_each_other_when_all_seeds_leave(
    only_tls, published, copy_of, tmp_path, impatient
):
    async with AsyncExitStack() as stack:
        seeds, mates, fetchers = [], [], []
        for name in ("seed", "other seed"):
            seed = await stack.enter_async_context(open_home(copy_of(name)))
            link = await stack.enter_async_context(open_linked(seed, rate=4e6))
            seeds.append((seed, link))
        for name in ("a", "b", "c"):
            fetchers.append(await stack.enter_async_context(open_home(tmp_path / name, only_tls=only_tls)))
            # Slower than the seeds, so that they still lack something when there is one copy.
            link = await stack.enter_async_context(open_linked(fetchers[-1], rate=2e6))
            mates.append((fetchers[-1], link))
        for fetcher in fetchers:
            for node, link in seeds + mates:
                if node is not fetcher:
                    fetcher.store.peers.add(link.address(node))
        had_then: list[int] = []  # chunks

        def is_copied() -> bool:
            """Say whether they have everything together."""
            held: dict[ContentId, list[bytearray]] = defaultdict(list)
            for fetcher in fetchers:
                for root, file in fetcher.arriving.items():
                    held[root].append(file.have)
            return bool(held) and all(all(map(any, zip(*flags, strict=True))) for flags in held.values())

        async def leave() -> None:
            await wait_for(is_copied, "a copy")
            had_then.extend(sum(file.have.count(1) for file in node.arriving.values()) for node in fetchers)
            for _, link in seeds:
                link.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            for fetcher in fetchers:
                home = fetcher.settings.layout.home
                out = home.with_name(f"{home.name} out")
                nursery.start_soon(partial(fetch, fetcher, published.revision, ignore, to=out))

    manifest = seed.store.manifests.get(ManifestId.parse(published.revision))
    count = sum(len(seed.store.chunk_lists.find(file.root)) for file in manifest.files)
    assert all(tree(tmp_path / f"{name} out") == published.files for name in ("a", "b", "c"))
    assert all(link.is_down for _, link in seeds)
    # They really lacked something when the seeds left.
    assert min(had_then) < count


# ── those who keep others out ───────────────────────────────────────────────


@pytest.mark.parametrize("limit", ["CONNECTIONS_PER_HOST_MAX", "CONNECTIONS_MAX"])
async def test_a_hundred_connections_that_never_ask_keep_no_fetch_out(limit, published, copy_of, tmp_path, monkeypatch):
    """They take all the places of a node, and those of the one who fetches."""
    monkeypatch.setattr(door, limit, 100)
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        address = await stack.enter_async_context(serving(seed))
        held = [
            await stack.enter_async_context(await trio.open_tcp_stream(address.host, address.port)) for _ in range(100)
        ]
        fetcher.store.peers.add(address)
        with trio.fail_after(60):
            await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
        # Most are there still: no more had to go than there were to come in.
        gone = 0
        for stream in held:
            with trio.move_on_after(0.001):
                await stream.receive_some(1)
                gone += 1

    assert tree(tmp_path / "out") == published.files
    assert 0 < gone < 50
