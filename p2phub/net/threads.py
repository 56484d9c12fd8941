"""Run blocking work on a connection in a thread, from trio."""

from __future__ import annotations

from collections.abc import Callable

import trio


async def run_abortable(work: Callable[[], None], abort: Callable[[], None], limiter: trio.CapacityLimiter) -> None:
    """Run `work` in a thread. When cancelled, call `abort`, which makes it end soon, and still wait for it.

    Nothing is left running that uses what the caller closes. Raises what `work` raises.
    """
    done = trio.Event()

    async def abort_when_cancelled() -> None:
        try:
            await done.wait()
        except trio.Cancelled:
            abort()
            raise

    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(abort_when_cancelled)
        with trio.CancelScope(shield=True):
            try:
                await trio.to_thread.run_sync(work, limiter=limiter)
            except Exception as exc:
                error = exc
        done.set()
    # Out here, so that callers meet the error itself and not a group of one.
    if error is not None:
        raise error
