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
import re
from collections.abc import Iterable

from msgspec import Struct

from .errors import InvalidData, InvalidName, InvalidSignature
from .ids import LogId, PublicKey
from .notes import ED25519, NAME, NoteLine, key_id, parse_lines
from .signing import Signer, check_note_signature

HEAD_SIZE_MAX = 4096  # bytes; spec/checkpoint.md §1

_ORIGIN = "p2phub/log/"
_NOTE = re.compile(
    rf"{_ORIGIN}(?P<log>[a-z2-7]{{52}})\n"
    r"(?P<size>0|[1-9][0-9]{0,15})\n"
    r"(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"\n"
    rf"(?P<signatures>(?:— {NAME} [A-Za-z0-9+/]+={{0,2}}\n)+)"
)


class Head(Struct, frozen=True):
    """The signed size and root of a log."""

    log: LogId
    size: int  # records
    root: bytes  # 32 bytes
    text: bytes  # the whole note, as it was signed

    @property
    def signed(self) -> bytes:
        """The text that signatures cover, with its last line feed."""
        return self.text.partition(b"\n\n")[0] + b"\n"

    @property
    def lines(self) -> list[NoteLine]:
        """Who signed it, its log and witnesses; as they came. Raises InvalidData if one is no base64."""
        return parse_lines(self.text.partition(b"\n\n")[2].decode())


def sign_head(log: LogId, size: int, root: bytes, key: Signer) -> Head:
    """Return the head of `log` at `size` records, signed by its key."""
    origin = f"{_ORIGIN}{log}"
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()
    line = NoteLine(origin, key_id(origin, ED25519, key.public_key), key.sign_note(text))
    return Head(log, size, root, text + b"\n" + line.text.encode())


def with_lines(head: Head, lines: Iterable[NoteLine]) -> Head:
    """Return `head` with these signature lines behind those that it has, in place of older ones of the same keys.

    Raises InvalidData if it is too long then.
    """
    added = {(line.name, line.key_id): line for line in lines}
    kept = [line for line in head.lines if (line.name, line.key_id) not in added]
    note = head.signed + b"\n" + "".join(line.text for line in [*kept, *added.values()]).encode()
    return parse_head(note)


def log_origin(log: LogId) -> str:
    """Return the first line of the heads of `log`."""
    return f"{_ORIGIN}{log}"


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
    origin = log_origin(log)
    own_id = key_id(origin, ED25519, key)
    ours = [line for line in head.lines if (line.name, line.key_id) == (origin, own_id)]
    if not ours:
        raise InvalidSignature("the head is not signed by the key of its log")
    for line in ours:
        check_note_signature(key, head.signed, line.signature)
    return head
