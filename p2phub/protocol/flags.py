"""Rows of flags, a byte (0 or 1) for each chunk of a download, put together without a loop."""

from __future__ import annotations

from collections.abc import Iterable


def both(first: bytes, second: bytes) -> bytes:
    """Return the flags that are set in both."""
    return (int.from_bytes(first, "big") & int.from_bytes(second, "big")).to_bytes(len(first), "big")


def any_of(rows: Iterable[bytes | None]) -> bytes | None:
    """Return the flags that are set in one of `rows`, of which None has all set; empty if there are no rows."""
    size, found = 0, 0
    for row in rows:
        if row is None:
            return None
        size, found = len(row), found | int.from_bytes(row, "big")
    return found.to_bytes(size, "big")
