"""Identifiers: each kind is a class of its own, so that mixing them is a type error.

All are 32 bytes. Content and manifests are written `b3:<hex>`; what people and
machines are called by is lower-case base32, 52 characters, so that it fits a
DNS label and the `namespace/name` grammar of existing hubs (spec/ids.md).
"""

from __future__ import annotations

import base64
from typing import ClassVar, Self

from .errors import InvalidName

ID_SIZE = 32  # bytes; spec/ids.md §1
BASE32_SIZE = 52  # characters; spec/ids.md §1
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"  # RFC 4648 §6, in lower case
_LETTERS = frozenset(_ALPHABET)
_DIGITS = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")  # as Python writes numbers in base 32
_SPARE_BITS = 5 * BASE32_SIZE - 8 * ID_SIZE  # of the last character; 0
_MISTYPED_MAX = 8  # characters by which an id that somebody typed may be too short or too long


class Id(bytes):
    """32 bytes that name something; subclasses say what."""

    __slots__ = ()
    KIND: ClassVar[str] = "id"

    def __new__(cls, value: bytes) -> Self:
        if len(value) != ID_SIZE:
            raise InvalidName(f"a {cls.KIND} has {ID_SIZE} bytes, not {len(value)}")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id that `text` writes; raises InvalidName if it writes none."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self!s})"


class _HexId(Id):
    """An id of content, written `b3:<64 hex digits>`."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"b3:{self.hex()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        digits = text.removeprefix("b3:")
        if not text.startswith("b3:") or len(digits) != 2 * ID_SIZE or set(digits) - set("0123456789abcdef"):
            raise InvalidName(f"'{text}' is no {cls.KIND}: expected b3: and {2 * ID_SIZE} lower-case hex digits")
        return cls(bytes.fromhex(digits))


class _Base32Id(Id):
    """An id of a key holder, written in 52 characters of lower-case base32."""

    __slots__ = ()

    def __str__(self) -> str:
        return base64.b32encode(self).decode().rstrip("=").lower()

    @classmethod
    def parse(cls, text: str) -> Self:
        if len(text) == BASE32_SIZE and _LETTERS.issuperset(text):
            # A number in base 32, which Python reads ten times as fast as it reads base32.
            number, spare = divmod(int(text.translate(_DIGITS), 32), 1 << _SPARE_BITS)
            # Only one spelling of an id is an id.
            if spare == 0:
                return cls(number.to_bytes(ID_SIZE, "big"))
        expected = f"expected {BASE32_SIZE} characters of lower-case base32"
        raise InvalidName(f"'{text}' is no {cls.KIND}: {expected}", hint=misspelling(text))


def misspelling(text: str) -> str | None:
    """Return what keeps `text` from being an id in base32; None if it is one, or was hardly meant for one.

    Most ids with another letter are ids, too: there is nothing in them by which it would be seen.
    """
    if abs(len(text) - BASE32_SIZE) > _MISTYPED_MAX or not (text.isascii() and text.isalnum()):
        return None
    if text != text.lower():
        return "an id is written in lower case"
    if len(text) != BASE32_SIZE:
        return f"it looks like an id, which has {BASE32_SIZE} characters: this has {len(text)}"
    if wrong := sorted(set(text) - set(_ALPHABET)):
        letters = ", ".join(f"'{letter}'" for letter in wrong)
        return f"it looks like an id, which has only the letters a to z and the digits 2 to 7: this has {letters}"
    if text[-1] not in "aq":
        return f"it looks like an id, which ends in 'a' or 'q': this ends in '{text[-1]}', so it was mistyped"
    return None


class ContentId(_HexId):
    """The root of a file's content tree (spec/content.md §3)."""

    __slots__ = ()
    KIND = "content id"


class ManifestId(_HexId):
    """The BLAKE3 hash of a manifest: one revision of a repository (spec/manifest.md)."""

    __slots__ = ()
    KIND = "revision"

    @property
    def commit(self) -> str:
        """The first 160 bits as 40 hex digits: what hub clients see as a commit."""
        return self.hex()[:40]


class PublicKey(_Base32Id):
    """An Ed25519 public key."""

    __slots__ = ()
    KIND = "public key"


class SignerKey(PublicKey):
    """A public key beside a signature: it names one of the keys that may sign, where that one was checked."""

    __slots__ = ()


class NodeId(PublicKey):
    """The public key of a node."""

    __slots__ = ()
    KIND = "node id"


class NamespaceId(_Base32Id):
    """The hash of a publisher's first identity document (spec/identity.md)."""

    __slots__ = ()
    KIND = "namespace id"


class LogId(_Base32Id):
    """The hash of a namespace and one of its publishing keys (spec/records.md §3)."""

    __slots__ = ()
    KIND = "log id"


class FederationId(_Base32Id):
    """The hash of what never changes of a federation (spec/federation.md §1)."""

    __slots__ = ()
    KIND = "federation id"
