"""Parts that are made when they are first asked for, once, whichever thread asks.

A command does one thing, and finding and reading the code of all that a home can do takes
longer than most of what people ask of it. So what not every command needs is imported in
the function that makes it. (functools.cached_property makes two, where two threads ask.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")

# One for all, since parts are made of parts.
_making = threading.RLock()


class made_once(Generic[T]):
    """A method that makes a part of an object, read like an attribute: `@made_once`."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> made_once[T]: ...

    @overload
    def __get__(self, owner: object, kind: type) -> T: ...

    def __get__(self, owner: object | None, kind: type) -> T | made_once[T]:
        if owner is None:
            return self
        # Only until it is made: from then on Python finds it in the object itself.
        with _making:
            made = vars(owner)
            if self._name not in made:
                made[self._name] = self._make(owner)
            part: T = made[self._name]
            return part


def is_made(owner: object, name: str) -> bool:
    """Say whether a part was asked for."""
    return name in vars(owner)


def make_all(owner: object) -> None:
    """Make every part that was not asked for yet: in what runs for long, nobody is to wait for one later."""
    for name, value in vars(type(owner)).items():
        if isinstance(value, made_once):
            getattr(owner, name)
