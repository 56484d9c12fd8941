"""Let what is sent on one connection yield to everything else on its way (spec/links.md §5).

    TCP_INFO of the connection ──▶ Ledbat ──▶ a rate, kept here before each piece and smoothed by the kernel

Where the kernel tells nothing of a connection (other systems than Linux), only the limits
that background answers share hold it back.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time

from p2phub.protocol.ledbat import RATE_MAX, RATE_START, STEP_S, Ledbat, Sample

from .pacing import Pacer, RateLimit

PIECE_S = 0.01  # seconds of the rate that pass at once: short beside a step, in which is counted what arrives
IS_SUPPORTED = sys.platform == "linux"
DSCP_LOWER_EFFORT = 1 << 2  # as the byte that holds it; RFC 8622
# The kernel spreads what passes here over time, a little faster, so that it rather fills than holds back.
SMOOTHING = 1.25
SMOOTHED_MIN = 512 * 1024  # bytes a second; below, pieces are small enough
# Bytes that wait in the socket for the network, beyond the reach of a cut: so many seconds of the rate.
UNSENT_S = 0.05
UNSENT_MIN, UNSENT_MAX = 16 * 1024, 2**31 - 1

_SO_MAX_PACING_RATE = 47  # Linux; asm-generic/socket.h
_UNLIMITED = 2**32 - 1  # bytes a second, for the kernel
_INFO_SIZE = 192  # bytes of struct tcp_info, as far as it is read here; linux/tcp.h
_NUMBERS = struct.Struct("=xB6x24I4Q4I")
_RECOVERY = 3  # of tcpi_ca_state; from it on packets were lost, and not only late or in disorder


class YieldingLimit(RateLimit):
    """The rate of one connection while it yields. `begin` and `end` stand around each answer."""

    piece_s = PIECE_S

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._ledbat = Ledbat(RATE_START)
        self._last_step = 0.0
        self._control = b""

    def begin(self, rate_min: int) -> None:
        """Yield from now on, down to `rate_min` bytes a second."""
        self._mark(DSCP_LOWER_EFFORT)
        if not IS_SUPPORTED:
            return
        self._ledbat.rate_min = rate_min
        self._ledbat.rest()
        self._control = self._set_control(b"reno")
        self._keep(self._ledbat.rate)

    def end(self) -> None:
        """Do not yield any more."""
        self._mark(0)
        if IS_SUPPORTED:
            self.set_rate(None)
            self._smooth(_UNLIMITED, UNSENT_MAX)
            self._set_control(self._control)

    def wait(self, size: int, pacer: Pacer) -> None:
        if self.rate is not None:
            now = time.monotonic()
            if now - self._last_step >= STEP_S:
                self._last_step = now
                self._step(now)
        super().wait(size, pacer)

    def _step(self, now: float) -> None:
        try:
            sample = _sample(self._connection, held_back=self.held_back())
        except OSError:
            return  # it is gone, as whoever sends notices soon
        if sample is not None:
            self._keep(self._ledbat.step(sample, now))

    def _keep(self, rate: float) -> None:
        self.set_rate(int(rate))
        self._smooth(int(min(max(rate * SMOOTHING, SMOOTHED_MIN), RATE_MAX)), max(UNSENT_MIN, int(rate * UNSENT_S)))

    def _smooth(self, rate: int, unsent: int) -> None:
        with contextlib.suppress(OSError):
            self._connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("=I", rate))
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)

    def _set_control(self, name: bytes) -> bytes:
        """Choose how TCP itself answers to congestion; returns what it was before.

        Some ways push their queue upon others whatever they meet; the oldest gives way.
        """
        before = name
        with contextlib.suppress(OSError):
            before = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
        return before

    def _mark(self, traffic_class: int) -> None:
        """Set the byte of the IP header that tells routers what kind of traffic this is."""
        with contextlib.suppress(OSError):
            if self._connection.family == socket.AF_INET6:
                self._connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
            else:
                self._connection.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)


def _sample(connection: socket.socket, *, held_back: bool) -> Sample | None:
    """Return what the kernel says of a connection, None if it says too little. Raises OSError."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    if len(info) < _NUMBERS.size:
        return None
    numbers = _NUMBERS.unpack_from(info)
    # In the order of struct tcp_info; times are in microseconds.
    state, rtt, bytes_acked, min_rtt = numbers[0], numbers[16], numbers[27], numbers[32]
    return Sample(rtt / 1e6, min_rtt / 1e6, bytes_acked, state >= _RECOVERY, held_back)
