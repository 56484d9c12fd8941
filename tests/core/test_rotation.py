"""Changes of documents, and the collecting of signatures for them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from p2phub.core import encoding
from p2phub.core.errors import Conflict, InvalidData, InvalidSignature
from p2phub.core.identity import (
    KEYS_MAX,
    RETIRED_MAX,
    Epoch,
    Identity,
    IdentityDocument,
    RetiredKey,
    Role,
    new_document,
    next_document,
    open_identity,
    sign_document,
)
from p2phub.core.ids import PublicKey
from p2phub.core.proposal import Proposal, open_proposal, propose, settle, sign_proposal
from p2phub.core.records import log_id
from p2phub.core.rotation import (
    End,
    add_key,
    describe,
    recover,
    remove_key,
    replace_key,
    roles_of,
    set_root,
    set_threshold,
)
from p2phub.testing import values

KEYS = sorted((values.key(f"key {number}") for number in range(5)), key=lambda key: key.public_key)
A, B, C, D, E = KEYS
ONE = new_document(A.public_key, created=values.TIME)


def public(*keys: object) -> tuple[PublicKey, ...]:
    return tuple(sorted(key.public_key for key in keys))  # type: ignore[attr-defined]


def follow(before: Identity, document: IdentityDocument, *signers: object) -> Identity:
    return open_identity([*before.chain, sign_document(document, signers)])  # type: ignore[arg-type]


FIRST = open_identity([sign_document(ONE, [A])])
NEXT = next_document(FIRST, created=values.TIME)


def test_a_key_is_added_to_roles_and_can_publish_then() -> None:
    changed = add_key(NEXT, B.public_key, ["publish", "fresh"])

    assert roles_of(changed, B.public_key) == ["publish", "fresh"]
    assert roles_of(changed, A.public_key) == ["root", "publish", "fresh"]
    assert B.public_key in follow(FIRST, changed, A).logs.values()
    with pytest.raises(Conflict, match="named already"):
        add_key(changed, B.public_key, ["publish"])


def test_a_retired_key_and_too_many_keys_are_not_added() -> None:
    retired = remove_key(add_key(NEXT, B.public_key, ["publish"]), B.public_key, End(3))
    many = tuple(sorted(values.key(f"many {number}").public_key for number in range(KEYS_MAX)))
    with pytest.raises(Conflict, match="never publishes again"):
        add_key(retired, B.public_key, ["publish"])
    with pytest.raises(Conflict, match="at most 16"):
        add_key(replace(NEXT, fresh=Role(many, 1)), B.public_key, ["fresh"])


def test_a_key_that_is_removed_is_retired_if_it_published() -> None:
    two = add_key(NEXT, B.public_key, ["publish", "fresh"])

    assert remove_key(two, B.public_key, End(7)) == replace(NEXT, retired=(RetiredKey(B.public_key, 7),))
    assert remove_key(add_key(NEXT, B.public_key, ["root"]), B.public_key, End(7)) == NEXT


def test_less_may_count_of_a_retired_key_and_never_more() -> None:
    retired = replace(NEXT, retired=(RetiredKey(B.public_key, 7),))

    assert remove_key(retired, B.public_key, End(2)).retired == (RetiredKey(B.public_key, 2),)
    with pytest.raises(Conflict, match="cannot become more"):
        remove_key(retired, B.public_key, End(8))
    with pytest.raises(Conflict, match="not named"):
        remove_key(retired, C.public_key, End(0))


def test_the_log_of_a_retired_key_is_closed_where_its_records_are_known() -> None:
    ends = {size: End(size, values.content(f"root {size}", 32)) for size in (0, 2, 3, 7)}
    two = add_key(NEXT, B.public_key, ["publish"])
    second = follow(FIRST, two, A)

    def less(before: Identity, end: End) -> Identity:
        return follow(before, remove_key(next_document(before, created=values.TIME), B.public_key, end), A)

    closed = less(second, ends[7])
    log = log_id(second.namespace, B.public_key)
    assert closed.current.retired == (RetiredKey(B.public_key, 0),)
    assert closed.closed[log].root == ends[7].root
    assert (closed.size_max(log), closed.counted_of(B.public_key), closed.last_log_of(B.public_key)) == (7, 7, log)
    # Whatever the key signs in the log that would come next.
    assert closed.size_max(closed.log_of(B.public_key)) == 0
    # Less may count later, and never more.
    fewer = less(less(closed, ends[3]), ends[2])
    assert (fewer.size_max(log), fewer.counted_of(B.public_key), fewer.last_log_of(B.public_key)) == (2, 2, log)
    assert less(fewer, ends[0]).counted_of(B.public_key) == 0
    for end in (ends[3], End(1)):
        with pytest.raises(Conflict):
            less(fewer, end)
    # One that was retired without being closed is closed when more is known of it.
    open_end = less(second, End(7))
    assert open_end.size_max(log) == 7
    assert less(open_end, ends[3]).closed[log].size == 3


def test_a_role_is_never_left_without_enough_keys() -> None:
    with pytest.raises(Conflict, match="there would be 0"):
        remove_key(NEXT, A.public_key, End(0))
    both = set_threshold(set_root(add_key(NEXT, B.public_key, ["publish", "fresh"]), public(A, B)), "root", 2)
    with pytest.raises(Conflict, match="2 keys must sign as root"):
        remove_key(both, A.public_key, End(0))


def test_one_is_not_said_as_many() -> None:
    one = remove_key(add_key(NEXT, B.public_key, ["publish", "fresh"]), B.public_key, End(1))

    assert f"of what key {B.public_key} signed, the first record goes on to count" in describe(NEXT, one)
    with pytest.raises(Conflict, match="1 key must sign as root"):
        remove_key(NEXT, A.public_key, End(0))


def test_a_key_takes_the_place_of_another() -> None:
    changed = replace_key(NEXT, A.public_key, B.public_key, ["root", "publish", "fresh"], End(4))
    only = replace_key(NEXT, A.public_key, B.public_key, ["publish"], End(4))

    assert roles_of(changed, B.public_key) == ["root", "publish", "fresh"]
    assert changed.retired == only.retired == (RetiredKey(A.public_key, 4),)
    assert roles_of(only, A.public_key) == ["root", "fresh"]
    follow(FIRST, changed, A, B)
    with pytest.raises(Conflict, match="in none of these roles"):
        replace_key(NEXT, C.public_key, B.public_key, ["root"], End(0))


def test_who_recovers_publishes_alone() -> None:
    before = add_key(add_key(NEXT, B.public_key, ["publish"]), C.public_key, ["publish"])
    after = recover(before, C.public_key, ends={A.public_key: End(5)})

    assert after.publish == after.fresh == Role((C.public_key,), 1)
    assert {each.key: each.size for each in after.retired} == {A.public_key: 5, B.public_key: 0}
    assert after.root == before.root


def test_thresholds_are_what_keys_can_meet() -> None:
    two = set_root(NEXT, public(A, B))

    assert set_threshold(two, "root", 2).root == Role(public(A, B), 2)
    for name, threshold in (("root", 3), ("root", 0), ("publish", 2)):
        with pytest.raises(Conflict):
            set_threshold(two, name, threshold)  # type: ignore[arg-type]


def test_no_more_keys_are_retired_than_a_document_holds() -> None:
    keys = sorted(values.key(f"old {number}").public_key for number in range(RETIRED_MAX))
    many = [RetiredKey(key, 1) for key in keys]
    full = replace(add_key(NEXT, B.public_key, ["publish"]), retired=tuple(many))

    assert remove_key(full, many[0].key, End(0)).retired[0].size == 0
    with pytest.raises(Conflict, match="64 keys were retired"):
        remove_key(full, B.public_key, End(0))


def test_every_change_is_told() -> None:
    before = replace(
        NEXT, domains=("a.example",), publish=Role(public(A, B), 1), retired=(RetiredKey(D.public_key, 9),)
    )
    after = replace(
        before, root=Role(public(A, C), 2), publish=Role(public(A), 1), domains=("b.example",),
        retired=(RetiredKey(B.public_key, 3),), epochs=(Epoch(A.public_key, 1, 5, bytes(32)),),
        companion=values.companion("x").public_key, recipient=values.recipient("x").public_key,
    )  # fmt: skip
    told = "\n".join(describe(before, after))

    assert describe(before, before) == []
    for part in (
        f"key {C.public_key} may change this identity", "2 of 2 keys must sign to change this identity",
        f"key {B.public_key} may no longer publish", f"key {B.public_key} signed, the first 3 records go on to count",
        f"nothing that key {D.public_key} signed counts", "claims the domain b.example", "a.example no longer",
        f"closes a log of key {A.public_key} at 5 records", "other tools", "encrypt to another key",
    ):  # fmt: skip
        assert part in told


# ── proposals ───────────────────────────────────────────────────────────────

OF_THREE = open_identity([sign_document(replace(ONE, root=Role(public(A, B, C), 2)), [A, B])])
WANTED = replace(next_document(OF_THREE, created=values.TIME), domains=("lab.example",))


def test_signatures_are_collected_until_there_are_enough() -> None:
    opened = propose(OF_THREE, WANTED)
    assert (opened.missing, opened.wanted) == (2, set(public(A, B, C)))
    with pytest.raises(InvalidSignature):
        settle(opened)
    opened = sign_proposal(opened, [E, A])
    assert (opened.missing, opened.wanted, opened.signers) == (1, set(public(B, C)), {A.public_key})
    # One key signs once, however often it is asked.
    assert sign_proposal(opened, [A, A]) == opened
    with pytest.raises(InvalidSignature):
        settle(opened)
    opened = sign_proposal(opened, [C])

    assert (opened.missing, opened.wanted) == (0, set())
    assert settle(opened).current == WANTED
    data = encoding.encode(opened.proposal)
    assert open_proposal(encoding.decode(data, Proposal, size_max=10**6)) == opened


def test_the_new_root_keys_have_to_sign_too() -> None:
    opened = propose(OF_THREE, replace(WANTED, root=Role(public(D, E), 2)))

    assert sign_proposal(opened, [A, B]).missing == 2
    assert sign_proposal(opened, [A, D, E]).missing == 1
    assert settle(sign_proposal(opened, [A, B, D, E])).current.root == Role(public(D, E), 2)


def test_a_proposal_that_lies_is_refused() -> None:
    opened = sign_proposal(propose(OF_THREE, WANTED), [A])
    (signature,) = opened.proposal.signatures
    retired = follow(FIRST, remove_key(add_key(NEXT, B.public_key, ["publish"]), B.public_key, End(3)), A)
    back = replace(next_document(retired, created=values.TIME), publish=Role(public(A, B), 1), retired=())
    lies = [
        replace(opened.proposal, signatures=(signature, signature)),
        replace(opened.proposal, signatures=(replace(signature, key=B.public_key),)),
        replace(opened.proposal, signatures=(replace(signature, key=E.public_key),)),
        replace(opened.proposal, document=opened.proposal.document[:-1]),
        replace(opened.proposal, document=encoding.encode(replace(WANTED, version=3))),
        replace(opened.proposal, document=encoding.encode(replace(WANTED, previous=bytes(32)))),
        replace(opened.proposal, chain=FIRST.chain),
        replace(opened.proposal, chain=()),
        Proposal(retired.chain, encoding.encode(back)),
    ]
    for lie in lies:
        with pytest.raises(InvalidData):
            open_proposal(lie)
