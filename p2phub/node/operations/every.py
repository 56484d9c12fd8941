"""All operations at once, for who is to understand whichever comes."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any, Union

from . import Operation, __path__

# All the modules beside this one, so that none is forgotten.
_SUBJECTS = [
    import_module(f"{__package__}.{module.name}") for module in pkgutil.iter_modules(__path__) if module.name != "every"
]

EVERY: tuple[type[Operation], ...] = tuple(
    each
    for subject in _SUBJECTS
    for each in vars(subject).values()
    if isinstance(each, type) and issubclass(each, Operation) and each is not Operation
)
AnyOperation: Any = Union[EVERY]  # noqa: UP007 (`|` joins two types, not a tuple of them)
