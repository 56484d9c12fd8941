"""How many connections a door may hold, where a process may have few descriptors.

A node may have three doors, and needs descriptors for files, the index and its own calls besides: who opens connections
and says nothing must not take these.
"""

from __future__ import annotations

import resource

OWN = 64  # descriptors of a node without connections, and some more
SHARE = 4  # three doors, and what a node asks others
LEAST = 8


def room_for(wanted: int) -> int:
    """Return how many connections one door may hold: as many as are wanted, or what there is room for."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if most == resource.RLIM_INFINITY else min(wanted, max(LEAST, (most - OWN) // SHARE))
