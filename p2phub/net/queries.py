"""How many large queries are read and answered at once: each takes half a mebibyte or more meanwhile."""

from __future__ import annotations

from collections import Counter

from p2phub.protocol.messages import FRAME_SIZE_MAX

LARGE_QUERIES_MAX = 64  # at once; spec/transport.md §3
LARGE_QUERIES_EACH_MAX = 16  # of one caller; spec/transport.md §3

_large: Counter[str] = Counter()  # by caller


class Query:
    """One query from its first byte until there is an answer, as a context."""

    def __init__(self, caller: str) -> None:
        self._caller = caller
        self._is_large = False

    def __enter__(self) -> Query:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_large:
            _large[self._caller] -= 1
            if not _large[self._caller]:
                del _large[self._caller]

    def may_have(self, size: int) -> bool:
        """Say whether it may have `size` bytes: not if too many others have more than a small query."""
        if self._is_large or size <= FRAME_SIZE_MAX:
            return True
        if _large.total() >= LARGE_QUERIES_MAX or _large[self._caller] >= LARGE_QUERIES_EACH_MAX:
            return False
        _large[self._caller] += 1
        self._is_large = True
        return True
