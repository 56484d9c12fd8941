"""Values as JSON, for people's programs and for the local door: ids as text, never floats for integers."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from .errors import InvalidData

T = TypeVar("T")


def to_json(value: Any) -> bytes:
    """Return `value` (built of Structs, lists, dicts, text and numbers) as JSON."""
    return msgspec.json.encode(value, enc_hook=str)


def from_json(data: bytes, type_: type[T]) -> T:
    """Return the value of `type_` that `data` writes. Raises InvalidData."""
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidData(f"not what was expected: {exc}") from exc


def to_plain(value: Any) -> Any:
    """Return `value` as dicts, lists, text and numbers, as its JSON would be read."""
    return msgspec.to_builtins(value, enc_hook=str)
