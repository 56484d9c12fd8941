"""Compare heads with the records that are here, and remember what came out (spec/checkpoint.md §4)."""

from __future__ import annotations

from p2phub.core.checkpoint import Head
from p2phub.store.logs import LogState
from p2phub.store.store import Store


def is_history(store: Store, state: LogState, head: Head) -> bool:
    """Say whether a log had the root of `head`, which is not longer, at its size."""
    if head.size == state.size:
        return head.root == state.root
    # The root says what all roots before it were.
    question = (state.root, head.size, head.root)
    if question not in store.fresh.proven:
        is_one = store.logs.root(state.log, head.size) == head.root
        store.fresh.note_proven(question, is_one)
    return store.fresh.proven[question]
