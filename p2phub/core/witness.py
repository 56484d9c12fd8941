"""What witnesses say: that a head goes on from all heads that they saw before (spec/witness.md).

    AddCheckpoint (old size, proof, head) ──▶ a witness ──▶ a line of the head: time and signature
    head with lines, Quorum ──▶ which witnesses vouch for it, and whether they are enough

A cosignature is over the text of the head and a time, so that no other signature of the key can be
taken for one. Source: c2sp.org/tlog-cosignature (Ed25519) and c2sp.org/tlog-witness.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

from msgspec import Struct

from .errors import InvalidData, InvalidName, InvalidSignature
from .notes import COSIGNATURE, NOTE_SIZE_MAX, NoteKey, NoteLine, key_id, parse_note_key, split_note
from .signing import SIGNATURE_SIZE, SigningKey, check_note_signature

REQUEST_SIZE_MAX = NOTE_SIZE_MAX + 4096  # bytes of a request; spec/witness.md §3
PROOF_MAX = 63  # hashes in a request; spec/witness.md §3
WITNESSES_MAX = 64  # of one quorum; spec/witness.md §5

_NUMBER = r"0|[1-9][0-9]{0,18}"
_HASH = r"[A-Za-z0-9+/]{43}="
_CHECKPOINT = re.compile(rf"(?P<origin>[^\n]+)\n(?P<size>{_NUMBER})\n(?P<root>{_HASH})\n(?:[^\n]+\n)*")
_OLD = re.compile(rf"old ({_NUMBER})\n((?:{_HASH}\n)*)\n")
_TIME_SIZE = 8  # bytes before a signature; spec/witness.md §2


class Checkpoint(Struct, frozen=True):
    """What the text of any log's head says."""

    origin: str
    size: int  # entries
    root: bytes


class AddCheckpoint(Struct, frozen=True):
    """What a witness is asked: to cosign the head `note`, which goes on from `old` entries."""

    old: int  # size of the head that the witness cosigned last, as far as the asker knows
    proof: tuple[bytes, ...]  # RFC 9162 §2.1.4, from `old` on
    note: bytes


class Quorum(Struct, frozen=True):
    """Witnesses, and how many of them must vouch for a head. Each key counts once, whatever its names."""

    need: int
    witnesses: tuple[NoteKey, ...]

    @classmethod
    def parse(cls, need: int, keys: Iterable[str]) -> Quorum:
        """Return `need` of the witnesses with `keys` (`NAME+ID+KEY`). Raises InvalidName."""
        witnesses = tuple(parse_note_key(text, type_=COSIGNATURE) for text in keys)
        if len(witnesses) > WITNESSES_MAX:
            raise InvalidName(f"{len(witnesses)} witnesses, the limit is {WITNESSES_MAX}")
        if len({witness.key for witness in witnesses}) != len(witnesses):
            raise InvalidName("two of the witnesses have one key: it would count twice")
        if not 0 <= need <= len(witnesses):
            raise InvalidName(f"{need} witnesses must vouch for a head, and {len(witnesses)} are named")
        return cls(need, witnesses)

    def is_met_by(self, found: Iterable[NoteKey]) -> bool:
        """Say whether the witnesses `found` are enough."""
        keys = {witness.key for witness in self.witnesses}
        return len({witness.key for witness in found} & keys) >= self.need


def parse_checkpoint(text: bytes) -> Checkpoint:
    """Return what the text of a head says, of whatever log. Raises InvalidData."""
    match = _CHECKPOINT.fullmatch(text.decode())
    if not match:
        raise InvalidData("the note is no checkpoint of a log")
    return Checkpoint(match["origin"], int(match["size"]), _hash(match["root"]))


def cosign(text: bytes, name: str, key: SigningKey, *, time: int) -> NoteLine:
    """Return the line by which the witness `name` vouches for the head with this text, at `time`, since 1970."""
    signature = key.sign_note(_message(text, time))
    return NoteLine(name, key_id(name, COSIGNATURE, key.public_key), time.to_bytes(_TIME_SIZE, "big") + signature)


def check_cosignature(text: bytes, line: NoteLine, witness: NoteKey) -> int:
    """Return when `witness` vouched for the head with this text, in seconds since 1970. Raises InvalidSignature."""
    if (line.name, line.key_id) != (witness.name, witness.id):
        raise InvalidSignature(f"the line is not of the witness {witness.name}")
    time = int.from_bytes(line.signature[:_TIME_SIZE], "big")
    if len(line.signature) != _TIME_SIZE + SIGNATURE_SIZE or time >= 2**63:
        raise InvalidSignature(f"the line of the witness {witness.name} has not the form of a cosignature")
    check_note_signature(witness.key, _message(text, time), line.signature[_TIME_SIZE:])
    return time


def cosigned_by(note: bytes, witnesses: Iterable[NoteKey]) -> dict[NoteKey, int]:
    """Return which of `witnesses` vouch for the head `note`, and when each did, in seconds since 1970.

    Lines of others are passed over, and so is a line that does not verify: whoever passed the head on may have
    added it. Raises InvalidData if `note` is none.
    """
    text, lines = split_note(note)
    found: dict[NoteKey, int] = {}
    for witness in witnesses:
        for line in lines:
            if (line.name, line.key_id) != (witness.name, witness.id):
                continue
            try:
                found[witness] = max(check_cosignature(text, line, witness), found.get(witness, 0))
            except InvalidSignature:
                continue
    return found


def format_request(request: AddCheckpoint) -> bytes:
    """Return the body by which a witness is asked."""
    hashes = "".join(f"{base64.b64encode(node).decode()}\n" for node in request.proof)
    return f"old {request.old}\n{hashes}\n".encode() + request.note


def parse_request(body: bytes) -> AddCheckpoint:
    """Return what `body` asks a witness. Raises InvalidData."""
    if len(body) > REQUEST_SIZE_MAX:
        raise InvalidData(f"request of {len(body)} bytes, the limit is {REQUEST_SIZE_MAX}")
    head, empty, note = body.partition(b"\n\n")
    match = _OLD.fullmatch((head + empty).decode("ascii", "replace"))
    if not match:
        raise InvalidData("the request does not begin with the old size and a proof")
    proof = tuple(_hash(line) for line in match[2].split("\n")[:-1])
    if len(proof) > PROOF_MAX:
        raise InvalidData(f"a proof of {len(proof)} hashes, the limit is {PROOF_MAX}")
    return AddCheckpoint(int(match[1]), proof, note)


def _message(text: bytes, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n".encode() + text


def _hash(text: str) -> bytes:
    data = base64.b64decode(text)
    if base64.b64encode(data).decode() != text:
        raise InvalidData("a hash is not in canonical base64")
    return data
