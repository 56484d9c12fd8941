from __future__ import annotations

from typing import Any

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from p2phub.core import encoding
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import InvalidData, InvalidEncoding, InvalidSignature
from p2phub.core.identity import (
    CHAIN_MAX,
    KEYS_MAX,
    PURPOSE,
    Epoch,
    IdentityDocument,
    KeySignature,
    RetiredKey,
    Role,
    SignedDocument,
    namespace_id,
    new_document,
    open_identity,
    sign_document,
)
from p2phub.core.ids import PublicKey, SignerKey
from p2phub.core.records import log_id
from p2phub.core.signing import SigningKey
from p2phub.testing import values

KEYS = sorted((values.key(f"key {number}") for number in range(5)), key=lambda key: key.public_key)
A, B, C, D, E = KEYS


def role(*keys: SigningKey, threshold: int = 1) -> Role:
    return Role(tuple(key.public_key for key in keys), threshold)


def document(
    version: int = 1, *, root: Role, previous: SignedDocument | None = None, **fields: object
) -> IdentityDocument:
    return IdentityDocument(
        schema=1,
        version=version,
        created=version,
        root=root,
        previous=blake3(previous.document).digest() if previous else None,
        **({"publish": role(A), "fresh": role(A)} | fields),  # type: ignore[arg-type]
    )


FIRST = sign_document(document(root=role(A, B, threshold=2)), [A, B])
SECOND_DOCUMENT = document(2, root=role(B, C, threshold=2), previous=FIRST)
SECOND = sign_document(SECOND_DOCUMENT, [A, B, C])
THIRD = sign_document(document(3, root=role(C), previous=SECOND), [B, C])


def test_one_person_with_one_key_needs_nothing_else() -> None:
    signed = sign_document(new_document(A.public_key, created=7), [A])

    identity = open_identity([signed])

    assert identity.namespace == namespace_id(signed.document)
    assert identity.current == new_document(A.public_key, created=7)
    assert identity.logs == {log_id(identity.namespace, A.public_key): A.public_key}
    assert identity.size_max(log_id(identity.namespace, A.public_key)) is None


def test_keys_are_handed_over_from_document_to_document() -> None:
    for chain in ([FIRST], [FIRST, SECOND], [FIRST, SECOND, THIRD]):
        identity = open_identity(chain)

        assert identity.current.version == len(chain)
        assert identity.chain == tuple(chain)
        assert identity.namespace == namespace_id(FIRST.document)


def test_the_namespace_is_that_of_the_spec() -> None:
    expected = blake3(FIRST.document, derive_key_context="p2phub 1 namespace").digest()

    assert namespace_id(FIRST.document) == expected


def test_no_version_may_be_missing() -> None:
    for chain in ([SECOND], [SECOND, THIRD], [FIRST, THIRD], [FIRST, FIRST], [FIRST, SECOND, SECOND], [SECOND, FIRST]):
        with pytest.raises(InvalidData, match="does not follow"):
            open_identity(chain)


def test_version_3_cannot_pass_for_the_second_although_both_signed_it() -> None:
    jump = sign_document(document(3, root=role(B, C, threshold=2), previous=FIRST), [A, B, C])

    with pytest.raises(InvalidData, match="document 3 does not follow"):
        open_identity([FIRST, jump])


def test_a_document_names_the_one_before_it() -> None:
    other_first = sign_document(document(root=role(A, B, threshold=2), domains=("lab.edu",)), [A, B])

    with pytest.raises(InvalidData, match="does not follow"):
        open_identity([other_first, SECOND])
    with pytest.raises(InvalidData, match="does not follow"):
        open_identity([sign_document(document(root=role(A), previous=FIRST), [A])])
    with pytest.raises(InvalidData, match="does not follow"):
        open_identity([FIRST, sign_document(document(2, root=role(A, B)), [A, B])])


