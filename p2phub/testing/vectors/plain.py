"""How vectors stand in JSON, and what several of the files need."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

Json = dict[str, Any]


def plain(value: Any) -> Any:
    """Return `value` as JSON has it: a Struct as an object, bytes in hex."""
    if isinstance(value, Struct):
        return plain(msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=bytes))
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def render(vectors: Json) -> str:
    """Return the text of a file of vectors."""
    return json.dumps(plain(vectors), indent=1, ensure_ascii=True) + "\n"


def passes(check: Callable[[Any], object], value: object, error: type[Exception]) -> bool:
    """Say whether `check` raises no `error` for `value`."""
    try:
        check(value)
    except error:
        return False
    return True
