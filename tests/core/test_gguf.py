"""Laws of the GGUF header parser, and the official reader and writer as its oracle."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2phub.core import gguf
from p2phub.core.errors import InvalidData
from p2phub.core.gguf import ArrayInfo, GgufHeader
from p2phub.core.tensors import Tensor

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
F32, Q4_K, UNKNOWN = 0, 12, 142


# --- A builder of our own, which can also write what is wrong


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def scalar(type_: int, value: float) -> bytes:
    return struct.pack("<I" + FORMATS[type_], type_, value)


def text(value: str | bytes) -> bytes:
    return struct.pack("<I", STRING) + string(value)


def array(element_type: int, length: int, elements: bytes) -> bytes:
    return struct.pack("<IIQ", ARRAY, element_type, length) + elements


def info(name: str | bytes, dimensions: Sequence[int], type_: int, offset: int) -> bytes:
    """Encode a tensor info; the innermost dimension comes first."""
    return (
        string(name)
        + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        + struct.pack("<IQ", type_, offset)
    )


def file_of(
    pairs: dict[str, bytes] | Sequence[tuple[str | bytes, bytes]] = (),
    infos: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    alignment: int = 32,
    counts: tuple[int, int] | None = None,
) -> bytes:
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    header = gguf.MAGIC + struct.pack("<IQQ", version, *(counts or (len(infos), len(pairs))))
    header += b"".join(string(key) + value for key, value in pairs) + b"".join(infos)
    return header + (bytes(-len(header) % alignment) + data if infos else b"")


def parse(file: bytes) -> GgufHeader:
    return gguf.parse_header(lambda offset, size: file[offset : offset + size], len(file))


# --- What is accepted


def test_a_header_is_read_with_absolute_offsets_in_file_order() -> None:
    file = file_of(
        {"general.architecture": text("llama"), "llama.block_count": scalar(UINT32, 2)},
        [info("b", [256, 2], Q4_K, 32), info("a", [3, 2], F32, 0)],
        bytes(32 + 288),
    )
    begin = len(file) - 320

    assert parse(file) == GgufHeader(
        version=3,
        metadata={"general.architecture": "llama", "llama.block_count": 2},
        tensors=(
            Tensor("a", "F32", (2, 3), begin, begin + 24),
            Tensor("b", "Q4_K", (2, 256), begin + 32, begin + 320),
        ),
        data_begin=begin,
    )


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (scalar(UINT8, 255), 255),
        (scalar(INT8, -128), -128),
        (scalar(UINT16, 65535), 65535),
        (scalar(INT16, -32768), -32768),
        (scalar(UINT32, 2**32 - 1), 2**32 - 1),
        (scalar(INT32, -(2**31)), -(2**31)),
        (scalar(FLOAT32, 0.5), 0.5),
        (scalar(BOOL, 0), False),
        (scalar(BOOL, 1), True),
        (scalar(UINT64, 2**64 - 1), 2**64 - 1),
        (scalar(INT64, -(2**63)), -(2**63)),
        (scalar(FLOAT64, 1e300), 1e300),
        (text(""), ""),
        (text("Grüße"), "Grüße"),
        (text(b"\xff!"), "\ufffd!"),
        (array(UINT16, 3, bytes(6)), ArrayInfo("uint16", 3)),
        (array(BOOL, 3, b"\0\1\1"), ArrayInfo("bool", 3)),
        (array(STRING, 2, string("a") + string("")), ArrayInfo("string", 2)),
        (array(FLOAT64, 0, b""), ArrayInfo("float64", 0)),
        (
            array(ARRAY, 2, array(STRING, 1, string("a"))[4:] + array(INT8, 2, b"ab")[4:]),
            ArrayInfo("array", 2),
        ),
    ],
)
def test_a_value_of_each_type_is_read(encoded: bytes, value: object) -> None:
    read = parse(file_of({"before": encoded, "after": scalar(UINT8, 7)})).metadata

    assert read == {"before": value, "after": 7}
    assert type(read["before"]) is type(value)


@pytest.mark.parametrize("version", [2, 3])
def test_a_header_without_tensors_ends_where_its_data_would_begin(version: int) -> None:
    file = file_of({"a": text("b")}, version=version)

    assert parse(file) == GgufHeader(version, {"a": "b"}, (), len(file))


def test_the_alignment_is_that_of_the_file() -> None:
    file = file_of(
        {"general.alignment": scalar(UINT32, 1024)},
        [info("a", [1], F32, 0), info("b", [], F32, 1024)],
        bytes(1024 + 4),
        alignment=1024,
    )
    header = parse(file)

    assert header.data_begin == 1024
    assert [(t.shape, t.begin, t.end) for t in header.tensors] == [((1,), 1024, 1028), ((), 2048, 2052)]


def test_a_tensor_of_unknown_type_ends_where_the_next_begins() -> None:
    file = file_of(
        infos=[info("last", [5], UNKNOWN, 96), info("first", [5], UNKNOWN, 0), info("f", [2], F32, 64)],
        data=bytes(100),
    )
    begin = parse(file).data_begin

    assert [(t.name, t.dtype, t.begin - begin, t.end - begin) for t in parse(file).tensors] == [
        ("first", "TYPE_142", 0, 64),
        ("f", "F32", 64, 72),
        ("last", "TYPE_142", 96, 100),
    ]


def test_empty_tensors_take_no_place() -> None:
    file = file_of(infos=[info("a", [4], F32, 0), info("b", [0, 4], F32, 0)], data=bytes(16))

    assert [tensor.name for tensor in parse(file).tensors] == ["b", "a"]


# --- What is refused

VALID_INFO = info("a", [8], F32, 0)


def nested(depth: int) -> bytes:
    value = array(UINT8, 0, b"")
    for _ in range(depth - 1):
        value = array(ARRAY, 1, value[4:])
    return value


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "ends in its GGUF header"),
    "another format": (b"GGML" + bytes(20), "does not begin with GGUF"),
    "magic alone": (b"GGUF", "ends in its GGUF header"),
    "version 0": (file_of(version=0), "version 0"),
    "version 1": (file_of(version=1), "version 1"),
    "version 4": (file_of(version=4), "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "more tensors than the limit": (file_of(counts=(2**63, 0)), "tensors, the limit"),
    "more pairs than the limit": (file_of(counts=(0, 2**63)), "pairs, the limit"),
    "pairs that are not there": (file_of(counts=(0, 60_000)), "ends in its GGUF header"),
    "tensors that are not there": (file_of(counts=(200_000, 0)), "ends in its GGUF header"),
    "key twice": (file_of([("a", text("")), ("a", text(""))]), "key 'a' twice"),
    "key not UTF-8": (file_of([(b"\xff", text(""))]), "not UTF-8"),
    "key of 2^64 - 1 bytes": (file_of()[:-8] + struct.pack("<QQ", 1, 2**64 - 1), "name of"),
    "key longer than the limit": (file_of([("a" * 65_536, text(""))]), "name of 65536"),
    "value of unknown type": (file_of({"a": struct.pack("<I", 13)}), "unknown type 13"),
    "value that is cut": (file_of({"a": scalar(UINT64, 1)[:-1]}), "ends in its GGUF header"),
    "string beyond the file": (file_of({"a": struct.pack("<IQ", STRING, 9) + b"12345678"}), "ends in"),
    "string of 2^64 - 1 bytes": (file_of({"a": struct.pack("<IQ", STRING, 2**64 - 1)}), "string of"),
    "bool of 2": (file_of({"a": scalar(BOOL, 2)}), "bool that is 2"),
    "array of unknown type": (file_of({"a": array(13, 0, b"")}), "unknown type 13"),
    "array beyond the file": (file_of({"a": array(UINT32, 3, bytes(11))}), "ends in its GGUF header"),
    "array of 2^64 - 1 numbers": (file_of({"a": array(UINT64, 2**64 - 1, bytes(8))}), "ends in"),
    "array of 2^64 - 1 strings": (file_of({"a": array(STRING, 2**64 - 1, bytes(64))}), "strings in arrays"),
    "array of strings beyond the file": (file_of({"a": array(STRING, 8, bytes(63))}), "ends in"),
    "array with a string beyond the file": (
        file_of({"a": array(STRING, 1, struct.pack("<Q", 2**64 - 1))}),
        "ends in",
    ),
    "arrays nested too deeply": (file_of({"a": nested(5)}), "nested too deeply"),
    "arrays nested without end": (file_of({"a": nested(10_000)}), "nested too deeply"),
    "too many nested arrays": (
        file_of({"a": array(ARRAY, 2**64 - 1, array(UINT8, 0, b"")[4:] * 70_000)}),
        "or too many",
    ),
    "alignment 0": (file_of({"general.alignment": scalar(UINT32, 0)}), "power of two"),
    "alignment 24": (file_of({"general.alignment": scalar(UINT32, 24)}), "power of two"),
    "alignment 2^31": (file_of({"general.alignment": scalar(UINT32, 2**31)}), "power of two"),
    "alignment is text": (file_of({"general.alignment": text("32")}), "power of two"),
    "alignment is true": (file_of({"general.alignment": scalar(BOOL, 1)}), "power of two"),
    "tensor name twice": (file_of(infos=[VALID_INFO, info("a", [8], F32, 32)], data=bytes(64)), "one name"),
    "tensor name not UTF-8": (file_of(infos=[info(b"\xff", [8], F32, 0)], data=bytes(32)), "not UTF-8"),
    "tensor of 2^32 - 1 dimensions": (
        file_of(infos=[string("a") + struct.pack("<I", 2**32 - 1)]),
        "4294967295 dimensions",
    ),
    "shape whose product overflows": (file_of(infos=[info("a", [2**62, 2], F32, 0)]), r"2\^63 elements"),
    "dimension of 2^63": (file_of(infos=[info("a", [0, 2**63], F32, 0)]), r"2\^63 elements"),
    "part of a block": (file_of(infos=[info("a", [32, 8], Q4_K, 0)], data=bytes(144)), "256 at a time"),
    "offset not aligned": (file_of(infos=[info("a", [8], F32, 16)], data=bytes(64)), "not aligned"),
    "tensor beyond the file": (file_of(infos=[VALID_INFO], data=bytes(31)), "of a file of"),
    "tensor that begins beyond the file": (file_of(infos=[info("a", [0], F32, 2**40)]), "of a file of"),
    "offset of 2^64 - 32": (file_of(infos=[info("a", [8], F32, 2**64 - 32)], data=bytes(64)), "of a file of"),
    "unknown type beyond the file": (file_of(infos=[info("a", [8], UNKNOWN, 2**40)]), "of a file of"),
    "overlap": (
        file_of(infos=[info("a", [9], F32, 0), info("b", [8], F32, 32)], data=bytes(64)),
        "overlaps",
    ),
    "same place": (file_of(infos=[VALID_INFO, info("b", [8], F32, 0)], data=bytes(64)), "overlaps"),
    "two unknown types in one place": (
        file_of(infos=[info("a", [8], UNKNOWN, 0), info("b", [8], UNKNOWN, 0)], data=bytes(64)),
        "overlaps",
    ),
    "known and unknown type in one place": (
        file_of(infos=[info("a", [8], UNKNOWN, 0), info("b", [8], F32, 0)], data=bytes(64)),
        "overlaps",
    ),
    "unknown type at the end of the file": (
        file_of(infos=[VALID_INFO, info("b", [8], UNKNOWN, 32)], data=bytes(32)),
        "no bytes",
    ),
}


@pytest.mark.parametrize(("file", "why"), REFUSED.values(), ids=REFUSED)
def test_a_malformed_file_is_refused(file: bytes, why: str) -> None:
    with pytest.raises(InvalidData, match=why):
        parse(file)


def test_a_header_longer_than_the_limit_is_refused_without_reading_it() -> None:
    head = file_of({"a": array(UINT8, 300 * 1024 * 1024, b"")})
    read = []

    def sparse(offset: int, size: int) -> bytes:
        read.append(size)
        return head[offset : offset + size].ljust(size, b"\0")

    with pytest.raises(InvalidData, match="more than 268435456 bytes"):
        gguf.parse_header(sparse, 2**40)
    assert sum(read) <= 2 * 1024 * 1024


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    file = file_of({"a": text("b")})

    with pytest.raises(InvalidData, match="ends in its GGUF header"):
        gguf.parse_header(lambda offset, size: file[offset : offset + size][:-1], len(file))


@pytest.mark.parametrize("length", range(10))
def test_a_header_is_read_across_the_edges_of_blocks(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "_BLOCK_SIZE", 16)
    strings = b"".join(string("x" * (i % 37)) for i in range(500))
    file = file_of(
        {
            "a" * length: array(STRING, 500, strings),
            "b": array(ARRAY, 2, array(STRING, 2, string("a") * 2)[4:] + array(UINT64, 9, bytes(72))[4:]),
            "c": text("y" * 100),
        },
        [VALID_INFO],
        bytes(32),
    )

    assert parse(file).metadata["c"] == "y" * 100
    assert len(parse(file).tensors) == 1


# --- Laws


def assert_lies_in_the_data(header: GgufHeader, size: int) -> None:
    position = header.data_begin
    for tensor in header.tensors:
        assert position <= tensor.begin <= tensor.end <= size
        position = tensor.end
    assert position <= size
    # The values keep the bounds of their types.
    msgspec.convert(msgspec.to_builtins(header), GgufHeader)


KNOWN_TYPES = sorted(gguf.TENSOR_TYPES)


def values(depth: int = 1) -> st.SearchStrategy[bytes]:
    """Encoded values of any type."""
    limits = {
        UINT8: (0, 255),
        INT16: (-(2**15), 2**15 - 1),
        UINT32: (0, 2**32 - 1),
        INT64: (-(2**63), 2**63 - 1),
        BOOL: (0, 1),
    }
    scalars = [st.builds(scalar, st.just(type_), st.integers(low, high)) for type_, (low, high) in limits.items()]
    texts = st.text(st.characters(codec="utf-8"), max_size=8)
    arrays = st.lists(texts, max_size=5).map(lambda t: array(STRING, len(t), b"".join(map(string, t))))
    if depth:
        arrays |= st.lists(values(depth - 1).filter(lambda v: v[0] == ARRAY), max_size=2).map(
            lambda items: array(ARRAY, len(items), b"".join(item[4:] for item in items))
        )
    return st.one_of(*scalars, texts.map(text), st.binary(max_size=9).map(lambda b: array(INT8, len(b), b)), arrays)


@st.composite
def files(draw: st.DrawFn, *, nested: bool = True, types: Sequence[int] = (*KNOWN_TYPES, UNKNOWN)) -> bytes:
    """Draw a valid file."""
    keys = st.text(st.characters(codec="ascii"), min_size=1, max_size=5).filter(lambda key: "." not in key)
    pairs = draw(st.dictionaries(keys, values(1 if nested else 0), max_size=4))
    alignment = draw(st.sampled_from([8, 32, 256]))
    if alignment != 32:
        pairs["general.alignment"] = scalar(UINT32, alignment)
    infos = []
    position = 0
    for i in range(draw(st.integers(0, 4))):
        type_ = draw(st.sampled_from(types))
        block = gguf.TENSOR_TYPES.get(type_, gguf.Block("", 1, 1))
        dimensions = [block.elements * draw(st.integers(1, 2)), *draw(st.lists(st.integers(1, 3), max_size=3))]
        infos.append(info(f"t{i}", dimensions, type_, position))
        position += math.prod(dimensions) // block.elements * block.size
        position += -position % alignment
    return file_of(pairs, draw(st.permutations(infos)), bytes(position), alignment=alignment)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """Draw a valid file in which a few bytes were changed, or the end is missing."""
    file = bytearray(draw(files()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(4, len(file) - 1))
        file[at] = draw(st.sampled_from([0, 1, 8, 9, 255]) | st.integers(0, 255))
    return bytes(file[: len(file) - draw(st.integers(0, 1) | st.integers(0, len(file)))])


@given(st.binary(max_size=64).map(lambda data: b"GGUF\3\0\0\0" + data) | st.binary(max_size=9) | damaged_files())
def test_bytes_are_refused_or_a_header_whose_tensors_lie_in_the_data(file: bytes) -> None:
    try:
        header = parse(file)
    except InvalidData:
        return

    assert_lies_in_the_data(header, len(file))


@given(files())
def test_a_valid_file_is_read(file: bytes) -> None:
    assert_lies_in_the_data(parse(file), len(file))


# --- The official reader and writer


def official_module() -> Any:
    return pytest.importorskip("gguf", reason="the official gguf is not installed")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=files(nested=False, types=[t for t in KNOWN_TYPES if t not in range(31, 34) and t not in (36, 37, 38, 42)]))
def test_valid_files_are_read_as_by_the_official_reader(file: bytes, tmp_path: Path) -> None:
    official = official_module()
    path = tmp_path / "model.gguf"
    path.write_bytes(file)
    reader = official.GGUFReader(path)
    header = parse(file)

    assert header.data_begin == reader.data_offset or not header.tensors
    assert [
        (t.name, t.tensor_type.name, tuple(reversed(t.shape.tolist())), t.data_offset, t.data_offset + int(t.n_bytes))
        for t in sorted(reader.tensors, key=lambda t: t.data_offset)
    ] == [(t.name, t.dtype, t.shape, t.begin, t.end) for t in header.tensors]
    for key, value in header.metadata.items():
        contents = reader.fields[key].contents()
        if isinstance(value, ArrayInfo):
            assert value.length == (len(contents) if contents else 0)
        else:
            assert value == contents


def test_files_of_the_official_writer_are_read(tmp_path: Path) -> None:
    official = official_module()
    import numpy as np

    writer = official.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_context_length(4096)
    writer.add_file_type(15)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list(["<s>", "a", "b"])
    writer.add_tensor("token_embd.weight", np.zeros((3, 64), np.float32))
    writer.add_tensor("output.weight", np.zeros((3, 34), np.uint8), raw_dtype=official.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = (tmp_path / "model.gguf").read_bytes()
    header = parse(file)

    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["llama.context_length"] == 4096
    assert header.metadata["tokenizer.ggml.tokens"] == ArrayInfo("string", 3)
    assert [(t.name, t.dtype, t.shape) for t in header.tensors] == [
        ("token_embd.weight", "F32", (3, 64)),
        ("output.weight", "Q8_0", (3, 32)),
    ]
    assert_lies_in_the_data(header, len(file))


def test_types_are_those_of_the_official_package() -> None:
    official = official_module()

    for type_, (elements, size) in official.GGML_QUANT_SIZES.items():
        assert gguf.TENSOR_TYPES[type_.value] == gguf.Block(type_.name, elements, size)
    for file_type in official.LlamaFileType:
        if file_type.name != "GUESSED":
            name = file_type.name.removeprefix("MOSTLY_").removeprefix("ALL_")
            assert gguf.FILE_TYPES[file_type.value] == name
    assert official.LlamaFileType.GUESSED.value == gguf.FILE_TYPE_GUESSED


# --- Speed


def realistic_file(tokens: int = 150_000, tensors: int = 300) -> bytes:
    """Return a file with the header of a model that has a large vocabulary."""
    vocabulary = b"".join(string(f"tok{i}") for i in range(tokens))
    merges = b"".join(string(f"t{i} ok{i}") for i in range(tokens))
    return file_of(
        {
            "general.architecture": text("llama"),
            "tokenizer.ggml.tokens": array(STRING, tokens, vocabulary),
            "tokenizer.ggml.scores": array(FLOAT32, tokens, bytes(4 * tokens)),
            "tokenizer.ggml.token_type": array(INT32, tokens, bytes(4 * tokens)),
            "tokenizer.ggml.merges": array(STRING, tokens, merges),
            "tokenizer.chat_template": text("{{ messages }}" * 500),
        },
        [info(f"blk.{i}.weight", [256, 2], Q4_K, 288 * i) for i in range(tensors)],
        bytes(288 * tensors),
    )


def test_a_large_vocabulary_is_stepped_over_in_a_moment() -> None:
    file = realistic_file()
    begin = time.process_time()
    header = parse(file)

    # Some 30 ms; the bound only tells stepping over from building.
    assert time.process_time() - begin < 1
    assert header.metadata["tokenizer.ggml.merges"] == ArrayInfo("string", 150_000)
    assert len(header.tensors) == 300
