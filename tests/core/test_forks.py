"""Proofs of forks: what proves two histories, and what only looks so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from p2phub.core import merkle
from p2phub.core.checkpoint import sign_head
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import InvalidData
from p2phub.core.forks import PROOF_SIZE_MAX, ForkedEntries, ForkedHeads, ForkProof, check_fork, prove_by_entries
from p2phub.core.merkle import LOG_TREE
from p2phub.core.records import NO_PREVIOUS, Entry, Yank, log_id, sign_record
from p2phub.core.signing import SigningKey
from p2phub.testing import values

KEY = values.key("publisher")
IDENTITY = values.identity()
LOG = log_id(IDENTITY.namespace, KEY.public_key)


def history(size: int, *, start: tuple[Entry, ...] = (), word: str = "a", key: SigningKey = KEY) -> tuple[Entry, ...]:
    """Return a log that begins with `start` and goes on to `size` records with the message `word`."""
    entries = list(start)
    while len(entries) < size:
        record = Yank(
            namespace=IDENTITY.namespace,
            log=LOG,
            index=len(entries),
            previous=entries[-1].leaf if entries else NO_PREVIOUS,
            time=values.TIME,
            model="parrot",
            version="1.0",
            message=word,
        )
        entries.append(sign_record(record, key))
    return tuple(entries)


def head(entries: tuple[Entry, ...], size: int | None = None, *, key: SigningKey = KEY) -> bytes:
    leaves = [entry.leaf for entry in entries[:size]]
    return sign_head(LOG, len(leaves), merkle.root(LOG_TREE, leaves), key).text


def heads_proof(larger: tuple[Entry, ...], smaller: tuple[Entry, ...], size: int) -> ForkedHeads:
    leaves = [entry.leaf for entry in larger]
    proof = merkle.consistency_proof(LOG_TREE, leaves, size)
    return ForkedHeads(head(larger), head(smaller, size), merkle.root(LOG_TREE, leaves[:size]), proof)


def refused(proof: ForkProof) -> None:
    with pytest.raises(InvalidData):
        check_fork(proof, identity=IDENTITY, log=LOG)


@given(common=st.integers(0, 20), ours=st.integers(1, 20), theirs=st.integers(1, 20))
def test_two_histories_are_proven_by_records_or_by_heads(common: int, ours: int, theirs: int) -> None:
    shared = history(common)
    one, other = (history(common + n, start=shared, word=word) for n, word in ((ours, "b"), (theirs, "c")))
    by_entries = prove_by_entries(one[common].data, other[common].data)
    smaller, larger = sorted((one, other), key=len)
    sizes = range(common + 1, len(smaller) + 1)

    assert check_fork(by_entries, identity=IDENTITY, log=LOG) == common
    for size in sizes:
        assert check_fork(heads_proof(larger, smaller, size), identity=IDENTITY, log=LOG) == size - 1
    for proof in (by_entries, heads_proof(larger, smaller, sizes[0])):
        assert decode(encode(proof), ForkProof, size_max=PROOF_SIZE_MAX) == proof  # type: ignore[arg-type]


@given(size=st.integers(1, 30), data=st.data())
def test_one_history_proves_nothing(size: int, data: st.DataObject) -> None:
    entries = history(size)
    place, other, prefix = (data.draw(st.integers(0, size - 1)) for _ in range(3))

    refused(prove_by_entries(entries[place].data, entries[other].data))
    refused(heads_proof(entries, entries, prefix + 1))


def test_what_another_signed_or_what_stands_elsewhere_proves_nothing() -> None:
    shared = history(3)
    one, other = history(5, start=shared, word="b"), history(5, start=shared, word="c")
    stranger = history(5, start=shared, word="c", key=values.key("stranger"))
    good = prove_by_entries(one[3].data, other[3].data)

    assert check_fork(good, identity=IDENTITY, log=LOG) == 3
    refused(prove_by_entries(one[3].data, stranger[3].data))
    # Signed at the same index, but the histories parted before: where, these two do not say.
    refused(prove_by_entries(one[4].data, other[4].data))
    refused(prove_by_entries(one[3].data, other[4].data))
    refused(ForkedEntries((good.entries[1], good.entries[0])))
    refused(ForkedEntries((good.entries[0], good.entries[0])))
    refused(prove_by_entries(b"", other[3].data))
    with pytest.raises(InvalidData):
        check_fork(good, identity=values.identity("stranger"), log=LOG)


def test_heads_that_another_signed_or_that_do_not_fit_prove_nothing() -> None:
    shared = history(3)
    one, other = history(7, start=shared, word="b"), history(5, start=shared, word="c")
    good = heads_proof(one, other, 5)

    assert check_fork(good, identity=IDENTITY, log=LOG) == 4
    refused(replace(good, smaller=head(other, key=values.key("stranger"))))
    refused(replace(good, larger=head(one, key=values.key("stranger"))))
    refused(replace(good, root=bytes(32)))
    refused(replace(good, proof=good.proof[:-1]))
    refused(replace(good, larger=good.smaller, smaller=good.larger))
    empty = sign_head(LOG, 0, bytes(32), KEY).text
    refused(ForkedHeads(good.larger, empty, LOG_TREE.empty, ()))
