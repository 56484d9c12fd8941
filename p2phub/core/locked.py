"""What a name meant when it was written down, as a value (spec/lock.md §1).

Apart from the file that holds it, so that a command that only passes it on does not load what checks it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from .choices import Kind

NAMES_MAX = 1000  # in one file; spec/lock.md §1

Index = Annotated[int, Meta(ge=0, le=2**53)]


class Locked(Struct, frozen=True, forbid_unknown_fields=True):
    """What a name meant."""

    name: str  # NAMESPACE/MODEL[@REVISION], as it was asked for
    kind: Kind
    namespace: str  # id of the publisher
    revision: str  # b3:<hash>
    log: str | None = None  # of the record that said so; None: the name is a hash itself
    index: Index | None = None  # of that record in its log
