"""Who fetches a file from another hub: one of all that want it, whatever each of them knows of the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.ids import NodeId
from p2phub.protocol.rendezvous import FETCHING, NOTHING, WANTED, first_of, patience_s, waits_for

NODES = [NodeId(bytes([number]) * 32) for number in range(8)]
FILES = st.binary(min_size=20, max_size=32)


@given(file=FILES, wanting=st.sets(st.sampled_from(NODES), min_size=1))
def test_of_all_that_want_a_file_one_fetches_it(file, wanting):
    fetching = [node for node in wanting if waits_for(node, file, dict.fromkeys(wanting - {node}, WANTED)) is None]

    assert fetching == [first_of(file, wanting)]


@given(file=FILES, states=st.dictionaries(st.sampled_from(NODES[1:]), st.sampled_from([NOTHING, WANTED, FETCHING])))
def test_nobody_begins_what_somebody_fetches_and_nobody_waits_for_who_does_not_want_it(file, states):
    other = waits_for(NODES[0], file, states)

    if FETCHING in states.values():
        assert other is not None
        assert states[other] == FETCHING
    elif other is not None:
        assert states[other] == WANTED
        assert first_of(file, [NODES[0], other]) == other


def test_files_are_shared_out_among_all():
    files = [bytes([number]) * 32 for number in range(200)]

    assert {first_of(file, NODES) for file in files} == set(NODES)


def test_a_large_file_is_waited_for_longer():
    assert patience_s(0) == 20
    assert patience_s(10 * 2**30) == 20 + 5 * 1024
