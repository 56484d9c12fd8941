"""Read the header of a .safetensors file, which may be hostile.

    8 bytes     length of the JSON, little-endian
    JSON        {"__metadata__": {text: text}, NAME: {"dtype", "shape", "data_offsets"}, ...}
    the rest    the tensors, without gaps, in the order of their offsets

The rules are those of the official implementation (github.com/huggingface/safetensors,
`Metadata::validate`), with few exceptions. A key that stands twice is refused, because two
readers could disagree on which one counts; so is a header with more than VALUES_MAX values,
because memory is finite, and a tensor described by a list, which the official JSON library
takes by accident. A dtype that we do not know is accepted without a check of its size,
because the format gains dtypes faster than nodes are updated.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from msgspec import Struct

from .errors import InvalidData
from .tensors import Offset, Read, Tensor, quote, read_exactly

HEADER_LENGTH_MAX = 100_000_000  # bytes of JSON; MAX_HEADER_SIZE of the official implementation
VALUES_MAX = 4_000_000  # JSON values in a header: half a million tensors, several times the largest model we know
DEPTH_MAX = 127  # nested containers; the recursion limit of the official JSON parser
_LENGTH_SIZE = 8  # bytes
_U64_MAX = 2**64 - 1
_DTYPE = re.compile(r"[A-Za-z0-9_]{1,32}")

DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


class SafetensorsHeader(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the header of a safetensors file says."""

    header_size: Offset  # bytes, the 8 length bytes included: where the data begins
    tensors: tuple[Tensor, ...]  # in file order
    metadata: dict[str, str] = {}


def parse_header(read: Read, size: int) -> SafetensorsHeader:
    """Return the header of the safetensors file of `size` bytes behind `read`.

    Raises InvalidData if it is none, or if its tensors do not exactly cover the rest of the file.
    """
    if size < _LENGTH_SIZE:
        raise InvalidData(f"file of {size} bytes is too short for a safetensors header")
    length = int.from_bytes(read_exactly(read, 0, _LENGTH_SIZE), "little")
    if length > HEADER_LENGTH_MAX:
        raise InvalidData(f"safetensors header of {length} bytes, the limit is {HEADER_LENGTH_MAX}")
    header_size = _LENGTH_SIZE + length
    if header_size > size:
        raise InvalidData(f"safetensors header of {length} bytes in a file of {size}")

    members = _decode_json(read_exactly(read, _LENGTH_SIZE, length))
    metadata = _metadata(members.pop("__metadata__", None))
    tensors = [_tensor(name, entry, header_size) for name, entry in members.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_text(tensor.name for tensor in tensors)
    _check_layout(tensors, header_size, size)
    return SafetensorsHeader(header_size, tuple(tensors), metadata)


def _decode_json(data: bytes) -> dict[str, Any]:
    # Every value follows one of these, so this bounds what the parser allocates.
    if data.count(b",") + data.count(b"[") + data.count(b"{") > VALUES_MAX:
        raise InvalidData(f"safetensors header has more than {VALUES_MAX} values")
    try:
        members = _JSON.decode(data.decode())
    except UnicodeDecodeError as exc:
        raise InvalidData("safetensors header is not UTF-8") from exc
    except RecursionError as exc:
        raise InvalidData("safetensors header is nested too deeply") from exc
    except ValueError as exc:
        raise InvalidData(f"safetensors header is not JSON: {exc}") from exc
    if type(members) is not dict:
        raise InvalidData("safetensors header is not a JSON object")
    return members


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if type(value) is not dict or not all(type(text) is str for text in value.values()):
        raise InvalidData("__metadata__ of the safetensors header is not a map from text to text")
    _check_text(value.keys())
    _check_text(value.values())
    return value


def _tensor(name: str, entry: Any, data_begin: int) -> Tensor:
    if type(entry) is not dict:
        raise InvalidData(f"tensor {quote(name)} is not described by an object")
    for key, value in entry.items():
        if key not in ("dtype", "shape", "data_offsets"):
            _check_depth(value, DEPTH_MAX - 2)  # it stands in the header's object and in the entry's
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if type(dtype) is not str or not _DTYPE.fullmatch(dtype):
        raise InvalidData(f"tensor {quote(name)} has no dtype")
    if not _is_naturals(shape):
        raise InvalidData(f"tensor {quote(name)} has a shape that is not a list of natural numbers")
    if not _is_naturals(offsets) or len(offsets) != 2:
        raise InvalidData(f"tensor {quote(name)} has data_offsets that are not two natural numbers")
    begin, end = offsets
    if begin > end:
        raise InvalidData(f"tensor {quote(name)} ends before it begins")
    _check_size(name, dtype, shape, end - begin)
    return Tensor(name, dtype, tuple(shape), data_begin + begin, data_begin + end)


def _check_size(name: str, dtype: str, shape: Sequence[int], size: int) -> None:
    # Step by step, so that a long list of large dimensions makes no huge number.
    elements = 1
    for dimension in shape:
        elements *= dimension
        if elements > _U64_MAX:
            raise InvalidData(f"tensor {quote(name)} has more than 2^64 elements")
    bits_each = DTYPE_BITS.get(dtype)
    if bits_each is None:
        return
    bits = elements * bits_each
    if bits > _U64_MAX:
        raise InvalidData(f"tensor {quote(name)} has more than 2^64 bits")
    if bits % 8:
        raise InvalidData(f"tensor {quote(name)} does not end at a whole byte")
    if bits // 8 != size:
        raise InvalidData(f"tensor {quote(name)} of {elements} {dtype} elements takes {bits // 8} bytes, not {size}")


def _check_layout(tensors: Sequence[Tensor], data_begin: int, size: int) -> None:
    position = data_begin
    for tensor in tensors:
        if tensor.begin != position:
            what = "leaves a hole before it" if tensor.begin > position else "overlaps another"
            raise InvalidData(f"tensor {quote(tensor.name)} {what}")
        position = tensor.end
    if position != size:
        raise InvalidData(f"tensors end at byte {position} of a file of {size}")


def _check_text(texts: Iterable[str]) -> None:
    # JSON can escape half of a surrogate pair, which is no character and has no UTF-8.
    try:
        "\0".join(texts).encode()
    except UnicodeEncodeError as exc:
        raise InvalidData("safetensors header has text that is not Unicode") from exc


def _check_depth(value: Any, depth_max: int) -> None:
    level = [value]
    for _ in range(depth_max + 1):
        containers = [item for item in level if type(item) in (list, dict)]
        if not containers:
            return
        level = [child for item in containers for child in (item.values() if type(item) is dict else item)]
    raise InvalidData("safetensors header is nested too deeply")


def _is_naturals(value: Any) -> TypeGuard[list[int]]:
    if type(value) is not list:
        return False
    for item in value:  # noqa: SIM110  a loop, because this is where half the time goes
        if type(item) is not int or not 0 <= item <= _U64_MAX:
            return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise InvalidData(f"safetensors header has the key {quote(key)} twice")
    return members


def _int(text: str) -> int:
    """Return the number; -1 for every negative one, so that `-0` is no natural number either."""
    if len(text) > 20:  # 2^64 has 20 digits
        _float(text)
        return _U64_MAX + 1
    return -1 if text[0] == "-" else int(text)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("number out of range")
    return number


def _constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON value")


_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant)
