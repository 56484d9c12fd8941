"""Which parts of its files a node sent to somebody lately (spec/transfer.md §3.4).

Those who fetch the same file from a seed ask first for what it gave to nobody yet, and
get the rest from each other: so the seed sends each part about once, however many they are.
The seed remembers areas of files and not chunks, for which it would need chunk lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from p2phub.core.ids import ContentId
from p2phub.protocol.messages import AREA_SIZE, ByteRange

FORGET_S = 10.0  # seconds without a request for a file until what was given of it is forgotten; spec/transfer.md §3.4
FILES_MAX = 20_000  # files that are remembered


class _File(Struct):
    """What was given of one file in this round."""

    areas: bytearray  # a byte each, 1: given
    left: int  # areas not given
    time: float  # seconds, of the last request


class Giving:
    """What one node gives. Times are seconds of any one clock."""

    def __init__(self) -> None:
        # In the order of their last request, the oldest first.
        self._files: dict[ContentId, _File] = {}

    def is_given(self, spans: Sequence[ByteRange], now: float) -> bool:
        """Say whether an area in which one of `spans` begins was given."""
        self._forget(now)
        return any(
            (file := self._files.get(span.root)) is not None and file.areas[span.offset // AREA_SIZE] for span in spans
        )

    def note(self, spans: Sequence[ByteRange], sizes: Mapping[ContentId, int], now: float) -> None:
        """Note that `spans`, which lie in files of `sizes` (bytes), are given."""
        for span in spans:
            file = self._files.pop(span.root, None)
            if file is None or not file.left:
                # All of it was given once: the second copies are shared out like the first.
                count = -(-sizes[span.root] // AREA_SIZE)
                file = _File(bytearray(count), count, now)
            self._files[span.root] = file
            file.time = now
            area = span.offset // AREA_SIZE
            file.left -= not file.areas[area]
            file.areas[area] = 1
        self._forget(now)

    def areas(self, root: ContentId, now: float) -> bytes | None:
        """Return a byte for each area of the file `root`, 1 if it was given; None if nothing was."""
        self._forget(now)
        file = self._files.get(root)
        return bytes(file.areas) if file else None

    def _forget(self, now: float) -> None:
        """Forget the files that nobody asks for any more."""
        while self._files:
            root = next(iter(self._files))
            if now - self._files[root].time <= FORGET_S and len(self._files) <= FILES_MAX:
                break
            del self._files[root]
