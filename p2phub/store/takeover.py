"""Run the taking over of logs: threads that verify, and one that writes (spec/store.md §4).

    callers ──parts──▶ queue ──verified, in order──▶ one transaction and one sync for many

One thread of a process writes what comes of other logs, so that its connection's pages stay
in memory and what several callers brought goes into one transaction. While it writes, the
others verify what comes next, by themselves or, when much comes, by asking processes.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue

from p2phub.core.errors import InvalidData
from p2phub.core.identity import Identity, SignedDocument, open_identity, read_identity

from .arrivals import PART_COST, Arrival, LogPart, Outcome, PartCheck, start_checks
from .verifier import Answer, Gone, Question, Verifier

log = logging.getLogger(__name__)

VERIFYING_THREADS = max(1, min(4, os.cpu_count() or 1))
WINDOW_ENTRIES = 1024  # checked and written together, if they come together
WINDOW_BYTES = 8 * 1024 * 1024
WINDOWS_AHEAD = 3  # of one caller that are checked before the first of them is written
TRANSACTION_ENTRIES = 2048  # at most, of several windows: others wait for it, and their callers for its end
BRISK_ENTRIES = 64  # in a transaction, from which on it is worth it that threads take turns sooner
SWITCH_S = 0.0005  # seconds that a thread then computes while another waits to
BREAK_S = 0.005  # seconds after a large transaction in which others may write

VERIFYING_PROCESSES = max(1, min(3, (os.cpu_count() or 1) - 1))  # beside the thread that writes
BURST_ENTRIES = 4096  # that come without a pause, until processes are worth starting
PAUSE_S = 5.0

Write = Callable[[Sequence[Arrival | InvalidData]], list[Outcome]]


class _Window:
    """Parts of one caller that are written together."""

    def __init__(self, checks: list[PartCheck]) -> None:
        self.checks = checks
        self.entry_count = sum(check.entry_count for check in checks)
        self.outcomes: Future[list[Outcome]] = Future()

    @property
    def is_checked(self) -> bool:
        return all(future.done() for check in self.checks for future in check.results)


class Takeover:
    """Takes over parts of logs: checks them in threads and gives them to `write`, many at once, in one thread."""

    def __init__(self, write: Write, prepare_thread: Callable[[], None]) -> None:
        """prepare_thread: called first in the thread that calls `write`."""
        self._write = write
        self._prepare_thread = prepare_thread
        self._lock = threading.Lock()
        self._queue: deque[_Window] = deque()
        self._threads: tuple[ThreadPoolExecutor, ThreadPoolExecutor] | None = None  # verify; write
        self._verifiers = [Verifier() for _ in range(VERIFYING_PROCESSES)]
        self._idle: SimpleQueue[Verifier] = SimpleQueue()
        for verifier in [*self._verifiers, *self._verifiers]:
            self._idle.put(verifier)  # twice: it is given the next question while it answers one
        self._burst = 0  # entries since the last pause
        self._last = 0.0  # when some came last, on the monotonic clock

    def take(self, parts: Sequence[LogPart], sizes: Callable[[LogPart], int], now: float) -> list[Outcome]:
        """Return what came of each part, once all are on the disk. Raises StoreError.

        sizes: how many records of the log of a part are here.
        """
        outcomes: list[Outcome] = []
        waiting: deque[_Window] = deque()
        for checks in _windows(parts, sizes):
            waiting.append(self._begin(checks, now))
            if len(waiting) > WINDOWS_AHEAD:
                outcomes += waiting.popleft().outcomes.result()
        for window in waiting:
            outcomes += window.outcomes.result()
        return outcomes

    def open_identities(self, chains: Sequence[tuple[SignedDocument, ...]]) -> list[Identity | InvalidData]:
        """Return the identity that each chain proves, or what is wrong with it."""
        proven = [False] * len(chains)
        with self._lock:
            is_much = self._is_much(len(chains) * PART_COST)
        if is_much:
            try:
                with self._verifier() as verifier:
                    proven = verifier.check_identities(list(chains))
            except Gone as exc:
                log.info("identities are checked without a process of their own: %s", exc)
        # What is wrong is looked at again, to say what is.
        return [
            read_identity(chain) if is_proven else _open(chain) for chain, is_proven in zip(chains, proven, strict=True)
        ]

    def close(self) -> None:
        """End the threads, once they have done what was asked of them."""
        with self._lock:
            threads, self._threads = self._threads, None
        for pool in threads or ():
            pool.shutdown()
        for verifier in self._verifiers:
            verifier.close()

    def _begin(self, checks: list[PartCheck], now: float) -> _Window:
        window = _Window(checks)
        with self._lock:
            if self._threads is None:
                # Only now: most commands take nothing over.
                self._threads = (
                    ThreadPoolExecutor(VERIFYING_THREADS, "verify"),
                    ThreadPoolExecutor(1, "take over", initializer=self._prepare_thread),
                )
            verifying, writing = self._threads
            start_checks(verifying, checks, now, self._ask if self._is_much(window.entry_count) else None)
            self._queue.append(window)
            writing.submit(self._write_next)
        return window

    @staticmethod
    def _fits(window: _Window, entry_count: int) -> bool:
        """Say whether a window is taken along with others that have so many entries."""
        return window.is_checked and entry_count + window.entry_count <= TRANSACTION_ENTRIES

    def _is_much(self, entry_count: int) -> bool:
        """Count entries that came; says whether so many came lately that processes should verify."""
        now = time.monotonic()
        self._burst = entry_count + (self._burst if now - self._last < PAUSE_S else 0)
        self._last = now
        return self._burst >= BURST_ENTRIES

    def _ask(self, questions: list[Question], now: float) -> list[Answer]:
        with self._verifier() as verifier:
            return verifier.ask(questions, now)

    @contextmanager
    def _verifier(self) -> Iterator[Verifier]:
        """Give a process that at most one other asks meanwhile, as soon as there is one."""
        verifier = self._idle.get()
        try:
            yield verifier
        finally:
            self._idle.put(verifier)

    def _write_next(self) -> None:
        """Write the first window and those behind it that are checked as well."""
        windows: list[_Window] = []
        entry_count = 0
        with self._lock:
            while self._queue and (not windows or self._fits(self._queue[0], entry_count)):
                windows.append(self._queue.popleft())
                entry_count += windows[-1].entry_count
        if not windows:
            return  # an earlier call took it along
        try:
            arrivals = [check.wait() for window in windows for check in window.checks]
            with _brisk() if entry_count >= BRISK_ENTRIES else nullcontext():
                outcomes = self._write(arrivals)
        except BaseException as exc:
            for window in windows:
                window.outcomes.set_exception(exc)
            return
        for window in windows:
            count = len(window.checks)
            window.outcomes.set_result(outcomes[:count])
            del outcomes[:count]
        if entry_count >= WINDOW_ENTRIES:
            time.sleep(BREAK_S)


@contextmanager
def _brisk() -> Iterator[None]:
    """Let threads wait less for each other meanwhile.

    One that writes comes back from SQLite ten times a record, and would wait up to 5 ms for one that computes, as a
    search beside it would. Not always: what moves files is slower so.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _open(chain: tuple[SignedDocument, ...]) -> Identity | InvalidData:
    try:
        return open_identity(chain)
    except InvalidData as exc:
        return exc


def _windows(parts: Sequence[LogPart], sizes: Callable[[LogPart], int]) -> Iterator[list[PartCheck]]:
    checks: list[PartCheck] = []
    entry_count = size = 0
    for part in parts:
        # What is here already need not be verified again.
        skip = min(max(0, sizes(part) - part.start), len(part.entries))
        checks.append(PartCheck(part, skip))
        entry_count += checks[-1].entry_count + 1
        size += sum(map(len, part.entries))
        if entry_count >= WINDOW_ENTRIES or size >= WINDOW_BYTES:
            yield checks
            checks, entry_count, size = [], 0, 0
    if checks:
        yield checks
