"""Who of a site fetches what over the expensive link."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.ids import ContentId, NodeId
from p2phub.protocol.lease import LEASE_SIZE, allowed, area_of, holders, shares

ROOT = ContentId(bytes(range(32)))
AREAS = [(ROOT, number) for number in range(400)]

nodes = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=12, unique=True).map(
    lambda keys: [NodeId(key) for key in keys]
)


def members(count: int) -> list[NodeId]:
    return [NodeId(bytes([number]) * 32) for number in range(count)]


@given(nodes, st.randoms(use_true_random=False))
def test_all_members_name_the_same_two(found, chance):
    shuffled = list(found)
    chance.shuffle(shuffled)

    for area in AREAS[:20]:
        both = holders(area, found)
        assert holders(area, shuffled) == both
        assert len(both) == min(2, len(found))


def test_areas_are_shared_out_evenly():
    first = Counter(holders(area, members(8))[0] for area in AREAS)

    assert len(first) == 8
    assert max(first.values()) < 2 * min(first.values())


def test_who_leaves_hands_over_only_what_was_his():
    before = {area: holders(area, members(8)) for area in AREAS}
    gone = members(8)[3]
    after = {area: holders(area, [node for node in members(8) if node != gone]) for area in AREAS}

    for area, both in before.items():
        if gone not in both:
            assert after[area] == both
        elif both[0] == gone:
            assert after[area][0] == both[1], "the second was ready for it"


def test_every_area_has_one_first_holder_among_all():
    everybody = members(5)
    places = {node: shares(AREAS, node, [other for other in everybody if other != node]) for node in everybody}

    for area in AREAS:
        assert sorted(found[area] for found in places.values() if area in found) == [0, 1]


def test_the_second_takes_part_when_his_own_share_is_here_and_only_in_what_was_not_given():
    areas = [(ROOT, 0), (ROOT, 0), (ROOT, 1), (ROOT, 1), (ROOT, 2)]
    places = {(ROOT, 0): 0, (ROOT, 1): 1}

    assert allowed(areas, places, is_missing=lambda chunk: True, given=None) == bytes([1, 1, 0, 0, 0])
    assert allowed(areas, places, is_missing=lambda chunk: chunk > 1, given=None) == bytes([1, 1, 1, 1, 0])
    given_some = bytes([0, 0, 1, 0, 0])
    assert allowed(areas, places, is_missing=lambda chunk: chunk > 1, given=given_some) == bytes([1, 1, 0, 1, 0])


def test_alone_a_node_may_fetch_everything():
    own = members(1)[0]
    areas = [area_of(ROOT, offset) for offset in range(0, 10 * LEASE_SIZE, LEASE_SIZE)]

    assert allowed(areas, shares(areas, own, []), is_missing=lambda chunk: True, given=None) == bytes([1] * 10)
