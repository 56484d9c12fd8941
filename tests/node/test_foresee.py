"""What a download would take, and whether it then does, with providers near and far."""

from __future__ import annotations

import os
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from p2phub.core.limits import LinkSettings, RangeRule
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home, open_linked, serving, silent
from p2phub.testing.processes import flip_byte, tree

pytestmark = pytest.mark.timeout(120)

FAR = "127.0.0.2"
MIB = 1024 * 1024


async def set_far(node: Node) -> None:
    """Let links to the address FAR be expensive."""
    await node.links.change(lambda _: LinkSettings(ranges=(RangeRule(f"{FAR}/32", "internet"),)))


def largest(home: Path) -> Path:
    return max((home / "store" / "objects").glob("??/*"), key=lambda path: path.stat().st_size)


async def test_what_was_foreseen_comes_and_what_is_near_comes_from_there(published, copy_of, tmp_path):
    lost = largest(copy_of("near"))
    size = lost.stat().st_size
    lost.unlink()
    async with AsyncExitStack() as stack:
        near = await stack.enter_async_context(open_home(tmp_path / "near"))
        far = await stack.enter_async_context(open_home(copy_of("far")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        await set_far(fetcher)
        # Far away the links are fast, but not so much that the near one would be too slow.
        fetcher.store.rates.note({str(near.id): 50e6, str(far.id): 100e6}, 0.0)
        fetcher.store.peers.add(await stack.enter_async_context(serving(near)))
        fetcher.store.peers.add(await stack.enter_async_context(serving(far, host=FAR)))
        foreseen = await fetch(fetcher, published.name, ignore, dry_run=True)
        untouched = not any((tmp_path / "fetcher" / "store" / "objects").glob("??/*"))
        result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert untouched
    assert {share.link: share.size for share in foreseen.links} == {"lan": published.size - size, "internet": size}
    assert {share.link: share.providers for share in foreseen.links} == {"lan": 1, "internet": 1}
    assert foreseen.expected_s == pytest.approx(max((published.size - size) / 50e6, size / 100e6), rel=0.01)
    assert tree(tmp_path / "out") == published.files
    came = {share.link: share.size for share in result.links}
    assert sum(came.values()) == published.size
    # Who answers first may be asked for something before the other is known.
    assert came["internet"] <= size + 12 * MIB


async def test_what_other_files_here_hold_is_foreseen_too(published, copy_of, tmp_path):
    tuned = tmp_path / "tuned"
    shutil.copytree(published.folder, tuned)
    flip_byte(next(tuned.glob("*.safetensors")), 5 * MIB)
    async with open_home(copy_of("publisher")) as publisher, open_home(copy_of("fetcher")) as fetcher:
        result = await publish(publisher, tuned, "tuned", ignore)
        async with serving(publisher) as address:
            fetcher.store.peers.add(address)
            foreseen = await fetch(fetcher, result.revision, ignore, dry_run=True)
            done = await fetch(fetcher, result.revision, ignore, check_out_files=False)

    assert foreseen.expected_s is None
    assert 0 < foreseen.copied == done.copied
    assert foreseen.here_before == done.here_before > 0
    assert [(share.link, share.size) for share in foreseen.links] == [("lan", done.received)]
    assert sum(share.size for share in done.links) == done.received


async def test_a_file_alone_is_foreseen_and_what_nobody_has_is_named(published, copy_of, tmp_path):
    home = copy_of("seed")
    root = largest(home).name
    size = largest(home).stat().st_size
    async with open_home(home) as seed, open_home(tmp_path / "fetcher") as fetcher, serving(seed) as address:
        fetcher.store.peers.add(address)
        one = await fetch(fetcher, f"b3:{root}", ignore, dry_run=True)
        os.unlink(largest(home))
        none = await fetch(fetcher, f"b3:{root}", ignore, dry_run=True)

    assert (one.size, one.here_before, one.unoffered) == (size, 0, 0)
    assert [(share.link, share.size) for share in one.links] == [("lan", size)]
    assert (none.links, none.unoffered, none.expected_s) == ([], size, None)


@pytest.mark.parametrize("how", ["drips", "stalls", "is mute"])
async def test_who_is_near_and_gives_next_to_nothing_keeps_nobody_from_who_is_far(
    how, published, copy_of, tmp_path, impatient, monkeypatch
):
    for module in ("connections", "site"):
        monkeypatch.setattr(f"p2phub.node.{module}.PATIENCE_S", 1.0)
    async with AsyncExitStack() as stack:
        near = await stack.enter_async_context(open_home(copy_of("near")))
        far = await stack.enter_async_context(open_home(copy_of("far")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        await set_far(fetcher)
        wrap = silent("/v1/spans") if how == "is mute" else lambda handler: handler
        link = await stack.enter_async_context(open_linked(near, wrap=wrap))
        if how == "drips":
            link.drip_at, link.drip_s = 4_000_000, 1.0
        elif how == "stalls":
            link.stall_at = 4_000_000
        fetcher.store.peers.add(link.address(near))
        fetcher.store.peers.add(await stack.enter_async_context(serving(far, host=FAR)))
        with trio.fail_after(40):
            result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files
    assert {share.link: share.size for share in result.links}["internet"] >= published.size - 6_000_000
