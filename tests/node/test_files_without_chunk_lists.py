"""Files of which nobody has a chunk list come whole from HTTP origins, and are verified before anybody sees them."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
import trio
from originkit import base, by_origin, given, host, leftovers

from p2phub.core.errors import NotFound
from p2phub.core.ids import ManifestId
from p2phub.node import wholefiles
from p2phub.node.events import Progress, ignore
from p2phub.node.fetch import fetch
from p2phub.node.verify import verify
from p2phub.testing.hostile import open_home, wait_for
from p2phub.testing.processes import tree
from p2phub.testing.webserver import (
    Reply,
    WebServer,
    answering,
    compressing,
    cutting,
    lying_from,
    stalling,
    times,
    without_ranges,
)

# No test here may hang: whatever the origins do, a download ends.
pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_proxy")]


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
