"""The head of a log: a C2SP checkpoint, so that transparency witnesses can cosign it.

    p2phub/log/<log id>
    <number of records>
    <root, base64>

    — p2phub/log/<log id> <key hash and signature, base64>

Source: spec/checkpoint.md, after C2SP tlog-checkpoint and signed-note. The text
has no NUL, so it can never be mistaken for another message that the key signs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

from msgspec import Struct

from .errors import InvalidData, InvalidName, InvalidSignature
from .ids import LogId, PublicKey
from .signing import SigningKey, check_note_signature

HEAD_SIZE_MAX = 4096  # bytes; spec/checkpoint.md §1

_ORIGIN = "p2phub/log/"
_ED25519 = b"\x01"  # signature type; C2SP signed-note
_NOTE = re.compile(
    rf"{_ORIGIN}(?P<log>[a-z2-7]{{52}})\n"
    r"(?P<size>0|[1-9][0-9]{0,15})\n"
    r"(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"\n"
    r"(?P<signatures>(?:— [^\s+]+ [A-Za-z0-9+/]+={0,2}\n)+)"
)


class Head(Struct, frozen=True):
    """The signed size and root of a log."""

    log: LogId
    size: int  # records
    root: bytes  # 32 bytes
    text: bytes  # the whole note, as it was signed


def sign_head(log: LogId, size: int, root: bytes, key: SigningKey) -> Head:
    """Return the head of `log` at `size` records, signed by its key."""
    origin = f"{_ORIGIN}{log}"
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()
    signature = _key_hash(origin, key.public_key) + key.sign_note(text)
    return Head(log, size, root, text + f"\n— {origin} {base64.b64encode(signature).decode()}\n".encode())


def parse_head(note: bytes) -> Head:
    """Return the head that `note` states; its signature is not checked. Raises InvalidData."""
    if len(note) > HEAD_SIZE_MAX:
        raise InvalidData(f"head of {len(note)} bytes, the limit is {HEAD_SIZE_MAX}")
    try:
        text = note.decode()
    except UnicodeDecodeError as exc:
        raise InvalidData("a head is UTF-8 text") from exc
    match = _NOTE.fullmatch(text)
    if not match:
        raise InvalidData("the head is no checkpoint of a log")
    try:
        log = LogId.parse(match["log"])
    except InvalidName as exc:
        raise InvalidData("the head is no checkpoint of a log") from exc
    root = base64.b64decode(match["root"])
    if base64.b64encode(root).decode() != match["root"]:
        raise InvalidData("the root of the head is not in canonical base64")
    return Head(log, int(match["size"]), root, note)


def open_head(note: bytes, *, log: LogId, key: PublicKey) -> Head:
    """Return the head that `note` states, checked to be of `log` and signed by `key`. Raises InvalidData."""
    head = parse_head(note)
    if head.log != log:
        raise InvalidData(f"the head is of log {head.log}, not of {log}")
    signed, _, lines = note.partition(b"\n\n")
    origin = f"{_ORIGIN}{log}"
    key_hash = _key_hash(origin, key)
    ours = [blob for name, blob in _signatures(lines.decode()) if name == origin and blob[:4] == key_hash]
    if not ours:
        raise InvalidSignature("the head is not signed by the key of its log")
    for blob in ours:
        check_note_signature(key, signed + b"\n", blob[4:])
    return head


def _signatures(lines: str) -> Iterator[tuple[str, bytes]]:
    """Yield the key's name and what stands beside it, of each signature line; others' are witnesses'."""
    for line in lines.removesuffix("\n").split("\n"):
        _, name, encoded = line.split(" ")
        try:
            blob = base64.b64decode(encoded, validate=True)
        except binascii.Error as exc:
            raise InvalidData("a signature of the head is no base64") from exc
        # Two spellings of one signature would be two heads.
        if base64.b64encode(blob).decode() != encoded:
            raise InvalidData("a signature of the head is not in canonical base64")
        yield name, blob


def _key_hash(name: str, key: PublicKey) -> bytes:
    """Return the 4 bytes by which a signed note tells keys apart."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key).digest()[:4]
