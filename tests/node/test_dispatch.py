"""Each operation is done by something, and only that is loaded."""

from __future__ import annotations

import pytest

from p2phub.node.dispatch import handler_of
from p2phub.node.operations.every import EVERY


@pytest.mark.parametrize("operation", sorted(EVERY, key=lambda each: each.__name__), ids=lambda each: each.__name__)
def test_every_operation_is_done_by_something(operation) -> None:
    assert callable(handler_of(operation))
