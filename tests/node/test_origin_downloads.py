"""Downloads from HTTP origins at their best and worst, on real sockets, alone and beside peers."""

from __future__ import annotations

import base64
import errno
import os
import re
import shutil
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from p2phub.core import manifest as manifests
from p2phub.core.errors import InvalidName, NotFound, Offline
from p2phub.core.ids import ManifestId
from p2phub.core.origins import GIVEN_MAX
from p2phub.net import web
from p2phub.node import swarm, wholefiles
from p2phub.node.dispatch import run
from p2phub.node.events import Notice, Progress, ignore
from p2phub.node.fetch import FetchResult, fetch
from p2phub.node.identity import create_identity
from p2phub.node.inspect import info
from p2phub.node.node import Node
from p2phub.node.operations.checking import Verify
from p2phub.node.operations.content import Fetch, FetchFile
from p2phub.node.origins import REFUSALS_MAX, GivenOrigins
from p2phub.node.peerlist import list_peers
from p2phub.node.publish import publish
from p2phub.node.verify import verify
from p2phub.testing.hostile import open_home, serving, wait_for
from p2phub.testing.hostile import slowly as slow_peer
from p2phub.testing.processes import flip_byte, tree
from p2phub.testing.webserver import (
    Reply,
    WebServer,
    after,
    answering,
    chunked,
    compressing,
    cutting,
    lying_from,
    only,
    raw,
    redirecting,
    slowly,
    stalling,
    times,
    with_headers,
    without_ranges,
)

# No test here may hang: whatever the origins do, a download ends.
pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_proxy")]


def given(*templates: str) -> GivenOrigins:
    """Return origins that somebody names for one fetch."""
    return GivenOrigins(templates)


@pytest.fixture
def files(published) -> dict[str, bytes]:
    """The published files by path, as a web server has them below `parrot/`."""
    return {f"parrot/{path}": (published.folder / path).read_bytes() for path in published.files}


@pytest.fixture
def bare_copy_of(copy_of):
    """Return a function that makes a home which knows the model and its chunk lists, and has nothing of it."""

    def copy(name: str) -> Path:
        home = copy_of(name)
        shutil.rmtree(home / "store" / "objects")
        return home

    return copy


@pytest.fixture
def listless_copy_of(bare_copy_of):
    """Return a function that makes a home which knows the manifest alone."""

    def copy(name: str) -> Path:
        home = bare_copy_of(name)
        shutil.rmtree(home / "store" / "trees", ignore_errors=True)
        with sqlite3.connect(home / "index.sqlite") as index:
            index.execute("DELETE FROM chunk_lists")
        return home

    return copy


@pytest.fixture
def impatient_files(monkeypatch):
    monkeypatch.setattr(wholefiles, "RETRY_S", tuple(wait_s / 10 for wait_s in wholefiles.RETRY_S))
    monkeypatch.setattr(web.Web.left_s, "__defaults__", (2.0,))


def base(server: WebServer) -> str:
    return f"{server.url}/parrot/{{path}}"


def host(server: WebServer) -> str:
    return f"127.0.0.1:{server.port}"


def by_origin(result: FetchResult) -> dict[str, object]:
    return {provider.origin: provider for provider in result.providers if provider.origin}


def leftovers(node: Node) -> list[Path]:
    return [path for path in node.settings.layout.store.rglob("*") if path.name.startswith(".new-")]


async def failing(node: Node, name: str, server: WebServer, to: Path, *include: str) -> str:
    """Fetch, which must fail; returns what people are told."""
    with pytest.raises(NotFound) as failure:
        await fetch(node, name, ignore, to=to, origins=given(base(server)), include=include)
    assert not tree(to)
    return f"{failure.value} {failure.value.hint}"


