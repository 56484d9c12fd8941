"""Record all that crosses the link of a machine of netns.py, and put the TCP streams in it together.

    with capturing(machine, tmp_path / "link") as capture:
        ...
    assert secret not in capture.everything()

Needs Linux and root, as netns.py does.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .netns import Machine

# Runs in the namespace. Frames go to a file, each behind its length; in the end it says how many were lost.
_RECORD = """
import socket, struct, sys, select
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.setsockopt(socket.SOL_SOCKET, 33, 64 * 1024 * 1024)  # SO_RCVBUFFORCE
link.bind(("eth0", 0))
print("ready", flush=True)
with open(sys.argv[1], "wb") as file:
    ended = False
    while True:
        ready, _, _ = select.select([link] if ended else [link, sys.stdin], [], [], 0.3 if ended else None)
        if link in ready:
            frame = link.recv(1 << 18)
            file.write(struct.pack(">I", len(frame)) + frame)
        elif ended:
            break
        if sys.stdin in ready:
            ended = True
print(struct.unpack("II", link.getsockopt(263, 6, 8))[1], flush=True)  # SOL_PACKET, PACKET_STATISTICS
"""

_ETHERNET, _TCP = 14, 6
_IPV4 = 0x0800

Flow = tuple[bytes, bytes]  # source and destination: address and port of each


@dataclass
class Capture:
    """What was recorded, once it is over."""

    path: Path
    lost: int = -1  # frames; -1: it is not over

    def frames(self) -> Iterator[bytes]:
        """Yield the frames, in order."""
        data = self.path.read_bytes()
        at = 0
        while at + 4 <= len(data):
            (length,) = struct.unpack_from(">I", data, at)
            yield data[at + 4 : at + 4 + length]
            at += 4 + length

    def streams(self) -> dict[Flow, bytes]:
        """Return the bytes of each direction of each TCP connection, put together."""
        parts: dict[Flow, dict[int, bytes]] = {}
        for frame in self.frames():
            if len(frame) < _ETHERNET + 20 or struct.unpack_from(">H", frame, 12)[0] != _IPV4:
                continue
            head = _ETHERNET + (frame[_ETHERNET] & 15) * 4
            end = _ETHERNET + struct.unpack_from(">H", frame, _ETHERNET + 2)[0]
            if frame[_ETHERNET + 9] != _TCP or len(frame) < head + 20:
                continue
            # A frame that the kernel has yet to cut up may say that it has no length.
            payload = frame[head + (frame[head + 12] >> 4) * 4 : end if end > _ETHERNET else None]
            flow = (
                frame[_ETHERNET + 12 : _ETHERNET + 16] + frame[head : head + 2],
                frame[_ETHERNET + 16 : _ETHERNET + 20] + frame[head + 2 : head + 4],
            )
            (sequence,) = struct.unpack_from(">I", frame, head + 4)
            if payload:
                known = parts.setdefault(flow, {})
                if len(payload) > len(known.get(sequence, b"")):
                    known[sequence] = payload
        return {flow: _joined(known) for flow, known in parts.items()}

    def everything(self) -> bytes:
        """Return all frames, and then all streams."""
        return b"\0".join([*self.frames(), *self.streams().values()])


def _joined(parts: dict[int, bytes]) -> bytes:
    """Return what stands at consecutive places of a stream; what was sent twice once. A stream is short of 2 GiB."""
    first = min(parts, key=lambda sequence: (sequence - next(iter(parts)) + 2**31) % 2**32)
    found = bytearray()
    for sequence in sorted(parts, key=lambda sequence: (sequence - first) % 2**32):
        at = (sequence - first) % 2**32
        if at + len(parts[sequence]) > len(found):
            found[at:] = parts[sequence]
    return bytes(found)


@contextlib.contextmanager
def capturing(machine: Machine, path: Path) -> Iterator[Capture]:
    """Record the link of a machine during the block. AssertionError at the end if frames were lost."""
    recorder = machine.popen(
        [sys.executable, "-c", _RECORD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    capture = Capture(path)
    with recorder:
        assert recorder.stdout
        assert recorder.stdin
        assert recorder.stdout.readline() == "ready\n"
        try:
            yield capture
        finally:
            recorder.stdin.close()
            capture.lost = int(recorder.stdout.readline() or -1)
    assert capture.lost == 0, f"{capture.lost} frames were not recorded"
