"""What a reference means, which files come, and how they are placed in a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from p2phub.core.errors import Conflict, HubError, InvalidName, NotFound, Offline, StoreError
from p2phub.core.ids import ManifestId
from p2phub.node.branches import move_branch, yank
from p2phub.node.events import Notice, ignore
from p2phub.node.fetch import fetch, select
from p2phub.node.housekeeping import remove
from p2phub.node.identity import create_identity
from p2phub.node.publish import publish
from p2phub.node.resolve import resolve
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.processes import tree
from p2phub.testing.together import write_files

pytestmark = pytest.mark.timeout(120)


def read(path: str) -> bytes:
    return Path(path).read_bytes()


async def publish_twice(node, folder: Path) -> tuple[str, str, str]:
    """Publish two revisions of `small`, 1.0.0 and 2.0.0; returns the name and both revisions."""
    create_identity(node)
    first = await publish(node, write_files(folder, README__md="one", kept="same", gone="old"), "small@1.0.0", ignore)
    second = await publish(node, write_files(folder, README__md="two", kept="same", new="new"), "small@2.0.0", ignore)
    return f"{first.namespace}/small", first.revision, second.revision


# ── references ──────────────────────────────────────────────────────────────


async def test_every_way_to_name_a_revision_means_it(tmp_path):
    async with open_home(tmp_path / "home") as node:
        name, first, second = await publish_twice(node, tmp_path / "folder")
        await move_branch(node, "small", "production", "1.0.0", "", ignore)
        texts = {
            name: second, f"{name}@main": second, f"{name}:main": second, "small": second,
            f"{name}@2.0.0": second, f"{name}@1.0.0": first, "small:1.0.0": first, f"{name}@production": first,
            first: first, f"{name}@{first[3:15]}": first, f"{name}@{second[3:]}": second,
        }  # fmt: skip
        found = {text: str((await resolve(node, text, ignore, refresh=False)).manifest) for text in texts}

    assert found == texts


@pytest.mark.parametrize(
    "text",
    ["", "a/b/c", "b3:12", "b3:" + "G" * 64, "/x", "x@", "../x", "x@-", "p2phub://a@b:1", "UPPER/x", "x" * 200, "a b"],
)
async def test_what_is_no_name_is_refused_as_one(text, tmp_path):
    async with open_home(tmp_path / "home") as node:
        with pytest.raises(InvalidName):
            await fetch(node, text, ignore)


async def test_an_unknown_revision_names_those_that_exist(tmp_path):
    async with open_home(tmp_path / "home") as node:
        name, _, _ = await publish_twice(node, tmp_path / "folder")
        with pytest.raises(NotFound) as failure:
            await fetch(node, f"{name}@3.0.0", ignore)

    assert "3.0.0" in str(failure.value)
    for known in ("1.0.0", "2.0.0", "main"):
        assert known in failure.value.hint


async def test_a_name_without_publisher_and_without_identity_is_explained(tmp_path):
    async with open_home(tmp_path / "home") as node:
        with pytest.raises(InvalidName) as failure:
            await fetch(node, "parrot", ignore)

    assert "p2phub search" in failure.value.hint


async def test_a_yanked_version_still_comes_with_a_note(tmp_path):
    notes: list[str] = []
    async with open_home(tmp_path / "home") as node:
        name, _, _ = await publish_twice(node, tmp_path / "folder")
        await yank(node, "small@1.0.0", "wrong labels", ignore)
        await fetch(
            node,
            f"{name}@1.0.0",
            lambda event: notes.append(event.text) if isinstance(event, Notice) else None,
            to=tmp_path / "out",
        )

    assert (tmp_path / "out" / "README.md").read_text() == "one"
    assert any("yanked" in note and "wrong labels" in note for note in notes)


async def test_offline_gives_what_is_here_and_says_what_is_not(published, copy_of, tmp_path):
    async with open_home(copy_of("home"), offline=True) as node:
        await fetch(node, published.name, ignore, to=tmp_path / "out")
        await remove_all_objects(node)
        with pytest.raises(Offline):
            await fetch(node, published.name, ignore, to=tmp_path / "again")
        with pytest.raises(Offline):
            await fetch(node, published.name.replace("parrot", "other"), ignore)
        with pytest.raises(Offline):
            await fetch(node, "b3:" + "0" * 64, ignore)

    assert tree(tmp_path / "out") == published.files


async def remove_all_objects(node) -> None:
    for path in (node.settings.layout.store / "objects").glob("??/*"):
        path.unlink()


# ── which files ─────────────────────────────────────────────────────────────


async def test_patterns_choose_files(published, copy_of, tmp_path):
    async with open_home(copy_of("home")) as node:
        manifest = node.store.manifests.get(ManifestId.parse(published.revision))

        def chosen(include=(), exclude=()) -> set[str]:
            return {file.path for file in select(manifest, include, exclude)}

        everything = set(published.files)
        weights = {path for path in everything if path.endswith(".safetensors")}
        with pytest.raises(NotFound, match="no file matches"):
            chosen(include=["*.gguf"])
        result = await fetch(
            node, published.name, ignore, to=tmp_path / "out", include=["*.json"], exclude=["tokenizer*"]
        )

    assert chosen() == everything
    assert chosen(["*.safetensors"]) == weights
    assert chosen(exclude=["*.safetensors"]) == everything - weights
    assert chosen(["*.json", "README.md"], ["tokenizer*"]) == {
        "README.md", "config.json", "model.safetensors.index.json",
    }  # fmt: skip
    assert set(tree(tmp_path / "out")) == {"config.json", "model.safetensors.index.json"}
    assert result.files == 2


async def test_only_chosen_files_cross_the_network_and_the_rest_can_follow(published, copy_of, tmp_path):
    out = tmp_path / "out"
    async with open_home(copy_of("seed")) as seed, open_home(tmp_path / "fetcher") as node, serving(seed) as address:
        node.store.peers.add(address)
        some = await fetch(node, published.name, ignore, to=out, include=["*.json"])
        first = seed.uploaded
        rest = await fetch(node, published.name, ignore, to=out)

    assert some.received == some.size == first
    assert rest.here_before == some.size
    assert rest.received == published.size - some.size
    assert tree(out) == published.files


async def test_a_dry_run_writes_nothing(published, copy_of, tmp_path):
    async with open_home(copy_of("seed")) as seed, open_home(tmp_path / "fetcher") as node, serving(seed) as address:
        node.store.peers.add(address)
        result = await fetch(node, published.name, ignore, to=tmp_path / "out", dry_run=True)

    assert result.dry_run
    assert (result.files, result.size, result.here_before) == (len(published.files), published.size, 0)
    assert seed.uploaded == 0
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "fetcher" / "store" / "partial").iterdir())


# ── placing ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("link", ["auto", "hard", "sym", "copy"])
async def test_every_way_to_place_files_gives_the_same_bytes(link, published, copy_of, tmp_path):
    out = tmp_path / "out"
    async with open_home(copy_of("home")) as node:
        await fetch(node, published.name, ignore, to=out, link=link)
        again = await fetch(node, published.name, ignore, to=out, link=link)
        objects = {path.stat().st_ino for path in (tmp_path / "home/store/objects").glob("??/*")}

    assert tree(out) == published.files
    assert again.linked == "kept"
    for path in out.iterdir():
        assert path.is_symlink() == (link == "sym")
        if link == "hard":
            assert path.stat().st_ino in objects
        if link == "copy":
            assert path.stat().st_ino not in objects
            # A copy is the user's own.
            assert os.access(path, os.W_OK)


async def test_a_reflink_is_made_or_the_reason_given(published, copy_of, tmp_path):
    reason = None
    async with open_home(copy_of("home")) as node:
        try:
            await fetch(node, published.name, ignore, to=tmp_path / "out", link="reflink")
        except StoreError as exc:
            reason = str(exc)

    if reason is None:
        assert tree(tmp_path / "out") == published.files
    else:
        assert "reflink" in reason


async def test_without_a_folder_files_are_placed_in_the_store_by_name(published, copy_of):
    async with open_home(copy_of("home")) as node:
        first = await fetch(node, published.name, ignore)
        second = await fetch(node, published.revision, ignore)

    assert first.path == second.path
    assert published.name in first.path
    assert tree(Path(first.path)) == published.files


async def test_foreign_files_in_the_way_are_refused_and_nothing_is_touched(published, copy_of, tmp_path):
    out = write_files(tmp_path / "out", config__json="mine", other="also mine")
    async with open_home(copy_of("home")) as node:
        with pytest.raises(Conflict, match=r"config\.json") as failure:
            await fetch(node, published.name, ignore, to=out)
        before = tree(out)
        await fetch(node, published.name, ignore, to=out, force=True)

    assert "--force" in failure.value.hint
    assert set(before) == {"config.json", "other"}
    assert (out / "other").read_text() == "also mine"
    assert {path: digest for path, digest in tree(out).items() if path != "other"} == published.files


async def test_files_in_the_way_that_are_right_already_are_kept(published, copy_of, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(published.folder, out)
    stamps = {path.name: path.stat().st_ino for path in out.iterdir()}
    async with open_home(copy_of("home")) as node:
        result = await fetch(node, published.name, ignore, to=out)

    assert result.linked == "kept"
    assert {path.name: path.stat().st_ino for path in out.iterdir()} == stamps


async def test_a_folder_of_an_older_revision_is_brought_up_to_date(tmp_path):
    out = tmp_path / "out"
    async with open_home(tmp_path / "home") as node:
        name, _, _ = await publish_twice(node, tmp_path / "folder")
        await fetch(node, f"{name}@1.0.0", ignore, to=out)
        (out / "notes.txt").write_text("the user's own")
        old = tree(out)
        await fetch(node, f"{name}@2.0.0", ignore, to=out)
        new = {path.name: path.read_text() for path in out.iterdir()}
        await fetch(node, f"{name}@1.0.0", ignore, to=out)

    assert new == {"README.md": "two", "kept": "same", "new": "new", "notes.txt": "the user's own"}
    assert tree(out) == old


@pytest.mark.parametrize("link", ["copy", "hard"])
async def test_what_the_user_changed_is_not_overwritten_and_not_deleted(link, tmp_path):
    out = tmp_path / "out"
    async with open_home(tmp_path / "home") as node:
        name, _, _ = await publish_twice(node, tmp_path / "folder")
        await fetch(node, f"{name}@1.0.0", ignore, to=out, link=link)
        # As an editor does: a new file under the old name.
        (out / "README.md").unlink()
        (out / "README.md").write_text("edited")
        (out / "gone").unlink()
        (out / "gone").write_text("edited too")
        with pytest.raises(Conflict, match=r"README\.md"):
            await fetch(node, f"{name}@2.0.0", ignore, to=out)
        refused = {path.name: path.read_text() for path in out.iterdir()}
        await fetch(node, f"{name}@2.0.0", ignore, to=out, force=True)
        forced = {path.name: path.read_text() for path in out.iterdir()}

    assert refused == {"README.md": "edited", "kept": "same", "gone": "edited too"}
    assert forced == {"README.md": "two", "kept": "same", "new": "new", "gone": "edited too"}


async def test_a_file_that_became_a_folder_and_back_is_placed(tmp_path):
    folder, out = tmp_path / "folder", tmp_path / "out"
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        await publish(node, write_files(folder, thing="a file", README__md="x"), "shape@1.0.0", ignore)
        (folder / "thing").unlink()
        (folder / "thing").mkdir()
        (folder / "thing" / "inner").write_text("a folder")
        await publish(node, folder, "shape@2.0.0", ignore)
        await fetch(node, "shape@1.0.0", ignore, to=out)
        await fetch(node, "shape@2.0.0", ignore, to=out)
        second = tree(out)
        await fetch(node, "shape@1.0.0", ignore, to=out)

    assert set(second) == {"README.md", "thing/inner"}
    assert set(tree(out)) == {"README.md", "thing"}


@pytest.mark.parametrize("obstacle", ["folder", "link out", "file", "dangling link"])
async def test_nothing_is_written_through_or_over_what_stands_in_the_way(obstacle, tmp_path):
    folder, out, outside = tmp_path / "folder", tmp_path / "out", tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text("content")
    outside.mkdir()
    out.mkdir()
    if obstacle == "folder":
        (out / "sub" / "file").mkdir(parents=True)
    elif obstacle == "link out":
        (out / "sub").symlink_to(outside)
    elif obstacle == "file":
        (out / "sub").write_text("a file")
    else:
        (out / "sub").mkdir()
        (out / "sub" / "file").symlink_to(outside / "nothing")
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        await publish(node, folder, "deep", ignore)
        with pytest.raises(HubError) as failure:
            await fetch(node, "deep", ignore, to=out)

    assert "sub" in str(failure.value)
    assert not list(outside.iterdir())


async def test_a_folder_that_cannot_be_made_is_named(published, copy_of, tmp_path):
    (tmp_path / "file").write_text("x")
    async with open_home(copy_of("home")) as node:
        with pytest.raises(HubError, match="file"):
            await fetch(node, published.name, ignore, to=tmp_path / "file")
        with pytest.raises(HubError, match="file"):
            await fetch(node, published.name, ignore, to=tmp_path / "file" / "below")


# ── single files ────────────────────────────────────────────────────────────


async def test_a_file_by_its_hash_alone_comes_to_a_path_or_into_the_store(published, copy_of, tmp_path):
    async with open_home(copy_of("seed")) as seed, open_home(tmp_path / "fetcher") as node, serving(seed) as address:
        node.store.peers.add(address)
        file = seed.store.manifests.get(ManifestId.parse(published.revision)).file("config.json")
        plain = await fetch(node, str(file.root), ignore)
        placed = await fetch(node, str(file.root), ignore, to=tmp_path / "config.json")
        again = await fetch(node, str(file.root), ignore, to=tmp_path / "config.json")
        (tmp_path / "other.json").write_text("mine")
        with pytest.raises(Conflict):
            await fetch(node, str(file.root), ignore, to=tmp_path / "other.json")

    expected = (published.folder / "config.json").read_bytes()
    assert read(plain.path) == expected
    assert (tmp_path / "config.json").read_bytes() == expected
    assert (tmp_path / "other.json").read_text() == "mine"
    assert plain.received == file.size
    assert placed.received == again.received == 0
    assert again.linked == "kept"


async def test_a_removed_model_can_be_fetched_again_into_the_same_folder(published, copy_of, tmp_path):
    async with open_home(copy_of("seed")) as seed, open_home(tmp_path / "fetcher") as node, serving(seed) as address:
        node.store.peers.add(address)
        for link in ("sym", "hard", "copy"):
            await fetch(node, published.name, ignore, to=tmp_path / link, link=link)
            await remove(node, published.name, ignore)
            await fetch(node, published.name, ignore, to=tmp_path / link, link=link)

            assert tree(tmp_path / link) == published.files
