"""C2SP signed notes: a text, and lines that say who signed it (spec/witness.md §1, after c2sp.org/signed-note).

    text ending in a line feed
    (an empty line)
    — NAME base64(4 bytes of the key's id, signature)

What a signature covers depends on the type of its key: that of a log is over the text, that of a
witness over the text and a time. Keys are told apart by name and id, and written as `NAME+ID+KEY`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from msgspec import Struct

from .errors import InvalidData, InvalidName, InvalidSignature
from .ids import PublicKey
from .signing import check_public_key

ED25519 = 1  # type of a key that signs texts; spec/witness.md §1
COSIGNATURE = 4  # type of a key that cosigns checkpoints; spec/witness.md §1
NOTE_SIZE_MAX = 64 * 1024  # bytes of a note of another log; spec/witness.md §1

NAME = r"[^\s+\x00-\x1f]+"  # of a key, as a regular expression; spec/checkpoint.md §1
_LINE = re.compile(rf"— ({NAME}) ([A-Za-z0-9+/]+={{0,2}})")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_TYPES = {ED25519: "of a log", COSIGNATURE: "of a witness"}


class NoteLine(Struct, frozen=True):
    """Somebody's signature of a note."""

    name: str  # of the key
    key_id: bytes  # 4 bytes
    signature: bytes

    @property
    def text(self) -> str:
        """The line as it stands in a note, with its line feed."""
        return f"— {self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"


class NoteKey(Struct, frozen=True, order=True):
    """A public key that signs notes under a name."""

    name: str
    type: int  # ED25519 or COSIGNATURE
    key: PublicKey

    @property
    def id(self) -> bytes:
        """The 4 bytes by which a note tells keys of one name apart."""
        return key_id(self.name, self.type, self.key)

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([self.type]) + self.key).decode()}"


def key_id(name: str, type_: int, key: PublicKey) -> bytes:
    """Return the 4 bytes by which a note tells keys of one name apart."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([type_]) + key).digest()[:4]


def parse_note_key(text: str, *, type_: int) -> NoteKey:
    """Return the key that `text` (`NAME+ID+KEY`) names.

    Raises InvalidName if it is none, or of another type than `type_`.
    """
    match = re.fullmatch(rf"({NAME})\+([0-9a-f]{{8}})\+([A-Za-z0-9+/]+={{0,2}})", text)
    if not match:
        raise InvalidName(
            f"'{text[:100]}' is no key of a log or witness: expected NAME+ID+KEY",
            hint="`p2phub node --witness` prints that of its node, and the operator of another witness publishes it",
        )
    name, told_id = match[1], match[2]
    try:
        data = base64.b64decode(match[3], validate=True)
    except binascii.Error as exc:
        raise InvalidName(f"the key of {name} is no base64") from exc
    if base64.b64encode(data).decode() != match[3] or len(data) != 33:
        raise InvalidName(f"the key of {name} is no Ed25519 key")
    if data[0] != type_:
        found = _TYPES.get(data[0], f"of the unknown type {data[0]}")
        raise InvalidName(f"the key of {name} is {found}, not {_TYPES[type_]}")
    try:
        check_public_key(data[1:])
    except InvalidSignature as exc:
        raise InvalidName(f"the key of {name} cannot be used: {exc}") from exc
    found_key = NoteKey(name, data[0], PublicKey(data[1:]))
    if found_key.id.hex() != told_id:
        raise InvalidName(f"the id {told_id} is not that of the key of {name}: was it copied whole?")
    return found_key


def parse_lines(text: str) -> list[NoteLine]:
    """Return the signature lines that `text` is. Raises InvalidData if one is none."""
    lines = []
    for line in text.removesuffix("\n").split("\n"):
        match = _LINE.fullmatch(line)
        if not match:
            raise InvalidData("a signature line of the note has not the form of one")
        try:
            blob = base64.b64decode(match[2], validate=True)
        except binascii.Error as exc:
            raise InvalidData("a signature of the note is no base64") from exc
        # Two spellings of one signature would be two notes.
        if base64.b64encode(blob).decode() != match[2]:
            raise InvalidData("a signature of the note is not in canonical base64")
        lines.append(NoteLine(match[1], blob[:4], blob[4:]))
    return lines


def split_note(note: bytes) -> tuple[bytes, list[NoteLine]]:
    """Return the text of any log's note, with its last line feed, and its signature lines. Raises InvalidData."""
    if len(note) > NOTE_SIZE_MAX:
        raise InvalidData(f"note of {len(note)} bytes, the limit is {NOTE_SIZE_MAX}")
    try:
        decoded = note.decode()
    except UnicodeDecodeError as exc:
        raise InvalidData("a note is UTF-8 text") from exc
    text, empty, lines = decoded.rpartition("\n\n")
    if not empty or not text or not lines.endswith("\n") or _CONTROL.search(decoded):
        raise InvalidData("the note is no signed note")
    return f"{text}\n".encode(), parse_lines(lines)
