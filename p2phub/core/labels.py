"""What a node says of where it stands: labels of its cluster and its site (spec/node-record.md §1)."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

from .errors import InvalidName

LABEL_SIZE_MAX = 64  # characters; spec/node-record.md §1
_PATTERN = r"\A[A-Za-z0-9._-]+\Z"

Label = Annotated[str, Meta(min_length=1, max_length=LABEL_SIZE_MAX, pattern=_PATTERN)]


class Labels(Struct, frozen=True):
    """The labels of a node record."""

    cluster: str | None = None
    site: str | None = None

    def __bool__(self) -> bool:
        return self.cluster is not None or self.site is not None


def check_label(text: str) -> None:
    """Raise InvalidName unless `text` can be the label of a cluster or site."""
    if not re.fullmatch(_PATTERN, text) or len(text) > LABEL_SIZE_MAX:
        raise InvalidName(f"'{text}' is no label: expected at most {LABEL_SIZE_MAX} letters, digits, '.', '_' and '-'")
