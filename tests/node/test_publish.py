"""Folders of every kind are published whole or refused with the reason; versions never change."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import struct
import threading
from pathlib import Path

import pytest
import trio

from p2phub.core.checkpoint import parse_head
from p2phub.core.choices import Kind, Profile
from p2phub.core.errors import Conflict, HubError, InvalidData, InvalidName, NotFound, StoreError
from p2phub.core.fresh import read_fresh
from p2phub.core.ids import ManifestId
from p2phub.core.search import Query
from p2phub.node import inspect, sealing
from p2phub.node.branches import move_branch, yank
from p2phub.node.committing import Put, commit
from p2phub.node.cosigning import vouch
from p2phub.node.events import Notice, ignore
from p2phub.node.fetch import fetch
from p2phub.node.housekeeping import collect_garbage, disk_use, list_repositories
from p2phub.node.identity import create_identity, own_identity
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.store import ingest
from p2phub.store.ingest import Scan
from p2phub.testing.hostile import open_home, wait_for
from p2phub.testing.processes import tree

pytestmark = pytest.mark.timeout(120)


OVERLAPPING = json.dumps(
    {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
    }
).encode()  # the header of a safetensors file


async def fresh(node: Node) -> Node:
    create_identity(node)
    return node


def folder_with(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


async def state(node: Node) -> object:
    """Return everything that people can see of what a node has published."""
    name = str(own_identity(node).namespace)
    try:
        log = await inspect.log_lines(node, name)
    except NotFound:
        log = []
    return log, await inspect.search(node, Query()), await list_repositories(node), node.store.keeping.pins()


# ── versions and branches ───────────────────────────────────────────────────


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


# ── folders ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "no files"),
        (lambda path: (path / "empty" / "folders").mkdir(parents=True), "no files"),
        (lambda path: None, "no folder"),
        (lambda path: path.write_text("a file"), "no folder"),
        (lambda path: (path / ".git").mkdir(parents=True) or (path / ".git" / "config").write_text("x"), "no files"),
    ],
    ids=["empty", "only folders", "missing", "a file", "only what tools keep"],
)
async def test_what_has_no_files_is_refused(make, said, tmp_path):
    make(tmp_path / "it")
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        with pytest.raises(StoreError, match=said) as failure:
            await publish(node, tmp_path / "it", "small", ignore)

    assert str(tmp_path / "it") in str(failure.value)
    assert failure.value.hint


async def test_links_to_files_are_followed_and_links_to_folders_noted(tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"one"})
    folder_with(tmp_path / "elsewhere", {"weights.bin": b"weights"})
    (folder / "weights.bin").symlink_to(tmp_path / "elsewhere" / "weights.bin")
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / "pipe")
    notes: list[str] = []
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        await publish(
            node, folder, "small", lambda event: notes.append(event.text) if isinstance(event, Notice) else None
        )
        await fetch(node, "small", ignore, to=tmp_path / "out")

    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "README.md": b"one", "weights.bin": b"weights",
    }  # fmt: skip
    assert any("sub is a link to a folder" in note for note in notes)
    assert any("pipe is no regular file" in note for note in notes)


async def test_a_dangling_link_is_named(tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"one"})
    (folder / "weights.bin").symlink_to(tmp_path / "nothing")
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        with pytest.raises(StoreError, match=r"weights\.bin") as failure:
            await publish(node, folder, "small", ignore)

    assert "remove the link" in (failure.value.hint or "")


@pytest.mark.parametrize(
    "name",
    [
        b"new\nline", b"back\\slash", b"colon:", b"aux.txt", b"trailing.", b"not-utf8-\xff", b"question?",
        b"nfd-e\xcc\x81",
    ],
    ids=["newline", "backslash", "colon", "device", "dot at the end", "not UTF-8", "wildcard", "not NFC"],
)  # fmt: skip
async def test_a_name_that_some_file_system_cannot_hold_is_refused_and_shown(name, tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"one"})
    (folder / os.fsdecode(name)).write_bytes(b"x")
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        with pytest.raises(InvalidData) as failure:
            await publish(node, folder, "small", ignore)
        assert not list((tmp_path / "home/store/objects").iterdir())

    assert "\n" not in str(failure.value)
    assert repr(os.fsdecode(name))[1:-1].rstrip(".") in str(failure.value)


async def test_names_that_differ_only_in_case_are_refused(tmp_path):
    folder = folder_with(tmp_path / "folder", {"Readme.md": b"one", "README.md": b"two"})
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        with pytest.raises(InvalidData, match="collide"):
            await publish(node, folder, "small", ignore)


async def test_more_files_than_a_manifest_may_list_are_refused_by_their_number(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(10_001):
        (folder / f"{number:05}").touch()
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        with pytest.raises(InvalidData) as failure:
            await publish(node, folder, "small", ignore)

    assert "10001" in str(failure.value).replace(",", "")
    assert "10000" in str(failure.value).replace(",", "")
    assert "archives" in (failure.value.hint or "")


async def test_a_file_that_changes_while_it_is_published_is_refused(tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"one", "weights.bin": os.urandom(40_000_000)})
    stop = threading.Event()

    def write() -> None:
        with open(folder / "weights.bin", "r+b") as file:
            while not stop.is_set():
                file.seek(0, os.SEEK_END)
                file.write(b"more")
                file.flush()
                stop.wait(0.002)

    writer = threading.Thread(target=write)
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        writer.start()
        try:
            with pytest.raises(StoreError, match="changed while") as failure:
                await publish(node, folder, "small", ignore)
        finally:
            stop.set()
            writer.join()
        with pytest.raises(NotFound):
            await inspect.log_lines(node, "small")
        # Nothing half done lies about, and once it is quiet it works.
        assert not list((tmp_path / "home/store").rglob(".new-*"))
        await publish(node, folder, "small", ignore)
        await fetch(node, "small", ignore, to=tmp_path / "out")

    assert "weights.bin" in str(failure.value)
    assert tree(tmp_path / "out") == tree(folder)


async def test_a_file_that_is_deleted_while_it_is_published_is_named(tmp_path):
    folder = folder_with(tmp_path / "folder", {"a": b"a", "z": b"z"})

    def delete(event: object) -> None:
        (folder / "z").unlink(missing_ok=True)
        folder.joinpath("link").unlink(missing_ok=True)

    (folder / "link").symlink_to(tmp_path)  # so that it is told of before the files are read
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        with pytest.raises(StoreError, match="z"):
            await publish(node, folder, "small", delete)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 100_000_000) + b"{}",
        struct.pack("<Q", 2) + b"{x",
        b"short",
        struct.pack("<Q", len(OVERLAPPING)) + OVERLAPPING + bytes(12),
    ],
    ids=["length of 2^63", "header of 100 MB", "no JSON", "too short", "tensors overlap"],
)
async def test_a_broken_safetensors_travels_as_it_is_with_a_note(header, tmp_path):
    folder = folder_with(tmp_path / "folder", {"model.safetensors": header + os.urandom(1_500_000), "README.md": b"x"})
    notes: list[str] = []
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        await publish(
            node, folder, "broken", lambda event: notes.append(event.text) if isinstance(event, Notice) else None
        )
        await fetch(node, "broken", ignore, to=tmp_path / "out")
        info = await inspect.info(node, "broken", ignore, refresh=False)

    assert tree(tmp_path / "out") == tree(folder)
    assert any("model.safetensors" in note for note in notes)
    assert info.facts is None or info.facts.parameters is None


async def test_a_card_that_is_no_yaml_is_noted_and_travels(tmp_path):
    folder = folder_with(tmp_path / "folder", {"README.md": b"---\nlicense: [unclosed\n---\n# Title\n"})
    notes: list[str] = []
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        await publish(
            node, folder, "card", lambda event: notes.append(event.text) if isinstance(event, Notice) else None
        )

    assert any("README.md" in note for note in notes)


async def test_in_place_files_are_not_copied_and_not_deleted(tmp_path, published):
    folder = tmp_path / "folder"
    shutil.copytree(published.folder, folder)
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        result = await publish(node, folder, "parrot", ignore, in_place=True)
        use = await disk_use(node)
        await fetch(node, "parrot", ignore, to=tmp_path / "out", link="copy")
        await collect_garbage(node, unpinned=True)

    assert result.written == 0
    assert use.objects_bytes == 0
    assert use.in_place_bytes == published.size
    assert tree(folder) == published.files
    assert tree(tmp_path / "out") == published.files


async def test_facts_of_a_real_model_reach_search_and_info(published, copy_of):
    async with open_home(copy_of("home")) as node:
        info = await inspect.info(node, published.name, ignore, refresh=False)
        (found,) = await inspect.search(node, Query(text="parrot llama"))

    assert info.card.task == found.task == "text-generation"
    assert info.card.license == found.license == "Apache-2.0"
    assert info.facts.architecture == "LlamaForCausalLM" or info.facts.architecture == "llama"
    assert found.parameters == info.facts.parameters > 1_000_000
    assert found.size == published.size


# ── at once, and when the clock was set back ────────────────────────────────


def ticking(node: Node) -> None:
    """Let a second pass whenever the clock of `node` is looked at: no two manifests are of one time."""
    seconds = itertools.count(int(node.clock()))
    node.clock = lambda: float(next(seconds))


async def test_publications_at_once_in_one_node_follow_each_other(tmp_path):
    folders = [folder_with(tmp_path / str(number), {"a.txt": b"%d" % number}) for number in range(4)]
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        ticking(node)
        async with trio.open_nursery() as nursery:
            for number, folder in enumerate(folders):
                nursery.start_soon(publish, node, folder, f"small@{number}.0.0", ignore)
        versions = node.store.catalogue.versions(own_identity(node).namespace, "small")
        depths = [node.store.manifests.get(claim.manifest).depth for claim in versions.values()]
        pins = set(node.store.keeping.pins())

    assert sorted(depths) == [1, 2, 3, 4]
    assert pins == {claim.manifest for claim in versions.values()}


@pytest.mark.parametrize("options", [{}, {"sealed": True}, {"visibility": "private"}], ids=str)
async def test_equal_publications_at_once_say_the_same_once(options, tmp_path):
    folder = folder_with(tmp_path / "folder", {"a.txt": b"a"})
    outcomes = []
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        await publish(node, folder_with(tmp_path / "before", {"a.txt": b"before"}), "small", ignore, **options)
        ticking(node)

        async def one() -> None:
            outcomes.append(await publish(node, folder, "small@1.0.0", ignore, **options))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(one)
        records = [line for line in await inspect.log_lines(node, "small") if line.type == "publish"]

    assert sorted(outcome.new for outcome in outcomes) == [False, False, False, True]
    assert len({outcome.revision for outcome in outcomes}) == 1
    assert len(records) == 2


async def test_sealed_publications_at_once_hash_each_file_once(tmp_path, monkeypatch):
    hashed = []

    def scan(file: int, path: Path, profile: Profile) -> Scan:
        hashed.append(path)
        return ingest.scan(file, path, profile)

    monkeypatch.setattr(sealing, "scan", scan)
    folders = [folder_with(tmp_path / str(number), {"a.txt": b"%d" % number * 100_000}) for number in range(4)]
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        ticking(node)
        written = []

        async def publish_sealed(folder: Path) -> None:
            written.append((await publish(node, folder, "small", ignore, sealed=True)).written)

        async with trio.open_nursery() as nursery:
            for folder in folders:
                nursery.start_soon(publish_sealed, folder)
        records = [line for line in await inspect.log_lines(node, "small") if line.type == "publish"]

    assert len(records) == 4
    assert sorted(hashed) == sorted(folder / "a.txt" for folder in folders)
    # What was sealed in the tries before is counted, too.
    assert min(written) > 100_000


async def test_changes_at_once_are_all_made(tmp_path):
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        ticking(node)
        await publish(node, folder_with(tmp_path / "folder", {"a.txt": b"a"}), "small", ignore)
        digest = hashlib.sha256(b"a").digest()
        async with trio.open_nursery() as nursery:
            for number in range(4):
                changes = [Put(f"more-{number}.txt", digest, 1)]
                nursery.start_soon(commit, node, "small", "model", "main", changes, ignore)
        info = await inspect.info(node, "small", ignore, refresh=False)

    assert sorted(file.path for file in info.files) == ["a.txt", *(f"more-{number}.txt" for number in range(4))]


async def test_a_name_that_becomes_two_kinds_at_once_has_one(tmp_path):
    folder = folder_with(tmp_path / "folder", {"a.txt": b"a"})
    said = []
    async with open_home(tmp_path / "home") as node:
        await fresh(node)

        async def one(kind: Kind) -> None:
            try:
                await publish(node, folder, "small", ignore, kind=kind)
            except Conflict as exc:
                said.append(str(exc))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "model")
            nursery.start_soon(one, "dataset")

    assert len(said) == 1
    assert "a name has one kind for ever" in said[0]


def lose_what_came_since(before: Path, home: Path) -> None:
    """Leave a home as a crash does between the file of its log, which is written first, and the rest."""
    for path in [*home.glob("index.sqlite*"), *home.glob("kept*"), *home.glob("store/logs/??/*.head")]:
        path.unlink()
    for path in [*before.glob("index.sqlite*"), *before.glob("store/logs/??/*.head")]:
        shutil.copy(path, home / path.relative_to(before))


async def test_what_a_crash_left_in_the_log_is_followed_by_the_next_publication(tmp_path):
    folder = folder_with(tmp_path / "folder", {"a.txt": b"one"})
    home, before = tmp_path / "home", tmp_path / "before"
    async with open_home(home) as node:
        await fresh(node)
        await publish(node, folder, "small", ignore)
    shutil.copytree(home, before)
    (folder / "a.txt").write_bytes(b"two")
    async with open_home(home) as node:
        second = await publish(node, folder, "small", ignore)
    lose_what_came_since(before, home)
    (folder / "a.txt").write_bytes(b"three")
    async with open_home(home) as node:
        third = await publish(node, folder, "small", ignore)
        manifest = node.store.manifests.get(ManifestId.parse(third.revision))
        log = await inspect.log_lines(node, "small")

    assert [str(parent) for parent in manifest.parents] == [second.revision]
    assert [line.index for line in log] == [2, 1, 0]


@pytest.mark.parametrize("visibility", ["public", "private"])
async def test_what_a_crash_left_in_the_log_and_is_published_again_is_signed_for(tmp_path, visibility):
    """Without a head that covers it no peer would take it, though its publisher was told that it is published."""
    folder = folder_with(tmp_path / "folder", {"a.txt": b"one"})
    home, before = tmp_path / "home", tmp_path / "before"
    async with open_home(home) as node:
        await fresh(node)
        await publish(node, folder, "small", ignore, visibility=visibility)
    shutil.copytree(home, before)
    (folder / "a.txt").write_bytes(b"two")
    async with open_home(home) as node:
        second = await publish(node, folder, "small", ignore)
    lose_what_came_since(before, home)
    async with open_home(home) as node:
        again = await publish(node, folder, "small", ignore)
        (state,) = node.store.logs.logs_of(own_identity(node).namespace, private=True)
        (file,) = home.glob("store/logs/??/*.head")

    assert (again.revision, again.new) == (second.revision, False)
    assert [state.size, parse_head(state.head).size, parse_head(file.read_bytes()).size] == [2, 2, 2]


async def test_a_daemon_signs_for_what_a_crash_left_in_the_log(tmp_path):
    folder = folder_with(tmp_path / "folder", {"a.txt": b"one"})
    home, before = tmp_path / "home", tmp_path / "before"
    async with open_home(home) as node:
        await fresh(node)
        await publish(node, folder, "small", ignore)
    shutil.copytree(home, before)
    (folder / "a.txt").write_bytes(b"two")
    async with open_home(home) as node:
        await publish(node, folder, "small", ignore)
    lose_what_came_since(before, home)
    async with open_home(home) as node, trio.open_nursery() as nursery:
        namespace = own_identity(node).namespace
        nursery.start_soon(vouch, node)

        async def signed() -> bool:
            (state,) = node.store.logs.logs_of(namespace)
            return [state.size, parse_head(state.head).size] == [2, 2]

        await wait_for(signed, "what the crash left to be signed for")
        nursery.cancel_scope.cancel()


async def test_what_is_signed_after_the_clock_was_set_back_counts_as_newer_and_both_times_are_told(tmp_path):
    folder = folder_with(tmp_path / "folder", {"a.txt": b"one"})
    told = []
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        node.clock = lambda: 2_000_000_000.0
        first = await publish(node, folder, "small", ignore)
        (folder / "a.txt").write_bytes(b"two, which is longer")
        node.clock = lambda: 2_000_000_000.0 - 7200
        second = await publish(node, folder, "small", told.append)
        log = await inspect.log_lines(node, "small")
        found = await inspect.search(node, Query())
        stated = read_fresh(node.store.fresh.get(own_identity(node).namespace))

    assert [line.revision for line in log] == [second.revision, first.revision]
    assert [model.revision for model in found.models] == [second.revision]
    assert parse_head(stated.heads[0]).size == 2
    (notice,) = [event.text for event in told if isinstance(event, Notice)]
    assert "says 2033-05-18 01:33:20 UTC" in notice
    assert "is of 2033-05-18 03:33:20 UTC" in notice
