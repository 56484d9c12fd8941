"""Copies are shared out alike by all who know the same, and a node that is gone is replaced by the next."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.ids import ManifestId, NodeId
from p2phub.protocol.pledges import share_out
from p2phub.testing.values import key

NODES = [NodeId(key(f"node {number}").public_key) for number in range(8)]
MANIFESTS = [ManifestId(bytes([number]) * 32) for number in range(200)]

promises = st.dictionaries(st.sampled_from(NODES), st.none() | st.integers(1, 5), max_size=8)
some_nodes = st.sets(st.sampled_from(NODES))


@given(promises, some_nodes, some_nodes, st.sampled_from(MANIFESTS))
def test_as_many_keep_a_copy_as_are_needed_if_there_are_so_many(promised, holders, gone, manifest):
    shares = share_out(manifest, promised, holders=holders, gone=gone)

    there = [node for node in shares.keepers if node not in gone]
    counted_on = [node for node in promised if node not in gone]
    assert len(there) == len(set(there))
    assert set(shares.keepers) <= set(promised)
    assert shares.needed == max([sum(n is None for n in promised.values()), *[n for n in promised.values() if n], 0])
    assert len(there) >= min(shares.needed, len(counted_on))
    # Nobody helps more than is needed, and nobody who promised for itself is let off.
    assert len(there) <= max(shares.needed, sum(promised[node] is None for node in counted_on))
    assert {node for node, replicas in promised.items() if replicas is None} <= set(shares.keepers)


@given(promises, some_nodes, some_nodes, st.sampled_from(MANIFESTS))
def test_who_has_it_keeps_it_before_others_fetch_it(promised, holders, gone, manifest):
    keepers = share_out(manifest, promised, holders=holders, gone=gone).keepers
    helpers = [node for node in keepers if promised[node] is not None]
    if any(node not in holders for node in helpers):
        left = [node for node in promised if promised[node] is not None and node not in gone and node in holders]

        assert set(left) <= set(keepers)


def test_all_decide_alike_whatever_order_they_know_it_in():
    promised = dict.fromkeys(NODES, 3)
    for manifest in MANIFESTS[:20]:
        backwards = dict(reversed(promised.items()))

        assert share_out(manifest, promised, holders=(), gone=()) == share_out(manifest, backwards, holders=(), gone=())


def test_copies_are_spread_over_all_who_promised():
    promised = dict.fromkeys(NODES, 2)
    kept = Counter(node for each in MANIFESTS for node in share_out(each, promised, holders=(), gone=()).keepers)

    assert sum(kept.values()) == 2 * len(MANIFESTS)
    assert set(kept) == set(NODES)
    assert max(kept.values()) < 2 * min(kept.values())


def test_only_the_share_of_a_node_that_is_gone_moves():
    promised = dict.fromkeys(NODES, 2)
    for manifest in MANIFESTS:
        before = share_out(manifest, promised, holders=(), gone=()).keepers
        after = share_out(manifest, promised, holders=before, gone=(NODES[0],)).keepers

        assert set(before) - {NODES[0]} <= set(after)
        assert len(set(after) - set(before)) == (NODES[0] in before)


def test_nobody_promised_nothing_is_needed():
    shares = share_out(MANIFESTS[0], {}, holders=NODES, gone=())

    assert (shares.needed, shares.keepers) == (0, ())
