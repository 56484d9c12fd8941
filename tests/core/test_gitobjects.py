"""The ids agree with git's own."""

from __future__ import annotations

import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from p2phub.core import gitobjects

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("data", [b"", b"a\n", bytes(range(256)) * 1000])
def test_a_file_has_the_id_that_git_gives_it(data, tmp_path):
    (tmp_path / "file").write_bytes(data)

    assert gitobjects.blob_id(data).hex() == git(tmp_path, "hash-object", "file")


def test_a_folder_has_the_id_that_git_gives_it(tmp_path):
    git(tmp_path, "init", "-q")
    # A folder stands where its name with a slash would: between these two files.
    for name in ("a.txt", "a-b", "a/inside", "é"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    git(tmp_path, "add", ".")
    inner = gitobjects.tree_id([("inside", gitobjects.blob_id(b"a/inside"), False)])
    files = [(name, gitobjects.blob_id(name.encode()), False) for name in ("é", "a.txt", "a-b")]

    assert gitobjects.tree_id([*files, ("a", inner, True)]).hex() == git(tmp_path, "write-tree")


def test_a_pointer_is_that_of_large_file_storage():
    digest = sha256(b"x").digest()

    assert gitobjects.pointer(digest, 1).decode() == (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest.hex()}\nsize 1\n"
    )
    assert gitobjects.pointer(sha256(b"").digest(), 0) == b""
