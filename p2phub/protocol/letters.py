"""A delegation as a word that people carry from the publisher's machine to another (spec/authority.md §2)."""

from __future__ import annotations

from msgspec import Struct

from p2phub.core.armor import armor, unarmor
from p2phub.core.delegation import Delegation, check_delegation, open_delegation
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import InvalidData
from p2phub.core.identity import Identity, open_identity
from p2phub.core.ids import NodeId

from .messages import ANSWER_SIZE_MAX, EnvelopeBytes, IdentityChain

KIND = "delegation"


class Letter(Struct, frozen=True, forbid_unknown_fields=True):
    """A delegation, and the identity that proves it."""

    delegation: EnvelopeBytes
    identity: IdentityChain


def write_letter(delegation: bytes, identity: Identity) -> str:
    """Return the word that tells a node that it acts for a publisher."""
    return armor(KIND, encode(Letter(delegation, IdentityChain(identity.chain))))


def read_letter(word: str, *, to: NodeId, now: float) -> tuple[Delegation, bytes, Identity]:
    """Return the delegation to the node `to` that a word holds, as it is and as it was signed, and its publisher.

    Raises InvalidData if it holds none that is good at the time `now` (seconds since 1970).
    """
    letter = decode(unarmor(KIND, word, size_max=ANSWER_SIZE_MAX), Letter, size_max=ANSWER_SIZE_MAX)
    delegation = open_delegation(letter.delegation, now=now)
    if delegation.node != to:
        raise InvalidData(f"this is for node {delegation.node}, and this node is {to}")
    identity = open_identity(letter.identity.documents)
    check_delegation(delegation, identity)
    return delegation, letter.delegation, identity
