"""Statements of a publisher that nothing newer than this is there (spec/fresh.md).

    Fresh (heads of all logs, time) ──signed by keys of the role `fresh`──▶ SignedFresh ──▶ whoever resolves a name

Records alone cannot show that newer ones are withheld: a peer that stops telling looks like a
publisher that stopped publishing. A statement that is renewed every day does: either it comes,
and names heads that are not here, or it does not come, and the last one grows old.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta, Struct

from .ages import describe_age
from .checkpoint import HEAD_SIZE_MAX, Head, open_head, parse_head
from .encoding import decode, encode
from .errors import InvalidData, InvalidSignature, TooEarly
from .identity import CHAIN_MAX, KEYS_MAX, Identity, KeySignature
from .ids import LogId, NamespaceId, SignerKey
from .manifest import Time
from .records import SKEW_MAX_S
from .signing import Signer, check_signature

PURPOSE = "fresh"  # spec/signing.md §2
STATEMENT_SIZE_MAX = KEYS_MAX * HEAD_SIZE_MAX + 4096  # bytes; spec/fresh.md §1
RENEW_S = 20 * 3600  # seconds until a statement is renewed; spec/fresh.md §2
TTL_S = 7 * 86400  # seconds that a new one is valid; spec/fresh.md §2
TTL_MAX_S = 30 * 86400  # seconds that any may be; spec/fresh.md §1
WARN_S = 3 * 86400  # seconds until readers warn of an old one; spec/fresh.md §4

HeadBytes = Annotated[bytes, Meta(max_length=HEAD_SIZE_MAX)]


class Fresh(Struct, frozen=True, forbid_unknown_fields=True):
    """What a publisher says: these are the heads of my logs, now."""

    schema: Literal[1]
    namespace: NamespaceId
    version: Annotated[int, Meta(ge=1, le=CHAIN_MAX)]  # of the newest identity document
    time: Time
    expires: Time
    heads: Annotated[tuple[HeadBytes, ...], Meta(max_length=KEYS_MAX)]  # with lines of witnesses; sorted by log


class SignedFresh(Struct, frozen=True, forbid_unknown_fields=True):
    """A statement as it travels: the bytes that were signed, and the signatures."""

    statement: Annotated[bytes, Meta(max_length=STATEMENT_SIZE_MAX)]
    signatures: Annotated[tuple[KeySignature, ...], Meta(min_length=1, max_length=KEYS_MAX)]


class OpenFresh(Struct, frozen=True):
    """A statement, all checked: what `open_fresh` makes."""

    fresh: Fresh
    heads: tuple[Head, ...]
    signed: SignedFresh


class Behind(Struct, frozen=True):
    """A log of which its publisher stated more records than are here."""

    log: LogId
    stated: int
    here: int


class Freshness(Struct, frozen=True):
    """How new what is here of a publisher is, by his own statement."""

    namespace: NamespaceId
    time: int | None = None  # of the newest statement, in seconds since 1970; None: there is none
    expires: int = 0
    behind: tuple[Behind, ...] = ()
    newer_identity: int | None = None  # version of an identity document that is not here

    def age_s(self, now: float) -> float | None:
        """Return the seconds since the statement was made; None if there is none."""
        return None if self.time is None else max(0.0, now - self.time)


def sign_fresh(fresh: Fresh, keys: Iterable[Signer]) -> SignedFresh:
    """Return `fresh` signed by `keys`."""
    data = encode(fresh)
    signatures = (KeySignature(SignerKey(key.public_key), key.sign(PURPOSE, data)) for key in keys)
    return SignedFresh(data, tuple(sorted(signatures, key=lambda signature: signature.key)))


def read_fresh(signed: SignedFresh) -> Fresh:
    """Return what a statement says; nothing of it is checked but its form. Raises InvalidData."""
    return decode(signed.statement, Fresh, size_max=STATEMENT_SIZE_MAX)


def open_fresh(signed: SignedFresh, identity: Identity, *, now: float) -> OpenFresh:
    """Return the statement, checked against the newest identity that is known of its publisher.

    now: seconds since 1970. Raises InvalidData if it is wrong, or not right by this identity; TooEarly.
    """
    fresh = read_fresh(signed)
    if fresh.namespace != identity.namespace:
        raise InvalidData("the statement is of another publisher")
    # Who can sign ahead of time could keep all later statements out.
    if fresh.time > now + SKEW_MAX_S:
        raise TooEarly("the statement is ahead of this machine's clock")
    if not fresh.time < fresh.expires <= fresh.time + TTL_MAX_S:
        raise InvalidData(f"a statement is valid for at most {TTL_MAX_S} s after it was made")
    _check_signatures(signed, identity)
    heads = [parse_head(note) for note in fresh.heads]
    if [head.log for head in heads] != sorted({head.log for head in heads}):
        raise InvalidData("the heads of a statement are sorted by log, and each log stands once")
    for head in heads:
        key = identity.logs.get(head.log)
        if key is None:
            raise InvalidData(f"log {head.log} is not of a key that {identity.namespace} names")
        open_head(head.text, log=head.log, key=key)
    return OpenFresh(fresh, tuple(heads), signed)


def _check_signatures(signed: SignedFresh, identity: Identity) -> None:
    role = identity.current.fresh
    signers = [signature.key for signature in signed.signatures]
    # So that two signatures by one key cannot count as two.
    if signers != sorted(set(signers)):
        raise InvalidData("the signatures of a statement are sorted by key, and each key signs once")
    if not set(signers) <= set(role.keys):
        raise InvalidSignature("a statement is signed by a key that may not say what is newest")
    for signature in signed.signatures:
        check_signature(signature.key, PURPOSE, signed.statement, signature.signature)
    if len(signers) < role.threshold:
        raise InvalidSignature(f"{len(signers)} keys signed the statement, {role.threshold} must")


def missing(freshness: Freshness) -> list[str]:
    """Return what is stated and not here."""
    said = [
        f"a newer head exists: the publisher stated {each.stated} records of log {str(each.log)[:12]}…,"
        f" here are {each.here}; somebody may withhold the rest"
        for each in freshness.behind
    ]
    if freshness.newer_identity is not None:
        version = freshness.newer_identity
        said.append(f"a newer identity of the publisher exists: version {version}; somebody may withhold it")
    return said


def warnings(freshness: Freshness, *, now: float) -> list[str]:
    """Return what a person should know who uses what is newest here of a publisher."""
    said = missing(freshness)
    age = freshness.age_s(now)
    if age is None:
        said.append("no statement of the publisher is known that this is the newest")
    elif age > WARN_S or now > freshness.expires:
        said.append(f"the publisher last said {describe_age(age)} ago that nothing newer is there")
    return said
