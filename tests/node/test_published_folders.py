"""Folders of every kind are published whole or refused with the reason."""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading

import pytest
from publishkit import folder_with, fresh

from p2phub.core.errors import InvalidData, NotFound, StoreError
from p2phub.core.search import Query
from p2phub.node import inspect
from p2phub.node.events import Notice, ignore
from p2phub.node.fetch import fetch
from p2phub.node.housekeeping import collect_garbage, disk_use
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home
from p2phub.testing.processes import tree

pytestmark = pytest.mark.timeout(120)


OVERLAPPING = json.dumps(
    {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
    }
).encode()  # the header of a safetensors file


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
