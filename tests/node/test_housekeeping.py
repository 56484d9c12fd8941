"""What is pinned or published stays; what nothing needs goes; an index that was lost comes back."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from p2phub.core.errors import Conflict, HubError, NotFound
from p2phub.core.search import Query
from p2phub.node import inspect
from p2phub.node.dispatch import run
from p2phub.node.events import Notice, ignore
from p2phub.node.fetch import fetch
from p2phub.node.housekeeping import collect_garbage, disk_use, list_repositories, pin, remove, unpin
from p2phub.node.identity import create_identity
from p2phub.node.operations.storage import StoreRebuild
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.processes import flip_byte, tree

pytestmark = pytest.mark.timeout(120)


def objects(home: Path) -> set[str]:
    return {path.name for path in (home / "store" / "objects").glob("??/*")}


def age(home: Path) -> None:
    """Let everything in the store be two days old."""
    then = time.time() - 2 * 24 * 3600
    for path in (home / "store").rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (then, then))


async def rebuild(node) -> object:
    return await run(node, StoreRebuild(), ignore)


async def fetched(copy_of, tmp_path, published):
    """Fetch the model into a home of its own."""
    async with open_home(copy_of("seed")) as seed, open_home(tmp_path / "home") as node, serving(seed) as address:
        node.store.peers.add(address)
        await fetch(node, published.name, ignore)


async def test_gc_keeps_what_was_fetched_published_or_pinned(published, copy_of, tmp_path):
    await fetched(copy_of, tmp_path, published)
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "file").write_bytes(os.urandom(3_000_000))
        await publish(node, tmp_path / "own", "own", ignore)
        before = objects(tmp_path / "home")
        age(tmp_path / "home")
        freed = await collect_garbage(node, unpinned=False)
        await pin(node, published.name, ignore)
        everything = await collect_garbage(node, unpinned=True)
        after = objects(tmp_path / "home")

    assert freed.items == everything.items == 0
    assert after == before


async def test_gc_of_the_unpinned_removes_what_was_only_fetched(published, copy_of, tmp_path):
    await fetched(copy_of, tmp_path, published)
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "file").write_bytes(os.urandom(3_000_000))
        own = await publish(node, tmp_path / "own", "own", ignore)
        freed = await collect_garbage(node, unpinned=True)
        left = await list_repositories(node)
        await fetch(node, "own", ignore, to=tmp_path / "out")
        # The catalogue still knows the other one.
        found = {model.model for model in await inspect.search(node, Query())}

    assert freed.items >= len(published.files)
    assert freed.bytes >= published.size
    assert [repository.revision for repository in left] == [own.revision]
    assert len(objects(tmp_path / "home")) == 1
    assert tree(tmp_path / "out") == tree(tmp_path / "own")
    assert found == {"own", "parrot"}


async def test_gc_leaves_alone_what_another_process_may_be_about_to_publish(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(os.urandom(3_000_000))
    async with open_home(tmp_path / "home") as node:
        # As in the middle of a publish: the content is in, the manifest is not yet.
        result = node.store.intake.ingest(tmp_path / "folder" / "file", "fixed-1m")
        notes: list[str] = []
        freed = await collect_garbage(
            node, unpinned=True, tell=lambda event: notes.append(event.text) if isinstance(event, Notice) else None
        )
        kept = objects(tmp_path / "home")
        age(tmp_path / "home")
        later = await collect_garbage(node, unpinned=False)

    assert freed.items == 0
    assert kept == {result.root.hex()}
    assert any("less than a day" in note for note in notes)
    assert later.items == 1
    assert objects(tmp_path / "home") == set()


async def test_content_that_two_models_share_stays_until_both_are_gone(tmp_path):
    shared = os.urandom(2_000_000)
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "shared").write_bytes(shared)
            (tmp_path / name / "own").write_bytes(os.urandom(1_000_000))
            await publish(node, tmp_path / name, name, ignore)
            await unpin(node, name, ignore)
        await remove(node, "first", ignore)
        await fetch(node, "second", ignore, to=tmp_path / "out")
        await remove(node, "second", ignore)

    assert tree(tmp_path / "out") == tree(tmp_path / "second")
    assert objects(tmp_path / "home") == set()


async def test_what_is_pinned_cannot_be_removed(published, copy_of, tmp_path):
    async with open_home(copy_of("home")) as node:
        with pytest.raises(Conflict, match="pinned") as failure:
            await remove(node, published.name, ignore)
        await unpin(node, published.name, ignore)
        with pytest.raises(NotFound, match="not pinned"):
            await unpin(node, published.name, ignore)
        with pytest.raises(HubError):
            await pin(node, published.name.replace("parrot", "other"), ignore)
        await remove(node, published.name, ignore)

    assert "unpin" in failure.value.hint
    assert objects(tmp_path / "home") == set()


async def test_removing_a_model_leaves_the_users_folders_whole(published, copy_of, tmp_path):
    async with open_home(copy_of("home")) as node:
        await fetch(node, published.name, ignore)
        assert tree(tmp_path / "home" / "store" / "views")
        await fetch(node, published.name, ignore, to=tmp_path / "hard", link="hard")
        await fetch(node, published.name, ignore, to=tmp_path / "copy", link="copy")
        await unpin(node, published.name, ignore)
        await remove(node, published.name, ignore)

    assert not tree(tmp_path / "home" / "store" / "views")
    assert tree(tmp_path / "hard") == published.files
    assert tree(tmp_path / "copy") == published.files


async def test_df_adds_up(published, copy_of):
    async with open_home(copy_of("home")) as node:
        use = await disk_use(node)

    assert use.objects == len(published.files)
    assert published.size <= use.objects_bytes < published.size + 4096 * (len(published.files) + 1)
    assert use.partials == use.in_place == 0
    assert use.free_bytes > 0


async def test_after_a_rebuild_of_a_lost_index_everything_is_as_before(published, copy_of, tmp_path):
    home = copy_of("home")

    async def look(node) -> object:
        search = await inspect.search(node, Query())
        log = await inspect.log_lines(node, published.name)
        files = (await inspect.info(node, published.name, ignore, refresh=False)).files
        return search, log, files, [(r.revision, r.here, r.pinned) for r in await list_repositories(node)]

    async with open_home(home) as node:
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / "README.md").write_text("# More\n")
        await publish(node, tmp_path / "more", "more@1.0.0", ignore)
        before = await look(node)
    for path in home.glob("index.sqlite*"):
        path.unlink()
    async with open_home(home) as node:
        found = await rebuild(node)
        after = await look(node)
        # What was published is pinned again, or a gc would take it.
        await collect_garbage(node, unpinned=True)
        await fetch(node, published.name, ignore, to=tmp_path / "out")
        # The log goes on where it ended.
        (tmp_path / "more" / "README.md").write_text("# Still more\n")
        result = await publish(node, tmp_path / "more", "more@1.1.0", ignore)

    assert (found.manifests, found.records, found.damaged) == (2, 2, 0)
    assert after == before
    assert tree(tmp_path / "out") == published.files
    assert result.log_index == 2


async def test_without_a_rebuild_a_lost_index_costs_no_history(published, copy_of, tmp_path):
    # Signing record 0 a second time would be a fork, which no peer forgives.
    home = copy_of("home")
    for path in home.glob("index.sqlite*"):
        path.unlink()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "README.md").write_text("# More\n")
    async with open_home(home) as node:
        result = await publish(node, tmp_path / "more", "more@1.0.0", ignore)
        log = await inspect.log_lines(node, str(published.name.split("/")[0]))

    assert result.log_index == 1
    assert sorted(line.model for line in log) == ["more", "parrot"]


async def test_a_rebuild_counts_damaged_objects_and_verify_can_mend_them(published, copy_of):
    home = copy_of("home")
    path = max((home / "store" / "objects").glob("??/*"), key=lambda path: path.stat().st_size)
    flip_byte(path, 3_000_000)
    for index in home.glob("index.sqlite*"):
        index.unlink()
    async with open_home(home) as node:
        found = await rebuild(node)

    assert found.damaged == 1
    assert found.objects == len(published.files) - 1


async def test_two_homes_can_share_a_store_of_what_was_fetched(published, copy_of, tmp_path):
    # The second home has an index of its own and finds what the first one brought.
    await fetched(copy_of, tmp_path, published)
    home = tmp_path / "other"
    home.mkdir()
    shutil.copytree(tmp_path / "home" / "store", home / "store")
    async with open_home(home, offline=True) as node:
        await rebuild(node)
        result = await fetch(node, published.revision, ignore, to=tmp_path / "out")

    assert result.received == 0
    assert tree(tmp_path / "out") == published.files
