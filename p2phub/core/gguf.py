"""Read the header of a GGUF file, which may be hostile.

    magic, version, counts
    key-value pairs         the vocabulary is here, as arrays of some 100,000 strings
    tensor infos            name, dimensions, type, offset
    padding
    data                    each tensor at a multiple of the alignment

Arrays are stepped over and leave only their type and length, so that a header
costs milliseconds and little memory; every count has a limit. Versions 2 and 3,
little-endian. Source: docs/gguf.md and src/gguf.cpp of github.com/ggml-org/ggml.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct

from .errors import InvalidData
from .tensors import INT_MAX, Offset, Read, Tensor, quote

MAGIC = b"GGUF"
VERSIONS = (2, 3)
HEADER_SIZE_MAX = 256 * 1024 * 1024  # bytes, up to the data
PAIRS_MAX = 65_536  # key-value pairs; files have some tens
TENSORS_MAX = 262_144  # files have some thousands
STRINGS_MAX = 8_388_608  # strings in all arrays together; vocabularies with merges have under a million
ARRAYS_MAX = 65_536  # arrays, nested ones included
ARRAY_DEPTH_MAX = 4  # arrays in arrays; llama.cpp takes none
NAME_SIZE_MAX = 65_535  # bytes of a key or a tensor name; docs/gguf.md
STRING_SIZE_MAX = 64 * 1024 * 1024  # bytes of a string value; GGUF_MAX_STRING_LENGTH of src/gguf.cpp
DIMENSIONS_MAX = 8  # ggml has 4
ALIGNMENT_DEFAULT = 32  # bytes; docs/gguf.md, general.alignment
ALIGNMENT_MAX = 1024 * 1024  # bytes; a larger one is an attempt to make a small model fill a disk

_BLOCK_SIZE = 1024 * 1024  # bytes read from the file in one go


class Block(NamedTuple):
    """How a ggml type packs elements: a row is a whole number of blocks."""

    name: str
    elements: int
    size: int  # bytes


# `type_traits` of src/ggml.c. The names with two more numbers are no longer
# written, but older files have them; 4 and 5 are older than GGUF 2.
TENSOR_TYPES = {
    0: Block("F32", 1, 4),
    1: Block("F16", 1, 2),
    2: Block("Q4_0", 32, 18),
    3: Block("Q4_1", 32, 20),
    6: Block("Q5_0", 32, 22),
    7: Block("Q5_1", 32, 24),
    8: Block("Q8_0", 32, 34),
    9: Block("Q8_1", 32, 40),
    10: Block("Q2_K", 256, 84),
    11: Block("Q3_K", 256, 110),
    12: Block("Q4_K", 256, 144),
    13: Block("Q5_K", 256, 176),
    14: Block("Q6_K", 256, 210),
    15: Block("Q8_K", 256, 292),
    16: Block("IQ2_XXS", 256, 66),
    17: Block("IQ2_XS", 256, 74),
    18: Block("IQ3_XXS", 256, 98),
    19: Block("IQ1_S", 256, 50),
    20: Block("IQ4_NL", 32, 18),
    21: Block("IQ3_S", 256, 110),
    22: Block("IQ2_S", 256, 82),
    23: Block("IQ4_XS", 256, 136),
    24: Block("I8", 1, 1),
    25: Block("I16", 1, 2),
    26: Block("I32", 1, 4),
    27: Block("I64", 1, 8),
    28: Block("F64", 1, 8),
    29: Block("IQ1_M", 256, 56),
    30: Block("BF16", 1, 2),
    31: Block("Q4_0_4_4", 32, 18),
    32: Block("Q4_0_4_8", 32, 18),
    33: Block("Q4_0_8_8", 32, 18),
    34: Block("TQ1_0", 256, 54),
    35: Block("TQ2_0", 256, 66),
    36: Block("IQ4_NL_4_4", 32, 18),
    37: Block("IQ4_NL_4_8", 32, 18),
    38: Block("IQ4_NL_8_8", 32, 18),
    39: Block("MXFP4", 32, 17),
    40: Block("NVFP4", 64, 36),
    41: Block("Q1_0", 128, 18),
    42: Block("Q2_0", 64, 18),
}

# `general.file_type`: llama_ftype of include/llama.h of github.com/ggml-org/llama.cpp.
FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    33: "Q4_0_4_4",
    34: "Q4_0_4_8",
    35: "Q4_0_8_8",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}
FILE_TYPE_GUESSED = 1024  # a flag: the writer was not told, and looked at the tensors

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_BOOL, _STRING, _ARRAY = 7, 8, 9
# gguf_metadata_value_type of docs/gguf.md
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    _BOOL: struct.Struct("<B"),
    10: _U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_VALUE_TYPES = (
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "float32",
    "bool", "string", "array", "uint64", "int64", "float64",
)  # fmt: skip


class ArrayInfo(NamedTuple):
    """What is kept of an array."""

    element_type: str  # as docs/gguf.md spells it, in lower case: "string", "float32", "array"
    length: int


Value = str | int | float | bool | ArrayInfo


class GgufHeader(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the header of a GGUF file says."""

    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]  # in file order
    data_begin: Offset  # bytes


