"""`p2phub.lock`: what the names that a project uses meant when they were written down (spec/lock.md).

    names ──resolved once──▶ Locked ──encode──▶ JSON, sorted: the same names give the same bytes

A name may come to mean something else; a hash cannot. So a project keeps both: the name for people, who
decide when it moves on, and the hash for every machine that has to have the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from .choices import Kind
from .errors import InvalidData, InvalidName
from .ids import LogId, ManifestId, NamespaceId
from .locked import NAMES_MAX, Index, Locked
from .names import NameRef, parse_reference

FILE_SIZE_MAX = 1024 * 1024  # bytes; spec/lock.md §1


class _Entry(Struct, frozen=True, forbid_unknown_fields=True):
    kind: Kind
    namespace: str
    revision: str
    log: str | None = None
    index: Index | None = None


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    p2phub: Literal[1]
    locked: Annotated[dict[str, _Entry], Meta(max_length=NAMES_MAX)]


def decode_lock(data: bytes) -> list[Locked]:
    """Return what a lock file holds, by name. Raises InvalidData, whose text completes "the lock file …"."""
    if len(data) > FILE_SIZE_MAX:
        raise InvalidData(f"has more than {FILE_SIZE_MAX} bytes")
    if not data.strip():
        raise InvalidData("is empty")
    try:
        file = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidData(f"is not as it should be: {exc}") from exc
    found = []
    for name, entry in sorted(file.locked.items()):
        try:
            check_locked(locked := Locked(name, **msgspec.structs.asdict(entry)))
        except InvalidName as exc:
            raise InvalidData(f"is not as it should be: {exc}") from exc
        found.append(locked)
    return found


def check_locked(locked: Locked) -> None:
    """Raise InvalidName unless names and ids are such."""
    reference = parse_reference(locked.name)
    if not isinstance(reference, NameRef) or reference.namespace is None or str(reference) != locked.name:
        raise InvalidName(f"'{locked.name}' is no NAMESPACE/MODEL[@REVISION]")
    NamespaceId.parse(locked.namespace)
    ManifestId.parse(locked.revision)
    if (locked.log is None) != (locked.index is None):
        raise InvalidName(f"'{locked.name}' has one of log and index")
    if locked.log is not None:
        LogId.parse(locked.log)


def encode_lock(locked: Iterable[Locked]) -> bytes:
    """Return the lock file that holds `locked`; the same for the same, in whatever order they come."""
    entries = {}
    for each in sorted(locked, key=lambda each: each.name):
        facts = msgspec.structs.asdict(each)
        del facts["name"]
        entries[each.name] = {name: value for name, value in facts.items() if value is not None}
    if len(entries) > NAMES_MAX:
        raise InvalidData(f"would have {len(entries)} names, the limit is {NAMES_MAX}")
    return (json.dumps({"p2phub": 1, "locked": entries}, indent=2) + "\n").encode()
