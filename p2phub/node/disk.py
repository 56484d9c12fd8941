"""The one place where work for the disk leaves trio: stores are synchronous, nodes are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import trio

from .events import Tell

# Threads that hash and touch the disk at once; transfers have threads of their own.
DISK_THREADS = 8

P = ParamSpec("P")
T = TypeVar("T")

_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("disk_limiter")
_inline: trio.lowlevel.RunVar[bool] = trio.lowlevel.RunVar("disk_inline", default=False)


async def on_disk(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `function` returns, run in a worker thread; it is waited for even when cancelled."""
    if _inline.get():
        # Others may run before it, as they may while a thread begins.
        await trio.lowlevel.checkpoint()
        return function(*args, **kwargs)
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(DISK_THREADS)
        _limiter.set(limiter)
    return await trio.to_thread.run_sync(lambda: function(*args, **kwargs), limiter=limiter)


def from_thread(tell: Tell) -> Tell:
    """Return a function that tells the same from a worker thread."""
    return tell if _inline.get() else lambda event: trio.from_thread.run_sync(tell, event)


def work_inline() -> None:
    """Let all work for the disk run in trio's own thread, in this run of trio.

    For a simulation: its clock would run ahead while a thread works, and threads end in any order.
    """
    _inline.set(True)
