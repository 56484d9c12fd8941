"""Which domains this node asks now, and which it asked in vain lately: each once, whoever else wants to know."""

from __future__ import annotations

import trio

from p2phub.core.errors import HubError

FAILED_S = 20.0  # seconds that a domain which could not be believed is not asked again by itself; spec/names.md §8
FAILED_MAX = 1000  # domains of which that is remembered


class Naming:
    """What one node does with domains. Used from trio's thread."""

    def __init__(self) -> None:
        self._failed: dict[str, tuple[float, HubError]] = {}  # until when, in trio's seconds; the oldest first
        self._asking: dict[str, trio.Lock] = {}

    def one_at_a_time(self, domain: str) -> trio.Lock:
        """Return the lock of those who ask `domain`."""
        self._asking = {name: lock for name, lock in self._asking.items() if lock.locked()}
        return self._asking.setdefault(domain, trio.Lock())

    def failure(self, domain: str) -> HubError | None:
        """Return why `domain` could not be believed, if that was found just now."""
        until, error = self._failed.get(domain, (0.0, None))
        return error if until > trio.current_time() else None

    def note_failure(self, domain: str, error: HubError) -> None:
        """Remember for a while that `domain` could not be believed."""
        self._failed.pop(domain, None)
        self._failed[domain] = (trio.current_time() + FAILED_S, error)
        if len(self._failed) > FAILED_MAX:
            del self._failed[next(iter(self._failed))]