@pytest.mark.parametrize(
    "signers",
    [[B, C], [A, B], [A, C], [B], [A], [C]],
    ids=["old root missing", "new root missing", "one of each", "one of both", "one of the old", "one of the new"],
)
def test_enough_keys_of_the_old_root_and_of_the_new_must_sign(signers: list[SigningKey]) -> None:
    with pytest.raises(InvalidSignature, match=r"[01] root keys signed, 2 must"):
        open_identity([FIRST, sign_document(SECOND_DOCUMENT, signers)])


def test_the_first_document_is_signed_by_its_own_root() -> None:
    with pytest.raises(InvalidSignature, match="1 root keys signed, 2 must"):
        open_identity([sign_document(document(root=role(A, B, threshold=2)), [A])])


def test_two_signatures_by_one_key_are_not_two() -> None:
    once = sign_document(document(root=role(A, B, threshold=2)), [A])
    twice = SignedDocument(once.document, once.signatures * 2)

    with pytest.raises(InvalidData, match="each key signs once"):
        open_identity([twice])


def test_signatures_are_sorted() -> None:
    with pytest.raises(InvalidData, match="sorted by key"):
        open_identity([SignedDocument(FIRST.document, FIRST.signatures[::-1])])


def test_a_signature_of_a_stranger_is_refused() -> None:
    with pytest.raises(InvalidData, match="no root key"):
        open_identity([sign_document(document(root=role(A, B, threshold=2)), [A, B, E])])


def test_a_publishing_key_cannot_sign_a_document() -> None:
    with pytest.raises(InvalidData):
        open_identity([sign_document(document(root=role(A), publish=role(B)), [B])])


def test_a_key_that_would_sign_anything_is_no_root_key() -> None:
    identity_point = b"\1" + bytes(31)
    signed = replace(FIRST, signatures=(KeySignature(SignerKey(identity_point), identity_point + bytes(32)),))
    came = decode(encode(signed), SignedDocument, size_max=10**6)

    with pytest.raises(InvalidData, match="no root key"):
        open_identity([came])


def test_a_signature_that_does_not_hold_is_refused() -> None:
    data = FIRST.document
    for signature in (B.sign("record", data), B.sign(PURPOSE, data + b"\0"), C.sign(PURPOSE, data), bytes(64)):
        forged = SignedDocument(data, (FIRST.signatures[0], KeySignature(B.public_key, signature)))

        with pytest.raises(InvalidSignature):
            open_identity([forged])


@given(st.data())
def test_no_changed_byte_passes(data: st.DataObject) -> None:
    changed = bytearray(SECOND.document)
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(InvalidData):
        open_identity([FIRST, SignedDocument(bytes(changed), SECOND.signatures), THIRD])


def keys(*of: SigningKey) -> tuple[PublicKey, ...]:
    return tuple(key.public_key for key in of)


