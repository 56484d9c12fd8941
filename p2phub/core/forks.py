"""Proofs that a publisher signed two histories of one log (spec/forks.md).

Whoever has such a proof needs nobody's word: all in it is signed by the log's key. It also
says how many records the histories have in common at most, so that all who see it freeze
the log at the same size; of several proofs the one with the smallest size counts.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from .checkpoint import HEAD_SIZE_MAX, open_head
from .encoding import decode
from .envelope import ENVELOPE_SIZE_MAX, PAYLOAD_SIZE_MAX, Envelope
from .errors import InvalidData
from .identity import Identity
from .ids import LogId, PublicKey
from .merkle import LOG_TREE, check_consistency
from .records import PURPOSE, Record

PROOF_SIZE_MAX = 2 * ENVELOPE_SIZE_MAX + 1024  # bytes of an encoded proof; spec/forks.md §1
HASHES_MAX = 64  # in a proof of consistency: a log has less than 2^63 records

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
EntryBytes = Annotated[bytes, Meta(max_length=ENVELOPE_SIZE_MAX)]
HeadBytes = Annotated[bytes, Meta(max_length=HEAD_SIZE_MAX)]


class ForkedEntries(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="entries"):
    """Two records that were signed to follow the same record: up to there the histories are one."""

    entries: tuple[EntryBytes, EntryBytes]  # sorted


class ForkedHeads(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="heads"):
    """Two heads of which the smaller is of no history that the larger goes on from."""

    larger: HeadBytes
    smaller: HeadBytes
    root: Hash  # that the log of `larger` had at the size of `smaller`
    proof: Annotated[tuple[Hash, ...], Meta(max_length=HASHES_MAX)]  # that it had


ForkProof = ForkedEntries | ForkedHeads


def prove_by_entries(one: bytes, other: bytes) -> ForkedEntries:
    """Return the proof that two entries make."""
    first, second = sorted((one, other))
    return ForkedEntries((first, second))


def check_fork(proof: ForkProof, *, identity: Identity, log: LogId) -> int:
    """Return how many records the histories that `proof` shows of `log` have in common at most.

    Raises InvalidData if it proves nothing.
    """
    key = identity.logs.get(log)
    if key is None:
        raise InvalidData(f"log {log} is not of a key that {identity.namespace} names")
    match proof:
        case ForkedEntries():
            return _check_entries(proof, identity, log, key)
        case ForkedHeads():
            return _check_heads(proof, log, key)


def _check_entries(proof: ForkedEntries, identity: Identity, log: LogId, key: PublicKey) -> int:
    one, other = (_open(data, key) for data in proof.entries)
    if proof.entries[0] >= proof.entries[1]:
        raise InvalidData("the two entries of a proof are sorted, and not the same")
    for record in (one, other):
        if (record.namespace, record.log) != (identity.namespace, log):
            raise InvalidData("an entry of the proof is of another log")
    if (one.index, one.previous) != (other.index, other.previous):
        raise InvalidData("the entries of the proof do not stand at the same place")
    return one.index


def _check_heads(proof: ForkedHeads, log: LogId, key: PublicKey) -> int:
    larger = open_head(proof.larger, log=log, key=key)
    smaller = open_head(proof.smaller, log=log, key=key)
    if not 1 <= smaller.size <= larger.size:
        raise InvalidData("the heads of the proof are not in order of their size")
    check_consistency(LOG_TREE, smaller.size, proof.root, larger.size, larger.root, proof.proof)
    if proof.root == smaller.root:
        raise InvalidData("the heads of the proof are of one history")
    return smaller.size - 1


def _open(data: bytes, key: PublicKey) -> Record:
    """Return the record of an entry that `key` signed, wherever it stands."""
    envelope = decode(data, Envelope, size_max=ENVELOPE_SIZE_MAX)
    envelope.check(key, PURPOSE)
    record: Record = decode(envelope.payload, Record, size_max=PAYLOAD_SIZE_MAX)  # type: ignore[arg-type]
    return record
