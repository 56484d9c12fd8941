"""Records of the own log that no other node takes in yet: they were signed by a clock that was far ahead.

They hold up all records behind them for as long as the clock was ahead. `conflicts.reopen_log` is the way out.
"""

from __future__ import annotations

from bisect import bisect_right

from p2phub.core.ages import describe_gap
from p2phub.core.ids import LogId
from p2phub.core.records import SKEW_MAX_S, Publish, read_entry

from .node import Node
from .operations.status import EarlyRecords

WAY_OUT = (
    "if the clock is right now, `p2phub id reopen` gives them up and goes on in a new log;"
    " what they said is to be said again"
)


def early_records(node: Node, log: LogId) -> EarlyRecords | None:
    """Return which records at the end of `log` are further ahead of this machine's clock than others take them in.

    None if there are none.
    """
    state = node.store.logs.state(log)
    if state is None or not state.size:
        return None
    now = node.clock()
    newest = _time(node, log, state.size - 1)
    if newest <= now + SKEW_MAX_S:
        return None
    # The times of a log never go back.
    first = bisect_right(range(state.size), now + SKEW_MAX_S, key=lambda index: _time(node, log, index))
    return EarlyRecords(first, state.size - first, int(newest - now))


def describe_early(early: EarlyRecords) -> str:
    """Return what people are told of such records."""
    gap = describe_gap(early.ahead)
    if early.count == 1:
        return f"the newest record of the own log is {gap} ahead of the clock, and no other node takes it in before"
    which = f"the newest {early.count} records of the own log"
    return f"{which} are up to {gap} ahead of the clock, and no other node takes them in before"


def names_published(node: Node, log: LogId, first: int) -> list[str]:
    """Return what the records of `log` from `first` on published, as `MODEL@VERSION` or `MODEL`, each once."""
    state = node.store.logs.state(log)
    names = {}
    for index in range(first, state.size if state else 0):
        entry = node.store.logs.entry(log, index)
        record = read_entry(entry).record if entry else None
        if isinstance(record, Publish):
            names[f"{record.model}@{record.version}" if record.version else record.model] = True
    return list(names)


def _time(node: Node, log: LogId, index: int) -> int:
    entry = node.store.logs.entry(log, index)
    # What cannot be read keeps nobody from being told of the rest.
    return read_entry(entry).record.time if entry else 0
