"""What a domain says of its publisher: `https://DOMAIN/.well-known/p2phub.json` (spec/names.md §6).

    {"p2phub": 1, "namespace": "kcfx5nx…", "nodes": ["p2phub://NODEID@HOST:PORT"]}

The domain names a namespace here, and counts only if the namespace claims the domain back
in its identity document: neither can speak for the other alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from .choices import DOMAIN_NODES_MAX
from .errors import InvalidData, InvalidName
from .ids import NamespaceId
from .names import Address, parse_address

PATH = "/.well-known/p2phub.json"  # RFC 8615; spec/names.md §6
FILE_SIZE_MAX = 64 * 1024  # bytes; spec/names.md §6


class WellKnown(Struct, frozen=True):
    """What the file says, checked."""

    namespace: NamespaceId
    nodes: tuple[Address, ...]  # that have the publisher's identity documents and records


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    p2phub: Literal[1]
    namespace: str
    nodes: Annotated[tuple[str, ...], Meta(max_length=DOMAIN_NODES_MAX)] = ()


def parse_well_known(data: bytes) -> WellKnown:
    """Return what the file says. Raises InvalidData, whose text completes "its file …"."""
    if len(data) > FILE_SIZE_MAX:
        raise InvalidData(f"has more than {FILE_SIZE_MAX} bytes")
    try:
        file = msgspec.json.decode(data, type=_File)
    except msgspec.ValidationError as exc:
        raise InvalidData(f"is not as it should be: {exc}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidData("is no JSON") from exc
    try:
        return WellKnown(NamespaceId.parse(file.namespace), tuple(parse_address(text) for text in file.nodes))
    except InvalidName as exc:
        raise InvalidData(f"is not as it should be: {exc}") from exc


def format_well_known(namespace: NamespaceId, nodes: Sequence[Address]) -> str:
    """Return the text of the file, as people read it."""
    facts: dict[str, object] = {"p2phub": 1, "namespace": str(namespace)}
    if nodes:
        facts["nodes"] = [str(node) for node in nodes]
    return json.dumps(facts, indent=2) + "\n"
