"""Cosign the heads of logs that only grew, as a witness of other publishers (spec/witness.md §3, §4).

    request ──▶ is the log known, and the head signed? ──▶ kept, unless it contradicts ──▶ line
                                                                     └──▶ proof of a fork

Only logs that this node takes in are cosigned: of others it does not know the keys. What it has of
their records is compared too, so that it never vouches for a history that it knows to be another.
"""

from __future__ import annotations

import contextlib
import logging

from msgspec import Struct

from p2phub.core.checkpoint import Head, log_origin, open_head, parse_head
from p2phub.core.errors import ForkedLog, InvalidData, InvalidSignature
from p2phub.core.forks import ForkedHeads
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId
from p2phub.core.notes import COSIGNATURE, NoteKey, split_note
from p2phub.core.signing import SigningKey
from p2phub.core.witness import AddCheckpoint, Checkpoint, cosign, parse_checkpoint, parse_request
from p2phub.protocol.witnessing import SIZE_TYPE, Cosigned, Refusal, check_request
from p2phub.store.cosigned import CosignedHeads, open_witness
from p2phub.store.layout import Layout
from p2phub.store.store import Store

from .logheads import is_history

log = logging.getLogger(__name__)

NAME_CHARACTERS = 16  # of the key, in the name of a witness; spec/witness.md §2


class Answer(Struct, frozen=True):
    """What a witness answers, as HTTP."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    forked: LogId | None = None  # a log of which a second history came to light


class Witness:
    """The witness of one home. `answer` works on the disk, and is called from threads."""

    def __init__(self, key: SigningKey, heads: CosignedHeads) -> None:
        self._key = key
        self._heads = heads
        name = f"p2phub/witness/{str(key.public_key)[:NAME_CHARACTERS]}"
        self.key = NoteKey(name, COSIGNATURE, key.public_key)

    @classmethod
    def open(cls, layout: Layout) -> Witness:
        """Return the witness of a home, made now if it has none. Raises StoreError."""
        return cls(*open_witness(layout.keys / "witness.key", layout.cosigned))

    def close(self) -> None:
        """Close the file of what was cosigned."""
        self._heads.close()

    def count(self) -> int:
        """Return how many logs have a head that was cosigned."""
        return self._heads.count()

    def answer(self, store: Store, body: bytes, now: float) -> Answer:
        """Return the answer to a request for a cosignature. now: seconds since 1970."""
        try:
            request = parse_request(body)
            checkpoint = parse_checkpoint(split_note(request.note)[0])
        except InvalidData as exc:
            return _refused(Refusal(400, str(exc)))
        try:
            head = parse_head(request.note)
        except InvalidData:
            return _refused(Refusal(404, "this witness knows no log of this origin"))
        identity = _identity_of(store, head.log)
        if identity is None:
            return _refused(Refusal(404, "this witness does not know this log; it may hear of it by and by"))
        if (refusal := _check_head(store, identity, head)) is not None:
            return _refused(refusal)
        return self._advance(store, identity, request, checkpoint, head, int(now))

    def _advance(
        self, store: Store, identity: Identity, request: AddCheckpoint, checkpoint: Checkpoint, head: Head, now: int
    ) -> Answer:
        if _contradicts(store, head):
            with contextlib.suppress(ForkedLog):
                store.logs.check_head(head)
            _keep_proof(store, identity, head, None)
            return _refused(Refusal(422, "the log has another history here"), forked=head.log)
        refusal, known = self._heads.advance(
            log_origin(head.log),
            Cosigned(head.size, head.root, head.text),
            lambda known: check_request(request, checkpoint, known),
        )
        if refusal is None:
            line = cosign(head.signed, self.key.name, self._key, time=now)
            return Answer(200, line.text.encode())
        if refusal.is_fork and known is not None:
            _keep_proof(store, identity, head, ForkedHeads(known.note, head.text, known.root, ()))
        return _refused(refusal, forked=head.log if refusal.is_fork else None)


def _identity_of(store: Store, log_id: LogId) -> Identity | None:
    """Return the identity that names the key of a log, None if the log is not taken in here."""
    state = store.logs.state(log_id)
    identity = store.logs.identity(state.namespace) if state else None
    return identity if identity and log_id in identity.logs else None


def _check_head(store: Store, identity: Identity, head: Head) -> Refusal | None:
    """Return why a head counts for nothing, whatever came before it."""
    try:
        open_head(head.text, log=head.log, key=identity.logs[head.log])
    except InvalidSignature as exc:
        return Refusal(403, str(exc))
    if identity.counted(head.log, head.size) < head.size:
        return Refusal(403, "the publisher has ended this log before that size")
    if store.forks.is_stopped(head.log):
        return Refusal(403, "the log was signed with two histories, and nothing new in it counts")
    return None


def _contradicts(store: Store, head: Head) -> bool:
    """Say whether the records that are here are of another history than a signed head."""
    state = store.logs.state(head.log)
    return state is not None and head.size <= state.size and not is_history(store, state, head)


def _keep_proof(store: Store, identity: Identity, head: Head, proof: ForkedHeads | None) -> None:
    """Keep what proves that a log forked: two heads, or `head` and the records that are here."""
    from .forks import prove_by_own_log  # it needs what a node is, which has a witness

    log.warning("log %s of %s was signed with two histories", head.log, identity.namespace)
    with contextlib.suppress(InvalidData):
        state = store.logs.state(head.log)
        if proof is None and state and state.head and (ours := parse_head(state.head)).size >= head.size:
            proof = prove_by_own_log(store, ours, head)
        if proof is not None:
            store.forks.add(identity, head.log, proof)


def _refused(refusal: Refusal, *, forked: LogId | None = None) -> Answer:
    if refusal.size is not None:
        return Answer(refusal.status, f"{refusal.size}\n".encode(), SIZE_TYPE, forked)
    return Answer(refusal.status, f"{refusal.text}\n".encode(), forked=forked)