# ── alone ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("template", ["/parrot/{path}", "/parrot", "/parrot/", "/x?file=parrot/{path}"])
async def test_an_origin_alone_gives_everything(template, files, bare_copy_of, published, tmp_path):
    by_query = {f"x?file={path}": data for path, data in files.items()}
    progress: list[Progress] = []
    with WebServer(files) as server:
        if "?" in template:
            server.behaviours.append(lambda asked, reply: answer_from(by_query, asked, reply))
        async with open_home(bare_copy_of("home")) as node:
            result = await fetch(
                node,
                f"{published.name}@1.0.0",
                lambda event: progress.append(event) if isinstance(event, Progress) else None,
                to=tmp_path / "out",
                origins=given(server.url + template),
            )

    assert tree(tmp_path / "out") == published.files
    assert result.received == published.size
    (origin,) = result.providers
    assert (origin.node, origin.origin, origin.state) == (None, host(server), "giving")
    assert origin.received == published.size
    assert origin.rate > 0
    assert any(rate.origin == host(server) and rate.node is None for event in progress for rate in event.providers)
    assert all("authorization" not in asked.headers for asked in server.asked)


def answer_from(by_target, asked, reply):
    data = by_target[asked.target.removeprefix("/")]
    if asked.byte_range is None:
        return Reply(200, data)
    first, last = asked.byte_range
    return Reply(206, data[first : last + 1], {"content-range": f"bytes {first}-{last}/{len(data)}"}, first)


async def test_what_was_fetched_before_is_not_fetched_again(files, bare_copy_of, published, tmp_path, impatient):
    async with open_home(bare_copy_of("home")) as node:
        with WebServer(files, after(6, answering(500))) as server:
            await failing(node, published.name, server, tmp_path / "out")
        with WebServer(files) as server:
            result = await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files
    assert 0 < result.here_before < published.size
    assert result.received == published.size - result.here_before


async def test_an_origin_that_redirects_and_sends_in_chunks_gives_everything(files, bare_copy_of, published, tmp_path):
    with WebServer(files, chunked) as store, WebServer({}, redirecting(lambda asked: store.url + asked.target)) as hub:
        async with open_home(bare_copy_of("home")) as node:
            result = await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(hub)))

    assert tree(tmp_path / "out") == published.files
    # It is the hub that people named.
    assert list(by_origin(result)) == [host(hub)]


