"""Rows of flags (p2phub/protocol/flags.py)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2phub.protocol.flags import any_of, both, changes


@given(st.integers(0, 40).flatmap(lambda size: st.tuples(*[st.binary(min_size=size, max_size=size)] * 2)))
def test_rows_are_put_together_flag_by_flag(rows: tuple[bytes, bytes]) -> None:
    first, second = (bytes(byte & 1 for byte in row) for row in rows)
    assert both(first, second) == bytes(a & b for a, b in zip(first, second, strict=True))
    assert any_of([first, second]) == bytes(a | b for a, b in zip(first, second, strict=True))
    assert list(changes(first, second)) == [place for place in range(len(first)) if first[place] != second[place]]


@given(st.binary(max_size=40))
def test_who_has_everything_has_what_any_has(row: bytes) -> None:
    assert any_of([row, None]) is None
    assert any_of([]) == b""
