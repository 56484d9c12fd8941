"""Check what somebody wants done before anything is done with it (spec/local-api.md §2).

A command, a program of Python and a client of the local door all meet the limits of the operation's fields, with a
node and without one, and read which of them is meant: as a command calls it (REFERENCE), or as the field is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from p2phub.core.errors import InvalidData, InvalidName
from p2phub.core.jsonform import to_plain
from p2phub.core.search import Query, check_query

if TYPE_CHECKING:
    from .operations import Operation

Spelling = Callable[[str], str]  # of the name of a field

_TEXT = re.compile(r"[^\0\ud800-\udfff]*")  # Python reads bytes that are not UTF-8 as surrogates
_VIOLATION = re.compile(r"Expected `(?P<kind>[^`]*)`(?: of length)? (?P<sign><=|>=) (?P<bound>\d+)(?![\d.])")
_PLACE = re.compile(r" - at `\$\.(?:\w+\.)*(?P<field>\w+)(?P<inside>[^`]*)`$")  # the innermost field that has a name


def as_argument(field: str) -> str:
    """Return a field's name as the help of a command writes it."""
    return field.replace("_", "-").upper()


def check_given(operation: Operation, spelling: Spelling = str) -> None:
    """Raise InvalidName unless the values of `operation` are text, and within the limits of its fields."""
    plain = to_plain(operation)
    _check_text(plain, spelling)
    try:
        msgspec.convert(plain, type(operation))
    except msgspec.ValidationError as exc:
        raise InvalidName(_for_people(str(exc), spelling)) from exc
    _check_search(operation)


def read_given(data: bytes) -> Operation:
    """Return the operation that `data` writes as JSON.

    Raises InvalidName if a value is outside its limits, InvalidData if it is none at all.
    """
    from .operations.every import AnyOperation

    try:
        operation: Operation = msgspec.json.decode(data, type=AnyOperation)
    except msgspec.ValidationError as exc:
        if _VIOLATION.match(str(exc)):
            raise InvalidName(_for_people(str(exc), str)) from exc
        raise InvalidData(f"not what was expected: {exc}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidData(f"no operation: {exc}") from exc
    _check_text(to_plain(operation), str)
    _check_search(operation)
    return operation


def _check_search(operation: Operation) -> None:
    """Raise InvalidName if a search cannot be answered: before peers are asked for news, which takes seconds."""
    query = getattr(operation, "query", None)
    if isinstance(query, Query):
        try:
            check_query(query)
        except InvalidData as exc:
            raise InvalidName(str(exc), hint=exc.hint) from exc


def _check_text(plain: Any, spelling: Spelling) -> None:
    field = next(_no_text(plain), None)
    if field is not None:
        raise InvalidName(f"{spelling(field)} is no text: it holds a NUL, or what is not UTF-8")


def _no_text(value: Any, field: str = "what was given") -> Iterator[str]:
    """Yield the names of the fields of `value` that hold what neither the index nor a record can keep."""
    match value:
        case str():
            if not _TEXT.fullmatch(value):
                yield field
        case dict():
            for name, inside in value.items():
                yield from _no_text(inside, name)
        case list() | tuple():
            for inside in value:
                yield from _no_text(inside, field)


def _for_people(text: str, spelling: Spelling) -> str:
    """Return what msgspec says of a value as a sentence about a field."""
    place, violation = _PLACE.search(text), _VIOLATION.match(text)
    name = spelling(place["field"]) if place else "what was given"
    who = f"one of {name}" if place and place["inside"] else name
    if violation is None:
        return f"{who} is not of the form that it must have"
    is_text, bound = violation["kind"] == "str", int(violation["bound"])
    match violation["kind"], violation["sign"]:
        case (("str" | "array" | "object"), ">="):
            return f"{who} is empty" if bound == 1 else f"{who} is too short: it has at least {bound}"
        case (("str" | "array" | "object"), _):
            return f"{who} is too long: it has at most {bound} {'characters' if is_text else 'parts'}"
        case _, ">=":
            return f"{who} is at least {bound}"
        case _:
            return f"{who} is at most {bound}"
