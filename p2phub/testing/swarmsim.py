"""A swarm of hundreds of downloads in one process, without I/O and without waiting (spec/transfer.md §3).

    swarm = Swarm(Line(up, down), lines, sizes, seed=7)
    swarm.run()
    swarm.finished     # seconds, by downloader

Every downloader runs the real `Picker`. What stands around it here are lines that carry
a chunk at a time, and the habits of a node: upload slots, connections to a provider,
questions what it has. Time is a number and chance one seed, so a run can be repeated.

A line has a capacity up and one down that are never exceeded. The uplink sends one chunk
after the other, in turn for all whom it answers; behind it the chunks queue for the
receiver's downlink. An answer has few chunks on the way, as TCP has a window: who
receives slowly keeps nobody else waiting.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b

from p2phub.node import contentdoor, crowd
from p2phub.node.connections import IDLE_S, RETRY_S, connections_to_each, offer_interval_s
from p2phub.protocol.picker import Picker, Request
from p2phub.protocol.rates import deadline_s
from p2phub.protocol.slots import SLOTS

SEED = 0  # the host that has everything at the start
WINDOW = 2  # chunks of one answer on the way
START_S = 0.5  # seconds within which all begin


@dataclass(frozen=True)
class Line:
    """What connects a host to all others."""

    up: float  # bytes a second
    down: float  # bytes a second
    latency_s: float = 0.01  # one way, to anybody


def bound_s(seed: Line, lines: Sequence[Line], size: int) -> float:
    """Return the least seconds in which `size` bytes can reach every downloader.

    The seed must send all of it once, the slowest must receive it, and all together must
    send it once for each. Source: Kumar and Ross, Peer-Assisted File Distribution: The
    Minimum Distribution Time, 2006.
    """
    up = seed.up + sum(line.up for line in lines)
    return max(size / seed.up, size / min(line.down for line in lines), len(lines) * size / up)


@dataclass
class _Answer:
    """A request on its way through its provider: waiting for a slot, then being sent."""

    request: Request[int]
    asker: int
    has_slot: bool = False
    sent: int = 0  # chunks, also that which is being sent
    on_the_way: int = 0  # of these, not received
    is_ready: bool = False  # the next chunk waits for the uplink
    is_over: bool = False


@dataclass
class _Host:
    """One node: its line, what it holds, and its upload slots."""

    number: int
    line: Line
    held: bytearray  # one byte a chunk
    given: bytearray  # the same, of this round; spec/transfer.md §3.4
    slots: int = SLOTS  # free ones
    queue: deque[_Answer] = field(default_factory=deque)  # without a slot
    ready: deque[_Answer] = field(default_factory=deque)  # whose next chunk may be sent
    is_sending: bool = False
    down_free_at: float = 0.0  # seconds, when all that is on the way has been received
    sent: int = 0  # bytes
    is_gone: bool = False


@dataclass
class _Download:
    """One node's download: the picker, and the connections to its providers."""

    host: _Host
    picker: Picker[int]
    running: dict[int, int] = field(default_factory=dict)  # requests in flight, by provider
    pausing: dict[int, int] = field(default_factory=dict)  # connections that wait after a failure, by provider
    answers: dict[int, _Answer] = field(default_factory=dict)  # in flight, by number of the request


