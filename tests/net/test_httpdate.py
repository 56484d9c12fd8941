from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.net.httpdate import parse_date

YEAR_9999 = 253_370_764_800  # seconds since 1970


@given(st.integers(0, YEAR_9999))
def test_what_others_write_is_read(seconds: int) -> None:
    assert parse_date(formatdate(seconds, usegmt=True).encode()) == seconds


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"now",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49:37 CET",
        b"Sun, 06 Non 1994 08:49:37 GMT",
        b"Sun, 31 Feb 1994 08:49:37 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT, and more",
        b"\xff" * 29,
        b"9" * 100_000,
    ],
)
def test_what_is_no_date_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds, and nobody reads it
        parse_date(text)
