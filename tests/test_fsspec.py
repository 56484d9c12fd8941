"""Repositories as a file system, with a node and without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from p2phub.fsspec import P2PFileSystem
from p2phub.testing.processes import Home

DATA = os.urandom(5_000_000)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """Give the namespace, the revision and the address of a node that has published a dataset."""
    base = tmp_path_factory.mktemp("shelf")
    (base / "words" / "data" / "deep").mkdir(parents=True)
    (base / "words" / "data" / "train.bin").write_bytes(DATA)
    (base / "words" / "data" / "deep" / "a b#.txt").write_text("odd")
    (base / "words" / "README.md").write_text("# Words\n")
    home = Home(base / "home")
    namespace = home.ask("id", "new")["namespace"]
    revision = home.ask("publish", str(base / "words"), "words@1.0.0", "--kind", "dataset")["revision"]
    with home.node() as node:
        yield namespace, revision, node.address


@pytest.fixture(params=["with a node", "without a node"])
def files(request: Any, shelf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[P2PFileSystem]:
    """Give the file system in a home that holds nothing."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv("P2PHUB_HOME", str(home.folder))
    P2PFileSystem.clear_instance_cache()
    if request.param == "with a node":
        with home.node(peers=(shelf[2],)):
            yield fsspec.filesystem("p2p")
    else:
        home.ask("peers", "add", shelf[2])
        yield fsspec.filesystem("p2p")


def test_folders_are_listed_and_files_are_read(files, shelf):
    name = f"{shelf[0]}/words@1.0.0"

    assert files.ls(name, detail=False) == [f"{name}/README.md", f"{name}/data"]
    assert files.ls(f"p2p://{name}/data/train.bin", detail=False) == [f"{name}/data/train.bin"]
    assert sorted(files.find(f"p2p://{name}")) == [
        f"{name}/README.md", f"{name}/data/deep/a b#.txt", f"{name}/data/train.bin",
    ]  # fmt: skip
    assert files.glob(f"{name}/data/**/*.txt") == [f"{name}/data/deep/a b#.txt"]
    assert files.info(f"{name}/data/deep")["type"] == "directory"
    assert files.size(f"{name}/data/train.bin") == len(DATA)
    assert files.cat(f"{name}/data/deep/a b#.txt") == b"odd"
    assert files.cat(f"{name}/data/train.bin") == DATA


def test_parts_of_a_file_are_read(files, shelf):
    with files.open(f"p2p://{shelf[0]}/words/data/train.bin") as file:
        file.seek(3_000_000)
        assert file.read(1000) == DATA[3_000_000:3_001_000]
        file.seek(-10, 2)
        assert file.read() == DATA[-10:]
    assert files.cat_file(f"{shelf[0]}/words/data/train.bin", start=7, end=9) == DATA[7:9]


def test_a_hash_is_a_name_too(files, shelf):
    files.cat(f"{shelf[0]}/words/README.md")

    assert files.cat(f"p2p://{shelf[1]}/README.md") == b"# Words\n"


def test_what_is_not_there_is_not_found(files, shelf):
    name = f"{shelf[0]}/words"
    wrong = [f"{name}/nope", f"{name}@9.9.9/README.md", f"{shelf[0]}/nope/x", shelf[0], "nobody/x/y", "a..b/x"]
    for path in wrong:
        with pytest.raises(FileNotFoundError):
            files.info(path)
        assert not files.exists(path)
    with pytest.raises(FileNotFoundError):
        files.open(f"{name}/nope")


def test_nothing_is_written(files, shelf):
    with pytest.raises(NotImplementedError):
        files.open(f"{shelf[0]}/words/new", "wb")


@pytest.fixture(params=["with a node", "without a node"])
def own(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[P2PFileSystem, Home, str]]:
    """Give the file system in a home that publishes, the home, and its namespace."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv("P2PHUB_HOME", str(home.folder))
    P2PFileSystem.clear_instance_cache()
    namespace = home.ask("id", "new")["namespace"]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("for some alone")
    for how in ("private", "sealed"):
        home.call("publish", str(tmp_path / "notes"), how, f"--{how}")
    if request.param == "with a node":
        with home.node():
            yield fsspec.filesystem("p2p"), home, namespace
    else:
        yield fsspec.filesystem("p2p"), home, namespace


@pytest.mark.parametrize("how", ["private", "sealed"])
def test_what_is_not_for_everybody_is_read_by_who_may(how, own):
    files, _, namespace = own

    assert files.ls(f"{namespace}/{how}", detail=False) == [f"{namespace}/{how}/notes.txt"]
    assert files.cat(f"p2p://{namespace}/{how}/notes.txt") == b"for some alone"
