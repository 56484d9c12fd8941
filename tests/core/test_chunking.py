from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from p2phub.core.choices import PROFILES
from p2phub.core.chunking import (
    CDC_SIZE_MIN,
    CHUNK_SIZE,
    REST_MIN,
    TENSOR_LARGE,
    Profile,
    chunker,
    profile_for,
    tensor_cuts,
)
from p2phub.core.errors import InvalidData
from p2phub.core.filetree import CHUNK_SIZE_MAX, CHUNK_SIZE_MEAN_MIN
from p2phub.core.tensors import Read

KIB, MIB = 1024, 1024 * 1024


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


NOISE = noise(24 * MIB)


def reader(data: bytes) -> Read:
    return lambda offset, size: data[offset : offset + size]


def lengths(profile: Profile, data: bytes, *, shift: int = 0) -> list[int]:
    """Return the lengths of the chunks of `data`, which lies in memory `shift` bytes past an aligned place."""
    shifted = memoryview(b"\xaa" * shift + data)[shift:]
    cutter = chunker(profile, len(data), reader(data))
    result: list[int] = []
    offset = 0
    while offset < len(data):
        result.append(cutter.next_length(offset, shifted[offset : offset + CHUNK_SIZE_MAX]))
        offset += result[-1]
    return result


def hashes(profile: Profile, data: bytes) -> list[bytes]:
    found, offset = [], 0
    for length in lengths(profile, data):
        found.append(blake3(data[offset : offset + length]).digest())
        offset += length
    return found


def safetensors_file(sizes: Iterable[int], *, metadata: str = "", seed: int = 0) -> bytes:
    """Return a safetensors file with tensors of `sizes` bytes, each of its own content."""
    header: dict[str, object] = {"__metadata__": {"note": metadata}}
    data = []
    begin = 0
    for index, size in enumerate(sizes):
        header[f"layer.{index}"] = {"dtype": "U8", "shape": [size], "data_offsets": [begin, begin + size]}
        data.append(noise(size, seed + index))
        begin += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(data)