def parse_header(read: Read, size: int) -> GgufHeader:
    """Return the header of the GGUF file of `size` bytes behind `read`.

    Raises InvalidData if it is none, passes a limit, or has tensors that overlap or leave the file.
    """
    header = _Cursor(read, size)
    if header.take(4) != MAGIC:
        raise InvalidData("file does not begin with GGUF")
    version = header.u32()
    if version & 0xFFFF == 0 and version:
        raise InvalidData("GGUF file is big-endian, only little-endian ones are read")
    if version not in VERSIONS:
        raise InvalidData(f"GGUF file has version {version}, only 2 and 3 are read")
    tensor_count, pair_count = header.u64(), header.u64()
    if tensor_count > TENSORS_MAX:
        raise InvalidData(f"GGUF header with {tensor_count} tensors, the limit is {TENSORS_MAX}")
    if pair_count > PAIRS_MAX:
        raise InvalidData(f"GGUF header with {pair_count} key-value pairs, the limit is {PAIRS_MAX}")

    metadata: dict[str, Value] = {}
    for _ in range(pair_count):
        key = header.name()
        if key in metadata:
            raise InvalidData(f"GGUF header has the key {quote(key)} twice")
        metadata[key] = header.value()
    alignment = _alignment(metadata)
    infos = [_tensor_info(header, alignment) for _ in range(tensor_count)]
    if len({info.name for info in infos}) != tensor_count:
        raise InvalidData("GGUF header has two tensors of one name")

    data_begin = header.position
    if infos:
        data_begin += -data_begin % alignment
    return GgufHeader(version, metadata, tuple(_place(infos, data_begin, size)), data_begin)


class _TensorInfo(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]  # the outermost dimension first
    offset: int  # bytes from the begin of the data
    size: int | None  # bytes; None where we do not know the type


