"""A node whose store lies on a file system that can share extents: what is alike lies there once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.publish import publish
from p2phub.store.disk import SPACE_RESERVE, free_bytes, sync_file_system
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.processes import flip_byte, tree
from p2phub.testing.reflinks import shared_bytes

pytestmark = pytest.mark.timeout(120)

MIB = 1024 * 1024


@pytest.fixture
def folder(reflink_empty: Path) -> Path:
    """Return an empty folder that can share extents."""
    return reflink_empty


def objects(node) -> list[Path]:
    return [path for path in (node.settings.layout.store / "objects").rglob("*") if path.is_file()]


def settled(folder: Path) -> int:
    """Return how many bytes are free when all that was written has its place."""
    sync_file_system(folder)
    return free_bytes(folder)


@pytest.mark.parametrize("how", ["objects", "in place"])
async def test_a_fine_tune_shares_with_its_base_on_disk_what_did_not_change(how, published, copy_of, tmp_path, folder):
    tuned = tmp_path / "tuned"
    shutil.copytree(published.folder, tuned)
    shard = sorted(tuned.glob("*.safetensors"))[1]
    flip_byte(shard, shard.stat().st_size // 2)
    home = copy_of("publisher")
    shutil.copy(published.home / "keys" / "node.key", home / "keys")
    async with open_home(home) as publisher, open_home(folder / "home") as node:
        await publish(publisher, tuned, "tuned", ignore)
        async with serving(publisher) as address:
            node.store.peers.add(address)
            if how == "in place":
                shutil.copytree(published.folder, folder / "base")
                for path in (folder / "base").glob("*.safetensors"):
                    node.store.intake.ingest(path, "tensor-1m", in_place=True)
            else:
                await fetch(node, published.name, ignore, check_out_files=False)
            before = settled(folder)
            result = await fetch(node, published.name.replace("parrot", "tuned"), ignore, check_out_files=False)
            used = before - settled(folder)
        root = publisher.store.intake.ingest(shard, "tensor-1m").root
        held = node.store.blobs.find(root)
        assert held is not None
        good = not node.store.blobs.bad_chunks(held)

    assert good
    assert result.received <= 2 * MIB
    assert result.copied >= shard.stat().st_size - result.received
    # All but the blocks at both ends of what changed, and the last.
    assert result.copied - 4 * 65536 <= result.shared <= result.copied
    assert shared_bytes(held.path) >= result.shared
    # The index grows by some pages, too.
    assert used <= result.received + 2 * MIB


async def test_what_is_checked_out_lies_on_disk_once(published, copy_of, folder):
    shutil.copytree(published.home, folder / "home")
    out = folder / "out"
    async with open_home(folder / "home") as node:
        before = settled(folder)
        first = await fetch(node, published.name, ignore, to=out)
        used = before - settled(folder)
        again = await fetch(node, published.name, ignore, to=out)
        # What a user does with a clone stays his own affair.
        shard = next(out.glob("*.safetensors"))
        flip_byte(shard, 0)
        verified = [held for held in map(node.store.blobs.find, node.store.clearing.roots()) if held]
        bad = [held for held in verified if node.store.blobs.bad_chunks(held)]
        forced = await fetch(node, published.name, ignore, to=out, force=True)

    assert first.linked == "reflink"
    assert used <= 2 * MIB
    assert again.linked == "kept"
    assert verified
    assert not bad
    assert forced.linked == "reflink"
    assert tree(out) == published.files
    assert sum(shared_bytes(path) for path in out.iterdir()) >= 0.99 * published.size


@pytest.mark.parametrize("link", ["reflink", "hard", "sym", "copy"])
async def test_every_way_to_place_files_gives_the_same_bytes(link, published, folder):
    shutil.copytree(published.home, folder / "home")
    async with open_home(folder / "home") as node:
        result = await fetch(node, published.name, ignore, to=folder / "out", link=link)

    assert result.linked == link
    assert tree(folder / "out") == published.files


async def test_a_folder_of_another_file_system_gets_symbolic_links(published, folder, tmp_path):
    shutil.copytree(published.home, folder / "home")
    async with open_home(folder / "home") as node:
        result = await fetch(node, published.name, ignore, to=tmp_path / "out")

    # Not hard links, which cannot cross either.
    assert result.linked == "sym"
    assert tree(tmp_path / "out") == published.files


async def test_a_publisher_s_folder_lies_on_disk_once(published, folder):
    shutil.copytree(published.home, folder / "home")
    shutil.copytree(published.folder, folder / "mine")
    flip_byte(next((folder / "mine").glob("*.safetensors")), 5 * MIB)
    async with open_home(folder / "home") as node:
        result = await publish(node, folder / "mine", "mine", ignore)

    assert result.written == 0
    assert shared_bytes(next((folder / "mine").glob("*.safetensors"))) > 0


async def test_a_fine_tune_comes_to_a_disk_that_has_no_room_for_a_copy(published, copy_of, tmp_path, folder):
    tuned = tmp_path / "tuned"
    shutil.copytree(published.folder, tuned)
    flip_byte(next(tuned.glob("*.safetensors")), 5 * MIB)
    home = copy_of("publisher")
    shutil.copytree(published.home, folder / "home")
    # As if all of it were another repository.
    for path in tuned.glob("*.json"):
        path.unlink()
    async with open_home(home) as publisher, open_home(folder / "home") as node:
        result = await publish(publisher, tuned, "tuned", ignore)
        room = SPACE_RESERVE + 5 * MIB
        filler = os.open(folder / "filler", os.O_CREAT | os.O_WRONLY)
        os.posix_fallocate(filler, 0, settled(folder) - room)
        os.close(filler)
        try:
            async with serving(publisher) as address:
                node.store.peers.add(address)
                fetched = await fetch(node, result.revision, ignore, check_out_files=False)
        finally:
            (folder / "filler").unlink()

    assert room < fetched.size + SPACE_RESERVE
    assert fetched.shared > 5 * MIB
