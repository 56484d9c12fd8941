"""What a policy says of a repository, as a value (spec/rules.md §4)."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Outcome = Literal["fine", "left out", "refused"]


class Finding(Struct, frozen=True):
    """What a rule says of a repository, or of one file of it."""

    rule: str
    outcome: Outcome
    text: str  # a sentence for a person
    path: str | None = None
    hint: str | None = None
