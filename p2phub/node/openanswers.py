"""End answers that are being sent to who may not have them any more (spec/authority.md §5).

    grant taken back, key retired, time over ──▶ look again at every open answer ──▶ cut its connection

An answer of 64 MiB over a slow line takes long. So what is not for everybody is looked at
again each second while it is sent, and all of it as soon as somebody says that something changed.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Iterator

import trio
from msgspec import Struct

from p2phub.core.access import Caller

log = logging.getLogger(__name__)

LOOK_S = 1.0  # seconds between looks at answers that are not for everybody; spec/authority.md §5


class _Open(Struct, eq=False):
    """An answer that is being sent."""

    caller: Caller
    identifiers: Collection[bytes]
    is_restricted: bool  # not for everybody
    scope: trio.CancelScope


class OpenAnswers:
    """The answers with content that a node is sending."""

    def __init__(self, has_lost: Callable[[Caller, Collection[bytes]], Awaitable[bool]]) -> None:
        """has_lost: says whether a caller may not have all of some files any more."""
        self._has_lost = has_lost
        self._open: set[_Open] = set()
        self._woken = trio.Event()
        self._has_changed = False
        self._token: trio.lowlevel.TrioToken | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._open)

    @contextlib.contextmanager
    def sending(
        self, caller: Caller, identifiers: Collection[bytes], *, is_restricted: bool, scope: trio.CancelScope
    ) -> Iterator[None]:
        """Cancel `scope` if the caller loses any of the files while the block runs."""
        answer = _Open(caller, identifiers, is_restricted, scope)
        if is_restricted and not self._is_any_restricted():
            self._woken.set()
        self._open.add(answer)
        try:
            yield
        finally:
            self._open.discard(answer)

    def note_change(self) -> None:
        """Note that somebody may have lost something. From any thread."""
        self._has_changed = True
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(lambda: self._woken.set())

    async def watch(self) -> None:
        """End answers until cancelled."""
        self._token = trio.lowlevel.current_trio_token()
        while True:
            with trio.move_on_after(LOOK_S if self._is_any_restricted() else math.inf) as waiting:
                await self._woken.wait()
            self._woken = trio.Event()
            changed, self._has_changed = self._has_changed, False
            if changed or waiting.cancelled_caught:
                await self._look(all_of_them=changed)

    async def _look(self, *, all_of_them: bool) -> None:
        for answer in [each for each in self._open if all_of_them or each.is_restricted]:
            if await self._has_lost(answer.caller, answer.identifiers):
                log.info("ended an answer to %s, who may not have it any more", answer.caller.node or "anybody")
                answer.scope.cancel()

    def _is_any_restricted(self) -> bool:
        return any(answer.is_restricted for answer in self._open)
