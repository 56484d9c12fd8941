"""Share out among the nodes of a site who fetches what over the expensive link (spec/transfer.md §3.6).

Each area of a file belongs to two members, by rendezvous hashing: every node computes the
same from the same members, without a word. The first fetches it from outside, the second
what the first seems too slow for; the others get it from them. A rule about cost, not
about safety: who does otherwise, or knows other members, only moves bytes twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from blake3 import blake3

from p2phub.core.choices import LinkClass
from p2phub.core.ids import ContentId, NodeId

LEASE_SIZE = 16 * 1024 * 1024  # bytes of a file that belong to the same members; spec/transfer.md §3.6
EXPENSIVE: frozenset[LinkClass] = frozenset({"federation", "internet"})
NEAR_FACTOR = 4.0  # what is near may be so many times slower and is asked alone all the same; spec/transfer.md §3.6
FAR_RATE = 8 * 1024 * 1024  # bytes a second, of who is far away and gave nothing yet; spec/transfer.md §3.6
PATIENCE_S = 5.0  # seconds without a chunk from anybody until each fetches for itself; spec/transfer.md §3.6

Area = tuple[ContentId, int]  # a file, and the number of the area in it


def is_near_enough(near_rate: float | None, far_rate: float | None) -> bool:
    """Say whether those near by are asked alone for what they have; rates in bytes a second, None if not known."""
    return near_rate is None or near_rate * NEAR_FACTOR >= (FAR_RATE if far_rate is None else far_rate)


def area_of(root: ContentId, offset: int) -> Area:
    """Return the area in which byte `offset` of a file lies."""
    return root, offset // LEASE_SIZE


def holders(area: Area, members: Iterable[NodeId]) -> list[NodeId]:
    """Return the two members (or fewer) to whom `area` belongs, the first of them first."""
    root, number = area
    tail = bytes(root) + number.to_bytes(8, "big")
    return sorted(members, key=lambda node: blake3(bytes(node) + tail).digest(), reverse=True)[:2]


def shares(areas: Iterable[Area], own: NodeId, mates: Collection[NodeId]) -> dict[Area, int]:
    """Return for each area that `own` may fetch its place among the holders: 0 the first, 1 the second."""
    found = {}
    for area in areas:
        both = holders(area, {own, *mates})
        if own in both:
            found[area] = both.index(own)
    return found


def allowed(
    areas: list[Area], places: dict[Area, int], *, is_missing: Callable[[int], bool], given: bytes | None
) -> bytes:
    """Return a byte for each chunk, 1 if this node may ask for it over the expensive link now.

    areas: of each chunk; places: as `shares` gives them; given: a byte for each chunk, 1 if
    the provider sent it to somebody lately, None if it sent none. The second of the holders
    takes part when it has all of what it is the first for.
    """
    first = bytes(places.get(area) == 0 for area in areas)
    if any(mine and is_missing(chunk) for chunk, mine in enumerate(first)):
        return first
    return bytes(
        mine or (places.get(area) == 1 and not (given and given[chunk]))
        for chunk, (area, mine) in enumerate(zip(areas, first, strict=True))
    )
