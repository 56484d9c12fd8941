"""What the header of a model file says of one tensor; safetensors and GGUF share it.

Bytes come in through a `Read`, so that the parsers open no file and work as well
on a file that is still being fetched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from msgspec import Meta, Struct

from .errors import InvalidData

INT_MAX = 2**63 - 1  # the largest number that SQLite and JSON readers in other languages take

Read = Callable[[int, int], bytes]
"""`read(offset, size)` in bytes: exactly that many, or fewer at the end of the file."""

Offset = Annotated[int, Meta(ge=0)]


# gc=False: a header may have a hundred thousand of them, and they hold no cycles.
class Tensor(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One tensor of a file."""

    name: str
    dtype: str  # as the format spells it: "BF16", "F8_E4M3"; "Q4_K", "TYPE_142"
    shape: tuple[Offset, ...]  # the outermost dimension first, in both formats
    begin: Offset  # bytes from the start of the file
    end: Offset  # the first byte after it

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_exactly(read: Read, offset: int, size: int) -> bytes:
    """Return `size` bytes from `offset` on.

    Raises InvalidData if the file ends before.
    """
    data = read(offset, size)
    if len(data) != size:
        raise InvalidData(f"file ends in its header, at byte {offset + len(data)}")
    return data


def quote(name: str) -> str:
    """Return `name` as an error text shows it: quoted, escaped, and not longer than a line."""
    return ascii(name if len(name) <= 80 else name[:80] + "...")
