"""Short ways to write a Reason, for all who explain (spec/names.md §10)."""

from __future__ import annotations

from .operations.trust import Reason


def good(about: str, text: str) -> Reason:
    """Return a reason that speaks for it."""
    return Reason(about, "good", text)


def bad(about: str, text: str) -> Reason:
    """Return a reason that speaks against it."""
    return Reason(about, "bad", text)


def unknown(about: str, text: str) -> Reason:
    """Return what could not be found out."""
    return Reason(about, "unknown", text)


def off(about: str, text: str) -> Reason:
    """Return what nobody asked to be looked at."""
    return Reason(about, "off", text)
