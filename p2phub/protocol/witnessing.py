"""Decide whether a witness may cosign a head (spec/witness.md §3, after c2sp.org/tlog-witness).

    request, what was cosigned last ──▶ check_request ──▶ None: cosign it, once it is kept
                                                     └──▶ Refusal: a status, and why

It is asked inside the transaction that keeps the head: two requests at once must not both be
compared with what was there before either.
"""

from __future__ import annotations

from msgspec import Struct

from p2phub.core.errors import HashMismatch
from p2phub.core.merkle import LOG_TREE, check_consistency
from p2phub.core.witness import AddCheckpoint, Checkpoint

SIZE_TYPE = "text/x.tlog.size"  # content type of the size that a witness knows; spec/witness.md §3
COSIGNATURES_SIZE_MAX = 64 * 1024  # bytes of an answer; spec/witness.md §3


class Cosigned(Struct, frozen=True):
    """The head of a log that a witness cosigned last."""

    size: int  # entries
    root: bytes
    note: bytes  # as it was cosigned, without the witness's own line


class Refusal(Struct, frozen=True):
    """Why a witness does not cosign a head."""

    status: int  # of HTTP
    text: str
    size: int | None = None  # of the head that it cosigned last, if the asker was wrong about it
    is_fork: bool = False  # the log signed another head of the same size


def check_request(request: AddCheckpoint, checkpoint: Checkpoint, known: Cosigned | None) -> Refusal | None:
    """Return why the head `checkpoint` of `request` must not be cosigned, None if it may be.

    known: what was cosigned last of this log, None if nothing was. The signature of the log was checked before.
    """
    size = known.size if known else 0
    if request.old > checkpoint.size:
        return Refusal(400, "the old size is larger than that of the checkpoint")
    if known and known.size == checkpoint.size and known.root != checkpoint.root:
        # Whatever its old size: two heads of one size are what a witness is there to see.
        return Refusal(409, "another checkpoint of this size was cosigned", size=size, is_fork=True)
    if request.old != size:
        return Refusal(409, f"the checkpoint that was cosigned last has the size {size}", size=size)
    if checkpoint.size == 0 and checkpoint.root != LOG_TREE.empty:
        return Refusal(422, "this is not the root of an empty log")
    try:
        old_root = known.root if known else LOG_TREE.empty
        check_consistency(LOG_TREE, request.old, old_root, checkpoint.size, checkpoint.root, request.proof)
    except HashMismatch as exc:
        return Refusal(422, f"the consistency proof does not hold: {exc}")
    return None
