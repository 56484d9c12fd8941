"""Choose which chunks to ask of which provider (spec/transfer.md §3).

The picker holds one download's state and decides. It does no I/O and reads no
clock: `node/swarm.py` tells it what happened and does what it answers.

    set_offer, chunk_arrived, request_ended, remove_provider ──▶ Picker ──▶ next_request

Rule: first a few chunks at random, so that a new node soon has something to give;
then the rarest, so that a chunk only one provider holds is copied before that
provider leaves. What a whole provider gave to somebody counts as held once more, so
that a seed sends each chunk once before it sends any twice. Chunks that follow each
other travel in one request, so the choice is made by stripe: a run of chunks of at
most one request.
"""

from __future__ import annotations

import heapq
import random
from array import array
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct, field

from .flags import both, changes

STRIPE_SIZE_MAX = 16 * 1024 * 1024  # bytes, and of a request but for the next line; spec/transfer.md §3.2
REQUEST_SIZE_MAX = 64 * 1024 * 1024  # bytes, of what a provider sends within QUICK_S; spec/transfer.md §3.2
QUICK_S = 0.2  # seconds; spec/transfer.md §3.2
REQUEST_SIZE_MIN = 1024 * 1024  # bytes, less only where less is missing; spec/transfer.md §3.2
REQUEST_SIZE_FIRST = 1024 * 1024  # bytes, before a provider's rate is known; spec/transfer.md §3.2
REQUEST_CHUNKS_MAX = 1000  # chunks in one request: at most as many byte ranges; spec/peer-protocol.md §7
OUTSTANDING_S = 3.0  # seconds of work a provider is given at once; spec/transfer.md §3.2
RANDOM_FIRST = 4  # requests chosen at random before the rarest go first; spec/transfer.md §3.1
COPIES_MAX = 2  # requests for one chunk at the same time, in the endgame; spec/transfer.md §3.3
HEDGE_FACTOR = 4.0  # a copy is asked for if it should arrive this many times sooner; spec/transfer.md §3.3
LATE_FACTOR = 2.0  # nothing new is asked of who would take so many times longer than another; spec/transfer.md §3.3
HEDGE_RATE = 1024 * 1024  # bytes a second, of a provider whose rate is not known yet; spec/transfer.md §3.3
HURRY_SIZE_MAX = 4 * 1024 * 1024  # bytes of a request for what a reader waits for; spec/transfer.md §3.5
RATE_WINDOW_S = 1.0  # seconds over which a rate is measured; spec/transfer.md §3.2
RATE_WEIGHT = 0.5  # of the newest measurement in the running rate; spec/transfer.md §3.2

DEADLINE_MIN_S = 10.0  # seconds; spec/transfer.md §4
DEADLINE_PER_MIB_S = 64.0  # seconds, a floor of 16 KiB/s; spec/transfer.md §4

# Requests that may be under way however slow all is, one more for each second in which nothing arrives: the
# first ones may be mute. Beyond that each must have a rate of its own, far above the floor; spec/transfer.md §3.2
RUNNING_MIN = 4
RUNNING_RATE = 128 * 1024  # bytes a second
TOTAL_WINDOW_S = 5.0  # seconds over which the rate of all together is measured

NUMPY_CHUNKS = 4096  # chunks of a download for which numpy is worth its import, which takes 0.1 s

P = TypeVar("P", bound=Hashable)

_MISSING, _ASKED, _DONE = 0, 1, 2
# Rarities of a stripe: of one that need not be asked for, and of one at a time when that does not count.
_NOT_WANTED, _ANY_RARITY = 2**31 - 1, -1
# The key of a stripe: the rarity of its rarest free chunk, then its rank. One number, as that sorts fast.
_RANK_BITS = 32


class Request(Struct, Generic[P], frozen=True):
    """Chunks `first` to `first + count - 1`, asked of `provider` at `time` (seconds)."""

    number: int
    provider: P
    first: int
    count: int
    time: float
    is_first_copy: bool = False  # as far as is known nobody else has these chunks or is being sent them
    is_whole: bool = False  # of a whole run, of which much may be here or come from others too

    @property
    def chunks(self) -> range:
        return range(self.first, self.first + self.count)


