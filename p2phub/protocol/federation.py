"""How somebody joins a federation (spec/federation.md §3)."""

from __future__ import annotations

from msgspec import Struct

from p2phub.core.federation import EnvelopeBytes, Hash

from .messages import IdentityChain

JOIN_SIZE_MAX = 512 * 1024  # bytes; spec/peer-protocol.md §1


class Join(Struct, frozen=True, forbid_unknown_fields=True):
    """What the invited one shows."""

    offer: EnvelopeBytes  # of the invitation
    secret: Hash  # that goes with it
    agreement: EnvelopeBytes  # to the terms of the invitation
    identity: IdentityChain  # of the one who joins
