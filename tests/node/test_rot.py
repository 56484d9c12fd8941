"""Bytes that rotted on a disk: never delivered as good, found by verify, mended chunk by chunk."""

from __future__ import annotations

import os
import shutil
from contextlib import AsyncExitStack

import pytest

from p2phub.core.errors import NotFound
from p2phub.core.filetree import CHUNK_SIZE_MAX
from p2phub.core.ids import ManifestId
from p2phub.core.manifest import FileEntry
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.node import Node
from p2phub.node.verify import verify
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.processes import flip_byte, tree

pytestmark = pytest.mark.timeout(120)

OFFSET = 5_000_000  # of the byte that rots: somewhere in the middle of a file


def weights_of(node: Node, revision: str) -> FileEntry:
    """Return the largest file of the model."""
    manifest = node.store.manifests.get(ManifestId.parse(revision))
    return max(manifest.files, key=lambda file: file.size)


def rot(node: Node, revision: str, *, keep_time: bool) -> FileEntry:
    """Change one byte of the largest file in the store of `node`."""
    file = weights_of(node, revision)
    flip_byte(node.settings.layout.object(file.root), OFFSET, keep_time=keep_time)
    return file


# A disk that fails changes bytes and no time; a program that writes where it should not changes both.
silently = pytest.mark.parametrize("keep_time", [True, False], ids=["time kept", "time moved"])


@silently
async def test_verify_names_file_and_bytes_again_and_again(keep_time, published, copy_of):
    async with open_home(copy_of("home")) as node:
        file = rot(node, published.revision, keep_time=keep_time)
        results = [await verify(node, published.name, ignore) for _ in range(3)]

    for result in results:
        assert not result.good
        (damage,) = result.damaged
        assert damage.path == file.path
        (span,) = damage.spans
        assert span.begin <= OFFSET < span.end
        assert span.end - span.begin <= CHUNK_SIZE_MAX
        assert not damage.missing
        assert not damage.repaired


@silently
async def test_verify_of_a_single_file_names_the_bytes_again_and_again(keep_time, published, copy_of):
    async with open_home(copy_of("home")) as node:
        file = rot(node, published.revision, keep_time=keep_time)
        results = [await verify(node, str(file.root), ignore) for _ in range(3)]

    for result in results:
        (damage,) = result.damaged
        (span,) = damage.spans
        assert (result.size, span.begin <= OFFSET < span.end) == (file.size, True)


@silently
async def test_repair_fetches_the_damaged_chunk_alone(keep_time, published, copy_of, tmp_path):
    async with open_home(copy_of("home")) as node, open_home(copy_of("good")) as good:
        async with serving(good) as address:
            node.store.peers.add(address)
            file = rot(node, published.revision, keep_time=keep_time)
            mended = await verify(node, published.name, ignore, repair=True)
            after = await verify(node, published.name, ignore)
        data = node.settings.layout.object(file.root).read_bytes()

    assert mended.good
    assert [damage.path for damage in mended.damaged] == [file.path]
    assert mended.damaged[0].repaired
    assert 0 < mended.received <= CHUNK_SIZE_MAX
    assert good.uploaded <= CHUNK_SIZE_MAX
    assert after.damaged == []
    assert data == (published.folder / file.path).read_bytes()


async def test_repair_goes_on_where_an_earlier_verify_found_the_damage(published, copy_of):
    async with open_home(copy_of("home")) as node, open_home(copy_of("good")) as good, serving(good) as address:
        rot(node, published.revision, keep_time=True)
        await verify(node, published.name, ignore)
        node.store.peers.add(address)
        mended = await verify(node, published.name, ignore, repair=True)

    assert mended.good
    assert 0 < mended.received <= CHUNK_SIZE_MAX


async def test_repair_without_a_peer_that_can_give_keeps_the_good_chunks(published, copy_of):
    async with open_home(copy_of("home")) as node:
        file = rot(node, published.revision, keep_time=True)
        with pytest.raises(NotFound):
            await verify(node, published.name, ignore, repair=True)
        chunks = node.store.chunk_lists.find(file.root)
        have = node.store.partials.recover(file.root, chunks)

    assert have.count(0) == 1


async def test_a_file_that_was_cut_short_is_damaged_from_there_on(published, copy_of):
    async with open_home(copy_of("home")) as node, open_home(copy_of("good")) as good, serving(good) as address:
        file = weights_of(node, published.revision)
        path = node.settings.layout.object(file.root)
        path.chmod(0o644)
        os.truncate(path, OFFSET)
        result = await verify(node, published.name, ignore)
        node.store.peers.add(address)
        mended = await verify(node, published.name, ignore, repair=True)
        data = path.read_bytes()

    (span,) = result.damaged[0].spans
    assert OFFSET - CHUNK_SIZE_MAX < span.begin <= OFFSET
    assert span.end == file.size
    assert mended.good
    assert mended.received <= file.size - OFFSET + CHUNK_SIZE_MAX
    assert data == (published.folder / file.path).read_bytes()


async def test_a_deleted_object_is_missing_and_comes_back(published, copy_of):
    async with open_home(copy_of("home")) as node, open_home(copy_of("good")) as good, serving(good) as address:
        file = weights_of(node, published.revision)
        node.settings.layout.object(file.root).unlink()
        result = await verify(node, published.name, ignore)
        node.store.peers.add(address)
        mended = await verify(node, published.name, ignore, repair=True)

    assert [(damage.path, damage.missing) for damage in result.damaged] == [(file.path, True)]
    assert mended.good
    assert mended.received == file.size


