"""Choose which chunks to ask of which provider (spec/transfer.md §3).

The picker holds one download's state and decides. It does no I/O and reads no
clock: `node/download.py` tells it what happened and does what it answers.

    set_offer, chunk_arrived, request_ended, remove_provider ──▶ Picker ──▶ next_request

Rule: first a few chunks at random, so that a new node soon has something to give;
then the rarest, so that a chunk only one provider holds is copied before that
provider leaves. What a whole provider gave to somebody counts as held once more, so
that a seed sends each chunk once before it sends any twice. That order is kept by
`stripes`; the picker decides when it does not count: for a reader who waits, for a
provider that others outrun, and at the end.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct, field

from .flags import both
from .rates import Arrivals, Rate
from .stripes import ASKED, DONE, MISSING, REQUEST_CHUNKS_MAX, STRIPE_SIZE_MAX, Order, Stripes, has_missing

REQUEST_SIZE_MAX = 64 * 1024 * 1024  # bytes, of what takes no more than QUICK_S; spec/transfer.md §3.2
QUICK_S = 0.2  # seconds; spec/transfer.md §3.2
REQUEST_SIZE_MIN = 1024 * 1024  # bytes, less only where less is missing; spec/transfer.md §3.2
REQUEST_SIZE_FIRST = 1024 * 1024  # bytes, before a provider's rate is known; spec/transfer.md §3.2
OUTSTANDING_S = 3.0  # seconds of work a provider is given at once; spec/transfer.md §3.2
RANDOM_FIRST = 4  # requests chosen at random before the rarest go first; spec/transfer.md §3.1
COPIES_MAX = 2  # requests for one chunk at the same time, in the endgame; spec/transfer.md §3.3
HEDGE_FACTOR = 4.0  # a copy is asked for if it should arrive this many times sooner; spec/transfer.md §3.3
LATE_FACTOR = 2.0  # nothing new is asked of who would take so many times longer than another; spec/transfer.md §3.3
HEDGE_RATE = 1024 * 1024  # bytes a second, of a provider whose rate is not known yet; spec/transfer.md §3.3
HURRY_SIZE_MAX = 4 * 1024 * 1024  # bytes of a request for what a reader waits for; spec/transfer.md §3.5

P = TypeVar("P", bound=Hashable)


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


class _Provider(Struct):
    """What is known of a provider: what it offers, and how fast it is."""

    order: Order
    offers: bytes | None = None  # one byte a chunk, 1 if offered; None is all
    reach: bytes | None = None  # of that, what it may be asked for; None is all
    given: bytes | None = None  # one byte a chunk, 1 if it sent it to somebody; None: nothing, or not told
    connections: int = 1
    rate: Rate = field(default_factory=Rate)
    requests: set[int] = field(default_factory=set)
    is_doubtful: bool = False  # its last request ended without all that was asked, and nothing came since
    runs: Sequence[range] | None = None  # what alone it can be asked for; None: any chunks

    def has(self, chunk: int) -> bool:
        return self.reach is None or self.reach[chunk] == 1


class Picker(Generic[P]):
    """The state of one download: what is missing, who offers it, who was asked."""

    def __init__(self, sizes: Sequence[int], missing: Iterable[int], *, rng: random.Random) -> None:
        """sizes: bytes of each chunk of the download, in order; missing: indices of those not here yet."""
        self._sizes = sizes
        self._state = bytearray([DONE]) * len(sizes)
        for chunk in missing:
            self._state[chunk] = MISSING
        self._missing_count = self._state.count(MISSING)
        self._missing_bytes = sum(size for size, state in zip(sizes, self._state, strict=True) if state == MISSING)
        self._providers: dict[P, _Provider] = {}
        # By chunk, so that a chunk in flight and its askers are one fact.
        self._asked: dict[int, set[int]] = {}
        self._requests: dict[int, _InFlight[P]] = {}
        self._whole: dict[int, Request[P]] = {}  # those for whole runs
        self._number = 0
        self._pointless: list[Request[P]] = []
        self._arrivals = Arrivals()
        # What is being read now, by reader: goes before everything else.
        self._hurried: dict[Hashable, range] = {}
        self._stripes = Stripes(sizes, self._state, rng)
        # Whole providers share one order; a partial one has its own.
        self._whole_order = Order()
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
        return [
            chunk for chunk, state in enumerate(self._state) if state == MISSING and self._stripes.rarity(chunk) == 0
        ]

    def rate(self, provider: P) -> float | None:
        """Return the provider's measured rate in bytes a second, None before it is known."""
        known = self._providers.get(provider)
        return known.rate.value if known else None

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
            self._stripes.recount(known.offers, offers)
            known.offers = offers
        reach = _both(offers, allowed)
        if known.reach != reach:
            known.reach = reach
            known.order = self._whole_order if reach is None else Order()
        if known.given != given:
            self._stripes.recount(known.given, given)
            known.given = given

    def remove_provider(self, provider: P) -> None:
        """Forget `provider`; what it was asked is free again."""
        known = self._providers.get(provider)
        if known is None:
            return
        for number in list(known.requests):
            self._end(number)
        self._stripes.recount(known.offers, None)
        self._stripes.recount(known.given, None)
        del self._providers[provider]

    def next_request(self, provider: P, now: float) -> Request[P] | None:
        """Return what to ask of `provider` now and count it as asked, or None if there is nothing."""
        known = self._providers.get(provider)
        if known is None or len(self._requests) >= self._arrivals.running_max(now):
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
            if self._state[chunk] == MISSING:
                self._take(chunk, ASKED)
            self._asked.setdefault(chunk, set()).add(request.number)
        return request

    def _begin(self, request: Request[P]) -> Request[P]:
        """Count `request` as under way."""
        known = self._providers[request.provider]
        self._number = request.number
        if self._number == RANDOM_FIRST:
            self._stripes.rarest_first()
        self._requests[request.number] = _InFlight(request)
        if request.is_whole:
            self._whole[request.number] = request
        known.rate.begin(request.time, was_idle=not known.requests)
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
        self._arrivals.note(size, now)
        # An answer that comes after its request was given up is as good as any, but measures nothing.
        if flight := self._requests.get(request.number):
            flight.arrived += size
            self._providers[request.provider].is_doubtful = False
            self._providers[request.provider].rate.measure(size, now)
        if self._state[chunk] == DONE:
            self.duplicate_bytes += size
            return False
        others = self._asked.pop(chunk, set()) - {request.number}
        self._take(chunk, DONE)
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
        return self._state[chunk] != DONE

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
            if self._state[chunk] == ASKED and not askers:
                del self._asked[chunk]
                self._state[chunk] = MISSING
                self._missing_bytes += self._sizes[chunk]
                self._missing_count += 1
                self._stripes.note_freed()
                is_any_free = True
        return is_any_free

    def _take(self, chunk: int, state: int) -> None:
        """Put `chunk` into `state`, which is not `MISSING`."""
        if self._state[chunk] == MISSING:
            self._missing_bytes -= self._sizes[chunk]
            self._missing_count -= 1
        self._state[chunk] = state

    def _hurried_run(self, provider: _Provider) -> range | None:
        """Return the first free chunks that a reader waits for and `provider` offers."""
        for wanted in self._hurried.values():
            for chunk in wanted:
                if self._stripes.is_free(chunk, provider.reach):
                    end, size = chunk + 1, self._sizes[chunk]
                    limit = min(HURRY_SIZE_MAX, self._request_size(provider))
                    while (
                        end < wanted.stop
                        and self._stripes.is_free(end, provider.reach)
                        and size + self._sizes[end] <= limit
                    ):
                        size += self._sizes[end]
                        end += 1
                    return range(chunk, end)
        return None

    def _free_run(self, provider: _Provider) -> range | None:
        """Return the best run of chunks that nobody was asked for and `provider` offers."""
        found = self._stripes.first(provider.order, provider.reach)
        return self._run_around(*found, provider) if found else None

    def _has_better(self, provider: _Provider, chunk: int) -> bool:
        """Say whether another offers `chunk` and has nothing to do, who did not just fail."""
        return any(
            other is not provider and not other.is_doubtful and not other.requests and other.has(chunk)
            for other in self._providers.values()
        )

    def _is_too_slow_for(self, chunk: int, provider: _Provider, now: float) -> bool:
        """Say whether another will be done with everything long before `provider` would bring `chunk`."""
        if provider.rate.value is None:
            return False
        ours = self._sizes[chunk] * provider.connections / provider.rate.value
        return any(
            ours > LATE_FACTOR * (self._missing_bytes / other.rate.value + self._busy_s(other, now))
            for other in self._providers.values()
            # First what is quickly told, and most often decides.
            if other.rate.value and ours > LATE_FACTOR * self._missing_bytes / other.rate.value
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
            if run.start not in running and has_missing(self._state, run):
                return run
        return None

    def _is_first_copy(self, chunk: int, provider: _Provider) -> bool:
        return provider.offers is None and self._stripes.rarity(chunk) == 0

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
                self._stripes.is_free(other, provider.reach)
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
        if provider.rate.value is None:
            work = float(REQUEST_SIZE_FIRST)
        else:
            each = provider.rate.value / provider.connections
            work = each * OUTSTANDING_S
            most = max(most, min(each * QUICK_S, REQUEST_SIZE_MAX))
        connections = sum(known.connections for known in self._providers.values())
        share = self._missing_bytes / (2 * connections)
        return int(max(REQUEST_SIZE_MIN, min(work, share, most)))

    def _hedge(self, provider: _Provider, now: float) -> range | None:
        """Return the end of a request that another is busy with, if `provider` should be much sooner."""
        # While anything is free, a provider with nothing to give waits for what it will have next.
        if self._missing_count or (provider.rate.value is None and provider.requests):
            return None
        rate = provider.rate.value or HEDGE_RATE
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
        return max(elapsed, pending * known.connections / known.rate.value if known.rate.value else 0.0)

    def _is_any_wanted(self, chunks: range) -> bool:
        return any(self._state.find(state, chunks.start, chunks.stop) >= 0 for state in (MISSING, ASKED))


def _both(first: bytes | None, second: bytes | None) -> bytes | None:
    """Return the flags (a byte a chunk, None: all) that are set in both."""
    if first is None or second is None:
        return second if first is None else first
    return both(first, second)


def _last_run(chunks: list[int]) -> range:
    """Return the last run of consecutive numbers in sorted `chunks`."""
    first = chunks[-1]
    for chunk in reversed(chunks[:-1]):
        if chunk != first - 1:
            break
        first = chunk
    return range(first, chunks[-1] + 1)