def gguf_file(sizes: Iterable[int], *, name: str = "model", seed: int = 0) -> bytes:
    """Return a GGUF file with tensors of `sizes` bytes (type I8), aligned to 32 bytes."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    infos, data = [], b""
    for index, size in enumerate(sizes):
        infos.append(text(f"blk.{index}") + struct.pack("<IQIQ", 1, size, 24, len(data)))
        data += noise(size, seed + index)
        data += bytes(-len(data) % 32)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(infos), 1)
    header += text("general.name") + struct.pack("<I", 8) + text(name) + b"".join(infos)
    return header + bytes(-len(header) % 32) + data


MANY_TENSORS = [3 * MIB, 100, 200 * KIB, 2 * MIB + 5, 256 * KIB, 256 * KIB - 1, 40, 1 * MIB, 3000]

# --- all profiles


@pytest.mark.parametrize("profile", ["fixed-1m", "cdc-1m"])
@pytest.mark.parametrize(
    "size",
    [0, 1, 8, CDC_SIZE_MIN - 1, CDC_SIZE_MIN, CDC_SIZE_MIN + 1, MIB - 1, MIB, MIB + 1, 2 * MIB + 1, 9 * MIB + 3],
)
@pytest.mark.parametrize("content", ["noise", "zeros"])
def test_chunks_are_within_limits_and_make_up_the_file(profile: Profile, size: int, content: str) -> None:
    data = NOISE[:size] if content == "noise" else bytes(size)

    result = lengths(profile, data)

    assert sum(result) == size
    assert all(1 <= length <= CHUNK_SIZE_MAX for length in result)
    assert len(result) <= 3 + size // CHUNK_SIZE_MEAN_MIN


@pytest.mark.parametrize("file", [safetensors_file(MANY_TENSORS), gguf_file(MANY_TENSORS)], ids=["safetensors", "gguf"])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_same_bytes_are_cut_alike_wherever_they_lie_in_memory(profile: Profile, file: bytes) -> None:
    expected = lengths(profile, file)

    assert sum(expected) == len(file)
    for shift in (1, 3, 4, 7, 8, 4095):
        assert lengths(profile, file, shift=shift) == expected


@pytest.mark.parametrize("profile", ["fixed-1m", "cdc-1m"])
def test_a_longer_window_changes_no_cut(profile: Profile) -> None:
    view = memoryview(NOISE)
    offset = 0
    for length in lengths(profile, NOISE):
        assert chunker(profile, len(NOISE), reader(NOISE)).next_length(offset, view[offset:]) == length
        offset += length


# --- fixed-1m


def test_fixed_cuts_every_mebibyte() -> None:
    assert lengths("fixed-1m", NOISE[: 2 * MIB + 5]) == [MIB, MIB, 5]


# --- cdc-1m


def naive_cdc(data: bytes) -> list[int]:
    """Return the lengths of the chunks, by the words of spec/content.md §5.2."""
    result = []
    offset = 0
    while offset < len(data):
        rest = len(data) - offset
        length = min(rest, 2 * MIB)
        if rest > 256 * KIB:
            for end in range(256 * KIB, length + 1, 8):
                word = int.from_bytes(data[offset + end - 8 : offset + end], "little")
                if word * 0x9E3779B97F4A7C15 % 2**64 >> 47 == 1:
                    length = end
                    break
        result.append(length)
        offset += length
    return result


@pytest.mark.parametrize("size", [256 * KIB + 8, 600 * KIB + 3, 3 * MIB + 5])
def test_cdc_cuts_where_the_spec_says(size: int) -> None:
    data = noise(size, seed=size)

    assert lengths("cdc-1m", data) == naive_cdc(data)


def test_the_first_word_that_may_end_a_chunk_ends_at_the_minimum() -> None:
    # The word whose product with the multiplier is the pattern and nothing else.
    word = (1 << 47) * pow(0x9E3779B97F4A7C15, -1, 2**64) % 2**64
    pattern = word.to_bytes(8, "little")

    def with_pattern(at: int) -> bytes:
        return bytes(at) + pattern + bytes(3 * MIB)

    assert lengths("cdc-1m", with_pattern(256 * KIB - 8))[0] == 256 * KIB
    assert lengths("cdc-1m", with_pattern(256 * KIB - 16))[0] == 2 * MIB
    assert lengths("cdc-1m", with_pattern(256 * KIB))[0] == 256 * KIB + 8
    assert lengths("cdc-1m", with_pattern(256 * KIB + 4))[0] == 2 * MIB
    assert lengths("cdc-1m", with_pattern(MIB)) == [MIB + 8, 2 * MIB, MIB]


def test_chunks_of_noise_have_about_a_mebibyte() -> None:
    result = lengths("cdc-1m", NOISE)[:-1]

    assert 0.75 * MIB < sum(result) / len(result) < 1.5 * MIB
    assert min(result) >= CDC_SIZE_MIN


def test_zeros_are_cut_at_the_maximum() -> None:
    assert lengths("cdc-1m", bytes(5 * MIB)) == [2 * MIB, 2 * MIB, MIB]


@settings(max_examples=10)
@given(at=st.integers(0, len(NOISE)), words=st.integers(1, 5000), seed=st.integers(0, 2**32))
def test_an_insertion_of_whole_words_moves_few_cuts(at: int, words: int, seed: int) -> None:
    at -= at % 8
    changed = NOISE[:at] + random.Random(seed).randbytes(8 * words) + NOISE[at:]

    before, after = hashes("cdc-1m", NOISE), hashes("cdc-1m", changed)

    assert len(set(before) - set(after)) <= 6


def test_an_insertion_moves_no_cut_before_it() -> None:
    changed = NOISE[: 10 * MIB] + b"x" + NOISE[10 * MIB :]
    offset, kept = 0, 0
    for length in lengths("cdc-1m", NOISE):
        offset += length
        kept += offset <= 10 * MIB

    assert lengths("cdc-1m", changed)[:kept] == lengths("cdc-1m", NOISE)[:kept]


# --- tensor-1m


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, list[int]]:
    """Size, begin of the data, and begins of the tensors, with sizes around every limit."""
    near = st.sampled_from([0, TENSOR_LARGE, REST_MIN, CHUNK_SIZE, CHUNK_SIZE + REST_MIN, 3 * CHUNK_SIZE])
    at_a_limit = st.builds(lambda size, by: max(0, size + by), near, st.integers(-3, 3))
    extent = st.integers(0, 100) | at_a_limit | st.integers(0, 3 * MIB)
    data_begin = draw(extent)
    extents = draw(st.lists(extent, max_size=60))
    gap = draw(st.sampled_from([0, 0, 1, 5 * MIB]))
    begins = [data_begin + gap + sum(extents[:index]) for index in range(len(extents))]
    return data_begin + gap + sum(extents), data_begin, begins


@given(layouts())
def test_tensor_cuts_divide_the_file_into_chunks_within_limits(layout: tuple[int, int, list[int]]) -> None:
    size, data_begin, begins = layout

    cuts = tensor_cuts(size, data_begin, begins)

    sizes = [end - begin for begin, end in pairwise([0, *cuts])]
    assert sum(sizes) == size
    assert all(1 <= length <= CHUNK_SIZE + REST_MIN <= CHUNK_SIZE_MAX for length in sizes)
    assert cuts == sorted(set(cuts))
    assert not cuts or cuts[-1] == size


@given(layouts())
def test_tensor_cuts_are_no_more_than_a_page_may_state(layout: tuple[int, int, list[int]]) -> None:
    # Two segments at the front, then at most two for each large tensor, which has twice
    # CHUNK_SIZE_MEAN_MIN; each segment adds a chunk per CHUNK_SIZE at most.
    size, data_begin, begins = layout

    assert len(tensor_cuts(size, data_begin, begins)) <= 2 + size // CHUNK_SIZE_MEAN_MIN


def test_the_rule_for_the_count_of_chunks_has_no_slack_to_lose() -> None:
    # Large tensors of the least size, with a small one between them: as many chunks as can be.
    pairs = range(100, 100 + 1000 * (TENSOR_LARGE + 1), TENSOR_LARGE + 1)
    begins = [begin for pair in pairs for begin in (pair, pair + TENSOR_LARGE)]
    size = 100 + 1000 * (TENSOR_LARGE + 1)

    assert len(tensor_cuts(size, 100, begins)) == 2001 <= 2 + size // CHUNK_SIZE_MEAN_MIN


@given(layouts())
def test_each_large_tensor_and_what_follows_it_starts_a_chunk(layout: tuple[int, int, list[int]]) -> None:
    size, data_begin, begins = layout

    starts = {0, *tensor_cuts(size, data_begin, begins)}

    assert data_begin in starts or data_begin >= size
    for begin, end in pairwise([*begins, size]):
        if end - begin >= TENSOR_LARGE:
            assert {begin, end} <= starts


@given(layouts(), st.integers(0, 3 * MIB))
def test_a_header_that_grows_moves_the_other_cuts_with_it(layout: tuple[int, int, list[int]], growth: int) -> None:
    size, data_begin, begins = layout
    before = [cut - data_begin for cut in tensor_cuts(size, data_begin, begins) if cut > data_begin]

    grown = tensor_cuts(size + growth, data_begin + growth, [begin + growth for begin in begins])

    assert [cut - data_begin - growth for cut in grown if cut > data_begin + growth] == before


def test_small_tensors_between_large_ones_share_chunks() -> None:
    sizes = [2 * MIB, 1000, 2000, 3000, 2 * MIB]
    begins = [100 + sum(sizes[:index]) for index in range(len(sizes))]

    cuts = tensor_cuts(100 + sum(sizes), 100, begins)

    assert cuts == [100, 100 + MIB, 100 + 2 * MIB, 6100 + 2 * MIB, 6100 + 3 * MIB, 6100 + 4 * MIB]


def test_a_short_rest_joins_the_chunk_before_it() -> None:
    assert tensor_cuts(2 * MIB + REST_MIN - 1, 0, [0]) == [MIB, 2 * MIB + REST_MIN - 1]
    assert tensor_cuts(2 * MIB + REST_MIN, 0, [0]) == [MIB, 2 * MIB, 2 * MIB + REST_MIN]
    assert tensor_cuts(MIB + 1, 0, [0]) == [MIB + 1]


@pytest.mark.parametrize("write", [safetensors_file, gguf_file])
def test_a_header_that_grew_keeps_all_chunks_of_tensors(write) -> None:  # type: ignore[no-untyped-def]
    if write is safetensors_file:
        before, after = write(MANY_TENSORS), write(MANY_TENSORS, metadata="x" * 12345)
    else:
        before, after = write(MANY_TENSORS), write(MANY_TENSORS, name="x" * 12345)

    lost = set(hashes("tensor-1m", before)) - set(hashes("tensor-1m", after))

    assert before != after
    assert len(lost) == 1
    assert hashes("tensor-1m", before)[0] in lost


def test_a_tensor_that_changed_keeps_the_chunks_of_the_others() -> None:
    before = safetensors_file(MANY_TENSORS)
    after = bytearray(before)
    after[-3000 - MIB] ^= 1  # the first byte of the last large tensor

    assert len(set(hashes("tensor-1m", before)) - set(hashes("tensor-1m", bytes(after)))) == 1


def test_a_tensor_that_grew_keeps_the_chunks_of_the_others() -> None:
    before = safetensors_file(MANY_TENSORS)
    grown = safetensors_file([MANY_TENSORS[0] + 4096, *MANY_TENSORS[1:]])

    # The header, and the two chunks of the first tensor that now hold other bytes.
    assert len(set(hashes("tensor-1m", before)) - set(hashes("tensor-1m", grown))) <= 4


def test_safetensors_and_gguf_of_the_same_tensors_are_cut_alike() -> None:
    # With sizes that need no padding, the data of both is the same.
    sizes = [3 * MIB, 64, 2 * MIB]

    assert hashes("tensor-1m", safetensors_file(sizes))[1:] == hashes("tensor-1m", gguf_file(sizes))[1:]


@pytest.mark.parametrize("data", [b"", b"GGUF", b"GGUF" + bytes(100), b"hello", bytes(100), NOISE[:1000]])
def test_a_file_without_tensors_cannot_be_cut_by_them(data: bytes) -> None:
    with pytest.raises(InvalidData):
        chunker("tensor-1m", len(data), reader(data))


@pytest.mark.parametrize(
    ("name", "data", "profile"),
    [
        ("model.safetensors", safetensors_file([10, 20]), "tensor-1m"),
        ("model.gguf", gguf_file([10, 20]), "tensor-1m"),
        ("model.safetensors", b"not one", "cdc-1m"),
        ("model.gguf", b"GGUF", "cdc-1m"),
        ("model.gguf", b"", "cdc-1m"),
        ("model.bin", safetensors_file([10, 20]), "cdc-1m"),
        ("model.safetensors.index.json", b"{}", "cdc-1m"),
    ],
)
def test_the_profile_follows_what_the_file_is(name: str, data: bytes, profile: Profile) -> None:
    assert profile_for(name, len(data), reader(data)) == profile
