"""Whatever happens in a download, in whichever order."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pickerkit import MIB, offers

from p2phub.protocol.picker import COPIES_MAX, REQUEST_SIZE_MAX, Picker, Request

# --- whatever happens


class AnyDownload(RuleBasedStateMachine):
    """A download in which anything can happen, beside a plain account of what did."""

    @initialize(
        seed=st.integers(0, 2**32),
        sizes=st.lists(st.sampled_from([1, 1000, 256 * 1024, MIB, MIB + 17, 2 * MIB]), max_size=50),
        data=st.data(),
    )
    def begin(self, seed: int, sizes: list[int], data: st.DataObject) -> None:
        missing = data.draw(st.sets(st.integers(0, len(sizes) - 1)) if sizes else st.just(set()))
        self.sizes = sizes
        self.here = set(range(len(sizes))) - missing
        self.picker: Picker[str] = Picker(sizes, missing, rng=random.Random(seed))
        self.twin: Picker[str] = Picker(sizes, sorted(missing), rng=random.Random(seed))
        self.offers: dict[str, set[int] | None] = {}
        self.runs: dict[str, list[range]] = {}
        self.given: dict[str, set[int]] = {}
        self.live: dict[int, Request[str]] = {}
        self.over: list[Request[str]] = []
        self.numbers: set[int] = set()
        self.now = 0.0

    names = st.sampled_from(["a", "b", "c", "d"])
    chance = st.randoms(use_true_random=False)

    def both(self, verb: str, *args: object, **kwargs: object) -> object:
        """Tell the picker and its twin; return what the picker says."""
        said = getattr(self.picker, verb)(*args, **kwargs)
        assert getattr(self.twin, verb)(*args, **kwargs) == said
        return said

    @rule(name=names, connections=st.integers(1, 4))
    def offer_all(self, name: str, connections: int) -> None:
        self.offers[name] = None
        self.runs.pop(name, None)
        self.given.pop(name, None)
        self.both("set_offer", name, None, connections=connections)

    @rule(name=names, connections=st.integers(1, 4), share=st.floats(0, 1), chance=chance)
    def offer_all_and_say_what_was_given(
        self, name: str, connections: int, share: float, chance: random.Random
    ) -> None:
        some = {chunk for chunk in range(len(self.sizes)) if chance.random() < share}
        self.offers[name] = None
        self.runs.pop(name, None)
        self.given[name] = some
        self.both("set_offer", name, None, given=offers(len(self.sizes), some), connections=connections)

    @rule(name=names, connections=st.integers(1, 4), share=st.floats(0, 1), chance=chance)
    def offer_some(self, name: str, connections: int, share: float, chance: random.Random) -> None:
        some = {chunk for chunk in range(len(self.sizes)) if chance.random() < share}
        self.offers[name] = some
        self.runs.pop(name, None)
        self.given.pop(name, None)
        self.both("set_offer", name, offers(len(self.sizes), some), connections=connections)

    @rule(name=names, connections=st.integers(1, 4), cuts=st.sets(st.integers(1, 49), max_size=5))
    def offer_whole_runs(self, name: str, connections: int, cuts: set[int]) -> None:
        count = len(self.sizes)
        edges = [0, *sorted(cut for cut in cuts if cut < count), count]
        runs = [range(first, end) for first, end in pairwise(edges) if end > first]
        self.offers[name] = None
        self.given.pop(name, None)
        self.both("set_offer", name, None, connections=connections, runs=runs)
        self.runs[name] = runs

    @rule(name=names)
    def leave(self, name: str) -> None:
        self.offers.pop(name, None)
        self.runs.pop(name, None)
        self.given.pop(name, None)
        for request in list(self.live.values()):
            if request.provider == name:
                self.over.append(self.live.pop(request.number))
        self.both("remove_provider", name)

    @rule(name=names)
    def ask(self, name: str) -> None:
        self.asked(name)

    def asked(self, name: str) -> Request[str] | None:
        request = self.both("next_request", name, self.now)
        if request is None:
            return None
        assert isinstance(request, Request)
        offered = self.offers[name]
        size = sum(self.sizes[chunk] for chunk in request.chunks)
        assert request.provider == name
        assert request.number not in self.numbers
        assert request.time == self.now
        assert request.count >= 1
        assert request.is_whole == (name in self.runs)
        self.numbers.add(request.number)
        if request.is_whole:
            assert request.chunks in self.runs[name]
            assert set(request.chunks) & set(self.free())
            assert request.chunks not in [other.chunks for other in self.live.values() if other.provider == name]
            self.live[request.number] = request
            return request
        assert size <= REQUEST_SIZE_MAX or request.count == 1
        assert not set(request.chunks) & self.here
        assert offered is None or set(request.chunks) <= offered
        own = [
            chunk
            for other in self.live.values()
            if other.provider == name and not other.is_whole
            for chunk in other.chunks
        ]
        assert not set(request.chunks) & set(own)
        if request.is_first_copy:
            assert offered is None
            assert not any(self.is_held_elsewhere(chunk) for chunk in request.chunks)
        self.live[request.number] = request
        return request

    def is_held_elsewhere(self, chunk: int) -> bool:
        """Say whether it was given to somebody, or is offered by one who has not everything."""
        held = [offered for offered in self.offers.values() if offered is not None]
        return any(chunk in chunks for chunks in [*held, *self.given.values()])

    @rule(reader=names, first=st.integers(0, 49), count=st.integers(0, 10))
    def a_reader_is_in_a_hurry(self, reader: str, first: int, count: int) -> None:
        self.both("hurry", reader, range(min(first, len(self.sizes)), min(first + count, len(self.sizes))))

    def arrive(self, request: Request[str], chunk: int) -> None:
        was_missing = chunk not in self.here
        self.here.add(chunk)
        assert self.both("chunk_arrived", request, chunk, self.now) == was_missing
        # Those whose last missing chunk somebody else brought.
        pointless = [
            other
            for other in self.live.values()
            if was_missing
            and chunk in other.chunks
            and set(other.chunks) <= self.here
            # Its own last chunk ends it anyway.
            and not (other.number == request.number and chunk == other.chunks[-1])
        ]
        said = self.both("take_pointless")
        assert isinstance(said, list)
        assert sorted(other.number for other in said) == sorted(other.number for other in pointless)

    @precondition(lambda self: self.live)
    @rule(chance=chance)
    def the_next_chunk_arrives(self, chance: random.Random) -> None:
        request = chance.choice(list(self.live.values()))
        chunk = next((chunk for chunk in request.chunks if chunk not in self.here), request.first)
        self.arrive(request, chunk)

    @precondition(lambda self: self.live)
    @rule(chance=chance)
    def any_chunk_arrives(self, chance: random.Random) -> None:
        request = chance.choice(list(self.live.values()))
        self.arrive(request, chance.choice(request.chunks))

    @precondition(lambda self: self.live)
    @rule(chance=chance, seconds=st.floats(0.001, 5))
    def all_chunks_arrive(self, chance: random.Random, seconds: float) -> None:
        request = chance.choice(list(self.live.values()))
        self.now += seconds
        for chunk in request.chunks:
            self.arrive(request, chunk)
        self.end(request)

    @precondition(lambda self: self.over)
    @rule(chance=chance)
    def a_chunk_arrives_after_its_request_ended(self, chance: random.Random) -> None:
        request = chance.choice(self.over)
        self.arrive(request, chance.choice(request.chunks))

    @precondition(lambda self: self.live)
    @rule(chance=chance)
    def a_request_ends(self, chance: random.Random) -> None:
        self.end(chance.choice(list(self.live.values())))

    @precondition(lambda self: self.over)
    @rule(chance=chance)
    def a_request_ends_again(self, chance: random.Random) -> None:
        self.both("request_ended", chance.choice(self.over))

    def end(self, request: Request[str]) -> None:
        self.over.append(self.live.pop(request.number))
        self.both("request_ended", request)

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def no_chunk_is_in_flight_too_often(self) -> None:
        assert all(count <= COPIES_MAX for count in self.in_flight().values())

    def in_flight(self) -> Counter[int]:
        taken = (request for request in self.live.values() if not request.is_whole)
        return Counter(chunk for request in taken for chunk in request.chunks if chunk not in self.here)

    def free(self) -> list[int]:
        in_flight = self.in_flight()
        return [chunk for chunk in range(len(self.sizes)) if chunk not in self.here and chunk not in in_flight]

    @invariant()
    def it_knows_what_is_here(self) -> None:
        chunks = range(len(self.sizes))
        assert {chunk for chunk in chunks if not self.picker.is_wanted(chunk)} == self.here
        assert self.picker.remaining == len(self.sizes) - len(self.here)
        assert self.picker.done == (len(self.here) == len(self.sizes))

    @invariant()
    def it_knows_what_nobody_offers(self) -> None:
        expected = [
            chunk
            for chunk in self.free()
            if not any(offered is None or chunk in offered for offered in self.offers.values())
        ]
        assert self.both("unoffered") == expected

    @invariant()
    def its_counts_are_those_of_its_states(self) -> None:
        free = self.free()
        assert self.picker._missing_count == len(free)
        assert self.picker._missing_bytes == sum(self.sizes[chunk] for chunk in free)
        assert set(self.picker._asked) == set(self.in_flight())
        assert set(self.picker._requests) == set(self.live)
        assert all(rate is None or rate > 0 for rate in map(self.picker.rate, self.offers))

    def teardown(self) -> None:
        # A whole provider that stays and answers brings the download to its end, once
        # the deadlines of the requests to all others have passed.
        if not hasattr(self, "picker"):
            return
        self.offer_all("stays", 1)
        for last in (False, True):
            while request := self.asked("stays"):
                self.now += 0.5
                for chunk in request.chunks:
                    self.arrive(request, chunk)
                self.end(request)
            if not last:
                for request in list(self.live.values()):
                    self.end(request)
        assert self.picker.done


TestAnyDownload = AnyDownload.TestCase
TestAnyDownload.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
