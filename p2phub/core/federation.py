"""Federations: what institutions agree on, and their word that they do (spec/federation.md §1, §2).

    Charter     who belongs to it and on which terms; signed by its coordinator
    Agreement   a member's word to exactly these terms, or that it leaves; signed by the member
    Offer       lets whoever knows a secret join once; signed by the coordinator

A member counts only while both stand: the charter lists it, and its own last word is that it
agrees to the terms of the charter. So nobody is bound by what it did not sign, and nobody
belongs to it whom the coordinator did not let in.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Literal, TypeVar

from blake3 import blake3
from msgspec import Meta, Struct

from .encoding import decode, encode
from .envelope import ENVELOPE_SIZE_MAX, PAYLOAD_SIZE_MAX, Envelope, seal
from .errors import InvalidData, InvalidName, InvalidSignature
from .identity import Identity
from .ids import FederationId, NamespaceId, NodeId, PublicKey
from .manifest import Time
from .records import SKEW_MAX_S
from .signing import Signer
from .terms import INVITE_SIZE_MAX, MEMBERS_MAX, OFFER_DAYS_MAX, Members, Terms

CHARTER_PURPOSE = "federation"  # spec/signing.md §2
AGREEMENT_PURPOSE = "agreement"
OFFER_PURPOSE = "invitation"

NODES_MAX = 16  # that act for one member; spec/federation.md §2
DAYS_MAX = 400  # that a charter, or a member's word, lasts; spec/federation.md §1
INVITE_PREFIX = "p2phub-invite:"  # spec/federation.md §3

_CONTEXT = "p2phub 1 federation"  # spec/federation.md §1
_SECRET_CONTEXT = "p2phub 1 invitation"
_NAME = r"\A[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?\Z"
_DAY_S = 24 * 3600

FederationName = Annotated[str, Meta(min_length=1, max_length=40, pattern=_NAME)]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Serial = Annotated[int, Meta(ge=1, le=2**53)]
EnvelopeBytes = Annotated[bytes, Meta(max_length=ENVELOPE_SIZE_MAX)]

T = TypeVar("T", bound="_Signed")


class _Signed(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A statement that names the key that signs it."""

    schema: Literal[1] = 1
    key: PublicKey
    time: Time
    expires: Time


class Charter(_Signed, frozen=True, kw_only=True):
    """Version `version` of a federation."""

    name: FederationName
    coordinator: NamespaceId  # for whom `key` publishes
    created: Time  # of version 1
    version: Annotated[int, Meta(ge=1, le=2**31)]
    members: Members  # sorted, the coordinator too; none: it is dissolved
    terms: Terms

    def __post_init__(self) -> None:
        if list(self.members) != sorted(set(self.members)):
            raise ValueError("the members are sorted, and each stands once")
        if self.members and self.coordinator not in self.members:
            raise ValueError("the coordinator is a member")
        # So that whoever stole the key cannot take all versions that there will ever be.
        if self.version > self.time:
            raise ValueError("a version is at most its time")

    @property
    def id(self) -> FederationId:
        """What the federation is called in all its versions."""
        fixed = self.coordinator + self.created.to_bytes(8, "big") + self.name.encode()
        return FederationId(blake3(fixed, derive_key_context=_CONTEXT).digest())


class Agreement(_Signed, frozen=True, kw_only=True):
    """A member's word on a federation; of several the one with the greatest serial counts."""

    federation: FederationId
    namespace: NamespaceId  # for whom `key` publishes
    serial: Serial
    terms: Hash | None = None  # `terms_digest` of those that it agrees to; None: it leaves
    nodes: Annotated[tuple[NodeId, ...], Meta(max_length=NODES_MAX)] = ()  # that act for it, sorted

    def __post_init__(self) -> None:
        if list(self.nodes) != sorted(set(self.nodes)):
            raise ValueError("the nodes are sorted, and each stands once")
        if self.serial > self.time:
            raise ValueError("a serial is at most its time")


class Offer(_Signed, frozen=True, kw_only=True):
    """Lets somebody join once."""

    federation: FederationId
    secret: Hash  # secret_digest of what the invited one shows
    namespace: NamespaceId | None = None  # who may use it; None: whoever comes first


class Invitation(Struct, frozen=True, forbid_unknown_fields=True):
    """What is handed to the invited one: whoever has it can use it."""

    charter: EnvelopeBytes
    offer: EnvelopeBytes
    secret: Hash
    addresses: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)]  # p2phub://…, of the coordinator's nodes


class State(Struct, frozen=True, forbid_unknown_fields=True):
    """What one knows of a federation, as members tell each other."""

    charter: EnvelopeBytes
    agreements: Annotated[tuple[EnvelopeBytes, ...], Meta(max_length=2 * MEMBERS_MAX)]


# ── signing ─────────────────────────────────────────────────────────────────


def terms_digest(terms: Terms) -> bytes:
    """Return what members sign of the terms, 32 bytes."""
    return blake3(encode(terms)).digest()


def sign_charter(charter: Charter, key: Signer) -> bytes:
    """Return the charter, signed and encoded."""
    return _sign(charter, key, CHARTER_PURPOSE)


