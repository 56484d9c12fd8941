"""Values to bytes and back: deterministic CBOR (spec/encoding.md).

`decode` is the one door for bytes from outside. It checks the size before it
does any work, refuses everything that CBOR allows beyond our subset, converts
to a frozen Struct with bounded types, and compares the re-encoding with what
came in. Past it, a value needs no second check.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn, TypeVar, get_args

import cbor2
import msgspec

from .errors import HubError, InvalidEncoding, InvalidSignature, UnknownForm
from .ids import Id, PublicKey, SignerKey
from .signing import check_public_key

DEPTH_MAX = 16  # nested containers; spec/encoding.md §2

T = TypeVar("T")


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("tags are not allowed")


# Tags that cbor2 would act on (dates, big numbers, regular expressions, shared
# and cyclic references, ...). The others reach `tag_hook`.
_BUILT_IN_TAGS = dict.fromkeys(
    (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799),
    _refuse_tag,
)


def encode(value: msgspec.Struct) -> bytes:
    """Return the one encoding of `value`."""
    return cbor2.dumps(msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=_plain), canonical=True)


def decode(data: bytes, type_: type[T], *, size_max: int) -> T:
    """Return the value of `type_` (a Struct, or a union of tagged ones) that `data` encodes.

    Raises InvalidEncoding if `data` is longer than `size_max` bytes, is no such
    value, or is not in the canonical form; UnknownForm if it is in that form, and
    may be such a value of another version.
    """
    if len(data) > size_max:
        raise InvalidEncoding(f"{_name(type_)} of {len(data)} bytes, the limit is {size_max}")
    value = _read(data, type_, to_id)
    # Two encodings of one value would have two ids, and a signature over one
    # would not cover the other. This also catches trailing bytes.
    if encode(value) != data:  # type: ignore[arg-type]
        raise InvalidEncoding(f"{_name(type_)} is not in canonical form")
    return value


def read(data: bytes, type_: type[T]) -> T:
    """Return the value that `data` encodes, for data that `decode` accepted before.

    Raises InvalidEncoding if it is no such value, but not if it is another encoding of one, or names a key that
    must not be used.
    """
    return _read(data, type_, to_known_id)


def _read(data: bytes, type_: type[T], make_id: Callable[[type, Any], Any]) -> T:
    try:
        plain = cbor2.loads(
            data,
            semantic_decoders=_BUILT_IN_TAGS,
            tag_hook=_refuse_tag,
            max_depth=DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except (cbor2.CBORDecodeError, ValueError, OverflowError) as exc:
        raise InvalidEncoding(f"not of type {_name(type_)}: {exc.__cause__ or exc}") from exc
    try:
        value: T = msgspec.convert(plain, type=_meant(plain, type_), builtin_types=(bytes,), dec_hook=make_id)
    except (msgspec.ValidationError, HubError, ValueError, OverflowError) as exc:
        # A key that must not be used is none in any version.
        is_known = InvalidSignature in (type(exc), type(exc.__cause__)) or not _is_well_formed(plain, data)
        error = InvalidEncoding if is_known else UnknownForm
        raise error(f"not of type {_name(type_)}: {exc.__cause__ or exc}") from exc
    return value


def prepare_types() -> None:
    """Let msgspec learn all types that are loaded, here and now.

    It learns a type when that is first used, and two threads that use one for the first time at once end the
    process with a segmentation fault (msgspec 0.22). So a program that will have threads does this before.
    """
    todo, seen = [msgspec.Struct], set[type]()
    while todo:
        for type_ in todo.pop().__subclasses__():
            if type_ not in seen:
                seen.add(type_)
                todo.append(type_)
                # A value that is never read from bytes may name a type that only the type checker loads.
                # Of some a field's type is loaded only where it is used, or is none that bytes can hold, such as a
                # function: they are built here, never read from bytes.
                with contextlib.suppress(NameError, TypeError):
                    msgspec.json.Decoder(type_)


def _meant(plain: Any, type_: Any) -> Any:
    """Return the one of a union of tagged types that `plain` says it is of; the union itself if it names none.

    For a union msgspec would look at all its types each time, which takes longer than all else.
    """
    tagged = _tagged(type_)
    if tagged is None or not isinstance(plain, dict):
        return type_
    field, types = tagged
    tag = plain.get(field)
    return types.get(tag, type_) if isinstance(tag, str) else type_


@lru_cache(maxsize=256)
def _tagged(type_: Any) -> tuple[str, dict[str, Any]] | None:
    """Return the field that says which type of a union is meant, and the types by what it says; None: it is none."""
    if not (members := get_args(type_)):
        return None
    configs = [member.__struct_config__ for member in members]
    (field,) = {config.tag_field for config in configs}
    return field, {config.tag: member for config, member in zip(configs, members, strict=True)}


def _is_well_formed(plain: Any, data: bytes) -> bool:
    """Say whether `data` encodes `plain` as any message is encoded: a map with text keys, in canonical form."""
    if not isinstance(plain, dict) or not all(type(key) is str for key in plain):
        return False
    try:
        return cbor2.dumps(plain, canonical=True) == data
    except (cbor2.CBOREncodeError, ValueError, OverflowError):
        return False


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return bytes(value)
    raise NotImplementedError(f"{type(value)} has no encoding")


def to_id(type_: type, value: Any) -> Any:
    """Return the id, or key, of a type that is none of msgspec's. Raises ValueError, HubError if `value` is none."""
    if type(value) is bytes and issubclass(type_, PublicKey) and type_ is not SignerKey:
        check_public_key(value)
    return to_known_id(type_, value)


def to_known_id(type_: type, value: Any) -> Any:
    """Do what `to_id` does, for what was accepted before: to look at a key takes longer than all else."""
    if not issubclass(type_, Id):
        raise NotImplementedError(f"{type_} has no encoding")
    if type(value) is not bytes:
        raise ValueError(f"a {type_.KIND} is a byte string")
    return type_(value)


def _name(type_: Any) -> str:
    return " or ".join(member.__name__ for member in get_args(type_) or (type_,))
