"""What two files have in common lies on disk once, where the file system can."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from storekit import write_old

from p2phub.core.filetree import ChunkList, pack
from p2phub.store.disk import FileWriter
from p2phub.store.layout import Layout
from p2phub.store.links import place, reflink_range
from p2phub.store.partial import FoundChunk, Partial
from p2phub.store.sharing import ExtentSharer
from p2phub.store.store import Store
from p2phub.testing import values
from p2phub.testing.reflinks import shared_bytes

BLOCK = 4096
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def folder(reflink_disk: Path) -> Path:
    """Return a folder of a file system with reflinks."""
    return reflink_disk


@pytest.fixture
def empty(reflink_empty: Path) -> Path:
    """Return a folder of it in which nothing is yet."""
    return reflink_empty


def copy_pieces(source: Path, target: Path, pieces: list[tuple[int, int, int]]) -> int:
    """Copy each (offset in the source, offset in the target, size); returns how many bytes are shared."""
    data = source.read_bytes()
    with open(source, "rb") as old, open(target, "wb") as new:
        new.truncate(max(offset + size for _, offset, size in pieces))
        sharer = ExtentSharer(FileWriter(new.fileno()))
        for begin, offset, size in pieces:
            sharer.put(memoryview(data)[begin : begin + size], offset, old.fileno(), begin)
        sharer.flush()
        return sharer.shared


def check_pieces(source: Path, target: Path, pieces: list[tuple[int, int, int]]) -> None:
    data, copied = source.read_bytes(), target.read_bytes()
    wanted = bytearray(len(copied))
    for begin, offset, size in pieces:
        wanted[offset : offset + size] = data[begin : begin + size]
    assert copied == wanted


def test_a_run_of_pieces_shares_all_blocks_that_it_fills(empty: Path) -> None:
    source = write_old(empty / "source", values.content("source", 40 * BLOCK))
    # None of them begins or ends with a block.
    sizes = [5000, 9000, 100, 200, 3 * BLOCK, 17, 30_000]
    begins = [1000 + sum(sizes[:number]) for number in range(len(sizes))]
    pieces = [(begin, begin + 7 * BLOCK, size) for begin, size in zip(begins, sizes, strict=True)]
    shared = copy_pieces(source, empty / "target", pieces)

    check_pieces(source, empty / "target", pieces)
    last = 1000 + sum(sizes)
    assert shared == (last // BLOCK - 1) * BLOCK
    assert shared_bytes(empty / "target") == shared


def test_what_lies_otherwise_in_its_blocks_is_written(empty: Path) -> None:
    source = write_old(empty / "source", values.content("source", 40 * BLOCK))
    pieces = [(0, 8, 10 * BLOCK), (10 * BLOCK, 8 + 10 * BLOCK, 5 * BLOCK)]

    assert copy_pieces(source, empty / "target", pieces) == 0
    check_pieces(source, empty / "target", pieces)
    assert shared_bytes(empty / "target") == 0


def test_a_source_of_another_file_system_is_written(empty: Path, tmp_path: Path) -> None:
    source = write_old(tmp_path / "source", values.content("source", 40 * BLOCK))
    pieces = [(0, 0, 9000), (9000, 9000, 10 * BLOCK)]

    assert copy_pieces(source, empty / "target", pieces) == 0
    check_pieces(source, empty / "target", pieces)


@st.composite
def _pieces(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Draw pieces that follow each other in the target, with and without gaps, each from anywhere in the source."""
    pieces, at, shift = [], draw(st.integers(0, 2 * BLOCK)), 0
    for _ in range(draw(st.integers(1, 8))):
        size = draw(st.sampled_from([1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 9001]))
        shift = draw(st.sampled_from([shift, shift, 0, BLOCK, 2 * BLOCK, 24, 1000]))
        pieces.append((at + shift, at, size))
        at += size + draw(st.sampled_from([0, 0, 0, BLOCK, 10]))
    return pieces


@pytest.fixture(scope="module")
def one_source(folder: Path) -> Path:
    return write_old(folder / "one-source", values.content("source", 40 * BLOCK))


@settings(max_examples=60)
@given(pieces=_pieces())
def test_whatever_is_put_where_the_bytes_are_right(folder: Path, one_source: Path, pieces: list) -> None:
    target = folder / "any-target"
    copy_pieces(one_source, target, pieces)

    check_pieces(one_source, target, pieces)


# ── in a store ──────────────────────────────────────────────────────────────


def chunk_list(*chunks: bytes) -> ChunkList:
    return ChunkList(b"".join(pack(len(chunk), blake3(chunk).digest()) for chunk in chunks))


def test_a_partial_claims_a_shared_chunk_when_all_of_it_is_there(empty: Path) -> None:
    data = values.content("data", 3 * 9000)
    chunks = chunk_list(*(data[at : at + 9000] for at in range(0, len(data), 9000)))
    source = write_old(empty / "source", data)
    partial = Partial(empty / "partial.data", chunks)
    claimed = []
    with open(source, "rb") as file:

        def found():
            for index in range(3):
                claimed.append(bytes(partial.have))
                at = 9000 * index
                yield index, FoundChunk(memoryview(data)[at : at + 9000], file.fileno(), at, stays=True)

        shared = partial.take(found())
    partial.close()
    again = Partial(empty / "partial.data", chunks)
    again.close()

    assert claimed == [bytes(3)] * 3
    assert again.have == bytearray([1, 1, 1])
    assert shared == len(data) // BLOCK * BLOCK


def test_a_file_in_place_that_changes_later_changes_nothing_that_was_taken(empty: Path) -> None:
    data = values.content("in place", 2 * MIB)
    path = write_old(empty / "model.bin", data)
    with Store(Layout(empty / "home", empty / "store")) as store:
        root = store.intake.ingest(path, "fixed-1m", in_place=True).root
        source = store.chunk_places.open(root)
        assert source is not None
        file, stays = source
        path.write_bytes(bytes(len(data)))
        read = os.pread(file, len(data), 0)
        os.close(file)
        left = [path for path in (store.blobs._layout.store / "objects").rglob("*") if path.is_file()]

    assert stays
    assert read == data
    assert not left


def test_an_object_and_what_is_placed_from_it_lie_on_disk_once(empty: Path) -> None:
    data = values.content("object", 4 * MIB)
    path = write_old(empty / "model.bin", data)
    with Store(Layout(empty / "home", empty / "store")) as store:
        ingested = store.intake.ingest(path, "fixed-1m")
        held = store.blobs.find(ingested.root)
        assert held is not None
        used = place(held.path, empty / "view" / "model.bin", "auto", shared=True)
        path.write_bytes(b"edited")
        (empty / "view" / "model.bin").chmod(0o644)

        assert used == "reflink"
        assert ingested.written == 0
        assert shared_bytes(held.path) == len(data)
        assert shared_bytes(empty / "view" / "model.bin") == len(data)
        # A clone is the user's own: what he does with it stays his affair.
        with open(empty / "view" / "model.bin", "r+b") as file:
            file.write(b"changed")
        assert held.path.read_bytes() == data
        assert not store.blobs.bad_chunks(held)


def test_blocks_that_are_not_whole_are_refused_and_not_an_error(empty: Path) -> None:
    source = write_old(empty / "source", bytes(3 * BLOCK))
    with open(source, "rb") as old, open(empty / "target", "wb") as new:
        assert not reflink_range(old.fileno(), 0, new.fileno(), 100, BLOCK)
        assert reflink_range(old.fileno(), BLOCK, new.fileno(), 0, BLOCK)
