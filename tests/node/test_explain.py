"""What `p2phub swarm` says, with real nodes: while a download runs, and while none does."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from p2phub.core.errors import NotFound
from p2phub.net.door import Response
from p2phub.node import crowd
from p2phub.node.calling import ban_peer
from p2phub.node.dispatch import run
from p2phub.node.events import Event, Progress, ignore
from p2phub.node.explain import swarm_info
from p2phub.node.fetch import fetch
from p2phub.node.operations.peers import AddPeers
from p2phub.node.operations.swarm import SwarmInfo, SwarmProvider
from p2phub.testing.hostile import (
    answering,
    flip_bits,
    open_home,
    open_linked,
    serving,
    silent,
    slowly,
    wait_for,
)

pytestmark = pytest.mark.timeout(120)


def by_name(info: SwarmInfo) -> dict[str, SwarmProvider]:
    return {provider.name: provider for provider in info.providers}


async def test_peers_are_asked_what_they_have_when_nothing_runs(published, copy_of, tmp_path):
    async with AsyncExitStack() as stack:
        homes = {name: copy_of(name) for name in ("whole", "lost", "liar")} | {"empty": tmp_path / "empty"}
        max((homes["lost"] / "store" / "objects").glob("??/*"), key=lambda path: path.stat().st_size).unlink()
        nodes = {name: await stack.enter_async_context(open_home(home)) for name, home in homes.items()}
        asker = await stack.enter_async_context(open_home(tmp_path / "asker"))
        for node in nodes.values():
            asker.store.peers.add(await stack.enter_async_context(serving(node)))
        await fetch(asker, published.revision, ignore, to=tmp_path / "out", include=["*.json"])
        await ban_peer(asker, nodes["liar"].id, "it lied about something")
        info = await swarm_info(asker, published.revision, ignore)

    found = by_name(info)
    assert not info.fetching
    assert 0 < info.here < info.size == published.size
    assert found[str(nodes["whole"].id)].state == "offers"
    assert found[str(nodes["whole"].id)].has == 1.0
    assert found[str(nodes["lost"].id)].state == "offers"
    assert 0 < (found[str(nodes["lost"].id)].has or 0) < 1
    assert (found[str(nodes["empty"].id)].state, found[str(nodes["empty"].id)].has) == ("has nothing", 0.0)
    assert found[str(nodes["liar"].id)].state == "banned"
    assert found[str(nodes["liar"].id)].reason == "it lied about something"


async def test_a_peer_that_does_not_say_what_it_has_is_shown_with_the_reason(
    published, copy_of, tmp_path, impatient, monkeypatch
):
    monkeypatch.setattr("p2phub.node.survey.ASK_TIMEOUT_S", 1.0)
    async with AsyncExitStack() as stack:
        mute = await stack.enter_async_context(open_home(copy_of("mute")))
        broken = await stack.enter_async_context(open_home(copy_of("broken")))
        asker = await stack.enter_async_context(open_home(copy_of("asker")))
        asker.store.peers.add(await stack.enter_async_context(serving(mute, wrap=silent("/v1/have"))))
        failing = answering("/v1/have", Response(500, b"no", "text/plain"))
        asker.store.peers.add(await stack.enter_async_context(serving(broken, wrap=failing)))
        found = by_name(await swarm_info(asker, published.revision, ignore))

    assert found[str(mute.id)].state == "gone"
    assert found[str(mute.id)].reason
    assert found[str(broken.id)].state == "gone"
    assert "500" in (found[str(broken.id)].reason or "")


async def test_a_running_download_says_who_gives_and_who_does_not(published, copy_of, tmp_path, impatient):
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        empty = await stack.enter_async_context(open_home(tmp_path / "empty"))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        link = await stack.enter_async_context(open_linked(seed, rate=8e6))
        fetcher.store.peers.add(link.address(seed))
        fetcher.store.peers.add(await stack.enter_async_context(serving(empty)))
        infos: list[SwarmInfo] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: fetch(fetcher, published.revision, ignore, to=tmp_path / "out"))
            await wait_for(lambda: any(1 in file.have for file in fetcher.arriving.values()), "the first chunk")
            await trio.sleep(0.5)
            infos.append(await swarm_info(fetcher, published.revision, ignore))
        after = await swarm_info(fetcher, published.revision, ignore)

    info = infos[0]
    assert info.fetching
    assert 0 < info.here < info.size
    assert by_name(info)[str(seed.id)].state == "giving"
    assert by_name(info)[str(seed.id)].has == 1.0
    assert by_name(info)[str(seed.id)].received > 0
    assert by_name(info)[str(empty.id)].state == "has nothing"
    assert not after.fetching
    assert after.here == after.size


async def test_a_stalled_download_says_what_it_waits_for(published, copy_of, tmp_path, impatient):
    busy = answering("/v1/spans", Response(429, b"busy", "text/plain", {"retry-after": "1"}))
    async with (
        open_home(copy_of("seed")) as seed,
        open_home(tmp_path / "fetcher") as fetcher,
        serving(seed, wrap=busy) as address,
    ):
        fetcher.store.peers.add(address)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: fetch(fetcher, published.revision, ignore, to=tmp_path / "out"))
            waiting: list[SwarmInfo] = []
            while not waiting or not waiting[-1].waiting_for:
                await trio.sleep(0.1)
                if fetcher.arriving:
                    waiting.append(await swarm_info(fetcher, published.revision, ignore))
            nursery.cancel_scope.cancel()

    assert "busy" in (waiting[-1].waiting_for or "")
    assert by_name(waiting[-1])[str(seed.id)].state == "busy"


async def test_who_gave_fast_and_gives_nothing_any_more_is_shown_with_no_rate_of_before(
    published, copy_of, tmp_path, impatient, monkeypatch
):
    monkeypatch.setattr(crowd, "CHUNK_SIZE_MAX", 1000)  # so that it shows at once
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        link = await stack.enter_async_context(open_linked(seed, rate=20e6))
        link.stall_at = published.size // 2
        fetcher.store.peers.add(link.address(seed))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: fetch(fetcher, published.revision, ignore, to=tmp_path / "out"))
            await wait_for(lambda: link.carried >= link.stall_at, "the stall")
            await trio.sleep(0.5)
            info = await swarm_info(fetcher, published.revision, ignore)
            nursery.cancel_scope.cancel()

    assert by_name(info)[str(seed.id)].received > 0
    assert by_name(info)[str(seed.id)].rate < 1e6


async def test_what_nobody_knows_has_no_swarm(tmp_path):
    async with open_home(tmp_path / "alone") as node:
        with pytest.raises(NotFound):
            await swarm_info(node, "a" * 52 + "/parrot", ignore)
        nobody = await swarm_info(node, "b3:" + "0" * 64, ignore)

    assert not nobody.providers
    assert not nobody.fetching


async def test_the_events_of_a_fetch_name_who_is_banned_and_gone(published, copy_of, tmp_path, impatient):
    events: list[Progress] = []

    def tell(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "fetching":
            events.append(event)

    async with AsyncExitStack() as stack:
        nodes = {
            name: await stack.enter_async_context(open_home(copy_of(name)))
            for name in ("liar", "slow", "leaving", "good")
        }
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        fetcher.store.peers.add(await stack.enter_async_context(serving(nodes["liar"], wrap=flip_bits(nodes["liar"]))))
        fetcher.store.peers.add(await stack.enter_async_context(serving(nodes["good"], wrap=slowly(6e6))))
        slow = await stack.enter_async_context(open_linked(nodes["slow"], rate=0.3e6))
        leaving = await stack.enter_async_context(open_linked(nodes["leaving"], rate=3e6))
        leaving.cut_at = 1_500_000
        fetcher.store.peers.add(slow.address(nodes["slow"]))
        fetcher.store.peers.add(leaving.address(nodes["leaving"]))
        await fetch(fetcher, published.revision, tell, to=tmp_path / "out")

    told = {(provider.node, provider.state): provider.reason for event in events for provider in event.providers}
    assert told[str(nodes["liar"].id), "banned"]
    assert told[str(nodes["leaving"].id), "gone"]
    assert (str(nodes["good"].id), "giving") in told
    assert {link.link for link in events[-1].links} == {"lan"}
    assert sum(link.received for link in events[-1].links) >= published.size


async def test_a_peer_that_is_added_is_used_by_a_running_download_at_once(published, copy_of, tmp_path, monkeypatch):
    # Longer than the test: nobody looks for new peers by the clock.
    monkeypatch.setattr("p2phub.node.crowd.PEERS_S", 1000.0)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_home(copy_of("first")))
        second = await stack.enter_async_context(open_home(copy_of("second")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        link = await stack.enter_async_context(open_linked(first, rate=4e6))
        address = await stack.enter_async_context(serving(second))
        fetcher.store.peers.add(link.address(first))

        async def join() -> None:
            await wait_for(lambda: link.carried > 1_000_000, "the download to begin")
            link.stall()
            await run(fetcher, AddPeers((str(address),), news=False), ignore)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join)
            result = await fetch(fetcher, published.revision, ignore, to=tmp_path / "out")

    assert {provider.node for provider in result.providers if provider.received} >= {str(second.id)}