class _InFlight(Struct, Generic[P]):
    """A request that has not ended, and the bytes that came for it."""

    request: Request[P]
    arrived: int = 0


class _Order(Struct):
    """A heap of the stripes in which something is left to ask for, as keys; stale if the epoch went on."""

    heap: list[int] = field(default_factory=list)
    epoch: int = -1


class _Provider(Struct):
    """What is known of a provider: what it offers, and how fast it is."""

    order: _Order
    offers: bytes | None = None  # one byte a chunk, 1 if offered; None is all
    reach: bytes | None = None  # of that, what it may be asked for; None is all
    given: bytes | None = None  # one byte a chunk, 1 if it sent it to somebody; None: nothing, or not told
    connections: int = 1
    rate: float | None = None  # bytes a second, over all connections
    window_start: float = 0.0  # seconds; moved on by the time it had nothing to do
    window_bytes: int = 0
    is_first_window: bool = True
    busy_at: float | None = None  # seconds, when it was last known to be at work
    requests: set[int] = field(default_factory=set)
    is_doubtful: bool = False  # its last request ended without all that was asked, and nothing came since
    runs: Sequence[range] | None = None  # what alone it can be asked for; None: any chunks

    def has(self, chunk: int) -> bool:
        return self.reach is None or self.reach[chunk] == 1


def deadline_s(size: int) -> float:
    """Return the seconds that a request for `size` bytes may take."""
    return max(DEADLINE_MIN_S, DEADLINE_PER_MIB_S * size / 2**20)