def _tensor_info(header: _Cursor, alignment: int) -> _TensorInfo:
    name = header.name()
    dimension_count = header.u32()
    if dimension_count > DIMENSIONS_MAX:
        raise InvalidData(f"tensor {quote(name)} has {dimension_count} dimensions, ggml has 4")
    # In the file the innermost dimension comes first.
    dimensions = [header.u64() for _ in range(dimension_count)]
    type_, offset = header.u32(), header.u64()

    elements = 1
    for dimension in dimensions:
        elements *= dimension
        if dimension > INT_MAX or elements > INT_MAX:
            raise InvalidData(f"tensor {quote(name)} has more than 2^63 elements")
    if offset % alignment:
        raise InvalidData(f"tensor {quote(name)} is not aligned to {alignment} bytes")
    shape = tuple(reversed(dimensions))
    block = TENSOR_TYPES.get(type_)
    if block is None:
        return _TensorInfo(name, f"TYPE_{type_}", shape, offset, None)
    row = dimensions[0] if dimensions else 1
    if row % block.elements:
        raise InvalidData(
            f"tensor {quote(name)} has rows of {row} elements, {block.name} packs {block.elements} at a time"
        )
    return _TensorInfo(name, block.name, shape, offset, elements // block.elements * block.size)


def _alignment(metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", ALIGNMENT_DEFAULT)
    if type(alignment) is not int or not 0 < alignment <= ALIGNMENT_MAX or alignment & (alignment - 1):
        raise InvalidData(f"general.alignment is no power of two up to {ALIGNMENT_MAX}")
    return alignment


def _place(infos: Iterable[_TensorInfo], data_begin: int, size: int) -> Iterable[Tensor]:
    """Yield the tensors in file order, with offsets from the start of the file.

    A tensor of a type we do not know ends where the next one begins.
    """
    # Of those that begin together, the empty ones come first and the unknown ones last.
    ordered = sorted(infos, key=lambda info: (info.offset, info.size is None, info.size))
    position = data_begin
    for index, info in enumerate(ordered):
        begin = data_begin + info.offset
        if begin < position:
            raise InvalidData(f"tensor {quote(info.name)} overlaps another")
        if info.size is not None:
            end = begin + info.size
        elif index + 1 < len(ordered):
            end = data_begin + ordered[index + 1].offset
        else:
            end = size
        if end > size or begin > size:
            raise InvalidData(f"tensor {quote(info.name)} ends at byte {end} of a file of {size}")
        tensor = Tensor(info.name, info.dtype, info.shape, begin, end)
        if begin == end and tensor.elements:
            raise InvalidData(f"tensor {quote(info.name)} overlaps another, or has no bytes")
        yield tensor
        position = end


class _Cursor:
    """Where we are in the header, and the block of the file that is in memory."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._size = size
        self._end = min(size, HEADER_SIZE_MAX)
        self._block = b""
        self._block_begin = 0  # bytes from the start of the file
        self._at = 0  # bytes from the start of the block; may be past its end
        self._strings_left = STRINGS_MAX
        self._arrays_left = ARRAYS_MAX

    @property
    def position(self) -> int:
        return self._block_begin + self._at

    def take(self, size: int) -> bytes:
        self._need(size)
        data = self._block[self._at : self._at + size]
        self._at += size
        return data

    def u32(self) -> int:
        return int(self._unpack(_U32))

    def u64(self) -> int:
        return int(self._unpack(_U64))

    def name(self) -> str:
        """Return a key or the name of a tensor."""
        size = self.u64()
        if size > NAME_SIZE_MAX:
            raise InvalidData(f"GGUF header has a name of {size} bytes, the limit is {NAME_SIZE_MAX}")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as exc:
            raise InvalidData("GGUF header has a name that is not UTF-8") from exc

    def value(self) -> Value:
        """Return the value of a key-value pair, which begins with its type."""
        type_ = self.u32()
        if type_ == _ARRAY:
            return self._array(1)
        if type_ == _STRING:
            size = self.u64()
            if size > STRING_SIZE_MAX:
                raise InvalidData(f"GGUF header has a string of {size} bytes, the limit is {STRING_SIZE_MAX}")
            # llama.cpp does not look, so models with broken text in a description work.
            return self.take(size).decode(errors="replace")
        if type_ not in _SCALARS:
            raise InvalidData(f"GGUF header has a value of unknown type {type_}")
        scalar = self._unpack(_SCALARS[type_])
        if type_ != _BOOL:
            return scalar
        if scalar not in (0, 1):
            raise InvalidData(f"GGUF header has a bool that is {scalar}")
        return bool(scalar)

    def _array(self, depth: int) -> ArrayInfo:
        """Step over an array and return what it was."""
        self._arrays_left -= 1
        if depth > ARRAY_DEPTH_MAX or self._arrays_left < 0:
            raise InvalidData("GGUF header has arrays that are nested too deeply, or too many")
        element_type, length = self.u32(), self.u64()
        if element_type == _ARRAY:
            # A length beyond the limit ends in the limit, after as many steps.
            for _ in range(min(length, ARRAYS_MAX)):
                self._array(depth + 1)
        elif element_type == _STRING:
            self._skip_strings(length)
        elif element_type in _SCALARS:
            self._skip(length * _SCALARS[element_type].size)
        else:
            raise InvalidData(f"GGUF header has an array of unknown type {element_type}")
        return ArrayInfo(_VALUE_TYPES[element_type], length)

    def _skip_strings(self, count: int) -> None:
        self._strings_left -= count
        if self._strings_left < 0:
            raise InvalidData(f"GGUF header has more than {STRINGS_MAX} strings in arrays")
        # The loop where the time goes: a vocabulary has some 100,000 strings.
        unpack = _U64.unpack_from
        while count:
            self._need(8)
            block, at, last = self._block, self._at, len(self._block) - 8
            for done in range(1, count + 1):
                at += 8 + unpack(block, at)[0]
                if at > last:
                    count -= done
                    break
            else:
                count = 0
            self._at = at
        self._skip(0)  # the last string may reach past the end

    def _skip(self, size: int) -> None:
        self._at += size
        if self.position > self._end:
            raise self._ended()

    def _unpack(self, layout: struct.Struct) -> int | float:
        self._need(layout.size)
        number: int | float = layout.unpack_from(self._block, self._at)[0]
        self._at += layout.size
        return number

    def _need(self, size: int) -> None:
        """Have the next `size` bytes in memory."""
        if self._at + size <= len(self._block):
            return
        position = self.position
        if position + size > self._end:
            raise self._ended()
        self._block = self._read(position, min(max(size, _BLOCK_SIZE), self._end - position))
        self._block_begin, self._at = position, 0
        if len(self._block) < size:
            raise self._ended()

    def _ended(self) -> InvalidData:
        if self._end < self._size:
            return InvalidData(f"GGUF header of more than {HEADER_SIZE_MAX} bytes")
        return InvalidData("file ends in its GGUF header")
