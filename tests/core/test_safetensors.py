"""Laws of the safetensors header parser, and the official implementation as its oracle."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from p2phub.core import safetensors
from p2phub.core.errors import InvalidData
from p2phub.core.safetensors import SafetensorsHeader
from p2phub.core.tensors import Tensor

DTYPES = sorted(safetensors.DTYPE_BITS)


def file_of(header: Any, data: bytes = b"") -> bytes:
    """Return a file with `header`, bytes or what JSON can encode, before `data`."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: Any = "U8", shape: Any = (1,), offsets: Any = (0, 1), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def parse(file: bytes) -> SafetensorsHeader:
    return safetensors.parse_header(lambda offset, size: file[offset : offset + size], len(file))


# --- What is accepted


def test_a_header_is_read_with_absolute_offsets_in_file_order() -> None:
    header = {
        "b": entry("F32", [2, 1], [2, 10]),
        "__metadata__": {"format": "pt"},
        "a": entry("BF16", [], [0, 2]),
    }
    file = file_of(header, bytes(10))
    begin = len(file) - 10

    assert parse(file) == SafetensorsHeader(
        header_size=begin,
        tensors=(
            Tensor("a", "BF16", (), begin, begin + 2),
            Tensor("b", "F32", (2, 1), begin + 2, begin + 10),
        ),
        metadata={"format": "pt"},
    )


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file_of({}), id="no tensor"),
        pytest.param(file_of(b" \n{} \t"), id="white space around it"),
        pytest.param(file_of({"a": entry(shape=[0], offsets=[0, 0])}), id="empty tensor"),
        pytest.param(
            file_of({"a": entry(), "b": entry(shape=[0], offsets=[0, 0])}, b"x"), id="empty tensor at a begin"
        ),
        pytest.param(file_of({"": entry()}, b"x"), id="empty name"),
        pytest.param(file_of({"a": entry(), "__metadata__": None}, b"x"), id="null metadata"),
        pytest.param(file_of({"a": entry(note=[-1, 1.5, {"x": None}])}, b"x"), id="field of a later version"),
        pytest.param(file_of({"a": entry(shape=[0, 2**63, 2**63], offsets=[0, 0])}), id="nothing times a lot"),
        pytest.param(file_of({"a": entry("F4", [3, 2], [0, 3])}, b"xxx"), id="two elements in a byte"),
        pytest.param(file_of({"a": entry("F6_E3M2", [4], [0, 3])}, b"xxx"), id="four elements in three bytes"),
    ],
)
def test_what_the_official_implementation_accepts_is_accepted(file: bytes) -> None:
    official = pytest.importorskip("safetensors", reason="the official safetensors is not installed")
    official.deserialize(file)

    parse(file)


def test_an_unknown_dtype_is_accepted_whatever_its_size() -> None:
    (tensor,) = parse(file_of({"a": entry("I3", [5], [0, 2])}, b"xx")).tensors

    assert (tensor.dtype, tensor.elements, tensor.end - tensor.begin) == ("I3", 5, 2)


def test_a_header_of_twenty_thousand_tensors_is_read() -> None:
    names = [f"model.layers.{i}" for i in range(20_000)]
    header = {name: entry("BF16", [2, 1], [4 * i, 4 * i + 4]) for i, name in enumerate(names)}

    assert [tensor.name for tensor in parse(file_of(header, bytes(80_000))).tensors] == names


# --- What is refused