REFUSED: dict[str, dict[str, Any]] = {
    "a role without keys": {"root": Role((), 1)},
    "a threshold of 0": {"root": Role(keys(A), 0)},
    "a threshold above the count of keys": {"root": Role(keys(A), 2)},
    "a fresh threshold above the count of keys": {"fresh": Role(keys(A), 2)},
    "keys that are not sorted": {"root": Role(keys(B, A), 1)},
    "a key that stands twice": {"root": Role(keys(A, A), 2)},
    "a publish threshold of 2": {"publish": Role(keys(A, B), 2)},
    "publishing keys that are not sorted": {"publish": Role(keys(B, A), 1)},
    "domains that are not sorted": {"domains": ("b.edu", "a.edu")},
    "a domain twice": {"domains": ("a.edu", "a.edu")},
    "a domain without a dot": {"domains": ("localhost",)},
    "a domain in capitals": {"domains": ("Lab.edu",)},
    "a domain with a line break": {"domains": ("lab.edu\n",)},
    "an IP address as domain": {"domains": ("192.0.2.1",)},
    "a URL as domain": {"domains": ("https://lab.edu",)},
    "too many domains": {"domains": tuple(f"{chr(97 + number)}.edu" for number in range(17))},
    "a retired key that publishes": {"retired": (RetiredKey(A.public_key, 1),)},
    "a retired key twice": {"retired": (RetiredKey(B.public_key, 1), RetiredKey(B.public_key, 2))},
    "retired keys that are not sorted": {"retired": (RetiredKey(C.public_key, 1), RetiredKey(B.public_key, 2))},
    "a retired size below 0": {"retired": (RetiredKey(B.public_key, -1),)},
    "a key of small order": {"fresh": Role((PublicKey(bytes(32)),), 1)},
    "another schema": {"schema": 2},
    "version 0": {"version": 0},
    "a version over the limit": {"version": CHAIN_MAX + 1},
    "a previous document of 31 bytes": {"previous": bytes(31)},
    "a time before 1970": {"created": -1},
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_refuses(what: str) -> None:
    sound = document(root=role(A))
    open_identity([sign_document(sound, [A])])

    with pytest.raises(InvalidData):
        open_identity([sign_document(msgspec.structs.replace(sound, **REFUSED[what]), [A])])


def test_too_many_keys_are_refused() -> None:
    many = sorted((values.key(f"many {number}") for number in range(KEYS_MAX + 1)), key=lambda key: key.public_key)
    open_identity([sign_document(document(root=role(*many[:KEYS_MAX])), [many[0]])])

    with pytest.raises(InvalidEncoding):
        open_identity([sign_document(document(root=role(*many)), [many[0]])])


def test_an_identity_has_a_document_at_least() -> None:
    with pytest.raises(InvalidData, match="1 to 1000 documents"):
        open_identity([])


def test_a_chain_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidData, match="1 to 1000 documents"):
        open_identity([SignedDocument(b"junk", FIRST.signatures)] * (CHAIN_MAX + 1))


def test_the_log_of_a_retired_key_counts_up_to_its_size() -> None:
    identity = values.rotated_identity()
    old, new = values.key("laptop 1").public_key, values.key("laptop 2").public_key
    old_log, new_log = log_id(identity.namespace, old), log_id(identity.namespace, new)

    assert identity.logs == {new_log: new, old_log: old}
    assert identity.size_max(old_log) == 12
    assert identity.size_max(new_log) is None


@pytest.mark.parametrize("signed", values.rotated_identity().chain)
def test_a_signed_document_travels_and_comes_back(signed: SignedDocument) -> None:
    data = encoding.encode(signed)

    assert encoding.decode(data, SignedDocument, size_max=len(data)) == signed


# ── what does not count any more never counts again ─────────────────────────


def followed(chain: list[SignedDocument], **fields: object) -> list[SignedDocument]:
    """Return `chain` and one document more, which differs in `fields`."""
    last = encoding.decode(chain[-1].document, IdentityDocument, size_max=2**20)
    previous = blake3(chain[-1].document).digest()
    changed = msgspec.structs.replace(last, version=last.version + 1, previous=previous, **fields)
    return [*chain, sign_document(changed, [A])]


START = [sign_document(document(root=role(A), publish=role(A, B)), [A])]
RETIRED = followed(START, publish=role(A), retired=(RetiredKey(B.public_key, 5),))
DROPPED = followed(RETIRED, retired=())
CLOSED = Epoch(B.public_key, 1, 5, bytes(32))
ENDED = followed(RETIRED, retired=(RetiredKey(B.public_key, 0),), epochs=(CLOSED,))


def test_a_retired_key_may_count_for_less_and_for_nothing() -> None:
    for chain in (
        followed(RETIRED, retired=(RetiredKey(B.public_key, 5),)),
        followed(RETIRED, retired=(RetiredKey(B.public_key, 4),)),
        followed(RETIRED, retired=(RetiredKey(B.public_key, 0),)),
        DROPPED,
        followed(START, publish=role(A)),
        followed(RETIRED, retired=(RetiredKey(B.public_key, 0),), epochs=(CLOSED,)),
        followed(ENDED, epochs=(msgspec.structs.replace(CLOSED, size=4),)),
        followed(followed(ENDED, epochs=(msgspec.structs.replace(CLOSED, size=4),)), epochs=(), retired=()),
    ):
        open_identity(chain)


