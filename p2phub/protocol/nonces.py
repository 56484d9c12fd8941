"""Remember which signed requests came, so that none counts twice (spec/authority.md §1).

Each is remembered until its signature is too old for everybody. Nothing is forgotten
before, however many come: who fills its share, or all of it, is sent away instead.
"""

from __future__ import annotations

import heapq
from collections import Counter

from p2phub.core.errors import HubError, InvalidData
from p2phub.core.ids import NodeId

NODE_MAX = 8_192  # requests of one node; spec/authority.md §1
TOTAL_MAX = 131_072  # requests of all; spec/authority.md §1


class TooManyRequests(HubError):
    """More signed requests came lately than can be remembered."""


class Nonces:
    """The signed requests that came lately. Times are seconds of one clock."""

    def __init__(self, *, node_max: int = NODE_MAX, total_max: int = TOTAL_MAX) -> None:
        self._node_max = node_max
        self._total_max = total_max
        self._seen: set[tuple[NodeId, bytes]] = set()
        self._count: Counter[NodeId] = Counter()
        self._ends: list[tuple[float, NodeId, bytes]] = []  # a heap

    def note(self, node: NodeId, nonce: bytes, until: float, now: float) -> None:
        """Note a request, which nobody believes after `until`.

        Raises InvalidData if it came before, TooManyRequests if it cannot be remembered.
        """
        self._forget(now)
        if (node, nonce) in self._seen:
            raise InvalidData("the same signed request came before: each is good once")
        if self._count[node] >= self._node_max or len(self._seen) >= self._total_max:
            raise TooManyRequests("too many signed requests lately")
        self._seen.add((node, nonce))
        self._count[node] += 1
        heapq.heappush(self._ends, (until, node, nonce))

    def __len__(self) -> int:
        return len(self._seen)

    def _forget(self, now: float) -> None:
        while self._ends and self._ends[0][0] < now:
            _, node, nonce = heapq.heappop(self._ends)
            self._seen.discard((node, nonce))
            self._count[node] -= 1
            if not self._count[node]:
                del self._count[node]
