"""How people say how long ago something was."""

from __future__ import annotations


def describe_age(seconds: float) -> str:
    """Return how long ago something was, as people say it."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // size)) >= 1:
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return "less than a minute"
