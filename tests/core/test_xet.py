"""What a Xet client sends is read, and what no client sends is refused."""

from __future__ import annotations

import contextlib
import struct

import lz4.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.errors import InvalidData
from p2phub.core.xet import CHUNK_SIZE_MAX, format_hash, read_block, read_shard


def frame(packed: bytes, size: int, scheme: int = 0, version: int = 0) -> bytes:
    return bytes([version]) + len(packed).to_bytes(3, "little") + bytes([scheme]) + size.to_bytes(3, "little") + packed


def grouped(data: bytes) -> bytes:
    return b"".join(data[place::4] for place in range(4))


def shard(files: list[tuple[list[tuple[bytes, int, int]], bytes | None]]) -> bytes:
    out = bytes(48)
    for terms, digest in files:
        flags = 0x80000000 | (0x40000000 if digest else 0)
        out += bytes(32) + struct.pack("<II", flags, len(terms)) + bytes(8)
        for block, first, end in terms:
            out += block + struct.pack("<IIII", 0, 10 * (end - first), first, end)
        out += bytes(48 * len(terms))
        if digest:
            out += bytes(digest) + bytes(16)
    return out + b"\xff" * 32 + bytes(16)


@given(st.lists(st.binary(min_size=1, max_size=5000), max_size=8), st.integers(0, 2))
def test_chunks_come_out_as_they_went_in(chunks, scheme):
    data = b""
    for chunk in chunks:
        packed = [chunk, lz4.frame.compress(chunk), lz4.frame.compress(grouped(chunk))][scheme]
        data += frame(packed, len(chunk), scheme)

    assert list(read_block(data)) == chunks


def test_an_index_behind_the_chunks_is_left_alone():
    assert list(read_block(frame(b"abc", 3) + b"XETBLOB" + bytes(100))) == [b"abc"]


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        frame(b"abc", 3)[:-1],
        frame(b"abc", 4),
        frame(b"abc", 2),
        frame(b"", 0),
        frame(b"abc", 3, scheme=3),
        frame(b"abc", 3, version=1),
        frame(b"not lz4", 10, scheme=1),
        frame(lz4.frame.compress(bytes(1000)), 999, scheme=1),
        frame(lz4.frame.compress(bytes(1000)), 1001, scheme=1),
        frame(lz4.frame.compress(bytes(50_000_000)), CHUNK_SIZE_MAX + 1, scheme=1),
    ],
)
def test_a_block_that_is_none_is_refused(data):
    with pytest.raises(InvalidData):
        list(read_block(data))


def test_a_chunk_that_grows_when_unpacked_is_cut_off():
    bomb = frame(lz4.frame.compress(bytes(500_000_000)), 1000, scheme=1)

    with pytest.raises(InvalidData, match="1001 bytes and not 1000"):
        list(read_block(bomb))


def test_a_shard_says_how_files_are_made():
    block, digest = bytes(range(32)), bytes(range(100, 132))
    files = read_shard(shard([([(block, 0, 3), (block, 5, 6)], digest), ([(block, 1, 2)], None)]))

    assert [(term.block, term.first, term.end) for term in files[0].terms] == [
        (format_hash(block), 0, 3), (format_hash(block), 5, 6),
    ]  # fmt: skip
    assert (files[0].sha256.hex(), files[0].size) == (format_hash(digest), 40)
    assert (files[1].sha256, files[1].size) == (None, 10)


def test_hashes_are_four_little_endian_numbers():
    assert format_hash(bytes(range(32))).startswith("0706050403020100" + "0f0e0d0c0b0a0908")


@pytest.mark.parametrize("cut", [0, 10, 47, 48, 60, 96, 130, 190])
def test_a_shard_that_ends_early_is_refused(cut):
    whole = shard([([(bytes(32), 0, 1)], bytes(32))])

    with pytest.raises(InvalidData):
        read_shard(whole[:cut])


def test_a_shard_that_counts_more_than_it_holds_is_refused():
    data = bytes(48) + bytes(32) + struct.pack("<II", 0, 2**32 - 1) + bytes(8) + bytes(480)

    with pytest.raises(InvalidData, match="more than it holds"):
        read_shard(data)


@given(st.binary(max_size=2000))
def test_no_bytes_make_it_fail_otherwise(data):
    for read in (lambda: list(read_block(data)), lambda: read_shard(data)):
        with contextlib.suppress(InvalidData):
            read()


def test_an_empty_part_is_refused():
    with pytest.raises(InvalidData, match="no chunks"):
        read_shard(shard([([(bytes(32), 4, 4)], None)]))
