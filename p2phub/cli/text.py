"""Numbers and times as people read them, and as they write them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from p2phub.node.operations.trust import Reason

_VERDICTS = {"good": "ok", "bad": "BAD", "unknown": "?", "off": "-"}
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def human_bytes(size: float) -> str:
    """Return a size in bytes with a decimal unit: 1500000 is `1.5 MB`."""
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 or size >= 99.95 else f"{size:.1f} {_UNITS[unit]}"


def human_rate(rate: float) -> str:
    """Return bytes a second as `parse_rate` takes them: 1500000 is `1.5 MB/s`."""
    return f"{human_bytes(rate)}/s"


def human_files(count: int) -> str:
    """Return a number of files: `1 file`, `8 files`."""
    return "1 file" if count == 1 else f"{count} files"


def human_count(count: int | None) -> str:
    """Return a number of parameters: 7241732096 is `7.2B`."""
    if count is None:
        return "-"
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= limit:
            return f"{count / limit:.1f}{unit}"
    return str(count)


def human_seconds(seconds: float) -> str:
    """Return a duration: 3725 is `1:02:05`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def human_time(seconds: int | None) -> str:
    """Return a time in seconds since 1970 as local date and time."""
    if seconds is None:
        return "never"
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def human_date(seconds: int) -> str:
    """Return the day of a time in seconds since 1970; others may have written any."""
    last = 253_370_764_800  # the first day of the year 9999, in any time zone
    return datetime.datetime.fromtimestamp(min(seconds, last)).astimezone().strftime("%Y-%m-%d")


def parse_count(text: str) -> int:
    """Return the number that `text` writes: `7B` is 7000000000. Raises ValueError if it is none below 2^63."""
    units = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
    text = text.strip().lower()
    factor = units.get(text[-1:], 1)
    count = float(text[:-1] if factor != 1 else text) * factor
    if not 0 <= count < 2**63:
        raise ValueError(f"{text} is out of range")
    return int(count)


def parse_rate(text: str) -> int:
    """Return the bytes a second that `500k`, `50MB/s`, `1 MiB/s` or `100Mbit` write, 0 for `none`.

    Raises ValueError, whose text is for people.
    """
    written = text.strip().lower()
    if written == "none":
        return 0
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(?:([kmgt])(i?))?(b|bits?)?(?:/s|ps)?", written)
    if not match:
        raise ValueError(f"'{text}' is no rate such as 500k, 50MB/s or none")
    number, prefix, binary, unit = match.groups()
    base = 1024 if binary else 1000
    rate = float(number) * base ** ("kmgt".index(prefix) + 1 if prefix else 0)
    if unit and unit.startswith("bit"):
        rate /= 8
    if 0 < rate < 1 or rate > 2**50:
        raise ValueError(f"'{text}' is no rate that a link could have")
    return int(rate)


def parse_range(text: str) -> tuple[int | None, int | None]:
    """Return the bounds that `1B-8B`, `1B-`, `-8B` or `7B` write. Raises ValueError."""
    low, separator, high = text.partition("-")
    if not separator:
        exact = parse_count(low)
        return exact, exact
    return _bounds(low, high, parse_count)


def parse_bytes(text: str) -> int:
    """Return the bytes that `500MB`, `1.5 GiB` or `1000` write. Raises ValueError if it is none below 2^63."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(?:([kmgtp])(i?))?b?", text.strip().lower())
    if not match:
        raise ValueError(f"'{text}' is no size such as 500MB")
    number, prefix, binary = match.groups()
    size = float(number) * (1024 if binary else 1000) ** (" kmgtp".index(prefix) if prefix else 0)
    if size >= 2**63:
        raise ValueError(f"{text} is out of range")
    return int(size)


def parse_byte_range(text: str) -> tuple[int | None, int | None]:
    """Return the bounds that `1GB-8GB`, `1GB-` or `-500MB` write. Raises ValueError."""
    low, separator, high = text.partition("-")
    if not separator:
        raise ValueError("a range is two sizes, or one, with a hyphen")
    return _bounds(low, high, parse_bytes)


def _bounds(low: str, high: str, parse: Callable[[str], int]) -> tuple[int | None, int | None]:
    """Return the bounds of which one may be left out. Raises ValueError if nothing lies between them."""
    least, most = (parse(text) if text.strip() else None for text in (low, high))
    if least is None and most is None:
        raise ValueError("a range has at least one bound")
    if least is not None and most is not None and least > most:
        raise ValueError("a range begins with the lower bound")
    return least, most


def shorten(text: str, length: int) -> str:
    """Return `text` on one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def provider_name(node: str | None, origin: str | None) -> str:
    """Return a provider as people know it: the beginning of a node's id, or the host of an origin."""
    return printable(origin) if origin else f"{(node or '')[:12]}…"


def printable(text: str) -> str:
    """Return `text` without characters that a terminal would obey: others wrote much of what we print."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def one_line(text: str) -> str:
    """Return `text` as `printable` does, on one line."""
    return printable(text).replace("\n", "\N{REPLACEMENT CHARACTER}")


def say(text: str, *, err: bool = False) -> None:
    """Print a line for a person."""
    click.echo(printable(text), err=err)


def show_reasons(reasons: Iterable[Reason]) -> None:
    """Print what speaks for and against something, a line each."""
    for reason in reasons:
        say(f"{_VERDICTS[reason.verdict]:<4}  {reason.about:<12}  {reason.text}")
