"""What does an operation, as a type."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .events import Tell
from .node import Node
from .operations import Operation

Handler = Callable[[Node, Any, Tell], Awaitable[Any]]
Handlers = dict[type[Operation], Handler]
