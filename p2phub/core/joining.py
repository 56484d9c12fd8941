"""Let another machine sign for a namespace: what it asks, and what it gets (spec/identity.md §8).

    new machine ──KeyRequest──▶ who has the root keys ──next document──▶ everybody
                ◀──────────Answer: documents, and keys for other purposes, encrypted

A request is signed with the key that it is about, so that nobody asks for the key of another.
"""

from __future__ import annotations

from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from msgspec import Meta, Struct

from .companion import CompanionKey
from .encoding import decode, encode
from .envelope import Envelope, seal
from .errors import InvalidData
from .identity import CHAIN_MAX, Identity, SignedDocument, open_identity
from .ids import NamespaceId, PublicKey
from .manifest import Time
from .recipient import RecipientKey, check_recipient_key
from .signing import Signer

PURPOSE = "request"  # spec/signing.md §2
REQUEST_SIZE_MAX = 1024  # bytes; spec/identity.md §8
ANSWER_SIZE_MAX = 4 * 1024 * 1024 + 4096  # bytes; a chain and what is encrypted

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_INFO = b"p2phub 1 answer\0"

Secret = Annotated[bytes, Meta(min_length=32, max_length=32)]


class KeyRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A machine asks that its key be named."""

    schema: Literal[1]
    key: PublicKey  # it signs the request
    box: Annotated[bytes, Meta(min_length=32, max_length=32)]  # X25519: to which secrets for it are encrypted
    time: Time


class Secrets(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The keys that all machines of a publisher share."""

    companion: Secret | None = None
    recipients: Annotated[tuple[Secret, ...], Meta(max_length=16)] = ()  # the newest first

    def __repr__(self) -> str:
        # The one of a Struct would show them.
        return f"Secrets of {len(self.recipients) + (self.companion is not None)} keys"


class Answer(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the machine that asked gets."""

    schema: Literal[1]
    chain: Annotated[tuple[SignedDocument, ...], Meta(min_length=1, max_length=CHAIN_MAX)]
    secrets: Annotated[bytes, Meta(max_length=2048)] | None = None  # HPKE: the key that was made for it, and Secrets


def make_request(key: Signer, box: RecipientKey, *, now: int) -> bytes:
    """Return the encoded request that `key` be named. box: for this request alone."""
    return encode(seal(KeyRequest(1, key.public_key, box.public_key, now), key, PURPOSE))


def open_request(data: bytes) -> KeyRequest:
    """Return the request that `data` encodes, checked. Raises InvalidData."""
    envelope = decode(data, Envelope, size_max=REQUEST_SIZE_MAX)
    request = decode(envelope.payload, KeyRequest, size_max=REQUEST_SIZE_MAX)
    envelope.check(request.key, PURPOSE)
    check_recipient_key(request.box)
    return request


def make_answer(identity: Identity, request: KeyRequest, secrets: Secrets) -> bytes:
    """Return the encoded answer to `request`, of which only who asked can read `secrets`."""
    box = X25519PublicKey.from_public_bytes(request.box)
    sealed = _SUITE.encrypt(encode(secrets), box, info=_info(identity.namespace, request.key))
    return encode(Answer(1, identity.chain, sealed))


def open_answer(data: bytes, key: PublicKey, box: RecipientKey) -> tuple[Identity, Secrets]:
    """Return the identity and the secrets of an answer to the request that `key` made.

    Raises InvalidData if it is none, is for another machine, or has secrets that the identity does not name.
    """
    answer = decode(data, Answer, size_max=ANSWER_SIZE_MAX)
    identity = open_identity(answer.chain)
    if answer.secrets is None:
        return identity, Secrets()
    try:
        plain = _SUITE.decrypt(answer.secrets, box.private_key, info=_info(identity.namespace, key))
    except (InvalidTag, ValueError):
        raise InvalidData("the answer is not for this machine, or was not copied whole") from None
    secrets = decode(plain, Secrets, size_max=2048)
    check_secrets(secrets, identity)
    return identity, secrets


def check_secrets(secrets: Secrets, identity: Identity) -> None:
    """Raise InvalidData unless the newest of the secrets are those that the identity names."""
    named = identity.current
    try:
        companion = CompanionKey(secrets.companion).public_key if secrets.companion else None
    except ValueError:
        raise InvalidData("the companion key is none") from None
    recipient = RecipientKey(secrets.recipients[0]).public_key if secrets.recipients else None
    if companion not in (None, named.companion) or recipient not in (None, named.recipient):
        raise InvalidData("the keys that came with it are not those that the identity names")


def _info(namespace: NamespaceId, key: PublicKey) -> bytes:
    return _INFO + namespace + key