class Picker(Generic[P]):
    """The state of one download: what is missing, who offers it, who was asked."""

    def __init__(self, sizes: Sequence[int], missing: Iterable[int], *, rng: random.Random) -> None:
        """sizes: bytes of each chunk of the download, in order; missing: indices of those not here yet."""
        self._sizes = sizes
        self._state = bytearray([_DONE]) * len(sizes)
        for chunk in missing:
            self._state[chunk] = _MISSING
        self._missing_count = self._state.count(_MISSING)
        self._missing_bytes = sum(size for size, state in zip(sizes, self._state, strict=True) if state == _MISSING)
        self._providers: dict[P, _Provider] = {}
        # How many partial providers offer each chunk, and how many whole ones gave it to somebody;
        # that the whole ones offer it makes no difference.
        # None while that is 0 for all.
        self._rarity: array[int] | None = None
        # By chunk, so that a chunk in flight and its askers are one fact.
        self._asked: dict[int, set[int]] = {}
        self._requests: dict[int, _InFlight[P]] = {}
        self._whole: dict[int, Request[P]] = {}  # those for whole runs
        self._number = 0
        self._pointless: list[Request[P]] = []
        self._last_arrival: float | None = None  # seconds
        self._arrivals: deque[tuple[float, int]] = deque()  # seconds and bytes, of the last TOTAL_WINDOW_S
        self._arrivals_bytes = 0
        # What is being read now, by reader: goes before everything else.
        self._hurried: dict[Hashable, range] = {}
        self._stripes = _stripes(sizes, self._state)
        self._ranks = list(range(len(self._stripes)))
        rng.shuffle(self._ranks)
        self._stripe_of_rank = dict(zip(self._ranks, self._stripes, strict=True))
        self._stripe_arrays: tuple[Any, Any] | None = None  # their starts and ranks, for numpy
        # Whole providers share one order; a partial one has its own.
        self._whole_order = _Order()
        self._epoch = 0
        self.duplicate_bytes = 0  # arrived although already here

    @property
    def done(self) -> bool:
        """Whether every chunk has arrived."""
        return self.remaining == 0

    @property
    def remaining(self) -> int:
        """How many chunks have not arrived."""
        return self._missing_count + len(self._asked)

    @property
    def missing_bytes(self) -> int:
        """How many bytes are missing and asked of nobody."""
        return self._missing_bytes

    def unoffered(self) -> list[int]:
        """Return the missing chunks that no provider offers."""
        if any(provider.offers is None for provider in self._providers.values()):
            return []
        return [chunk for chunk, state in enumerate(self._state) if state == _MISSING and self._rarity_of(chunk) == 0]

    def rate(self, provider: P) -> float | None:
        """Return the provider's measured rate in bytes a second, None before it is known."""
        known = self._providers.get(provider)
        return known.rate if known else None

    def set_offer(
        self,
        provider: P,
        offers: bytes | None,
        *,
        given: bytes | None = None,
        allowed: bytes | None = None,
        connections: int = 1,
        runs: Sequence[range] | None = None,
    ) -> None:
        """Note what `provider` offers: one byte a chunk, 1 if it does; None if all.

        given: the same for what it has sent to somebody lately, if it told.
        allowed: the same for what it may be asked for; None if all. Others shall ask it for the rest.
        connections: how many requests it will be asked at the same time.
        runs: the chunks that it gives only together, if it gives no others.
        """
        assert offers is None or len(offers) == len(self._sizes)
        assert given is None or len(given) == len(self._sizes)
        assert allowed is None or len(allowed) == len(self._sizes)
        known = self._providers.get(provider)
        if known is None:
            known = self._providers[provider] = _Provider(self._whole_order)
        known.connections = connections
        known.runs = runs
        if known.offers != offers:
            self._recount(known.offers, offers)
            known.offers = offers
        reach = _both(offers, allowed)
        if known.reach != reach:
            known.reach = reach
            known.order = self._whole_order if reach is None else _Order()
        if known.given != given:
            self._recount(known.given, given)
            known.given = given

    def remove_provider(self, provider: P) -> None:
        """Forget `provider`; what it was asked is free again."""
        known = self._providers.get(provider)
        if known is None:
            return
        for number in list(known.requests):
            self._end(number)
        self._recount(known.offers, None)
        self._recount(known.given, None)
        del self._providers[provider]

    def next_request(self, provider: P, now: float) -> Request[P] | None:
        """Return what to ask of `provider` now and count it as asked, or None if there is nothing."""
        known = self._providers.get(provider)
        if known is None or len(self._requests) >= self._running_max(now):
            return None
        if known.runs is not None:
            run = self._whole_run(known)
            # Its chunks stay free: what comes long after the first of them, others may bring sooner.
            if run is None:
                return None
            return self._begin(Request(self._number + 1, provider, run.start, len(run), now, is_whole=True))
        hurried = self._hurried_run(known)
        free = None if hurried else self._free_run(known)
        chunks = hurried or free or self._hedge(known, now)
        fresh = hurried or free
        if not chunks or (fresh and known.is_doubtful and self._has_better(known, fresh.start)):
            return None
        if free and self._is_too_slow_for(free.start, known, now):
            return None
        is_first_copy = bool(free) and self._is_first_copy(chunks.start, known)
        request = self._begin(Request(self._number + 1, provider, chunks.start, len(chunks), now, is_first_copy))
        for chunk in chunks:
            if self._state[chunk] == _MISSING:
                self._take(chunk, _ASKED)
            self._asked.setdefault(chunk, set()).add(request.number)
        return request

    def _begin(self, request: Request[P]) -> Request[P]:
        """Count `request` as under way."""
        known = self._providers[request.provider]
        self._number = request.number
        if self._number == RANDOM_FIRST:
            self._epoch += 1  # from now on the rarest first
        self._requests[request.number] = _InFlight(request)
        if request.is_whole:
            self._whole[request.number] = request
        if not known.requests:
            # It had nothing to do since; that says nothing about its rate.
            known.window_start += request.time - (known.busy_at or 0.0)
        known.busy_at = request.time
        known.requests.add(request.number)
        return request

    def hurry(self, reader: Hashable, chunks: range) -> None:
        """Note that `reader` needs `chunks` next, in this order; what it needed before is forgotten."""
        if chunks:
            self._hurried[reader] = chunks
        else:
            self._hurried.pop(reader, None)

    def chunk_arrived(self, request: Request[P], chunk: int, now: float) -> bool:
        """Note a verified chunk; returns whether it was still missing."""
        size = self._sizes[chunk]
        self._last_arrival = now
        self._arrivals.append((now, size))
        self._arrivals_bytes += size
        # An answer that comes after its request was given up is as good as any, but measures nothing.
        if flight := self._requests.get(request.number):
            flight.arrived += size
            self._providers[request.provider].is_doubtful = False
            self._measure(self._providers[request.provider], size, now)
        if self._state[chunk] == _DONE:
            self.duplicate_bytes += size
            return False
        others = self._asked.pop(chunk, set()) - {request.number}
        self._take(chunk, _DONE)
        # Its own too, if others brought what would come next; its last chunk ends it anyway.
        if flight and chunk != request.chunks[-1] and not request.is_whole:
            others.add(request.number)
        for number in others:
            other = self._requests[number].request
            if not self._is_any_wanted(other.chunks):
                self._pointless.append(other)
        for whole in self._whole.values():
            # Its own last chunk ends it anyway.
            is_end = whole.number == request.number and chunk == whole.chunks[-1]
            if chunk in whole.chunks and not is_end and not self._is_any_wanted(whole.chunks):
                self._pointless.append(whole)
        return True

    def take_pointless(self) -> list[Request[P]]:
        """Return the running requests, not returned before, that can bring nothing any more: others brought it."""
        pointless, self._pointless = self._pointless, []
        return pointless

    def is_wanted(self, chunk: int) -> bool:
        """Say whether `chunk` has not arrived yet."""
        return self._state[chunk] != _DONE

    def request_ended(self, request: Request[P]) -> bool:
        """Note that nothing more will come for `request`; returns whether chunks are free again by that."""
        return self._end(request.number)

    def _end(self, number: int) -> bool:
        flight = self._requests.pop(number, None)
        if flight is None:
            return False
        request = flight.request
        self._whole.pop(number, None)
        is_any_free = False
        self._providers[request.provider].is_doubtful |= self._is_any_wanted(request.chunks)
        self._providers[request.provider].requests.remove(number)
        for chunk in request.chunks:
            askers = self._asked.get(chunk, set())
            askers.discard(number)
            if self._state[chunk] == _ASKED and not askers:
                del self._asked[chunk]
                self._state[chunk] = _MISSING
                self._missing_bytes += self._sizes[chunk]
                self._missing_count += 1
                self._epoch += 1  # its stripe may have left the orders
                is_any_free = True
        return is_any_free

    def _take(self, chunk: int, state: int) -> None:
        """Put `chunk` into `state`, which is not `_MISSING`."""
        if self._state[chunk] == _MISSING:
            self._missing_bytes -= self._sizes[chunk]
            self._missing_count -= 1
        self._state[chunk] = state

    def _recount(self, before: bytes | None, after: bytes | None) -> None:
        """Count what a provider offers or gave now instead of what it did before; None counts for nothing."""
        before, after = (row or bytes(len(self._sizes)) for row in (before, after))
        if before == after:
            return
        if self._rarity is None:
            self._rarity = array("i", [0]) * len(self._sizes)
        if len(self._sizes) < NUMPY_CHUNKS:
            for chunk in changes(before, after):
                self._rarity[chunk] += after[chunk] - before[chunk]
        else:
            import numpy as np

            rarity = np.frombuffer(self._rarity, dtype=np.int32)
            rarity += np.frombuffer(after, dtype=np.int8) - np.frombuffer(before, dtype=np.int8)
        self._epoch += 1

    def _rarity_of(self, chunk: int) -> int:
        return 0 if self._rarity is None else self._rarity[chunk]

    def _hurried_run(self, provider: _Provider) -> range | None:
        """Return the first free chunks that a reader waits for and `provider` offers."""
        for wanted in self._hurried.values():
            for chunk in wanted:
                if self._is_free(chunk, provider):
                    end, size = chunk + 1, self._sizes[chunk]
                    limit = min(HURRY_SIZE_MAX, self._request_size(provider))
                    while end < wanted.stop and self._is_free(end, provider) and size + self._sizes[end] <= limit:
                        size += self._sizes[end]
                        end += 1
                    return range(chunk, end)
        return None

    def _free_run(self, provider: _Provider) -> range | None:
        """Return the best run of chunks that nobody was asked for and `provider` offers."""
        order = provider.order
        if order.epoch != self._epoch:
            order.heap, order.epoch = self._sorted_stripes(provider.reach), self._epoch
        heap = order.heap
        while heap:
            rarity, rank = heap[0] >> _RANK_BITS, heap[0] & (1 << _RANK_BITS) - 1
            stripe = self._stripe_of_rank[rank]
            free = [chunk for chunk in stripe if self._is_free(chunk, provider)]
            if not free:
                # Nothing comes back into it: what is given up later makes all orders stale.
                heapq.heappop(heap)
                continue
            # Not the first: the provider of a rare chunk may leave before it comes to it.
            rarest = min(free, key=self._rarity_of)
            if rarity == _ANY_RARITY or rarity == self._rarity_of(rarest):
                return self._run_around(rarest, stripe, provider)
            # What made it rare was asked for; within an epoch a stripe only gets less rare.
            heapq.heapreplace(heap, self._rarity_of(rarest) << _RANK_BITS | rank)
        return None

    def _has_better(self, provider: _Provider, chunk: int) -> bool:
        """Say whether another offers `chunk` and has nothing to do, who did not just fail."""
        return any(
            other is not provider and not other.is_doubtful and not other.requests and other.has(chunk)
            for other in self._providers.values()
        )

    def _is_too_slow_for(self, chunk: int, provider: _Provider, now: float) -> bool:
        """Say whether another will be done with everything long before `provider` would bring `chunk`."""
        if provider.rate is None:
            return False
        ours = self._sizes[chunk] * provider.connections / provider.rate
        return any(
            ours > LATE_FACTOR * (self._missing_bytes / other.rate + self._busy_s(other, now))
            for other in self._providers.values()
            # First what is quickly told, and most often decides.
            if other.rate and ours > LATE_FACTOR * self._missing_bytes / other.rate
            # One that is asked nothing may be pausing.
            if other is not provider and other.requests and not other.is_doubtful and other.has(chunk)
        )

    def _busy_s(self, provider: _Provider, now: float) -> float:
        """Return the seconds until all that `provider` was asked for should be here."""
        return max((self._expected_s(self._requests[number], now) for number in provider.requests), default=0.0)

    def _whole_run(self, provider: _Provider) -> range | None:
        """Return a run that the provider gives together, of which something is free, and which it is not giving."""
        running = {self._requests[number].request.first for number in provider.requests}
        for run in provider.runs or ():
            if run.start not in running and self._has_missing(run):
                return run
        return None

    def _is_free(self, chunk: int, provider: _Provider) -> bool:
        return self._state[chunk] == _MISSING and provider.has(chunk)

    def _is_first_copy(self, chunk: int, provider: _Provider) -> bool:
        return provider.offers is None and self._rarity_of(chunk) == 0

    def _run_around(self, chunk: int, stripe: range, provider: _Provider) -> range:
        """Return free chunks of `stripe` from `chunk` on, or from before it if there is room, of a request's size.

        One that is larger than stripes goes on behind this one.
        """
        limit = self._request_size(provider)
        first, end, size = chunk, chunk + 1, self._sizes[chunk]
        is_first_copy = self._is_first_copy(chunk, provider)

        def fits(other: int) -> bool:
            # All of a request is a first copy or nothing: the provider refuses first copies that are none.
            return (
                self._is_free(other, provider)
                and size + self._sizes[other] <= limit
                and end - first < REQUEST_CHUNKS_MAX
                and self._is_first_copy(other, provider) == is_first_copy
            )

        stop = stripe.stop if limit <= STRIPE_SIZE_MAX else len(self._sizes)
        while end < stop and fits(end):
            size += self._sizes[end]
            end += 1
        while first > stripe.start and fits(first - 1):
            first -= 1
            size += self._sizes[first]
        return range(first, end)

    def _request_size(self, provider: _Provider) -> int:
        """Return how many bytes to ask for: some seconds' work, and no more than a fair share of the rest.

        What passes at once may be more: to whom it goes matters little then, and each question costs.
        """
        most = float(STRIPE_SIZE_MAX)
        if provider.rate is None:
            work = float(REQUEST_SIZE_FIRST)
        else:
            each = provider.rate / provider.connections
            work = each * OUTSTANDING_S
            most = max(most, min(each * QUICK_S, REQUEST_SIZE_MAX))
        connections = sum(known.connections for known in self._providers.values())
        share = self._missing_bytes / (2 * connections)
        return int(max(REQUEST_SIZE_MIN, min(work, share, most)))

    def _hedge(self, provider: _Provider, now: float) -> range | None:
        """Return the end of a request that another is busy with, if `provider` should be much sooner."""
        # While anything is free, a provider with nothing to give waits for what it will have next.
        if self._missing_count or (provider.rate is None and provider.requests):
            return None
        rate = provider.rate or HEDGE_RATE
        best: tuple[float, range] | None = None
        for flight in self._requests.values():
            pending = [chunk for chunk in self._pending(flight.request) if self._is_hedgeable(chunk, provider)]
            theirs = self._expected_s(flight, now)
            if pending and (best is None or theirs > best[0]):
                run = self._late_run(flight, theirs, _last_run(pending), provider.connections / rate)
                best = (theirs, run) if run else best
        return best[1] if best else None

    def _late_run(self, flight: _InFlight[P], theirs: float, run: range, ours: float) -> range | None:
        """Return the end of `run` that another should bring much sooner than `flight`, None if there is none.

        theirs: seconds until the flight should be over. ours: seconds that the other takes for a byte.
        """
        pending = self._pending(flight.request)
        each = theirs / sum(self._sizes[chunk] for chunk in pending)  # seconds a byte
        left = sum(self._sizes[chunk] for chunk in run)
        until = sum(self._sizes[chunk] for chunk in pending if chunk < run.start)
        for chunk in run:
            until += self._sizes[chunk]
            # What it is about to bring would come twice.
            if until * each > HEDGE_FACTOR * left * ours:
                return range(chunk, run.stop)
            left -= self._sizes[chunk]
        return None

    def _pending(self, request: Request[P]) -> list[int]:
        return [chunk for chunk in request.chunks if request.number in self._asked.get(chunk, ())]

    def _is_hedgeable(self, chunk: int, provider: _Provider) -> bool:
        askers = self._asked[chunk]
        return len(askers) < COPIES_MAX and askers.isdisjoint(provider.requests) and provider.has(chunk)

    def _expected_s(self, flight: _InFlight[P], now: float) -> float:
        """Return the seconds until a request should be answered."""
        pending = sum(self._sizes[chunk] for chunk in self._pending(flight.request))
        elapsed = now - flight.request.time
        # What this request showed, not what the provider once could: it may have stalled.
        if flight.arrived:
            return pending * elapsed / flight.arrived
        known = self._providers[flight.request.provider]
        return max(elapsed, pending * known.connections / known.rate if known.rate else 0.0)

    def _running_max(self, now: float) -> float:
        """Return how many requests may be under way: over a slow line many at once would all be too late."""
        while self._arrivals and now - self._arrivals[0][0] > TOTAL_WINDOW_S:
            self._arrivals_bytes -= self._arrivals.popleft()[1]
        if self._last_arrival is None:
            self._last_arrival = now
        rate = self._arrivals_bytes / max(now - self._arrivals[0][0], 1.0) if self._arrivals else 0.0
        return max(RUNNING_MIN + (now - self._last_arrival), rate / RUNNING_RATE)

    def _measure(self, provider: _Provider, size: int, now: float) -> None:
        provider.busy_at = now
        provider.window_bytes += size
        elapsed = now - provider.window_start
        if elapsed <= 0:
            return
        newest = provider.window_bytes / elapsed
        is_over = provider.rate is not None and elapsed >= RATE_WINDOW_S
        if provider.rate is None or provider.is_first_window:
            # The first chunk alone may be some bytes after a long way.
            provider.rate = newest
        elif is_over:
            provider.rate = RATE_WEIGHT * newest + (1 - RATE_WEIGHT) * provider.rate
        if is_over:
            provider.is_first_window = False
            provider.window_start, provider.window_bytes = now, 0

    def _is_any_wanted(self, chunks: range) -> bool:
        return any(self._state.find(state, chunks.start, chunks.stop) >= 0 for state in (_MISSING, _ASKED))

    def _has_missing(self, stripe: range) -> bool:
        return self._state.find(_MISSING, stripe.start, stripe.stop) >= 0

    def _sorted_stripes(self, offers: bytes | None) -> list[int]:
        """Return the keys of the stripes with something free, in order: the rarest first, else at random."""
        if self._rarity is None and offers is None:
            # In the order of their ranks: sorted, so it is a heap.
            free = (rank for rank, stripe in self._stripe_of_rank.items() if self._has_missing(stripe))
            return sorted(free)
        if len(self._sizes) < NUMPY_CHUNKS:
            return self._sorted_few(offers)
        if not self._stripes:
            return []
        import numpy as np

        if self._stripe_arrays is None:
            starts = np.array([stripe.start for stripe in self._stripes], dtype=np.int64)
            self._stripe_arrays = starts, np.array(self._ranks, dtype=np.int64)
        starts, ranks = self._stripe_arrays
        wanted = np.frombuffer(self._state, dtype=np.uint8) == _MISSING
        if offers is not None:
            wanted &= np.frombuffer(offers, dtype=np.uint8) == 1
        # At first any chunk is as good as another: a new node soon has something to give.
        known = np.zeros(len(self._sizes), dtype=np.int32)
        if self._rarity is not None:
            known = np.frombuffer(self._rarity, dtype=np.int32)
        rarity = known if self._number >= RANDOM_FIRST else np.full_like(known, _ANY_RARITY)
        # Chunks between two stripes were here from the start, so they are not wanted.
        rarest = np.minimum.reduceat(np.where(wanted, rarity, _NOT_WANTED), starts).astype(np.int64)
        keys = (rarest << _RANK_BITS | ranks)[rarest != _NOT_WANTED]
        keys.sort()
        heap: list[int] = keys.tolist()  # sorted, so it is one
        return heap

    def _sorted_few(self, offers: bytes | None) -> list[int]:
        """Return what `_sorted_stripes` does, for few chunks without numpy."""
        keys = []
        for rank, stripe in self._stripe_of_rank.items():
            free = [chunk for chunk in stripe if self._state[chunk] == _MISSING and (offers is None or offers[chunk])]
            if free:
                rarest = _ANY_RARITY if self._number < RANDOM_FIRST else min(map(self._rarity_of, free))
                keys.append(rarest << _RANK_BITS | rank)
        keys.sort()
        return keys


def _both(first: bytes | None, second: bytes | None) -> bytes | None:
    """Return the flags (a byte a chunk, None: all) that are set in both."""
    if first is None or second is None:
        return second if first is None else first
    return both(first, second)


def _stripes(sizes: Sequence[int], state: bytearray) -> list[range]:
    """Cut the missing chunks into runs of at most one request."""
    stripes = []
    start, size = None, 0
    for chunk, chunk_size in enumerate(sizes):
        if start is not None:
            full = size + chunk_size > STRIPE_SIZE_MAX or chunk - start >= REQUEST_CHUNKS_MAX
            if full or state[chunk] != _MISSING:
                stripes.append(range(start, chunk))
                start = None
        if state[chunk] == _MISSING:
            if start is None:
                start, size = chunk, 0
            size += chunk_size
    if start is not None:
        stripes.append(range(start, len(sizes)))
    return stripes


def _last_run(chunks: list[int]) -> range:
    """Return the last run of consecutive numbers in sorted `chunks`."""
    first = chunks[-1]
    for chunk in reversed(chunks[:-1]):
        if chunk != first - 1:
            break
        first = chunk
    return range(first, chunks[-1] + 1)
