"""Tell h11 of bytes that were sent without it."""

from __future__ import annotations

import h11


def note_passed(http: h11.Connection, size: int) -> None:
    """Let `http` count `size` bytes of a body that went past it. Raises h11.LocalProtocolError if they are too many."""
    http.send_with_data_passthrough(h11.Data(data=_Sized(size)))  # type: ignore[arg-type]


class _Sized:
    """Stands for bytes that were sent already; h11 only asks how many."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size