def sign_agreement(agreement: Agreement, key: Signer) -> bytes:
    """Return a member's word, signed and encoded."""
    return _sign(agreement, key, AGREEMENT_PURPOSE)


def sign_offer(offer: Offer, key: Signer) -> bytes:
    """Return an offer, signed and encoded."""
    return _sign(offer, key, OFFER_PURPOSE)


def open_charter(data: bytes) -> Charter:
    """Return the charter that `data` encodes, signed by the key it names; whose that is, is to be checked.

    Raises InvalidData.
    """
    return _open(data, Charter, CHARTER_PURPOSE, DAYS_MAX)


def open_agreement(data: bytes) -> Agreement:
    """Return the member's word that `data` encodes, signed by the key it names. Raises InvalidData."""
    return _open(data, Agreement, AGREEMENT_PURPOSE, DAYS_MAX)


def open_offer(data: bytes) -> Offer:
    """Return the offer that `data` encodes, signed by the key it names. Raises InvalidData."""
    return _open(data, Offer, OFFER_PURPOSE, OFFER_DAYS_MAX)


def check_speaks(signed: _Signed, namespace: NamespaceId, identity: Identity) -> None:
    """Raise InvalidSignature unless the key of a statement publishes for `namespace` now."""
    if identity.namespace != namespace or signed.key not in identity.current.publish.keys:
        raise InvalidSignature(f"{signed.key} does not publish for {namespace}")


def check_time(signed: _Signed, now: float) -> None:
    """Raise InvalidData if a statement is of a time that has not come, or over."""
    if signed.time > now + SKEW_MAX_S:
        raise InvalidData(f"it was signed {signed.time - now:.0f} s ahead of the clock")
    if signed.expires <= now:
        raise InvalidData("it has expired")


def _sign(signed: _Signed, key: Signer, purpose: str) -> bytes:
    data = encode(seal(signed, key, purpose))
    # Our own statement passes the door that others will open for it.
    _open(data, type(signed), purpose, DAYS_MAX)
    return data


def _open(data: bytes, type_: type[T], purpose: str, days_max: int) -> T:
    envelope = decode(data, Envelope, size_max=ENVELOPE_SIZE_MAX)
    signed = decode(envelope.payload, type_, size_max=PAYLOAD_SIZE_MAX)
    envelope.check(signed.key, purpose)
    if not 0 < signed.expires - signed.time <= days_max * _DAY_S:
        raise InvalidData(f"a {type_.__name__.lower()} lasts at most {days_max} days")
    return signed


# ── who belongs to it ───────────────────────────────────────────────────────


def in_force(charter: Charter, agreements: Iterable[Agreement], now: float) -> dict[NamespaceId, Agreement]:
    """Return the members that count at the time `now` (seconds since 1970), with their word.

    agreements: the last word of each, by a key that publishes for it.
    """
    if charter.expires <= now:
        return {}
    digest = terms_digest(charter.terms)
    return {
        each.namespace: each
        for each in agreements
        if each.federation == charter.id
        and each.namespace in charter.members
        and each.terms == digest
        and each.expires > now
    }


def covers(
    terms: Terms, members: Collection[NamespaceId], namespace: NamespaceId, kind: str, license_ok: Callable[[], bool]
) -> bool:
    """Say whether a repository falls under `terms`. license_ok: asked last, and only if they speak of licences."""
    if namespace not in (terms.publishers or members):
        return False
    return (not terms.kinds or kind in terms.kinds) and (not terms.licenses or license_ok())


def check_name(text: str) -> None:
    """Raise InvalidName unless `text` can be the name of a federation."""
    if not re.fullmatch(_NAME, text):
        raise InvalidName(f"'{text}' names no federation: expected at most 40 of a-z, 0-9 and -, such as vision-eu")


# ── invitations as text ─────────────────────────────────────────────────────


def secret_digest(secret: bytes) -> bytes:
    """Return what an offer says of the secret that goes with it, 32 bytes."""
    return blake3(secret, derive_key_context=_SECRET_CONTEXT).digest()


def format_invitation(invitation: Invitation) -> str:
    """Return an invitation as people pass it on: one line."""
    return INVITE_PREFIX + urlsafe_b64encode(encode(invitation)).decode().rstrip("=")


def parse_invitation(text: str) -> Invitation:
    """Return the invitation that `text` writes; raises InvalidName, whose text repeats nothing of it."""
    text = "".join(text.split())
    if not text.startswith(INVITE_PREFIX):
        raise InvalidName(f"that is no invitation: one begins with {INVITE_PREFIX}")
    if len(text) > INVITE_SIZE_MAX:
        raise InvalidName(f"an invitation has at most {INVITE_SIZE_MAX} characters")
    digits = text.removeprefix(INVITE_PREFIX)
    try:
        data = urlsafe_b64decode(digits + "=" * (-len(digits) % 4))
        invitation = decode(data, Invitation, size_max=INVITE_SIZE_MAX)
    except (ValueError, InvalidData) as exc:
        raise InvalidName("the invitation is not whole: was all of it copied?") from exc
    if format_invitation(invitation) != text:
        raise InvalidName("the invitation is not whole: was all of it copied?")
    return invitation
