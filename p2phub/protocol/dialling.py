"""Decide whether an address may be called, so that nobody can direct calls at others (spec/gossip.md §5).

Anybody can sign a record that names a stranger's address. Whoever really answers there
proves its node id in the handshake; then the address is *proven*. Calls to others are few,
and none is repeated soon: of a thousand false records each node follows a handful, once.
"""

from __future__ import annotations

from p2phub.core.links import network_of

from .tokens import Allowance, Tokens

UNPROVEN = Allowance(burst=64, rate=1.0)  # calls to unproven addresses, of all together; spec/gossip.md §5
UNPROVEN_NETWORK = Allowance(burst=8, rate=1 / 60)  # of these, into one network; spec/gossip.md §5
HOLD_S = (600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)  # until an address that proved nothing is called again; §5
PROVEN_S = 24 * 3600.0  # seconds that a proof counts; spec/gossip.md §5
KNOWN_MAX = 10_000  # addresses of which is remembered what came of them


class Dialling:
    """What came of the calls of one node. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._proven: dict[tuple[str, int], float] = {}  # until when; the oldest first
        # By place, how often nothing was proven there, and until when nobody calls there.
        self._held: dict[str, tuple[int, float]] = {}
        self._all = Tokens(UNPROVEN)
        self._networks = Tokens(UNPROVEN_NETWORK)

    def may_call(self, host: str, port: int, now: float) -> bool:
        """Say whether an address that others named may be called now, and count the call if it is unproven."""
        if self._proven.get((host, port), now) > now:
            return True
        if self._held.get(_place(host, port), (0, now))[1] > now:
            return False
        network = network_of(host, bits_v4=24, bits_v6=48)
        if network is not None and self._networks.take(network, 1, now):
            return False
        return not self._all.take(None, 1, now)

    def proved(self, host: str, port: int, now: float) -> None:
        """Note that whoever was called there is who it should be."""
        self._held.pop(_place(host, port), None)
        self._proven.pop((host, port), None)
        self._proven[host, port] = now + PROVEN_S
        if len(self._proven) > KNOWN_MAX:
            del self._proven[next(iter(self._proven))]

    def failed(self, host: str, port: int, now: float) -> None:
        """Note that nobody there proved to be who was called."""
        if (host, port) in self._proven:
            return
        count = self._held.pop(_place(host, port), (0, now))[0]
        self._held[_place(host, port)] = (count + 1, now + HOLD_S[min(count, len(HOLD_S) - 1)])
        if len(self._held) > KNOWN_MAX:
            del self._held[next(iter(self._held))]

    def called_from(self, host: str, port: int) -> None:
        """Note that a node which names the address called from its host by itself: so it is no stranger's."""
        self._held.pop(_place(host, port), None)


def _place(host: str, port: int) -> str:
    """Return what is left alone once a call proved nothing: all of a public host, or one port of another."""
    return host if network_of(host, bits_v4=32, bits_v6=64) is not None else f"{host} {port}"
