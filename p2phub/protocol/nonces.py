"""Remember which signed requests came, so that none counts twice (spec/authority.md §1).

Each is remembered until its signature is too old for everybody. Nothing is forgotten
before, however many come: who fills its share, or that of its network, is sent away instead.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import TypeVar

from p2phub.core.errors import HubError, InvalidData
from p2phub.core.ids import NodeId

NODE_MAX = 8_192  # requests of one node; spec/authority.md §1
NETWORK_MAX = 16_384  # requests from one network; spec/authority.md §1
TOTAL_MAX = 131_072  # requests of all; spec/authority.md §1

K = TypeVar("K")


class TooManyRequests(HubError):
    """More signed requests came lately than can be remembered."""


class Nonces:
    """The signed requests that came lately. Times are seconds of one clock."""

    def __init__(self, *, node_max: int = NODE_MAX, network_max: int = NETWORK_MAX, total_max: int = TOTAL_MAX) -> None:
        self._node_max = node_max
        self._network_max = network_max
        self._total_max = total_max
        self._seen: set[tuple[NodeId, bytes]] = set()
        self._of_node: Counter[NodeId] = Counter()
        self._of_network: Counter[str] = Counter()
        self._ends: list[tuple[float, NodeId, bytes, str]] = []  # a heap

    def note(self, node: NodeId, nonce: bytes, until: float, now: float, *, network: str = "") -> None:
        """Note a request, which nobody believes after `until`. network: from where it came; keys cost nothing.

        Raises InvalidData if it came before, TooManyRequests if it cannot be remembered.
        """
        self._forget(now)
        if (node, nonce) in self._seen:
            raise InvalidData("the same signed request came before: each is good once")
        is_full = self._of_node[node] >= self._node_max or self._of_network[network] >= self._network_max
        if is_full or len(self._seen) >= self._total_max:
            raise TooManyRequests("too many signed requests lately")
        self._seen.add((node, nonce))
        self._of_node[node] += 1
        self._of_network[network] += 1
        heapq.heappush(self._ends, (until, node, nonce, network))

    def __len__(self) -> int:
        return len(self._seen)

    def _forget(self, now: float) -> None:
        while self._ends and self._ends[0][0] < now:
            _, node, nonce, network = heapq.heappop(self._ends)
            self._seen.discard((node, nonce))
            _take_one(self._of_node, node)
            _take_one(self._of_network, network)


def _take_one(count: Counter[K], key: K) -> None:
    count[key] -= 1
    if not count[key]:
        del count[key]