@pytest.mark.parametrize(
    ("match", "behaviours"),
    [
        (r"refuses access to .* \(403 forbidden\)", [answering(403)]),
        (r"does not have .* \(404 not found\)", [answering(404)]),
        ("ended its answer too early", [cutting(10)]),
        ("sends no HTTP answer", [raw(b"hello\n")]),
        ("answered 500", [answering(500)]),
        ("another part", [with_headers(content_range="bytes 0-1/*")]),
        ("sends .* compressed", [compressing]),
        ("sent other bytes than were published", [lying_from(0)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_download_that_an_origin_alone_fails_says_why(
    match, behaviours, files, bare_copy_of, published, tmp_path, impatient
):
    with WebServer(files, *behaviours) as server:
        async with open_home(bare_copy_of("home")) as node:
            said = await failing(node, published.name, server, tmp_path / "out", "*.safetensors")
            assert not list(node.settings.layout.store.glob("objects/??/*"))

    assert re.search(match, said), said
    assert host(server) in said


async def test_an_origin_that_cannot_be_reached_is_said_to_be(bare_copy_of, published, tmp_path, impatient):
    with WebServer({}) as server:
        pass
    async with open_home(bare_copy_of("home")) as node:
        said = await failing(node, published.name, server, tmp_path / "out")

    assert f"cannot reach origin {host(server)}: Connection refused" in said


async def test_a_busy_origin_is_waited_for(files, bare_copy_of, published, tmp_path):
    waits: list[str | None] = []
    with WebServer(files, times(2, answering(429, retry_after="3"))) as server:
        async with open_home(bare_copy_of("home")) as node:
            await fetch(
                node,
                published.name,
                lambda event: waits.append(event.waiting_for) if isinstance(event, Progress) else None,
                to=tmp_path / "out",
                origins=given(base(server)),
            )

    assert tree(tmp_path / "out") == published.files


async def test_a_stall_costs_one_timeout(files, bare_copy_of, published, tmp_path, impatient_files):
    with WebServer(files, times(3, stalling(100_000))) as server:
        async with open_home(bare_copy_of("home")) as node:
            await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files


async def test_a_cancelled_fetch_leaves_a_stalled_origin_at_once(files, bare_copy_of, published, tmp_path):
    with WebServer(files, stalling(100_000)) as server:
        async with open_home(bare_copy_of("home")) as node:
            start = trio.current_time()
            with trio.move_on_after(1.0) as scope:
                await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert scope.cancelled_caught
    # The stall would take ten seconds.
    assert trio.current_time() - start < 8


# ── beside others ───────────────────────────────────────────────────────────


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


# ── without ranges ──────────────────────────────────────────────────────────


async def test_an_origin_without_ranges_gives_whole_files(files, bare_copy_of, published, tmp_path):
    with WebServer(files, without_ranges(files)) as server:
        async with open_home(bare_copy_of("home")) as node:
            result = await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files
    # But for what was asked for before it was known.
    assert len([asked for asked in server.asked if asked.byte_range]) <= 3
    assert result.received == published.size


async def test_an_origin_without_ranges_goes_on_with_what_is_here(files, bare_copy_of, published, tmp_path, impatient):
    async with open_home(bare_copy_of("home")) as node:
        with WebServer(files, after(6, answering(500))) as server:
            await failing(node, published.name, server, tmp_path / "out")
        with WebServer(files, without_ranges(files)) as server:
            result = await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files
    assert 0 < result.received < published.size


async def test_a_whole_file_may_take_long_to_come_to_what_is_missing(
    files, bare_copy_of, published, tmp_path, impatient, monkeypatch
):
    name = "model-00001-of-00002.safetensors"
    async with open_home(bare_copy_of("home")) as node:
        # All but the end is here.
        with WebServer(files, only(lambda asked: (asked.byte_range or (0,))[0] > 12_000_000, answering(500))) as server:
            await failing(node, published.name, server, tmp_path / "out", name)
        monkeypatch.setattr(swarm, "PATIENCE_SILENT_S", 3.0)
        with WebServer(files, without_ranges(files), slowly(3e6)) as server:
            result = await fetch(node, published.name, ignore, to=tmp_path / "out", include=[name],
                                 origins=given(base(server)))  # fmt: skip

    assert tree(tmp_path / "out") == {name: published.files[name]}
    assert 0 < result.received < 8_000_000


async def test_an_origin_whose_whole_files_always_break_off_is_given_up(
    files, bare_copy_of, published, tmp_path, impatient
):
    with WebServer(files, without_ranges(files), cutting(4_000_000)) as server:
        async with open_home(bare_copy_of("home")) as node:
            said = await failing(node, published.name, server, tmp_path / "out", "*00001*")

    assert "ended its answer too early" in said


async def test_an_origin_without_ranges_and_a_peer_give_to_one_download(files, copy_of, published, tmp_path):
    async with AsyncExitStack() as stack:
        server = stack.enter_context(WebServer(files, without_ranges(files), slowly(3e6)))
        peer = await stack.enter_async_context(open_home(copy_of("peer")))
        node = await stack.enter_async_context(open_home(tmp_path / "home"))
        node.store.peers.add(await stack.enter_async_context(serving(peer, wrap=slow_peer(5e6))))
        result = await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files
    assert all(provider.received > 0 for provider in result.providers)


async def test_an_origin_without_ranges_that_lies_is_left(files, copy_of, published, tmp_path):
    async with AsyncExitStack() as stack:
        server = stack.enter_context(WebServer(files, without_ranges(files), lying_from(2_000_000)))
        peer = await stack.enter_async_context(open_home(copy_of("peer")))
        node = await stack.enter_async_context(open_home(tmp_path / "home"))
        node.store.peers.add(await stack.enter_async_context(serving(peer, wrap=slow_peer(10e6))))
        result = await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files
    assert by_origin(result)[host(server)].state == "banned"


# ── without chunk lists ─────────────────────────────────────────────────────


@pytest.mark.parametrize("behaviours", ["right", "without ranges", "cut", "cut, without ranges", "stalls", "busy"])
async def test_an_origin_alone_suffices_with_a_manifest(
    behaviours, files, listless_copy_of, published, tmp_path, impatient_files
):
    behaves = {
        "right": [],
        "without ranges": [without_ranges(files)],
        # Each turn brings some more.
        "cut": [cutting(2_000_000)],
        "cut, without ranges": [without_ranges(files), times(3, cutting(2_000_000))],
        "stalls": [times(3, stalling(2_000_000))],
        "busy": [times(3, answering(503, retry_after="0"))],
    }
    progress: list[Progress] = []
    with WebServer(files, *behaves[behaviours]) as server:
        async with open_home(listless_copy_of("home")) as node:
            result = await fetch(
                node,
                published.name,
                lambda event: progress.append(event) if isinstance(event, Progress) else None,
                to=tmp_path / "out",
                origins=given(base(server)),
            )
            assert not leftovers(node)
            checked = await verify(node, published.name, ignore)
            served = node.store.chunk_lists.find(next(iter(node.store.clearing.roots())))

    assert tree(tmp_path / "out") == published.files
    assert result.received == published.size
    assert by_origin(result)[host(server)].received == published.size
    # What came so is as good as what came in any other way.
    assert checked.good
    assert served is not None
    assert progress[-1].total == published.size
    assert all(event.done <= event.total for event in progress)
    if behaviours == "cut":
        # It went on where it was.
        assert any(asked.byte_range and asked.byte_range[0] == 2_000_000 for asked in server.asked)


async def test_nothing_of_a_file_without_a_chunk_list_is_seen_before_it_is_verified(
    files, listless_copy_of, published, tmp_path
):
    seen: list[Path] = []
    with WebServer(files, stalling(3_000_000)) as server:
        async with open_home(listless_copy_of("home")) as node, trio.open_nursery() as nursery:

            async def work() -> None:
                await fetch(node, published.name, ignore, to=tmp_path / "out", include=["*.safetensors"],
                            origins=given(base(server)))  # fmt: skip

            nursery.start_soon(work)
            await wait_for(lambda: any(path.stat().st_size >= 3_000_000 for path in leftovers(node)), "some bytes")
            seen += node.settings.layout.store.glob("objects/??/*")
            seen += node.settings.layout.store.glob("partial/??/*")
            manifest = node.store.manifests.get(ManifestId.parse(published.revision))
            held = [node.store.readables.open(file.root) for file in manifest.files]
            nursery.cancel_scope.cancel()
    async with open_home(tmp_path / "home") as node:
        assert not leftovers(node)

    assert not seen
    assert held == [None] * len(held)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("match", "behaviours"),
    [
        ("sent another file than was published for", [lying_from(3_000_000)]),
        ("has 17 bytes for", [lambda asked, reply: Reply(200, b"<html>hello</html"[:17])]),
        ("does not have", [answering(404)]),
        ("refuses access", [answering(401)]),
        ("ended its answer too early", [cutting(0)]),
        ("sends .* compressed", [compressing]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_file_without_a_chunk_list_that_is_another_is_thrown_away(
    match, behaviours, files, listless_copy_of, published, tmp_path, impatient_files
):
    with WebServer(files, *behaviours) as server:
        async with open_home(listless_copy_of("home")) as node:
            with pytest.raises(NotFound) as failure:
                await fetch(node, published.name, ignore, to=tmp_path / "out", include=["*.safetensors"],
                            origins=given(base(server)))  # fmt: skip
            assert not leftovers(node)
            assert not list(node.settings.layout.store.glob("objects/??/*"))

    assert re.search(match, f"{failure.value.hint}")
    assert host(server) in f"{failure.value.hint}"


async def test_a_second_origin_steps_in_where_the_first_lies(files, listless_copy_of, published, tmp_path):
    with WebServer(files, lying_from(0)) as liar, WebServer(files) as good:
        async with open_home(listless_copy_of("home")) as node:
            result = await fetch(
                node, published.name, ignore, to=tmp_path / "out", origins=given(base(liar), base(good))
            )

    assert tree(tmp_path / "out") == published.files
    assert by_origin(result)[host(liar)].state == "banned"
    assert by_origin(result)[host(good)].received == published.size
    # Once it was seen through it was not asked for the rest.
    assert len(liar.asked) <= wholefiles.FILES_AT_ONCE


async def test_an_origin_that_breaks_off_again_and_again_without_getting_further_is_given_up(
    files, listless_copy_of, published, tmp_path, impatient_files
):
    with WebServer(files, without_ranges(files), cutting(4_000_000)) as server:
        async with open_home(listless_copy_of("home")) as node:
            with pytest.raises(NotFound, match="no origin gives"):
                await fetch(node, published.name, ignore, to=tmp_path / "out", include=["*00001-of*"],
                            origins=given(base(server)))  # fmt: skip

    assert len(server.asked) < 20


async def test_a_disk_that_fails_ends_a_whole_file_with_its_error(
    files, listless_copy_of, published, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with WebServer(files) as server:
        async with open_home(listless_copy_of("home")) as node:
            monkeypatch.setattr("p2phub.store.unverified.os.pwrite", full)
            with pytest.raises(Exception, match="no space left"):
                await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))
            monkeypatch.undo()
            assert not leftovers(node)


# ── single files ────────────────────────────────────────────────────────────


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


# ── published origins ───────────────────────────────────────────────────────


@pytest.fixture
async def with_origin(tmp_path, published):
    """Return a function that makes a home which has the model's manifest with this origin, and nothing else."""

    async def make(name: str, *urls: str) -> tuple[Path, str]:
        async with open_home(tmp_path / f"{name} publisher") as node:
            create_identity(node)
            result = await publish(node, published.folder, "parrot", ignore, origin_urls=urls)
            data = node.store.manifests.data(ManifestId.parse(result.revision))
        async with open_home(tmp_path / name) as node:
            node.store.manifests.add(data)
        return tmp_path / name, result.revision

    return make


async def test_a_published_origin_is_asked_if_its_address_is_public(
    files, with_origin, published, tmp_path, monkeypatch
):
    with WebServer(files) as server:
        home, revision = await with_origin("home", base(server))
        async with open_home(home) as node:
            with pytest.raises(NotFound) as failure:
                await fetch(node, revision, ignore, to=tmp_path / "out")
            assert server.connections == 0
            # As if the loopback were the internet.
            monkeypatch.setattr(web, "is_public", lambda address: True)
            result = await fetch(node, revision, ignore, to=tmp_path / "out")

    assert "leads to an address that is not public" in f"{failure.value.hint}"
    assert tree(tmp_path / "out") == published.files
    assert by_origin(result)[host(server)].received == published.size


async def test_who_names_a_published_origin_himself_may_lead_anywhere(files, with_origin, published, tmp_path):
    with WebServer(files) as server:
        home, revision = await with_origin("home", base(server))
        async with open_home(home) as node:
            result = await fetch(node, revision, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files
    assert list(by_origin(result)) == [host(server)]


async def test_origins_are_published_and_shown(published, tmp_path):
    urls = ("https://models.example/{path}", "http://mirror.example/parrot")
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        first = await publish(node, published.folder, "parrot@1.0.0", ignore)
        second = await publish(node, published.folder, "parrot@1.0.1", ignore, origin_urls=urls)
        third = await publish(node, published.folder, "parrot", ignore)
        shown = await info(node, second.revision, ignore, refresh=False)
        manifest = node.store.manifests.get(ManifestId.parse(first.revision))

    assert manifest.origin_urls == ()
    assert b"origin_urls" not in manifests.encode(manifest)
    assert shown.origin_urls == list(urls)
    assert shown.parents == [first.revision]
    # Nothing new was said, so that what was said stays.
    assert third.revision == second.revision
    assert not third.new


@pytest.mark.parametrize(
    ("urls", "match"),
    [
        (["https://me:secret@models.example/{path}"], "everybody can read it"),
        (["models.example"], "form"),
        (["https://models.example/?file="], "query"),
        (["https://models.example"] * 2, "twice"),
        ([f"https://{number}.example" for number in range(9)], "the limit is 8"),
    ],
)
async def test_an_origin_that_no_manifest_may_hold_is_not_published(urls, match, published, tmp_path):
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        with pytest.raises(InvalidName, match=match) as failure:
            await publish(node, published.folder, "parrot", ignore, origin_urls=urls)
        assert not node.store.manifests.all()

    assert "secret" not in str(failure.value)


# ── what it is used for, and not ────────────────────────────────────────────


async def test_damage_is_repaired_from_an_origin(files, copy_of, published, tmp_path):
    async with open_home(copy_of("home")) as node:
        held = sorted((tmp_path / "home" / "store" / "objects").glob("??/*"), key=lambda path: path.stat().st_size)[-1]
        flip_byte(held, 1_500_000)
        with WebServer(files) as server:
            result = await run(node, Verify(published.name, repair=True, origins=(base(server),)), ignore)

    assert result.good
    assert len(result.damaged) == 1
    assert 0 < result.received <= 2 * 2**20
    assert len(server.asked) == 1


async def test_a_damaged_folder_is_repaired_from_an_origin(files, copy_of, published, tmp_path):
    async with open_home(copy_of("home")) as node:
        await fetch(node, published.name, ignore, to=tmp_path / "out", link="hard")
        flip_byte(tmp_path / "out" / "model-00001-of-00002.safetensors", 1_500_000)
        with WebServer(files) as server:
            result = await verify(node, str(tmp_path / "out"), ignore, repair=True, origins=given(base(server)))

    assert result.good
    assert tree(tmp_path / "out") == published.files


async def test_one_file_of_a_repository_comes_from_an_origin(files, bare_copy_of, published):
    with WebServer(files) as server:
        async with open_home(bare_copy_of("home")) as node:
            found = await run(node, FetchFile(published.name, "README.md", (base(server),)), ignore)

    assert tree(published.folder)["README.md"] in tree(Path(found.location).parent).values()
    assert found.size == len(files["parrot/README.md"])
    assert [asked.path for asked in server.asked] == ["parrot/README.md"]


async def test_a_dry_run_asks_origins_for_nothing_but_sizes(files, listless_copy_of, bare_copy_of, published, tmp_path):
    with WebServer(files) as server:
        for home in (listless_copy_of("first"), bare_copy_of("second")):
            async with open_home(home) as node:
                result = await fetch(node, published.name, ignore, origins=given(base(server)), dry_run=True)
                assert result.size == published.size
                assert result.received == 0
        assert not server.asked
        async with open_home(tmp_path / "third") as node:
            url = f"{server.url}/parrot/README.md"
            result = await fetch(node, "b3:" + "12" * 32, ignore, origins=given(url), dry_run=True)

    assert result.size == len(files["parrot/README.md"])


async def test_without_a_network_no_origin_is_asked(files, bare_copy_of, published, tmp_path):
    with WebServer(files) as server:
        async with open_home(bare_copy_of("home"), offline=True) as node:
            with pytest.raises(Offline):
                await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))
            with pytest.raises(Offline):
                await fetch(node, "b3:" + "12" * 32, ignore, to=tmp_path / "out", origins=given(f"{server.url}/x"))

    assert server.connections == 0


@pytest.mark.parametrize(
    ("urls", "match"),
    [
        (["models.example"], "form"),
        (["https://models.example/?f=1"], "where does the path go"),
        ([f"https://{number}.example" for number in range(GIVEN_MAX + 1)], f"the limit is {GIVEN_MAX}"),
    ],
)
async def test_a_url_that_is_none_is_refused_before_anything_is_fetched(urls, match, copy_of, published, tmp_path):
    async with open_home(copy_of("home")) as node:
        with pytest.raises(InvalidName, match=match):
            await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(*urls))

    assert not (tmp_path / "out").exists()


async def test_the_template_of_a_repository_is_none_for_a_single_file(tmp_path):
    async with open_home(tmp_path / "home") as node:
        with pytest.raises(InvalidName, match="has no path to put for"):
            await fetch(node, "b3:" + "12" * 32, ignore, origins=given("https://models.example/{path}"))


async def test_secrets_in_a_url_are_shown_nowhere(files, bare_copy_of, published, tmp_path, impatient, caplog):
    caplog.set_level(0)
    told: list[object] = []
    expected = "Basic " + base64.b64encode(b"me:hunter2").decode()
    with WebServer(files, only(lambda asked: "00002" in asked.path, answering(403))) as server:
        url = f"http://me:hunter2@{host(server)}/parrot/{{path}}?token=swordfish"
        async with open_home(bare_copy_of("home")) as node:
            with pytest.raises(NotFound) as failure:
                await run(node, Fetch(published.name, to=str(tmp_path / "out"), origins=(url,)), told.append)
            result = await run(
                node, Fetch(published.name, to=str(tmp_path / "out"), exclude=("*00002*",), origins=(url,)), told.append
            )

    assert {asked.headers.get("authorization") for asked in server.asked} == {expected}
    # The HTTP library's own words at its most talkative are not ours to choose; p2phub never turns them on.
    own = [record.getMessage() for record in caplog.records if not record.name.startswith("httpcore")]
    for text in (str(failure.value), str(failure.value.hint), repr(told), repr(result), repr(own)):
        assert "hunter2" not in text
        assert "swordfish" not in text
        assert "me:" not in text
