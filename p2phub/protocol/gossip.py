"""Decide which neighbour is told which news, and when (spec/gossip.md §3).

News is that a log has come further. Some neighbours get it whole and at once (*eager*
links); the others get word that it is there a moment later, and ask for it if it has not
come to them by then (*lazy* links).

    changed ──▶ Gossip ──due──▶ Telling ──answer──▶ told: wanted? known already?

A link on which news came twice becomes lazy, one on which something was missing becomes
eager: so the eager links come near a tree, and each node gets each news about twice. What
a neighbour has not been told adds up to one state a log, however often it changes.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable

from msgspec import Struct, field

from p2phub.core.ids import LogId, NodeId

EAGER_MIN = 2  # links that stay eager however often news comes twice; spec/gossip.md §3
EAGER_MAX = 3  # links that begin eager; spec/gossip.md §3
LAZY_S = 1.0  # seconds until neighbours on lazy links get word; spec/gossip.md §3
PENDING_MAX = 4096  # logs that wait for one neighbour; of more, it finds out by itself
WHOLE_MAX = 16  # logs told whole in one message
WORD_MAX = 1000  # logs of which one message brings word

Mark = tuple[int, int]  # how far a log is: records, and the version of its identity


class Telling(Struct, frozen=True):
    """One message to one neighbour; report `told` or `failed`."""

    to: NodeId
    whole: dict[LogId, int]  # logs to send, and from which record on the neighbour is likely to need them
    word: tuple[LogId, ...]  # logs to say of that they are here


class _Pending(Struct):
    """What a neighbour is to be told of one log."""

    mark: Mark
    start: int  # records that the neighbour is likely to have
    at: float  # seconds, when
    whole: bool


class _Link(Struct):
    eager: bool
    busy: bool = False  # a message is on its way
    not_before: float = 0.0  # seconds
    pending: dict[LogId, _Pending] = field(default_factory=dict)


class Gossip:
    """What one node's neighbours are still to be told. Times are seconds of one clock."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._links: dict[NodeId, _Link] = {}

    def set_neighbours(self, nodes: Iterable[NodeId]) -> None:
        """Note who is a neighbour now."""
        wanted = list(dict.fromkeys(nodes))
        for gone in [node for node in self._links if node not in wanted]:
            del self._links[gone]
        for node in wanted:
            if node not in self._links:
                self._links[node] = _Link(eager=self._eager() < EAGER_MAX)
        # Those that were left may all be lazy.
        lazy = [link for link in self._links.values() if not link.eager]
        for link in self._rng.sample(lazy, min(len(lazy), max(0, EAGER_MIN - self._eager()))):
            link.eager = True

    def changed(self, log: LogId, mark: Mark, start: int, now: float, *, source: NodeId | None = None) -> None:
        """Note that a log came further, from `start` records on.

        source: the neighbour from which it came, which is not told.
        """
        for node, link in self._links.items():
            if node == source:
                continue
            old = link.pending.get(log)
            at = now if link.eager else now + LAZY_S * self._rng.uniform(0.7, 1.3)
            if old is not None:
                pending = _Pending(mark, min(start, old.start), min(at, old.at), old.whole or link.eager)
            elif len(link.pending) < PENDING_MAX:
                pending = _Pending(mark, start, at, link.eager)
            else:
                continue
            link.pending[log] = pending

    def remind(self, node: NodeId, log: LogId, now: float) -> None:
        """Let one neighbour have word of a log, whether or not it changed."""
        link = self._links.get(node)
        if link and log not in link.pending and len(link.pending) < PENDING_MAX:
            # However far it is: what is sent is how far it is then.
            link.pending[log] = _Pending((0, 0), 0, now, whole=False)

    def due(self, now: float) -> list[Telling]:
        """Return the messages to send now, one a neighbour, and count them as sent."""
        tellings = []
        for node, link in self._links.items():
            if link.busy or now < link.not_before:
                continue
            ready = [(log, pending) for log, pending in link.pending.items() if pending.at <= now]
            whole = {log: pending.start for log, pending in ready if pending.whole}
            whole = dict(list(whole.items())[:WHOLE_MAX])
            word = tuple(log for log, pending in ready if not pending.whole)[:WORD_MAX]
            if whole or word:
                link.busy = True
                for log in (*whole, *word):
                    del link.pending[log]
                tellings.append(Telling(node, whole, word))
        return tellings

    def next_at(self) -> float | None:
        """Return when `due` has something to return next, None if nothing waits; what is on its way aside."""
        times = [
            max(link.not_before, min(pending.at for pending in link.pending.values()))
            for link in self._links.values()
            if link.pending and not link.busy
        ]
        return min(times, default=None)

    def told(self, telling: Telling, *, wanted: dict[LogId, tuple[Mark, int]], was_news: bool, now: float) -> None:
        """Note the answer to a message.

        wanted: of the logs that word was brought of, those that the neighbour has not, how far
        they are, and how many records of each it has. was_news: it did not have all that was sent whole.
        """
        link = self._links.get(telling.to)
        if link is None:
            return
        link.busy = False
        if wanted:
            link.eager = True
            for log, (mark, start) in wanted.items():
                link.pending[log] = _Pending(mark, start, now, whole=True)
        elif telling.whole and not was_news:
            self._make_lazy(link)

    def failed(self, to: NodeId) -> None:
        """Note that a message did not arrive: the neighbour finds out by itself, if it is still there."""
        if link := self._links.get(to):
            link.busy = False

    def put_off(self, telling: Telling, marks: dict[LogId, Mark], until: float) -> None:
        """Note that a neighbour takes nothing more until `until`; what was to be told it waits."""
        link = self._links.get(telling.to)
        if link is None:
            return
        link.busy = False
        link.not_before = until
        for log, mark in marks.items():
            start = telling.whole.get(log, 0)
            if log not in link.pending and len(link.pending) < PENDING_MAX:
                link.pending[log] = _Pending(mark, start, until, log in telling.whole)

    def came(self, source: NodeId, *, was_news: bool) -> None:
        """Note that `source` sent something whole, and whether any of it was news."""
        link = self._links.get(source)
        if link is None:
            return
        if was_news:
            link.eager = True
        else:
            self._make_lazy(link)

    def knows(self, node: NodeId, log: LogId, mark: Mark) -> None:
        """Note that a neighbour has a log as far as `mark`, so that it need not be told."""
        link = self._links.get(node)
        pending = link.pending.get(log) if link else None
        if link and pending and pending.mark != (0, 0) and pending.mark[0] <= mark[0] and pending.mark[1] <= mark[1]:
            del link.pending[log]

    def eager(self) -> Collection[NodeId]:
        """Return the neighbours that get news whole."""
        return [node for node, link in self._links.items() if link.eager]

    def _eager(self) -> int:
        return sum(link.eager for link in self._links.values())

    def _make_lazy(self, link: _Link) -> None:
        if link.eager and self._eager() > EAGER_MIN:
            link.eager = False
