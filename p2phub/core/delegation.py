"""A publisher's word that a node acts for it (spec/authority.md §2).

A node has a key of its own, and a publisher may have many nodes. So a publishing key signs
which nodes speak for the namespace, for some weeks, and each node shows that with its
own signature.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from .encoding import decode, encode
from .envelope import ENVELOPE_SIZE_MAX, Envelope, seal
from .errors import InvalidData, InvalidSignature
from .identity import Identity, PublishKeys
from .ids import NamespaceId, NodeId, PublicKey
from .manifest import Time
from .records import SKEW_MAX_S
from .signing import Signer

PURPOSE = "delegate"  # spec/signing.md §2
DELEGATION_SIZE_MAX = 1024  # bytes; spec/authority.md §2
TTL_MAX_S = 30 * 24 * 3600  # seconds; spec/authority.md §2


class Delegation(Struct, frozen=True, forbid_unknown_fields=True):
    """The node `node` acts for the namespace until it expires."""

    schema: Literal[1]
    namespace: NamespaceId
    key: PublicKey  # that signs this: it publishes for the namespace
    node: NodeId
    time: Time
    expires: Annotated[int, Meta(ge=0, le=2**53)]  # seconds since 1970


def sign_delegation(namespace: NamespaceId, node: NodeId, key: Signer, *, now: int, ttl_s: int) -> bytes:
    """Return the encoded, signed word that `node` acts for `namespace` for `ttl_s` seconds."""
    delegation = Delegation(1, namespace, key.public_key, node, now, now + ttl_s)
    return encode(seal(delegation, key, PURPOSE))


def open_delegation(data: bytes, *, now: float) -> Delegation:
    """Return the delegation that `data` encodes, good at the time `now` (seconds since 1970).

    Whether its key publishes for its namespace is still to be checked: `check_delegation`.
    Raises InvalidData: no delegation, not signed by the key it names, over, for too long,
    or ahead of the clock by more than the limit.
    """
    envelope = decode(data, Envelope, size_max=ENVELOPE_SIZE_MAX)
    delegation = decode(envelope.payload, Delegation, size_max=DELEGATION_SIZE_MAX)
    envelope.check(delegation.key, PURPOSE)
    if not 0 < delegation.expires - delegation.time <= TTL_MAX_S:
        raise InvalidData(f"a delegation lasts at most {TTL_MAX_S // 86400} days")
    if delegation.time > now + SKEW_MAX_S:
        raise InvalidData(f"the delegation is {delegation.time - now:.0f} s ahead of the clock")
    if delegation.expires <= now:
        raise InvalidData(f"the delegation for {delegation.namespace} has expired")
    return delegation


def check_delegation(delegation: Delegation, identity: Identity) -> None:
    """Raise InvalidSignature unless the key of a delegation publishes for its namespace by `identity`."""
    check_is_by(delegation, identity.publish_keys)


def check_is_by(delegation: Delegation, keys: PublishKeys) -> None:
    """Raise InvalidSignature unless a delegation is by one of `keys`."""
    if not is_by(delegation, keys):
        raise InvalidSignature(f"a delegation for {delegation.namespace} is by a key that does not publish for it")


def publishes(delegation: Delegation, identity: Identity) -> bool:
    """Say whether the key of a delegation publishes for its namespace: a key that was retired ends what it signed."""
    return is_by(delegation, identity.publish_keys)


def is_by(delegation: Delegation, keys: PublishKeys) -> bool:
    """Say whether a delegation is by one of `keys`, of its namespace."""
    return keys.namespace == delegation.namespace and delegation.key in keys.keys
