"""Bytes that people copy from one machine to another: one word that says what it is (spec/identity.md §8).

p2phub-request-1:pGRraW5k…
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import InvalidEncoding, UnknownForm


def armor(kind: str, data: bytes) -> str:
    """Return `data` of the kind `kind` as a word."""
    return f"p2phub-{kind}-1:{base64.urlsafe_b64encode(data).decode().rstrip('=')}"


def unarmor(kind: str, text: str, *, size_max: int) -> bytes:
    """Return the bytes of the word `text`; white space in it, as mail programs put there, does not matter.

    Raises InvalidEncoding if it is of another kind, damaged, or longer than `size_max` bytes. Nothing of the text is
    in the error: it may be a secret.
    """
    word = "".join(text.split())
    prefix = f"p2phub-{kind}-1:"
    if not word.startswith(prefix):
        raise InvalidEncoding(f"this does not begin with {prefix}")
    encoded = word.removeprefix(prefix)
    if len(encoded) > size_max * 4 // 3 + 4:
        raise InvalidEncoding(f"this {kind} is too long")
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = None
    if data is None or armor(kind, data) != word:
        raise InvalidEncoding(f"this {kind} was not copied whole") from None
    return data


@contextmanager
def copied(kind: str) -> Iterator[None]:
    """Say of bytes that do not decode in the block that their word was not copied whole: that is nearly always why."""
    try:
        yield
    except UnknownForm:
        raise  # of another version
    except InvalidEncoding as exc:
        raise InvalidEncoding(f"this {kind} was not copied whole") from exc


def kind_of(text: str) -> str | None:
    """Return the kind of the word `text`, None if it is none of ours."""
    head, colon, _ = text.lstrip()[:64].partition(":")
    if not colon or not head.startswith("p2phub-") or not head.endswith("-1"):
        return None
    return head.removeprefix("p2phub-").removesuffix("-1")
