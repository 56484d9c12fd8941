"""Classes of links, and limits that hold for whole downloads on real sockets."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest
import trio

from p2phub.core.encoding import decode
from p2phub.core.errors import InvalidName, NotFound
from p2phub.core.labels import Labels
from p2phub.core.limits import RATE_MIN, RULES_MAX, LabelRule, LinkSettings, RangeRule
from p2phub.core.names import Address
from p2phub.core.noderecord import sign_node_record
from p2phub.net.door import serve_peers
from p2phub.node import links as module
from p2phub.node.events import Progress, ignore
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity
from p2phub.node.inspect import status
from p2phub.node.limits import set_label, set_limit, set_range
from p2phub.node.links import Links, open_links
from p2phub.node.node import Node, Running, open_node
from p2phub.node.peerlist import list_peers
from p2phub.node.publish import publish
from p2phub.node.serve import PeerDoor
from p2phub.node.settings import Settings
from p2phub.protocol import rates
from p2phub.protocol.bucket import BACKGROUND_RATE
from p2phub.protocol.messages import LARGE_QUERY_SIZE_MAX, SpansQuery
from p2phub.store.layout import Layout
from p2phub.testing import values
from p2phub.testing.hostile import open_home, serving, wait_for

pytestmark = pytest.mark.timeout(120)

SIZE = 700_000  # bytes of the file that is fetched: one chunk
RATE = 200_000  # bytes a second
LEAST_S = 0.8 * (SIZE - 64 * 1024) / RATE  # seconds that it takes at the rate, but for a burst

WAYS = pytest.mark.parametrize("way", ["frames", "https", "plain"])


def change(links: Links, **fields: object):
    return links.change(lambda settings: msgspec.structs.replace(settings, **fields))


@asynccontextmanager
async def seed_and_fetcher(
    folder: Path, *, way: str = "frames", size: int = SIZE, asked: list[SpansQuery] | None = None
) -> AsyncIterator[tuple[Node, Node, str]]:
    """Give a node that serves a file of `size` bytes, another that knows it, and the revision."""
    source = folder / "source"
    source.mkdir()
    (source / "weights.bin").write_bytes(random.Random(0).randbytes(size))
    plain = way == "plain"
    settings = [
        Settings(Layout(folder / name, folder / name / "store"), plain=plain, only_tls=way == "https")
        for name in ("seed", "fetcher")
    ]

    def noting(handler):
        async def answer(request):
            if request.path == "/v1/spans" and asked is not None:
                asked.append(decode(request.body, SpansQuery, size_max=LARGE_QUERY_SIZE_MAX))
            return await handler(request)

        return answer

    async with open_node(settings[0]) as seed, open_node(settings[1]) as fetcher:
        create_identity(seed)
        revision = (await publish(seed, source, "weights", ignore)).revision
        if not plain:
            async with serving(seed, wrap=noting) as address:
                fetcher.store.peers.add(address)
                yield seed, fetcher, revision
            return
        async with trio.open_nursery() as nursery:
            door = PeerDoor(seed, nursery)
            host, port = await nursery.start(partial(serve_peers, "127.0.0.1", 0, noting(door.handle), tls=None))
            seed.serve_at([f"{host}:{port}"])
            fetcher.store.peers.add(Address(seed.id, host, port))
            yield seed, fetcher, revision
            nursery.cancel_scope.cancel()


# ── classes ─────────────────────────────────────────────────────────────────


async def test_the_class_of_a_peer_follows_from_where_it_is_and_what_it_says(tmp_path):
    known = (("near", "127.0.0.1:1", None), ("far", "8.8.8.8:1", None), ("kin", "8.8.4.4:1", "x"))
    async with open_home(tmp_path / "home") as node:
        for name, address, site in known:
            plain = record(name, address, site)
            node.store.peers.note_record(sign_node_record(plain, values.key(name)))
        peers = {peer.endpoints[0][0]: peer for peer in node.store.peers.all()}
        links = await open_links(node.store, Labels(site="x"))

        assert await links.class_of(peers["127.0.0.1"]) == "lan"
        assert await links.class_of(peers["8.8.8.8"]) == "internet"
        assert await links.class_of(peers["8.8.8.8"], "10.1.1.1") == "site"
        assert await links.class_of(peers["8.8.4.4"]) == "site"
        # Whoever calls shows no record: its address tells which it is.
        assert await links.class_of("8.8.4.4") == "site"
        assert await links.class_of("8.8.8.8") == "internet"
        assert await links.class_of("") == "internet"


def record(name: str, address: str, site: str | None):
    fields = {"time": int(time.time()), "addresses": (address,), "site": site, "cluster": None}
    return msgspec.structs.replace(values.node_record(name), **fields)


async def test_a_name_stands_for_its_address(tmp_path, monkeypatch):
    asked = []

    async def look_up(host, *_, **__):
        asked.append(host)
        if host == "gone.example":
            raise OSError("no such name")
        return [(0, 0, 0, "", ("10.8.0.1", 0))]

    monkeypatch.setattr(module.trio.socket, "getaddrinfo", look_up)
    async with open_home(tmp_path / "home") as node:
        assert [await node.links.class_of("model.example") for _ in range(3)] == ["site"] * 3
        assert await node.links.class_of("gone.example") == "internet"
        await set_range(node, "10.8.0.0/16", "federation")
        assert await node.links.class_of("model.example") == "federation"

    assert asked == ["model.example", "gone.example"]


async def test_a_name_server_that_does_not_answer_holds_nobody_up_for_long(tmp_path, monkeypatch):
    async def look_up(*_, **__):
        await trio.sleep_forever()

    monkeypatch.setattr(module.trio.socket, "getaddrinfo", look_up)
    monkeypatch.setattr(module, "RESOLVE_TIMEOUT_S", 0.05)
    async with open_home(tmp_path / "home") as node:
        with trio.fail_after(30):
            assert await node.links.class_of("slow.example") == "internet"


async def test_the_subnets_of_our_interfaces_are_near(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "own_subnets", lambda: [ip_network("8.8.8.0/24")])
    async with open_home(tmp_path / "home") as node:
        assert await node.links.class_of("8.8.8.200") == "lan"
        assert await node.links.class_of("8.8.9.1") == "internet"


async def test_peers_are_listed_with_their_class(tmp_path):
    async with seed_and_fetcher(tmp_path) as (_, fetcher, _):
        first = [peer.link for peer in await list_peers(fetcher)]
        await set_range(fetcher, "127.0.0.0/8", "federation")
        then = [peer.link for peer in await list_peers(fetcher)]

    assert (first, then) == (["lan"], ["federation"])


# ── settings ────────────────────────────────────────────────────────────────


async def test_limits_are_kept_and_can_be_lifted_one_by_one(tmp_path):
    async with open_home(tmp_path / "home") as node:
        await set_limit(node, "internet", up=RATE, down=2 * RATE, background=None)
        await set_limit(node, "site", up=None, down=None, background=True)
    async with open_home(tmp_path / "home") as node:
        again = node.links.settings
        assert (await status(node)).limits == [again.limit("site"), again.limit("internet")]
        assert again.limit("internet").up == RATE
        assert again.limit("internet").down == 2 * RATE
        assert node.links.is_background("site")
        await set_limit(node, "internet", up=0, down=None, background=None)
        assert node.links.settings.limit("internet").up is None
        assert node.links.settings.limit("internet").down == 2 * RATE


@pytest.mark.parametrize("rate", [1, RATE_MIN - 1])
async def test_a_limit_that_lets_nothing_arrive_in_time_is_refused(tmp_path, rate):
    async with open_home(tmp_path / "home") as node:
        with pytest.raises(InvalidName, match="too low"):
            await set_limit(node, "lan", up=rate, down=None, background=None)
        with pytest.raises(InvalidName, match="too low"):
            await set_limit(node, "lan", up=None, down=rate, background=None)

        assert node.links.settings == LinkSettings()


async def test_rules_are_replaced_and_forgotten(tmp_path):
    async with open_home(tmp_path / "home") as node:
        await set_range(node, "10.8.0.0/16", "site")
        await set_range(node, "10.8.0.0/16", "lan")
        await set_label(node, "lip6", "federation")
        settings = await set_label(node, "inria", "site")
        assert settings.ranges == (RangeRule("10.8.0.0/16", "lan"),)
        assert settings.labels == (LabelRule("lip6", "federation"), LabelRule("inria", "site"))
        await set_range(node, "10.8.0.0/16", None)
        settings = await set_label(node, "lip6", None)
        assert (settings.ranges, settings.labels) == ((), (LabelRule("inria", "site"),))
        for forget in (partial(set_range, node, "10.8.0.0/16"), partial(set_label, node, "lip6")):
            with pytest.raises(NotFound, match="no rule"):
                await forget(None)


async def test_there_are_only_so_many_rules(tmp_path):
    async with open_home(tmp_path / "home") as node:
        many = tuple(RangeRule(f"10.{number // 256}.{number % 256}.0/24", "lan") for number in range(RULES_MAX))
        await change(node.links, ranges=many)
        with pytest.raises(InvalidName, match="limit"):
            await set_range(node, "11.0.0.0/8", "lan")
        await set_range(node, "10.0.0.0/24", "site")


async def test_what_another_process_sets_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REFRESH_S", 0.0)
    async with open_home(tmp_path / "home") as node, open_home(tmp_path / "home") as other:
        await set_limit(other, "lan", up=RATE, down=None, background=None)
        assert (await node.links.refresh()).limit("lan").up == RATE
        assert node.links.downloading("lan").piece(10**6) == 10**6
        await set_limit(other, "lan", up=0, down=RATE, background=None)
        await node.links.refresh()
        assert node.links.downloading("lan").piece(10**6) == RATE // 20


# ── limits on real downloads ────────────────────────────────────────────────


async def took_s(fetcher: Node, revision: str, folder: Path) -> float:
    start = trio.current_time()
    result = await fetch(fetcher, revision, ignore, to=folder)
    assert result.received == SIZE
    return trio.current_time() - start


@WAYS
async def test_what_is_sent_keeps_the_limit_up(way, tmp_path):
    async with seed_and_fetcher(tmp_path, way=way) as (seed, fetcher, revision):
        await set_limit(seed, "lan", up=RATE, down=None, background=None)
        limited = await took_s(fetcher, revision, tmp_path / "out")

    assert limited > LEAST_S
    assert (tmp_path / "out" / "weights.bin").read_bytes() == (tmp_path / "source" / "weights.bin").read_bytes()


@WAYS
async def test_what_is_received_keeps_the_limit_down_and_the_deadline_waits_for_it(way, tmp_path, monkeypatch):
    # Without the time that our own limit takes it would be over in a moment.
    monkeypatch.setattr(rates, "DEADLINE_MIN_S", 2.0)
    monkeypatch.setattr(rates, "DEADLINE_PER_MIB_S", 0.0)
    async with seed_and_fetcher(tmp_path, way=way) as (_, fetcher, revision):
        await set_limit(fetcher, "lan", up=None, down=RATE, background=None)
        limited = await took_s(fetcher, revision, tmp_path / "out")
        providers = await list_peers(fetcher)

    assert limited > LEAST_S > 2.0
    assert providers[0].failures == 0


async def test_another_class_has_another_limit(tmp_path):
    async with seed_and_fetcher(tmp_path) as (seed, fetcher, revision):
        for node in (seed, fetcher):
            await set_limit(node, "internet", up=RATE_MIN, down=RATE_MIN, background=None)
        assert seed.links.settings.limit("lan").up is None
        with trio.fail_after(SIZE / RATE_MIN):
            await fetch(fetcher, revision, ignore, to=tmp_path / "out")


@WAYS
@pytest.mark.parametrize("side", ["up", "down"])
async def test_a_limit_that_is_lifted_lets_a_running_download_go_on_at_once(way, side, tmp_path):
    size = 20_000_000  # seven minutes at the limit
    async with seed_and_fetcher(tmp_path, way=way, size=size) as (seed, fetcher, revision):
        node = seed if side == "up" else fetcher
        await set_limit(node, "lan", up=RATE_MIN, down=RATE_MIN, background=None)
        begun, done = trio.Event(), trio.Event()

        def tell(event):
            if isinstance(event, Progress):
                begun.set()

        async with trio.open_nursery() as nursery:

            async def run() -> None:
                result = await fetch(fetcher, revision, tell, to=tmp_path / "out")
                assert result.received == size
                done.set()

            nursery.start_soon(run)
            await begun.wait()
            await trio.sleep(1.0)
            assert not (tmp_path / "out").exists()
            with trio.fail_after(60):
                await set_limit(node, "lan", up=0, down=0, background=None)
                await done.wait()


@WAYS
@pytest.mark.parametrize("side", ["up", "down"])
async def test_a_limited_download_ends_at_once_when_it_is_cancelled(way, side, tmp_path):
    async with seed_and_fetcher(tmp_path, way=way, size=20_000_000) as (seed, fetcher, revision):
        node = seed if side == "up" else fetcher
        await set_limit(node, "lan", up=RATE_MIN, down=RATE_MIN, background=None)
        with trio.fail_after(30):
            with trio.move_on_after(2.0) as waiting:
                await fetch(fetcher, revision, ignore, to=tmp_path / "out")
            assert waiting.cancelled_caught
            await wait_for(lambda: seed.links.uploads == 0, "the seed to notice")


async def test_a_low_limit_serves_one_at_a_time_and_all_arrive(tmp_path):
    async with seed_and_fetcher(tmp_path, size=150_000) as (seed, fetcher, revision):
        await set_limit(seed, "lan", up=2 * RATE_MIN, down=None, background=None)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, seed.links.uploads)
                await trio.sleep(0.005)

        async with trio.open_nursery() as nursery, open_home(tmp_path / "second") as second:
            nursery.start_soon(watch)
            second.store.peers.add(Address(seed.id, *fetcher.store.peers.get(seed.id).endpoints[0]))
            async with trio.open_nursery() as both:
                both.start_soon(fetch, fetcher, revision, ignore)
                both.start_soon(fetch, second, revision, ignore)
            nursery.cancel_scope.cancel()

    assert most == 1


# ── the background ──────────────────────────────────────────────────────────


@WAYS
@pytest.mark.parametrize("why", ["fetch", "class"])
async def test_a_background_download_says_so_to_its_peers(way, why, tmp_path):
    asked: list[SpansQuery] = []
    async with seed_and_fetcher(tmp_path, way=way, asked=asked) as (_, fetcher, revision):
        if why == "class":
            await set_limit(fetcher, "lan", up=None, down=None, background=True)
        await fetch(fetcher, revision, ignore, to=tmp_path / "out", background=why == "fetch")

    assert asked
    assert all(query.background for query in asked)
    assert (tmp_path / "out" / "weights.bin").read_bytes() == (tmp_path / "source" / "weights.bin").read_bytes()


async def test_other_downloads_do_not(tmp_path):
    asked: list[SpansQuery] = []
    async with seed_and_fetcher(tmp_path, asked=asked) as (_, fetcher, revision):
        await set_limit(fetcher, "internet", up=None, down=None, background=True)
        await fetch(fetcher, revision, ignore, to=tmp_path / "out")

    assert asked
    assert not any(query.background for query in asked)


async def test_answers_over_a_link_that_yields_are_in_the_background(tmp_path):
    async with open_home(tmp_path / "home") as node:
        await set_limit(node, "internet", up=None, down=None, background=True)
        place = await node.links.take_turn("internet", "asker", background=False)
        other = await node.links.take_turn("lan", "asker", background=False)
        asked_to = await node.links.take_turn("lan", "asker", background=True)

        assert node.links.sending(place).yields_to == BACKGROUND_RATE
        assert node.links.sending(other).yields_to is None
        assert node.links.sending(asked_to).yields_to == BACKGROUND_RATE


async def test_beside_the_foreground_the_background_gets_a_part_of_what_the_link_can(tmp_path, monkeypatch):
    async with open_home(tmp_path / "home") as node:
        behind = await node.links.take_turn("internet", "asker", background=True)
        beside = node.links.sending(behind).limits[1]
        alone = beside.rate
        before = await node.links.take_turn("internet", "other", background=False)
        unknown = beside.rate
        elsewhere = await node.links.take_turn("lan", "other", background=False)
        node.links.end_turn(before)
        after = beside.rate
        monkeypatch.setattr(type(beside), "peak", lambda self: 40_000_000)
        before = await node.links.take_turn("internet", "other", background=False)
        known = beside.rate
        node.links.end_turn(before)
        node.links.end_turn(elsewhere)

    assert (alone, unknown, after, known) == (None, BACKGROUND_RATE, None, 10_000_000)


async def test_a_background_download_lets_one_in_the_foreground_go_first(tmp_path):
    async with seed_and_fetcher(tmp_path) as (seed, fetcher, revision):
        other = fetcher.downloads.setdefault(b"something else", Running(background=False))
        told: list[str | None] = []

        def tell(event):
            if isinstance(event, Progress):
                told.append(event.waiting_for)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(fetch, fetcher, revision, tell, to=tmp_path / "out", background=True))
            await wait_for(lambda: any(told), "it to say what it waits for")
            assert seed.uploaded == 0
            del fetcher.downloads[b"something else"]
            assert not other.background

    assert "foreground" in next(text for text in told if text)
    assert (tmp_path / "out" / "weights.bin").stat().st_size == SIZE


async def test_a_foreground_fetch_of_the_same_takes_a_background_download_along(tmp_path):
    asked: list[SpansQuery] = []
    async with seed_and_fetcher(tmp_path, asked=asked) as (_, fetcher, revision):
        # Something else in the foreground, which does not end, holds it.
        fetcher.downloads[b"something else"] = Running(background=False)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(fetch, fetcher, revision, ignore, to=tmp_path / "first", background=True))
                await wait_for(lambda: len(fetcher.downloads) == 2, "the background download to begin")
                await fetch(fetcher, revision, ignore, to=tmp_path / "second")

    assert (tmp_path / "first" / "weights.bin").stat().st_size == SIZE
    assert not any(query.background for query in asked)
