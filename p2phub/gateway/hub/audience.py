"""For whom the hub door answers: what is not for everybody is for the owner of the node alone (spec/hub-api.md §1)."""

from __future__ import annotations

from enum import Enum


class Audience(Enum):
    """Who reads."""

    OWNER = "owner"  # shows the token of the node
    # Others on this machine, which may be many people's: what everybody may have, fetched from peers if need be.
    MACHINE = "machine"
    PUBLIC = "public"  # whoever comes by the public door: what everybody may have and is here
