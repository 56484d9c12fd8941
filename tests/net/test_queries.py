from __future__ import annotations

from contextlib import ExitStack

import pytest

from p2phub.net import queries
from p2phub.net.queries import LARGE_QUERIES_EACH_MAX, LARGE_QUERIES_MAX, Query
from p2phub.protocol.messages import FRAME_SIZE_MAX, LARGE_QUERY_SIZE_MAX


def test_small_queries_are_not_counted() -> None:
    with ExitStack() as stack:
        for _ in range(10 * LARGE_QUERIES_MAX):
            assert stack.enter_context(Query("a")).may_have(FRAME_SIZE_MAX)


@pytest.mark.parametrize(("callers", "most"), [(1, LARGE_QUERIES_EACH_MAX), (100, LARGE_QUERIES_MAX)])
def test_so_many_large_ones_are_read_at_once(callers: int, most: int) -> None:
    with ExitStack() as stack:
        allowed = [
            stack.enter_context(Query(str(number % callers))).may_have(LARGE_QUERY_SIZE_MAX) for number in range(200)
        ]
        assert allowed.count(True) == most
        # One that grows while it is read is asked about again and again.
        stack.enter_context(Query("late")).may_have(FRAME_SIZE_MAX)
    assert not queries._large
    with Query("0") as query:
        assert query.may_have(FRAME_SIZE_MAX)
        assert query.may_have(FRAME_SIZE_MAX + 1)
        assert query.may_have(LARGE_QUERY_SIZE_MAX)
        assert queries._large.total() == 1
