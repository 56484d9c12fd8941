"""HTTP origins that give only whole files, on real sockets."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from originkit import base, by_origin, failing, given, host

from p2phub.node import swarm
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.hostile import slowly as slow_peer
from p2phub.testing.processes import tree
from p2phub.testing.webserver import WebServer, after, answering, cutting, lying_from, only, slowly, without_ranges

# No test here may hang: whatever the origins do, a download ends.
pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_proxy")]


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