@silently
async def test_what_rotted_at_a_provider_is_never_delivered(keep_time, published, copy_of, tmp_path, impatient):
    async with open_home(copy_of("rotten")) as rotten, open_home(tmp_path / "fetcher") as fetcher:
        rot(rotten, published.revision, keep_time=keep_time)
        async with serving(rotten) as address:
            fetcher.store.peers.add(address)
            with pytest.raises(NotFound) as failure:
                await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert str(rotten.id)[:12] in str(failure.value.hint)
    assert not (tmp_path / "out").exists()


@silently
async def test_with_a_good_provider_beside_a_rotten_one_the_fetch_ends_right(
    keep_time, published, copy_of, tmp_path, impatient
):
    async with AsyncExitStack() as stack:
        rotten = await stack.enter_async_context(open_home(copy_of("rotten")))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        rot(rotten, published.revision, keep_time=keep_time)
        for node in (rotten, good):
            fetcher.store.peers.add(await stack.enter_async_context(serving(node)))
        await fetch(fetcher, published.name, ignore, to=tmp_path / "out")

    assert tree(tmp_path / "out") == published.files


@silently
async def test_what_rotted_here_is_not_placed_in_a_folder(keep_time, published, copy_of, tmp_path):
    async with open_home(copy_of("home")) as node:
        file = rot(node, published.revision, keep_time=keep_time)
        try:
            await fetch(node, published.name, ignore, to=tmp_path / "out", link="copy")
        except NotFound:
            delivered = None
        else:
            delivered = (tmp_path / "out" / file.path).read_bytes()

    if keep_time:
        # Only hashing finds it: `verify` of the folder does.
        async with open_home(tmp_path / "home") as node:
            result = await verify(node, str(tmp_path / "out"), ignore)
        assert [damage.path for damage in result.damaged] == [file.path]
    else:
        assert delivered is None


@pytest.mark.parametrize("link", ["hard", "copy", "sym"])
@silently
async def test_verify_of_a_folder_names_the_bytes_and_mends_that_chunk(link, keep_time, published, copy_of, tmp_path):
    out = tmp_path / "out"
    async with open_home(copy_of("home")) as node, open_home(copy_of("good")) as good, serving(good) as address:
        await fetch(node, published.name, ignore, to=out, link=link)
        file = weights_of(node, published.revision)
        flip_byte((out / file.path).resolve(), OFFSET, keep_time=keep_time)
        result = await verify(node, str(out), ignore)
        node.store.peers.add(address)
        mended = await verify(node, str(out), ignore, repair=True)
        after = await verify(node, str(out), ignore)

    (damage,) = result.damaged
    assert damage.path == file.path
    assert damage.spans[0].begin <= OFFSET < damage.spans[0].end
    assert mended.good
    # The store still holds what a copy lost.
    assert mended.received <= (0 if link == "copy" else CHUNK_SIZE_MAX)
    assert after.damaged == []
    assert tree(out) == published.files


async def test_verify_of_a_folder_finds_what_was_deleted_or_changed_in_length(published, copy_of, tmp_path):
    out = tmp_path / "out"
    async with open_home(copy_of("home")) as node:
        await fetch(node, published.name, ignore, to=out, link="copy")
        (out / "README.md").unlink()
        (out / "config.json").write_bytes((out / "config.json").read_bytes() + b"\n")
        result = await verify(node, str(out), ignore)
        mended = await verify(node, str(out), ignore, repair=True)

    found = {damage.path: damage for damage in result.damaged}
    assert set(found) == {"README.md", "config.json"}
    assert found["README.md"].missing
    assert not found["config.json"].missing
    assert mended.good
    assert tree(out) == published.files


async def test_verify_of_a_folder_that_p2phub_did_not_fill_says_so(published, copy_of, tmp_path):
    shutil.copytree(published.folder, tmp_path / "foreign")
    async with open_home(copy_of("home")) as node:
        with pytest.raises(NotFound, match="no files were placed"):
            await verify(node, str(tmp_path / "foreign"), ignore)


async def test_files_registered_in_place_are_found_changed_and_not_served(tmp_path, published, impatient):
    from p2phub.node.identity import create_identity
    from p2phub.node.publish import publish

    folder = tmp_path / "in-place"
    shutil.copytree(published.folder, folder)
    async with open_home(tmp_path / "home") as node, open_home(tmp_path / "fetcher") as fetcher:
        create_identity(node)
        result = await publish(node, folder, "parrot", ignore, in_place=True)
        file = weights_of(node, result.revision)
        async with serving(node) as address:
            fetcher.store.peers.add(address)
            await fetch(fetcher, result.revision, ignore, to=tmp_path / "before")
            for path in (tmp_path / "fetcher" / "store" / "objects").glob("??/*"):
                path.unlink()
            flip_byte(folder / file.path, OFFSET)
            with pytest.raises(NotFound):
                await fetch(fetcher, result.revision, ignore, to=tmp_path / "after")
        found = await verify(node, result.revision, ignore)

    assert result.written == 0
    assert tree(tmp_path / "before") == published.files
    assert not (tmp_path / "after").exists()
    assert [damage.path for damage in found.damaged] == [file.path]