REFUSED: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "too short"),
    "seven bytes": (b"\x02\0\0\0\0\0\0", "too short"),
    "empty header": (file_of(b""), "not JSON"),
    "header length 2^63": (struct.pack("<Q", 2**63) + b"{}", "limit"),
    "header length beyond 100 MB": (struct.pack("<Q", 100_000_001) + b"{}", "limit"),
    "header length beyond the file": (struct.pack("<Q", 3) + b"{}", "in a file of"),
    "no JSON": (file_of(b"{"), "not JSON"),
    "more after the JSON": (file_of(b"{}\0"), "not JSON"),
    "byte order mark": (file_of(b"\xef\xbb\xbf{}"), "not JSON"),
    "not UTF-8": (file_of(b'{"\xff":1}'), "not UTF-8"),
    "UTF-16": (file_of('{"a":1}'.encode("utf-16")), "not UTF-8"),
    "list": (file_of([]), "not a JSON object"),
    "null": (file_of(None), "not a JSON object"),
    "NaN": (file_of(b'{"a":NaN}'), "not JSON"),
    "number out of range": (
        file_of(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"z":1e999}}', b"x"),
        "not JSON",
    ),
    "control character in a name": (file_of(b'{"a\n":1}'), "not JSON"),
    "half a surrogate pair in a name": (
        file_of(rb'{"\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
        "Unicode",
    ),
    "half a surrogate pair in metadata": (file_of(rb'{"__metadata__":{"a":"\ud800"}}'), "Unicode"),
    "name twice": (
        file_of(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"x",
        ),
        "twice",
    ),
    "field twice": (
        file_of(b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
        "twice",
    ),
    "metadata twice": (file_of(b'{"__metadata__":{},"__metadata__":{}}'), "twice"),
    "metadata key twice": (file_of(b'{"__metadata__":{"a":"1","a":"2"}}'), "twice"),
    "metadata list": (file_of({"__metadata__": []}), "map from text to text"),
    "metadata number": (file_of({"__metadata__": {"a": 1}}), "map from text to text"),
    "tensor is a number": (file_of({"a": 1}), "object"),
    "dtype missing": (file_of({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"x"), "dtype"),
    "dtype is a number": (file_of({"a": entry(dtype=8)}, b"x"), "dtype"),
    "dtype is empty": (file_of({"a": entry(dtype="")}, b"x"), "dtype"),
    "dtype is long": (file_of({"a": entry(dtype="F" * 33)}, b"x"), "dtype"),
    "shape missing": (file_of({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, b"x"), "shape"),
    "shape is a number": (file_of({"a": entry(shape=1)}, b"x"), "shape"),
    "dimension is negative": (file_of({"a": entry(shape=[-1])}, b"x"), "shape"),
    "dimension is minus zero": (
        file_of(b'{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}'),
        "shape",
    ),
    "dimension is a fraction": (file_of({"a": entry(shape=[1.0])}, b"x"), "shape"),
    "dimension is true": (file_of({"a": entry(shape=[True])}, b"x"), "shape"),
    "dimension is text": (file_of({"a": entry(shape=["1"])}, b"x"), "shape"),
    "dimension is 2^64": (file_of({"a": entry(shape=[0, 2**64], offsets=[0, 0])}), "shape"),
    "dimension is 2^70": (file_of({"a": entry(shape=[2**70])}, b"x"), "shape"),
    "dimension has 10,000 digits": (
        file_of(b'{"a":{"dtype":"U8","shape":[' + b"1" * 10_000 + b'],"data_offsets":[0,1]}}', b"x"),
        "not JSON",
    ),
    "offsets missing": (file_of({"a": {"dtype": "U8", "shape": [1]}}, b"x"), "data_offsets"),
    "three offsets": (file_of({"a": entry(offsets=[0, 1, 1])}, b"x"), "data_offsets"),
    "negative offset": (file_of({"a": entry(offsets=[-1, 0])}, b"x"), "data_offsets"),
    "end before begin": (file_of({"a": entry(shape=[0], offsets=[1, 0])}, b"x"), "before it begins"),
    "hole at the begin": (file_of({"a": entry(offsets=[1, 2])}, b"xx"), "hole"),
    "hole in the middle": (file_of({"a": entry(), "b": entry(offsets=[2, 3])}, b"xxx"), "hole"),
    "overlap": (file_of({"a": entry(shape=[2], offsets=[0, 2]), "b": entry(offsets=[1, 2])}, b"xx"), "overlap"),
    "same place": (file_of({"a": entry(), "b": entry()}, b"x"), "overlap"),
    "empty tensor inside another": (
        file_of({"a": entry(shape=[2], offsets=[0, 2]), "b": entry(shape=[0], offsets=[1, 1])}, b"xx"),
        "overlap",
    ),
    "bytes after the last tensor": (file_of({"a": entry()}, b"xx"), "end at byte"),
    "bytes without a tensor": (file_of({}, b"x"), "end at byte"),
    "tensor beyond the file": (file_of({"a": entry(shape=[2], offsets=[0, 2])}, b"x"), "end at byte"),
    "too few bytes for its shape": (file_of({"a": entry("F32", [1], [0, 3])}, b"xxx"), "takes 4 bytes"),
    "half a byte": (file_of({"a": entry("F4", [3], [0, 1])}, b"x"), "whole byte"),
    "shape whose product overflows": (
        file_of({"a": entry(shape=[2**63, 2**63, 0], offsets=[0, 0])}),
        r"2\^64 elements",
    ),
    "shape of a million large dimensions": (
        file_of({"a": entry(shape=[2**63] * 100_000, offsets=[0, 1])}, b"x"),
        r"2\^64 elements",
    ),
    "bits that overflow": (file_of({"a": entry(shape=[2**62], offsets=[0, 2**62])}), r"2\^64 bits"),
    "unknown dtype with a shape that overflows": (
        file_of({"a": entry("I3", [2**63, 2], [0, 1])}, b"x"),
        r"2\^64 elements",
    ),
    "deep nesting": (file_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "too deep"),
    "deep nesting in an ignored field": (
        file_of(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"z":' + b"[" * 126 + b"]" * 126 + b"}}",
            b"x",
        ),
        "too deep",
    ),
    "more values than any model has": (file_of(b'{"a":[' + b"0," * 4_000_000 + b"0]}"), "values"),
}


@pytest.mark.parametrize(("file", "why"), REFUSED.values(), ids=REFUSED)
def test_a_malformed_file_is_refused(file: bytes, why: str) -> None:
    with pytest.raises(InvalidData, match=why):
        parse(file)


OUR_OWN_REFUSALS = {"name twice", "metadata key twice"}


@pytest.mark.parametrize("case", sorted(REFUSED.keys() - OUR_OWN_REFUSALS))
def test_what_is_refused_the_official_implementation_refuses(case: str) -> None:
    official = pytest.importorskip("safetensors", reason="the official safetensors is not installed")

    with pytest.raises(official.SafetensorError):
        official.deserialize(REFUSED[case][0])


def test_nesting_is_allowed_as_deep_as_in_the_official_implementation() -> None:
    official = pytest.importorskip("safetensors", reason="the official safetensors is not installed")
    nested = b"[" * 125 + b"]" * 125
    file = file_of(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"z":' + nested + b"}}", b"x")
    official.deserialize(file)

    parse(file)


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    file = file_of({"a": entry()}, b"x")

    with pytest.raises(InvalidData, match="ends in its header"):
        safetensors.parse_header(lambda offset, size: file[offset : offset + size - 1], len(file))


# --- Laws


def assert_covers_the_data(header: SafetensorsHeader, size: int) -> None:
    position = header.header_size
    for tensor in header.tensors:
        assert tensor.begin == position <= tensor.end
        position = tensor.end
    assert position == size
    # The values keep the bounds of their types.
    msgspec.convert(msgspec.to_builtins(header), SafetensorsHeader)


@st.composite
def headers(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """Draw a valid header and the size of its data."""
    names = draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=5, unique=True))
    header: dict[str, Any] = {}
    position = 0
    for name in names:
        if name == "__metadata__":
            continue
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        bits = math.prod(shape) * safetensors.DTYPE_BITS[dtype]
        if bits % 8:
            shape, bits = [*shape, 8], bits * 8
        header[name] = entry(dtype, shape, [position, position + bits // 8])
        position += bits // 8
    shuffled = dict(draw(st.permutations(list(header.items()))))
    if draw(st.booleans()):
        shuffled["__metadata__"] = {"format": "pt"}
    return shuffled, position


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """Draw a valid file in which a few things were changed."""
    header, size = draw(headers())
    entries = [value for name, value in header.items() if name != "__metadata__"]
    for damaged in draw(st.lists(st.sampled_from(entries), max_size=2)) if entries else []:
        numbers = damaged[draw(st.sampled_from(["shape", "data_offsets"]))]
        if numbers:
            index = draw(st.integers(0, len(numbers) - 1))
            nearby = [numbers[index] + step for step in (-1, 1)] if type(numbers[index]) is int else [0]
            numbers[index] = draw(
                st.sampled_from(nearby) | st.sampled_from([0, -1, 2**31, 2**32, 2**63, 2**64, 0.5, None, True, "1", []])
            )
    text = bytearray(json.dumps(header, separators=draw(st.sampled_from([(",", ":"), (", ", ": ")]))).encode())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 2))] = draw(
            st.binary(max_size=2) | st.sampled_from([b"{", b"}", b"[", b"]", b",", b"9", b'"', b" "])
        )
    return file_of(bytes(text), bytes(max(0, size + draw(st.sampled_from([0, 0, 0, 1, -1])))))


@given(st.binary(max_size=64) | st.binary(max_size=64).map(file_of) | damaged_files())
def test_bytes_are_refused_or_a_header_whose_tensors_cover_the_data(file: bytes) -> None:
    try:
        header = parse(file)
    except InvalidData:
        return

    assert_covers_the_data(header, len(file))


def official_view(file: bytes) -> list[tuple[str, str, tuple[int, ...], int]] | None:
    """Return what the official implementation says of `file`, None if it refuses it."""
    official = pytest.importorskip("safetensors", reason="the official safetensors is not installed")
    try:
        tensors = official.deserialize(file)
    except official.SafetensorError:
        return None
    return sorted((name, t["dtype"], tuple(t["shape"]), len(t["data"])) for name, t in tensors)


def our_view(file: bytes) -> list[tuple[str, str, tuple[int, ...], int]] | None:
    return sorted((t.name, t.dtype, t.shape, t.end - t.begin) for t in parse(file).tensors)


@settings(deadline=None)  # the first example imports the official implementation
@given(headers())
def test_valid_headers_are_read_as_by_the_official_implementation(case: tuple[dict[str, Any], int]) -> None:
    header, size = case
    file = file_of(header, bytes(size))

    assert our_view(file) == official_view(file)
    assert_covers_the_data(parse(file), len(file))


@settings(deadline=None)
@given(damaged_files())
@example(file_of(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"))
def test_damaged_headers_are_judged_as_by_the_official_implementation(file: bytes) -> None:
    official = official_view(file)
    try:
        ours = our_view(file)
    except InvalidData as exc:
        assume("twice" not in str(exc))
        ours = None
    # Of the dtypes, the official implementation takes only those it knows.
    assume(ours is None or all(dtype in safetensors.DTYPE_BITS for _, dtype, _, _ in ours))

    assert ours == official


def test_files_of_the_official_writer_are_read() -> None:
    pytest.importorskip("safetensors", reason="the official safetensors is not installed")
    import numpy as np
    from safetensors.numpy import save

    file = save(
        {"weight": np.zeros((3, 4), np.float16), "bias": np.zeros(3, np.float32), "step": np.array(7)},
        metadata={"format": "np"},
    )
    header = parse(file)

    assert header.metadata == {"format": "np"}
    assert {t.name: (t.dtype, t.shape) for t in header.tensors} == {
        "weight": ("F16", (3, 4)),
        "bias": ("F32", (3,)),
        "step": ("I64", ()),
    }
    assert_covers_the_data(header, len(file))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_has_the_size_that_the_official_implementation_gives_it(dtype: str) -> None:
    size = safetensors.DTYPE_BITS[dtype]  # bytes of eight elements
    file = file_of({"a": entry(dtype, [8], [0, size])}, bytes(size))

    assert our_view(file) == official_view(file)


def test_only_the_header_is_read() -> None:
    file = file_of({"a": entry(shape=[1000], offsets=[0, 1000])}, bytes(1000))
    sizes = []

    def read(offset: int, size: int) -> bytes:
        sizes.append(size)
        return file[offset : offset + size]

    header = safetensors.parse_header(read, len(file))

    assert sum(sizes) == header.header_size
