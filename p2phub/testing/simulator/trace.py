"""What happened in a simulation, a line each, the same lines for the same seed (spec/simulation.md §4).

seconds  host  kind   what
  12.482 n017  ask    n003 POST /v1/announce 412 → 204
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from hashlib import blake2b
from typing import Literal, get_args

import trio

from .sockets import current_host

Kind = Literal["world", "log", "ask", "net"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # from what is rare to what is frequent


class Trace:
    """Takes the lines of one run. All of them count for `digest`; those of `kinds` are given to `write`."""

    def __init__(self, write: Callable[[str], None] | None = None, kinds: Collection[Kind] = KINDS) -> None:
        self._write = write
        self._kinds = frozenset(kinds)
        self._hash = blake2b(digest_size=16)
        self.lines = 0

    def note(self, kind: Kind, host: str, text: str) -> None:
        """Add a line."""
        line = f"{trio.current_time():11.3f} {host:5} {kind:5} {text}"
        self._hash.update(line.encode() + b"\n")
        self.lines += 1
        if self._write is not None and kind in self._kinds:
            self._write(line)

    @property
    def digest(self) -> str:
        """32 hex digits that are equal if all lines so far are."""
        return self._hash.hexdigest()


class LogLines(logging.Handler):
    """Takes what nodes log into a trace, with the name of the node."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(logging.INFO)
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        host = current_host()
        if host is not None:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f": {record.exc_info[1]!r}"
            self._trace.note("log", host.name, f"{record.levelname.lower()}: {text}")
