"""Enter trio from plain code: run one async function to its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from p2phub.core.errors import HubError

T = TypeVar("T")


def run_to_end(function: Callable[[], Awaitable[T]]) -> T:
    """Return what `function` returns, run by trio.

    A HubError or KeyboardInterrupt that passed through a nursery comes out as itself,
    not as a group of one: callers are plain code.
    """
    try:
        return trio.run(function)
    except BaseExceptionGroup as group:
        for kind in (KeyboardInterrupt, HubError):
            inner, rest = group.split(kind)
            if inner is not None and (rest is None or kind is KeyboardInterrupt):
                raise _first(inner) from None
        raise


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
