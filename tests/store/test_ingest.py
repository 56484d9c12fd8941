from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from storekit import fixed_chunks, write_old

from p2phub.core.choices import PROFILES, Profile
from p2phub.core.chunking import CDC_SIZE_MIN, CHUNK_SIZE, chunker
from p2phub.core.errors import InvalidData, StoreError
from p2phub.core.filetree import CHUNK_SIZE_MAX, ChunkList, pack
from p2phub.store.ingest import BLOCK_SIZE, SMALL_SIZE, Scan, find_bad_chunks, scan
from p2phub.testing import values
from p2phub.testing.samples import write_safetensors

MIB = 1024 * 1024
EDGES = (
    0, 1, CDC_SIZE_MIN, CDC_SIZE_MIN + 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, CHUNK_SIZE_MAX,
    CHUNK_SIZE_MAX + 1, BLOCK_SIZE + CHUNK_SIZE_MAX + 1, SMALL_SIZE - 1, SMALL_SIZE, SMALL_SIZE + 1,
    SMALL_SIZE + BLOCK_SIZE, SMALL_SIZE + CHUNK_SIZE_MAX, SMALL_SIZE + CHUNK_SIZE_MAX + 1,
    2 * SMALL_SIZE, 2 * SMALL_SIZE + 3,
)  # fmt: skip


def scan_file(path: Path, profile: Profile, **options: object) -> Scan:
    with open(path, "rb") as file:
        return scan(file.fileno(), path, profile, **options)  # type: ignore[arg-type]


def chunks_of(data: bytes, profile: Profile) -> ChunkList:
    """Return the chunk list of `data`, cut with all of it in view."""
    cutter = chunker(profile, len(data), lambda offset, size: data[offset : offset + size])
    packed = b""
    offset = 0
    while offset < len(data):
        length = cutter.next_length(offset, memoryview(data)[offset : offset + CHUNK_SIZE_MAX])
        packed += pack(length, blake3(data[offset : offset + length]).digest())
        offset += length
    return ChunkList(packed)


# ── what reading a file tells ───────────────────────────────────────────────


@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("profile", ["fixed-1m", "cdc-1m"])
@pytest.mark.parametrize("kind", ["noise", "zeros"])
def test_a_file_read_in_blocks_has_the_chunks_of_its_bytes(
    tmp_path: Path, size: int, profile: Profile, kind: str
) -> None:
    data = values.content(kind, size) if kind == "noise" else bytes(size)
    result = scan_file(write_old(tmp_path / "file", data), profile)

    assert result.chunks == chunks_of(data, profile)
    assert result.root == result.chunks.root()
    assert result.sha256 == sha256(data).digest()


@given(
    large=st.lists(st.integers(1, 1500), max_size=5),
    small=st.lists(st.integers(1, 40), max_size=5),
    seed=st.integers(0),
)
def test_tensors_read_in_blocks_have_the_chunks_of_their_bytes(
    tmp_path_factory: pytest.TempPathFactory, large: list[int], small: list[int], seed: int
) -> None:
    path = tmp_path_factory.mktemp("tensors") / "model.safetensors"
    shapes = {f"t{number}": (rows, 1024) for number, rows in enumerate([*small, *large])}
    write_safetensors(path, shapes, np.random.default_rng(seed))
    result = scan_file(path, "tensor-1m")

    assert result.chunks == chunks_of(path.read_bytes(), "tensor-1m")
    path.unlink()


@pytest.mark.parametrize("size", EDGES)
def test_the_copy_made_while_reading_is_the_file(tmp_path: Path, size: int) -> None:
    data = values.content("copy", size)
    with open(tmp_path / "copy", "xb") as copy:
        scan_file(write_old(tmp_path / "file", data), "cdc-1m", copy_to=copy.fileno())

    assert (tmp_path / "copy").read_bytes() == data


@pytest.mark.parametrize("size", EDGES)
def test_progress_adds_up_to_the_size(tmp_path: Path, size: int) -> None:
    steps: list[int] = []
    scan_file(write_old(tmp_path / "file", bytes(size)), "fixed-1m", progress=steps.append)

    assert sum(steps) == size
    assert all(0 < step <= SMALL_SIZE for step in steps)


def test_a_profile_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", b"no tensors in here")

    with pytest.raises(InvalidData):
        scan_file(path, "tensor-1m")


# ── a file that somebody writes to ──────────────────────────────────────────


def grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(bytes(3 * MIB))


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - MIB)


def shrink_by_one(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def rewrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"other bytes at the beginning")


CHANGES = (grow, shrink, shrink_by_one, empty, rewrite)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("when", ["at the first block", "at the last block"])
def test_a_file_that_changes_while_it_is_read_is_no_content(
    tmp_path: Path, change: Callable[[Path], None], profile: Profile, when: str
) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": (1024, 1024), "b": (2048, 1024), "c": (1500, 1000)}, np.random.default_rng(1))
    size = path.stat().st_size
    write_old(path, path.read_bytes())
    done = 0

    def progress(step: int) -> None:
        nonlocal done
        if (when == "at the first block" and done == 0) or done + step >= size > done:
            change(path)
        done += step

    with pytest.raises(StoreError, match="changed while it was read") as caught:
        scan_file(path, profile, progress=progress)
    assert caught.value.path == str(path)


# ── looking for rot ─────────────────────────────────────────────────────────


@given(data=st.binary(max_size=5000), size=st.integers(1, 700), bad=st.sets(st.integers(0, 4999)))
def test_exactly_the_chunks_with_wrong_bytes_are_bad(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, size: int, bad: set[int]
) -> None:
    path = tmp_path_factory.mktemp("rot") / "file"
    chunks = fixed_chunks(data, size)
    damaged = bytearray(data)
    for offset in (bad := {offset for offset in bad if offset < len(data)}):
        damaged[offset] ^= 0x10
    path.write_bytes(damaged)
    with open(path, "rb") as file:
        found = find_bad_chunks(file.fileno(), chunks)
    path.unlink()

    assert found == sorted({offset // size for offset in bad})


@given(st.integers(1, 5000), st.integers(1, 700), st.integers(1, 5000))
def test_chunks_behind_the_end_of_a_file_are_bad(
    tmp_path_factory: pytest.TempPathFactory, length: int, size: int, cut: int
) -> None:
    data = values.content("cut", length)
    path = tmp_path_factory.mktemp("cut") / "file"
    path.write_bytes(data[: max(0, length - cut)])
    with open(path, "rb") as file:
        found = find_bad_chunks(file.fileno(), fixed_chunks(data, size))
    path.unlink()

    assert found == list(range(max(0, length - cut) // size, -(-length // size)))
