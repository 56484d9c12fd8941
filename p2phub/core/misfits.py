"""Say in words which value of a text file does not fit its type, and what would (spec/rules.md §1).

msgspec names the place and the types; who wrote the file thinks of its rules, and of what to write there.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import inspect

_PLACE = re.compile(r"^(?P<what>.*) - at `\$\.?(?P<path>[^`]*)`$", re.DOTALL)
_STEP = re.compile(r"\.?(\w+)|\[(\d+|\.\.\.)\]")  # a field, or a place in a list


def describe(error: msgspec.ValidationError, of: type[Any]) -> tuple[str, str | None]:
    """Return what is wrong, and what may stand there. of: what the whole was to be."""
    place = _PLACE.match(str(error))
    if place is None or not place["path"]:
        return str(error), None
    expected = _type_at(inspect.type_info(of), place["path"])
    what = place["what"].replace("`", "")
    return f"{place['path']}: {what[:1].lower()}{what[1:]}", _in_words(expected, place["path"]) if expected else None


def _type_at(whole: inspect.Type, path: str) -> inspect.Type | None:
    """Return the type of what stands at `path`, None if nothing may."""
    found: inspect.Type | None = whole
    for step in _STEP.finditer(path):
        match found:
            case inspect.StructType(fields=fields):
                found = next((field.type for field in fields if field.name == step[1]), None)
            case inspect.VarTupleType(item_type=item):
                found = item
            case _:
                return None
    return found


def _in_words(expected: inspect.Type, path: str) -> str | None:
    name = path.rpartition(".")[2]
    match expected:
        case inspect.UnionType(types=types):
            return _in_words(types[0], path)
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case inspect.BoolType():
            return "true or false, without quotes"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}, without quotes"
        case inspect.StrType(max_length=most):
            return f"text in quotes, of 1 to {most} characters"
        case inspect.VarTupleType(item_type=inspect.StructType()):
            return f"write [[{path}]], and its rules below; once for each"
        case inspect.VarTupleType(max_length=most, min_length=least):
            bounds = f"; at least {least}" * bool(least) + f"; at most {most}" * bool(most)
            return f'a list: {name} = ["one", "another"]{bounds}'
        case inspect.StructType(fields=fields):
            return f"known here: {', '.join(field.name for field in fields)}"
        case _:
            return None
