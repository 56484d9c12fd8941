"""Keep the connections to peers for the next question.

A command asks one peer several times, and a daemon asks each again and again; every new
connection would cost a TLS handshake and a hello. So a client is kept for a while, and
shared by all who call its peer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import trio
from msgspec import Struct

from p2phub.core.errors import PeerUnreachable, PeerViolation
from p2phub.core.ids import NodeId
from p2phub.core.signing import SigningKey
from p2phub.net.peerclient import PeerClient
from p2phub.net.signer import Signer

GREET_S = 5.0  # seconds until a peer that is called again is greeted again, as it may know others by now
KEEP_S = 60.0  # seconds that a client is kept unused; a server closes after 120, spec/transport.md §3
KEPT_MAX = 64  # clients kept unused
SIGNERS_MAX = 4096  # peers of which it is remembered what they were told of us


class Call(Struct):
    """A client whose peer has answered a hello."""

    client: PeerClient
    greeted: float  # seconds of trio's clock: when it last did
    used: float  # seconds: when the client was last given back
    users: int = 0

    @property
    def is_greeted(self) -> bool:
        """Whether the peer answered a hello lately."""
        return trio.current_time() - self.greeted < GREET_S


class Calls:
    """The clients of one node, one for each peer."""

    def __init__(self, key: SigningKey, clock: Callable[[], float]) -> None:
        """key: the node's; clock: says the time, in seconds since 1970."""
        self._kept: dict[NodeId, Call] = {}
        self._key = key
        self._clock = clock
        # The least lately asked for first. One that is forgotten costs telling its peer again.
        self._signers: dict[NodeId, Signer] = {}

    def signer(self, peer: NodeId) -> Signer:
        """Return what signs requests to `peer`: what it was told outlives the connections to it."""
        signer = self._signers.pop(peer, None) or Signer(self._key, peer, self._clock)
        self._signers[peer] = signer
        while len(self._signers) > SIGNERS_MAX:
            del self._signers[next(iter(self._signers))]
        return signer

    def clocks(self) -> list[float]:
        """Return by how many seconds the clocks of peers are ahead of ours, of each that answered lately."""
        return [each.clock_ahead_s for each in self._signers.values() if each.clock_ahead_s is not None]

    def apart(self) -> str:
        """Return whose clocks differ from ours by more than they may, as people say it; empty if there are none."""
        said = [each.difference for each in self._signers.values() if each.is_apart]
        more = f", and those of {len(said) - 1} more peers are wrong too, or this machine's is" if said[1:] else ""
        return said[0] + more if said else ""

    def find(self, peer: NodeId, endpoints: Collection[tuple[str, int]]) -> Call | None:
        """Return the call to `peer` at one of `endpoints` that is kept, None if there is none."""
        call = self._kept.get(peer)
        return call if call and (call.client.host, call.client.port) in endpoints else None

    @contextmanager
    def use(self, call: Call) -> Iterator[PeerClient]:
        """Give the client of `call`, and keep it afterwards, unless the peer could not be reached or lied."""
        peer = call.client.node
        if (other := self._kept.get(peer)) is not call:
            self._kept[peer] = call
            self._close_unused(other)
        call.users += 1
        try:
            yield call.client
        except (PeerUnreachable, PeerViolation):
            # It may be elsewhere by now.
            if self._kept.get(peer) is call:
                del self._kept[peer]
            raise
        finally:
            call.users -= 1
            call.used = trio.current_time()
            if self._kept.get(peer) is not call:
                self._close_unused(call)
            self._forget_old()

    def close(self) -> None:
        """Close all clients; nobody may use one any more."""
        for call in self._kept.values():
            call.client.close()
        self._kept.clear()

    def _forget_old(self) -> None:
        unused = sorted((call.used, peer) for peer, call in self._kept.items() if not call.users)
        too_many = len(unused) - KEPT_MAX
        for place, (used, peer) in enumerate(unused):
            if place < too_many or used < trio.current_time() - KEEP_S:
                self._kept.pop(peer).client.close()

    def _close_unused(self, call: Call | None) -> None:
        if call and not call.users:
            call.client.close()
