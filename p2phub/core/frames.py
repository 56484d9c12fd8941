"""Encrypted frames: the record layer of bulk connections (spec/bulk.md §2).

    header (plaintext length, 4 bytes) │ ciphertext │ tag (16 bytes)

AES-128-GCM. The nonce is the number of the frame in its direction, so a frame opens only
at its own place: replayed, reordered, dropped or spliced frames do not. Each direction
has a key of its own and each connection a ticket of its own, so no nonce is ever used
twice with a key.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import InvalidData

FRAME_SIZE_MAX = 1024 * 1024  # bytes of plaintext; spec/bulk.md §2
KEY_SIZE = 16  # bytes; spec/bulk.md §1
HEADER_SIZE = 4  # bytes; spec/bulk.md §2
TAG_SIZE = 16  # bytes; NIST SP 800-38D
OVERHEAD = HEADER_SIZE + TAG_SIZE  # bytes a frame


class _Direction:
    """One key, and the number of the next frame."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._count = 0

    def _nonce(self) -> bytes:
        nonce = self._count.to_bytes(12, "big")
        self._count += 1
        return nonce


class Sealer(_Direction):
    """Makes the frames of one direction of one connection."""

    def seal_into(self, plaintext: memoryview, frame: memoryview) -> int:
        """Write the next frame, with `plaintext` (1 to FRAME_SIZE_MAX bytes), into `frame`; returns its size."""
        size = len(plaintext)
        assert 1 <= size <= FRAME_SIZE_MAX
        header = size.to_bytes(HEADER_SIZE, "big")
        frame[:HEADER_SIZE] = header
        self._cipher.encrypt_into(self._nonce(), plaintext, header, frame[HEADER_SIZE : size + OVERHEAD])
        return size + OVERHEAD

    def seal(self, plaintext: bytes) -> bytes:
        """Return the next frame, with `plaintext`."""
        frame = bytearray(len(plaintext) + OVERHEAD)
        self.seal_into(memoryview(plaintext), memoryview(frame))
        return bytes(frame)


class Opener(_Direction):
    """Opens the frames of one direction of one connection, in order."""

    def open_into(self, header: bytes, body: memoryview, plaintext: memoryview) -> None:
        """Open the next frame: `body` is its ciphertext and tag; writes exactly into `plaintext`.

        Raises InvalidData if it is not the next frame that the key's holder made.
        """
        try:
            self._cipher.decrypt_into(self._nonce(), body, header, plaintext)
        except InvalidTag as exc:
            raise InvalidData("a frame is not what was sent") from exc


def plaintext_size(header: bytes) -> int:
    """Return the plaintext size that a frame's header states. Raises InvalidData if it is out of bounds."""
    size = int.from_bytes(header, "big")
    if not 1 <= size <= FRAME_SIZE_MAX:
        raise InvalidData(f"a frame of {size} bytes, the limit is {FRAME_SIZE_MAX}")
    return size