def taken_back() -> dict[str, list[SignedDocument]]:
    gone = followed(START, publish=role(A))
    closed = followed(RETIRED, retired=(RetiredKey(B.public_key, 0),), epochs=(CLOSED,))
    closed_twice = (CLOSED, msgspec.structs.replace(CLOSED, number=2, size=1))
    own_end = Epoch(A.public_key, 1, 3, bytes(32))
    own = followed(START, epochs=(own_end,))
    return {
        "a larger size": followed(RETIRED, retired=(RetiredKey(B.public_key, 6),)),
        "a retired key publishes again": followed(RETIRED, publish=role(A, B), retired=()),
        "a retired key that was left out comes back": followed(DROPPED, retired=(RetiredKey(B.public_key, 1),)),
        "a retired key that was left out publishes": followed(DROPPED, publish=role(A, B)),
        "a key that was dropped publishes": followed(gone, publish=role(A, B)),
        "a key that was dropped is retired": followed(gone, retired=(RetiredKey(B.public_key, 0),)),
        "a key that was dropped long ago publishes": followed(followed(gone), publish=role(A, B)),
        "a retired log is closed later": followed(
            RETIRED, retired=(RetiredKey(B.public_key, 0),), epochs=(msgspec.structs.replace(CLOSED, size=6),)
        ),
        "a retired key goes on in a new log": followed(
            RETIRED, retired=(RetiredKey(B.public_key, 1),), epochs=(CLOSED,)
        ),
        "a retired key goes on in a closed log": followed(
            RETIRED, retired=(RetiredKey(B.public_key, 0),), epochs=closed_twice
        ),
        "the end of a log of a retired key is taken back": followed(closed, epochs=()),
        "the end of a log is taken back": followed(own, epochs=()),
        "the end of a log of a retired key is moved on": followed(
            ENDED, epochs=(msgspec.structs.replace(CLOSED, size=6),)
        ),
        "another end of as many records": followed(ENDED, epochs=(msgspec.structs.replace(CLOSED, root=b"1" * 32),)),
        "an end that was taken back goes on": followed(
            followed(ENDED, epochs=(msgspec.structs.replace(CLOSED, size=4),)), epochs=(CLOSED,)
        ),
        "the end of a log that goes on, earlier": followed(own, epochs=(msgspec.structs.replace(own_end, size=2),)),
        "the end of a log is moved": followed(own, epochs=(msgspec.structs.replace(own_end, size=4),)),
    }


@pytest.mark.parametrize("what", taken_back())
def test_what_was_taken_away_does_not_come_back(what: str) -> None:
    with pytest.raises(InvalidData, match=r"comes back|publishes again|would count|taken back"):
        open_identity(taken_back()[what])


@pytest.mark.parametrize("key", [values.companion("x").public_key, None])
def test_keys_for_other_purposes_may_be_left_out(key: bytes | None) -> None:
    signed = sign_document(msgspec.structs.replace(document(root=role(A)), companion=key), [A])

    assert open_identity([signed]).current.companion == key


@pytest.mark.parametrize("fields", [
    {"companion": b"\2" + b"\xff" * 32}, {"companion": bytes(33)}, {"recipient": bytes(32)},
    {"recipient": b"\xff" * 32},
])  # fmt: skip
def test_keys_for_other_purposes_are_checked(fields: dict[str, bytes]) -> None:
    with pytest.raises(InvalidData):
        open_identity([sign_document(msgspec.structs.replace(document(root=role(A)), **fields), [A])])  # type: ignore[arg-type]


def test_one_identity_continues_another_whatever_the_signatures() -> None:
    short, whole = open_identity([FIRST]), open_identity([FIRST, SECOND])
    fewer = open_identity([FIRST, sign_document(SECOND_DOCUMENT, [A, B, C])])

    assert whole.continues(short)
    assert whole.continues(fewer)
    assert not short.continues(whole)
