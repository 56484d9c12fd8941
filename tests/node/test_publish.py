"""Versions never change; branches move, and what is refused changes nothing."""

from __future__ import annotations

import os

import pytest
from publishkit import folder_with, fresh, state

from p2phub.core.errors import Conflict, HubError, InvalidName, NotFound
from p2phub.core.ids import ManifestId
from p2phub.node import inspect
from p2phub.node.branches import move_branch, yank
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home

pytestmark = pytest.mark.timeout(120)


async def test_a_version_cannot_be_published_again_with_other_content(tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"one"})
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        first = await publish(node, folder, "small@1.0.0", ignore)
        before = await state(node)
        (folder / "README.md").write_bytes(b"two")
        with pytest.raises(Conflict) as failure:
            await publish(node, folder, "small@1.0.0", ignore)
        after = await state(node)
        await fetch(node, "small@1.0.0", ignore, to=tmp_path / "out")

    assert "small@1.0.0" in str(failure.value)
    assert first.revision in str(failure.value)
    assert "new one" in failure.value.hint
    assert after == before
    assert (tmp_path / "out" / "README.md").read_bytes() == b"one"


async def test_publishing_the_same_again_adds_nothing(tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"one", "weights.bin": os.urandom(3_000_000)})
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        first = await publish(node, folder, "small@1.0.0", ignore)
        before = await state(node)
        objects = {path: path.stat().st_ino for path in (tmp_path / "home/store/objects").glob("??/*")}
        again = await publish(node, folder, "small@1.0.0", ignore)
        after = await state(node)
        later = {path: path.stat().st_ino for path in (tmp_path / "home/store/objects").glob("??/*")}

    assert first.new
    assert not again.new
    assert again.log_index is None
    assert again.written == 0
    assert again.revision == first.revision
    assert after == before
    assert later == objects


async def test_a_new_version_of_the_same_files_is_the_same_revision(tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"one"})
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        first = await publish(node, folder, "small@1.0.0", ignore)
        second = await publish(node, folder, "small@1.0.1", ignore)

    assert second.new
    assert second.revision == first.revision


async def test_a_new_revision_names_the_one_before_as_its_parent(tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"one"})
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        first = await publish(node, folder, "small", ignore)
        (folder / "README.md").write_bytes(b"two")
        second = await publish(node, folder, "small", ignore, message="reworded")
        manifest = node.store.manifests.get(ManifestId.parse(second.revision))
        log = await inspect.log_lines(node, "small")

    assert [str(parent) for parent in manifest.parents] == [first.revision]
    assert manifest.depth == 2
    assert [(line.revision, line.message) for line in log] == [(second.revision, "reworded"), (first.revision, "")]


async def test_a_branch_moves_back_and_forth_and_can_be_deleted(tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"one"})
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        first = await publish(node, folder, "small@1.0.0", ignore)
        (folder / "README.md").write_bytes(b"two")
        second = await publish(node, folder, "small@2.0.0", ignore)
        back = await move_branch(node, "small", "main", "1.0.0", "rollback", ignore)
        after_back = (await inspect.info(node, "small", ignore, refresh=False)).revision
        (folder / "README.md").write_bytes(b"three")
        third = await publish(node, folder, "small", ignore)
        await move_branch(node, "small", "staging", second.revision[3:20], "", ignore)
        branches = (await inspect.info(node, "small", ignore, refresh=False)).branches
        await move_branch(node, "small", "staging", None, "", ignore)
        with pytest.raises(NotFound):
            await inspect.info(node, "small@staging", ignore, refresh=False)
        with pytest.raises(NotFound):
            await move_branch(node, "small", "staging", None, "", ignore)
        with pytest.raises(NotFound):
            await move_branch(node, "small", "main", "9.9.9", "", ignore)
        with pytest.raises(NotFound):
            await move_branch(node, "unknown", "main", "1.0.0", "", ignore)
        with pytest.raises(InvalidName):
            await move_branch(node, "small", "1.0", "1.0.0", "", ignore)
        parents = node.store.manifests.get(ManifestId.parse(third.revision)).parents

    assert back.revision == after_back == first.revision
    assert branches == {"main": third.revision, "staging": second.revision}
    assert [str(parent) for parent in parents] == [first.revision]


async def test_only_a_version_that_exists_can_be_yanked(tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"one"})
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        await publish(node, folder, "small@1.0.0", ignore)
        await yank(node, "small@1.0.0", "why", ignore)
        info = await inspect.info(node, "small@1.0.0", ignore, refresh=False)
        with pytest.raises(NotFound):
            await yank(node, "small@2.0.0", "", ignore)
        with pytest.raises(InvalidName):
            await yank(node, "small", "", ignore)

    assert info.yanked == ["1.0.0"]


async def test_a_name_is_a_model_or_a_dataset_for_ever(tmp_path):
    folder = folder_with(tmp_path / "folder", {"data.csv": b"a,b\n1,2\n"})
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        await publish(node, folder, "numbers@1.0.0", ignore, kind="dataset")
        info = await inspect.info(node, "numbers", ignore, refresh=False)
        (folder / "data.csv").write_bytes(b"a,b\n3,4\n")
        with pytest.raises(Conflict, match="dataset"):
            await publish(node, folder, "numbers", ignore, kind="model")

    assert info.kind == "dataset"
    assert info.files[0].role == "data"


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "b3:" + "0" * 64, "x@", "x@main", "../x", "x@1", "someone.org/x", "x y", "--x", "x.git"]
)
async def test_a_bad_name_is_refused_before_anything_is_read(name, tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"one"})
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        with pytest.raises(InvalidName):
            await publish(node, folder, name, ignore)
        assert not list((tmp_path / "home/store/objects").iterdir())


async def test_without_an_identity_the_way_to_one_is_shown(tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"one"})
    async with open_home(tmp_path / "home") as node:
        with pytest.raises(NotFound) as failure:
            await publish(node, folder, "small", ignore)

    assert "p2phub id new" in failure.value.hint


async def test_an_identity_that_a_crash_left_half_made_is_completed(tmp_path):
    async with open_home(tmp_path / "home") as node:
        made = create_identity(node)
        # The key was written, the process was killed.
        node.settings.layout.own_identity.unlink()
        again = create_identity(node)
        with pytest.raises(HubError):
            create_identity(node)

    assert again.current.publish.keys == made.current.publish.keys
