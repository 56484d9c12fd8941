"""How people say how long ago something was, and how far clocks are from each other."""

from __future__ import annotations


def describe_age(seconds: float) -> str:
    """Return how long ago something was, as people say it."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // size)) >= 1:
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return "less than a minute"


def describe_gap(seconds: float) -> str:
    """Return how far two clocks are from each other, to the nearest minute.

    What is left of a second on the way would make a day 23 hours, which would be looked for elsewhere.
    """
    return describe_age(abs(seconds) + 30)
