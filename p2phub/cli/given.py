"""Check what a command was given before anything is done with it.

A daemon checks what it is told, and a node of one's own would take anything: here both meet the same limits,
those of the operation's fields, and a person reads which argument is meant.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from p2phub.core.errors import InvalidName
from p2phub.core.jsonform import to_plain

if TYPE_CHECKING:
    from p2phub.node.operations import Operation

_VIOLATION = re.compile(r"Expected `(?P<kind>[^`]*)`(?: of length)? (?P<sign><=|>=) (?P<bound>\d+)")
_PLACE = re.compile(r" - at `\$\.(?P<field>\w+)(?P<inside>[^`]*)`$")


def check_given(operation: Operation) -> None:
    """Raise InvalidName unless the values of `operation` are within the limits of its fields."""
    try:
        msgspec.convert(to_plain(operation), type(operation))
    except msgspec.ValidationError as exc:
        raise InvalidName(_for_people(str(exc))) from exc


def _for_people(text: str) -> str:
    """Return what msgspec says of a value as a sentence about an argument."""
    place, violation = _PLACE.search(text), _VIOLATION.match(text)
    name = place["field"].replace("_", "-").upper() if place else "what was given"
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