class Swarm:
    """A seed, downloaders with a picker each, and the events between them."""

    def __init__(
        self,
        seed_line: Line,
        lines: Sequence[Line],
        sizes: Sequence[int],
        *,
        seed: int,
        picker: Callable[..., Picker[int]] = Picker,
    ) -> None:
        """lines: of the downloaders, which are hosts 1 and up; sizes: bytes of each chunk."""
        self.now = 0.0
        self.finished: dict[int, float] = {}  # seconds, by downloader that stayed
        self.busy = 0  # requests that found no slot in time
        self.refused = 0  # first copies that were none any more
        self.late = 0  # requests that passed their deadline
        self.useful = 0  # bytes that arrived first
        self._sizes = sizes
        self._rng = rng = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._trace = blake2b(digest_size=16)
        count = len(sizes)
        self.hosts = {
            number: _Host(number, line, bytearray([number == SEED]) * count, bytearray(count))
            for number, line in enumerate([seed_line, *lines])
        }
        self._downloads: dict[int, _Download] = {}
        for number in range(1, len(self.hosts)):
            others = [other for other in self.hosts if other not in (SEED, number)]
            mates = [SEED, *rng.sample(others, min(crowd.PROVIDERS_MAX - 1, len(others)))]
            self._downloads[number] = download = _Download(
                self.hosts[number],
                picker(sizes, range(count), rng=random.Random(rng.random())),
            )
            start = rng.random() * START_S
            for mate in mates:
                self.after(start, partial(self._meet, download, mate))
            self.after(start, partial(self._look_again, download))

    @property
    def size(self) -> int:
        """How many bytes each downloads."""
        return sum(self._sizes)

    @property
    def copies_sent(self) -> float:
        """How many times the seed sent all."""
        return self.hosts[SEED].sent / self.size

    @property
    def wasted(self) -> float:
        """How much was sent and not needed, as a share of what was."""
        return sum(host.sent for host in self.hosts.values()) / self.useful - 1

    @property
    def is_copied(self) -> bool:
        """Whether those who are here hold everything together, without the seed."""
        held = [download.host.held for download in self._downloads.values()]
        return all(any(flags[chunk] for flags in held) for chunk in range(len(self._sizes)))

    @property
    def trace(self) -> str:
        """The hash of all that happened."""
        return self._trace.hexdigest()

    # ── time ────────────────────────────────────────────────────────────────

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Let `action` happen in so many seconds."""
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, action))

    def run(self, *, limit_s: float = 3600.0) -> None:
        """Run until all who stay have everything; AssertionError if that takes longer than `limit_s`."""
        while len(self.finished) < len(self._downloads):
            self.now, _, action = heapq.heappop(self._events)
            assert self.now < limit_s, f"{len(self._downloads) - len(self.finished)} have not finished"
            action()

    def leave(self, number: int) -> None:
        """Let a host vanish in the middle of everything."""
        self.hosts[number].is_gone = True
        self.finished.pop(number, None)
        gone = self._downloads.pop(number, None)
        for answer in list(gone.answers.values()) if gone else []:
            self._forget_answer(answer)
        for download in self._downloads.values():
            if number in download.running:
                self._lose(download, number)

    def _lose(self, download: _Download, provider: int) -> None:
        """Notice that a provider is gone, and look for another."""
        for answer in list(download.answers.values()):
            if answer.request.provider == provider:
                self._end(download, answer)
        del download.running[provider]
        download.picker.remove_provider(provider)
        self._fill_all(download)
        self.after(crowd.PEERS_S, partial(self._meet_another, download))

    def _meet_another(self, download: _Download) -> None:
        known = {SEED, download.host.number, *download.running}
        others = [number for number, host in self.hosts.items() if number not in known and not host.is_gone]
        if others:
            self._meet(download, self._rng.choice(others))

    def _meet(self, download: _Download, mate: int) -> None:
        """Begin to use another host as a provider."""
        download.running[mate] = download.pausing[mate] = 0
        self._ask_offer(download, mate)

    # ── asking ──────────────────────────────────────────────────────────────

    def _is_over(self, download: _Download) -> bool:
        return download.picker.done or download.host.is_gone

    def _ask_offer(self, download: _Download, provider: int) -> None:
        """Learn what a provider has, and ask again after a while."""
        if provider in download.running and not self._is_over(download):
            self._learn_offer(download, provider)
            self.after(self._interval_s(download, provider), partial(self._ask_offer, download, provider))

    def _learn_offer(self, download: _Download, provider: int) -> None:
        """Let the picker know in a moment what a provider has now."""
        host = self.hosts[provider]
        is_whole = 0 not in host.held
        offers, given = None if is_whole else bytes(host.held), bytes(host.given) if is_whole else None

        def take() -> None:
            if provider in download.running and not self._is_over(download):
                download.picker.set_offer(
                    provider, offers, given=given, connections=connections_to_each(len(download.running))
                )
                self._fill(download, provider)

        self.after(2 * download.host.line.latency_s, take)

    def _interval_s(self, download: _Download, provider: int) -> float:
        """Return the seconds between two questions what a provider has."""
        done = download.host.held.count(1)
        left_s = self.now * (len(self._sizes) - done) / done if done else 0.0
        is_whole = 0 not in self.hosts[provider].held
        return offer_interval_s(len(download.running), is_whole=is_whole, left_s=left_s, passed_s=self.now)

    def _look_again(self, download: _Download) -> None:
        """Let idle connections look for work, now and again: with time, copies become worth it."""
        if not self._is_over(download):
            self._fill_all(download)
            self.after(IDLE_S, partial(self._look_again, download))

    def _fill_all(self, download: _Download) -> None:
        for provider in list(download.running):
            self._fill(download, provider)

    def _fill(self, download: _Download, provider: int) -> None:
        """Keep all connections to a provider busy that do not pause."""
        if self._is_over(download):
            return
        running, pausing = download.running, download.pausing
        while provider in running and running[provider] + pausing[provider] < connections_to_each(len(running)):
            request = download.picker.next_request(provider, self.now)
            if request is None:
                return
            answer = _Answer(request, download.host.number)
            download.answers[request.number] = answer
            download.running[provider] += 1
            size = sum(self._sizes[chunk] for chunk in request.chunks)
            self.after(download.host.line.latency_s, partial(self._queue, answer))
            self.after(deadline_s(size), partial(self._give_up, download, answer))

    def _give_up(self, download: _Download, answer: _Answer) -> None:
        if not answer.is_over:
            self.late += 1
            self._fail(download, answer, RETRY_S[0])

    def _fail(self, download: _Download, answer: _Answer, pause_s: float) -> None:
        """End a request that failed, and let its connection pause."""
        provider = answer.request.provider
        download.pausing[provider] += 1
        self._end(download, answer)

        def go_on() -> None:
            download.pausing[provider] -= 1
            self._fill(download, provider)

        self.after(pause_s, go_on)

    def _end(self, download: _Download, answer: _Answer) -> None:
        """End a request, well or badly."""
        del download.answers[answer.request.number]
        download.running[answer.request.provider] -= 1
        self._forget_answer(answer)
        if download.picker.request_ended(answer.request):
            self._fill_all(download)
        else:
            self._fill(download, answer.request.provider)

    # ── giving ──────────────────────────────────────────────────────────────

    def _forget_answer(self, answer: _Answer) -> None:
        """Free what an answer takes at its provider."""
        answer.is_over = True
        host = self.hosts[answer.request.provider]
        if answer.has_slot and not host.is_gone:
            self._free_slot(host)

    def _queue(self, answer: _Answer) -> None:
        """Let a request that came to its provider wait for a slot."""
        host = self.hosts[answer.request.provider]
        if host.is_gone or answer.is_over:
            return
        host.slots -= 1
        host.queue.append(answer)
        self._free_slot(host)
        if not answer.has_slot and not answer.is_over:
            self.after(contentdoor.SLOT_WAIT_S, partial(self._send_away, answer))

    def _free_slot(self, host: _Host) -> None:
        """Give a slot to the next in the queue."""
        host.slots += 1
        while host.queue and host.slots:
            answer = host.queue.popleft()
            if answer.is_over:
                continue
            if answer.request.is_first_copy and any(host.given[chunk] for chunk in answer.request.chunks):
                self._refuse(answer)
                continue
            host.slots -= 1
            answer.has_slot = True
            self._note_given(host, answer.request)
            self._next_chunk(host, answer)
            self._send(host)

    def _note_given(self, host: _Host, request: Request[int]) -> None:
        for chunk in request.chunks:
            if 0 not in host.given:
                host.given = bytearray(len(host.given))
            host.given[chunk] = 1

    def _refuse(self, answer: _Answer) -> None:
        """Say that these chunks were given to somebody else meanwhile."""
        self.refused += 1
        answer.is_over = True
        download = self._downloads[answer.asker]

        def take() -> None:
            if answer.request.number in download.answers:
                # It chooses again when it knows what is left.
                self._fail(download, answer, 2 * download.host.line.latency_s)
                self._learn_offer(download, answer.request.provider)

        self.after(download.host.line.latency_s, take)

    def _send_away(self, answer: _Answer) -> None:
        if not answer.has_slot and not answer.is_over:
            self.busy += 1
            self._fail(self._downloads[answer.asker], answer, contentdoor.RETRY_AFTER_S)

    def _next_chunk(self, host: _Host, answer: _Answer) -> None:
        """Let the next chunk of an answer wait for the uplink, if the window has room."""
        if not answer.is_ready and answer.on_the_way < WINDOW and answer.sent < answer.request.count:
            answer.is_ready = True
            host.ready.append(answer)

    def _send(self, host: _Host) -> None:
        """Begin to send a chunk, if none is being sent."""
        while host.ready and not host.is_sending and not host.is_gone:
            answer = host.ready.popleft()
            answer.is_ready = False
            if not answer.is_over:
                chunk = answer.request.first + answer.sent
                answer.sent += 1
                answer.on_the_way += 1
                host.is_sending = True
                self.after(self._sizes[chunk] / host.line.up, partial(self._sent, host, answer, chunk))

    def _sent(self, host: _Host, answer: _Answer, chunk: int) -> None:
        host.is_sending = False
        host.sent += self._sizes[chunk]
        receiver = self.hosts[answer.asker]
        if not host.is_gone and not receiver.is_gone:
            begin = max(self.now + receiver.line.latency_s, receiver.down_free_at)
            receiver.down_free_at = begin + self._sizes[chunk] / receiver.line.down
            self.after(receiver.down_free_at - self.now, partial(self._received, host, answer, chunk))
            self._next_chunk(host, answer)
        self._send(host)

    def _received(self, host: _Host, answer: _Answer, chunk: int) -> None:
        answer.on_the_way -= 1
        self._next_chunk(host, answer)
        self._send(host)
        if answer.is_over:
            return
        download = self._downloads[answer.asker]
        self._trace.update(f"{self.now!r} {host.number} {answer.asker} {chunk}\n".encode())
        if download.picker.chunk_arrived(answer.request, chunk, self.now):
            self.useful += self._sizes[chunk]
        download.host.held[chunk] = 1
        for request in download.picker.take_pointless():
            self._end(download, download.answers[request.number])
        if download.picker.done:
            self.finished.setdefault(answer.asker, self.now)
        if chunk == answer.request.first + answer.request.count - 1:
            self._end(download, answer)
