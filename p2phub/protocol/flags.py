"""Rows of flags, a byte (0 or 1) for each chunk of a download, put together without a loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


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


def changes(before: bytes, after: bytes) -> Iterator[int]:
    """Yield the places at which two rows of one length differ."""
    difference = (int.from_bytes(before, "big") ^ int.from_bytes(after, "big")).to_bytes(len(before), "big")
    place = difference.find(1)
    while place >= 0:
        yield place
        place = difference.find(1, place + 1)
