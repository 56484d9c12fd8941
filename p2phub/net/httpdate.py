"""Read a date as HTTP writes it (RFC 9110 §5.6.7), without all that reads mail, which every fetch would load."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_FORM = re.compile(rb"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT")


def parse_date(text: bytes) -> float:
    """Return the seconds since 1970 of such as `Sun, 06 Nov 1994 08:49:37 GMT`. Raises ValueError at any other form."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no date of HTTP")
    day, year, hour, minute, second = map(int, found.group(1, 3, 4, 5, 6))
    month = _MONTHS.index(found[2]) + 1
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
