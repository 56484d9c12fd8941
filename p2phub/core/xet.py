"""Read what a Xet client uploads: blocks of compressed chunks, and how files are made of them (spec/hub-api.md §9).

Everything here comes from outside: every length is checked before it is used, and what
decompresses to more than it says is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import lz4.frame

from .errors import InvalidData

CHUNK_SIZE_MAX = 1024 * 1024  # bytes of a chunk; clients cut at 128 KiB
CHUNKS_MAX = 65_536  # in a block
TERMS_MAX = 1_000_000  # of a file
FILES_MAX = 100_000  # in a shard

_FRAME_SIZE = 8  # version, compressed length, scheme, length
_ENTRY_SIZE = 48  # bytes of every entry in a shard
_HAS_VERIFICATION, _HAS_SHA256 = 0x80000000, 0x40000000  # flags of a file
_END = b"\xff" * 32  # instead of a file's hash: there are no more


@dataclass(frozen=True)
class Term:
    """A part of a file: chunks `first` to `end - 1` of the block `block`."""

    block: str
    first: int
    end: int


@dataclass(frozen=True)
class ShardFile:
    """A file that a shard describes."""

    terms: tuple[Term, ...]
    sha256: bytes | None
    size: int  # bytes


def read_block(data: bytes) -> Iterator[bytes]:
    """Give the chunks of a block, decompressed. Raises InvalidData."""
    at = count = 0
    while at < len(data):
        header = data[at : at + _FRAME_SIZE]
        if header[:7] == b"XETBLOB":  # an index of the chunks, which we make ourselves
            return
        if len(header) < _FRAME_SIZE or header[0] != 0:
            raise InvalidData("no chunk begins where one should")
        packed_size = int.from_bytes(header[1:4], "little")
        size = int.from_bytes(header[5:8], "little")
        packed = data[at + _FRAME_SIZE : at + _FRAME_SIZE + packed_size]
        count += 1
        if len(packed) != packed_size or not 0 < size <= CHUNK_SIZE_MAX or count > CHUNKS_MAX:
            raise InvalidData(f"a block has at most {CHUNKS_MAX} chunks of at most {CHUNK_SIZE_MAX} bytes")
        yield _unpack(packed, header[4], size)
        at += _FRAME_SIZE + packed_size


def read_shard(data: bytes) -> list[ShardFile]:
    """Return the files that a shard describes. Raises InvalidData."""
    files: list[ShardFile] = []
    at = _ENTRY_SIZE  # the header says nothing that we need

    def take() -> bytes:
        nonlocal at
        entry = data[at : at + _ENTRY_SIZE]
        if len(entry) != _ENTRY_SIZE:
            raise InvalidData("a shard ends in the middle")
        at += _ENTRY_SIZE
        return entry

    while (head := take())[:32] != _END:
        flags = int.from_bytes(head[32:36], "little")
        count = int.from_bytes(head[36:40], "little")
        if count > TERMS_MAX or at + count * _ENTRY_SIZE > len(data) or len(files) >= FILES_MAX:
            raise InvalidData("a shard describes more than it holds")
        terms = []
        size = 0
        for _ in range(count):
            entry = take()
            size += int.from_bytes(entry[36:40], "little")
            first, end = int.from_bytes(entry[40:44], "little"), int.from_bytes(entry[44:48], "little")
            if first >= end:
                raise InvalidData("a part of a file has no chunks")
            terms.append(Term(format_hash(entry[:32]), first, end))
        if flags & _HAS_VERIFICATION:
            for _ in range(count):
                take()
        digest = bytes.fromhex(format_hash(take()[:32])) if flags & _HAS_SHA256 else None
        files.append(ShardFile(tuple(terms), digest, size))
    return files


def format_hash(digest: bytes) -> str:
    """Return a hash as these clients write it: each 8 bytes as a number."""
    return "".join(f"{int.from_bytes(digest[at : at + 8], 'little'):016x}" for at in range(0, 32, 8))


def _unpack(packed: bytes, scheme: int, size: int) -> bytes:
    if scheme == 0:
        chunk = packed
    elif scheme in (1, 2):
        try:
            # One byte more than it may have, so that a chunk that is too long shows.
            chunk = lz4.frame.LZ4FrameDecompressor().decompress(packed, max_length=size + 1)
        except (RuntimeError, EOFError) as exc:
            raise InvalidData(f"a chunk is no LZ4 frame: {exc}") from exc
    else:
        raise InvalidData(f"chunks are not compressed by scheme {scheme}")
    if len(chunk) != size:
        raise InvalidData(f"a chunk has {len(chunk)} bytes and not {size}")
    return _ungroup(chunk) if scheme == 2 else chunk


def _ungroup(chunk: bytes) -> bytes:
    """Undo the grouping by 4: all first bytes of four, then all second ones, and so on."""
    plain = bytearray(len(chunk))
    at = 0
    for place in range(4):
        end = at + len(range(place, len(chunk), 4))
        plain[place::4] = chunk[at:end]
        at = end
    return bytes(plain)
