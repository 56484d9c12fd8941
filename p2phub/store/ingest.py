"""Read a file once: cut it into chunks, hash it, and copy it (spec/store.md §2).

    file ──read──▶ window ──cut──▶ BLAKE3 of each chunk ─▶ chunk list, file root
                          └──────▶ SHA-256 of the file, on a thread of its own

SHA-256 is the slowest part, so it runs beside the rest: what is read into one
buffer is hashed while the other is filled.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from blake3 import blake3
from msgspec import Struct

from p2phub.core.choices import Profile
from p2phub.core.errors import StoreError
from p2phub.core.filetree import CHUNK_SIZE_MAX, ChunkList, pack
from p2phub.core.ids import ContentId

from .disk import FileWriter, disk_errors

# Larger ones are no faster, and each file that is read takes room for two of them and two chunks.
BLOCK_SIZE = 1024 * 1024  # bytes read at once
SMALL_SIZE = 4 * 1024 * 1024  # bytes of a file that is read at once as a whole

Progress = Callable[[int], None]  # called with the bytes done since the last call


class Scan(Struct, frozen=True):
    """What reading a file once tells of it."""

    root: ContentId
    chunks: ChunkList
    sha256: bytes


class Stamp(Struct, frozen=True):
    """What must stay the same while a file is the one that was hashed."""

    size: int  # bytes
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


def scan(
    source: int, path: Path, profile: Profile, *, copy_to: int | None = None, progress: Progress | None = None
) -> Scan:
    """Return what the open file `source` (at `path`) holds; write it to the open file `copy_to` if given.

    Raises StoreError if the file changes meanwhile, InvalidData if `profile` does not fit it.
    """
    from p2phub.core.chunking import chunker  # reads the formats of weights, which only whoever cuts files needs

    before = Stamp.of(os.fstat(source))
    with disk_errors(path):
        cutter = chunker(profile, before.size, lambda offset, size: os.pread(source, size, offset))
    packed: list[bytes] = []
    whole = sha256()
    copy = FileWriter(copy_to) if copy_to is not None else None
    # Done in one turn, and not worth a thread.
    is_small = before.size <= SMALL_SIZE
    # Each buffer begins with what the other one left over.
    buffer_size = before.size if is_small else min(before.size, CHUNK_SIZE_MAX + BLOCK_SIZE)
    buffers = [memoryview(bytearray(buffer_size)) for _ in range(1 if is_small else 2)]
    with ThreadPoolExecutor(1, "sha256") as pool:
        hashing: list[Future[None]] = []
        rest = memoryview(b"")
        offset = read = turn = 0
        while read < before.size:
            buffer = buffers[turn % len(buffers)]
            if len(hashing) == 2:
                hashing.pop(0).result()
            buffer[: len(rest)] = rest
            # Not beyond the size that the cuts were made for, though the file may have grown.
            block_size = min(SMALL_SIZE if is_small else BLOCK_SIZE, before.size - read)
            with disk_errors(path):
                end = len(rest) + _read_into(source, buffer[len(rest) : len(rest) + block_size], read)
            if end == len(rest):
                raise changed(path)
            fresh = buffer[len(rest) : end]
            if is_small:
                whole.update(fresh)
            else:
                hashing.append(pool.submit(whole.update, fresh))
            if copy is not None:
                copy.write(fresh, read)
            read += len(fresh)
            at = 0
            while at < end and (read >= before.size or end - at >= CHUNK_SIZE_MAX):
                length = cutter.next_length(offset, buffer[at : min(end, at + CHUNK_SIZE_MAX)])
                packed.append(pack(length, blake3(buffer[at : at + length]).digest()))
                at += length
                offset += length
            rest = buffer[at:end]
            turn += 1
            if progress:
                progress(len(fresh))
        for future in hashing:
            future.result()
    if Stamp.of(os.fstat(source)) != before or read != before.size:
        raise changed(path)
    chunks = ChunkList(b"".join(packed))
    return Scan(chunks.root(), chunks, whole.digest())


def scan_bytes(data: bytes, profile: Profile) -> Scan:
    """Return what a small file with the bytes `data` holds. Raises InvalidData if `profile` does not fit it."""
    from p2phub.core.chunking import chunker  # as in `scan`

    view = memoryview(data)
    cutter = chunker(profile, len(data), lambda offset, size: data[offset : offset + size])
    packed: list[bytes] = []
    offset = 0
    while offset < len(data):
        length = cutter.next_length(offset, view[offset : offset + CHUNK_SIZE_MAX])
        packed.append(pack(length, blake3(view[offset : offset + length]).digest()))
        offset += length
    chunks = ChunkList(b"".join(packed))
    return Scan(chunks.root(), chunks, sha256(data).digest())


def find_bad_chunks(source: int, chunks: ChunkList, *, progress: Progress | None = None) -> list[int]:
    """Return the indices of the chunks that the open file `source` does not hold as it should."""
    buffer = memoryview(bytearray(min(CHUNK_SIZE_MAX, chunks.size)))
    bad = []
    for index in range(len(chunks)):
        length = chunks.length(index)
        view = buffer[:length]
        if _read_into(source, view, chunks.offset(index)) != length or blake3(view).digest() != chunks.hash(index):
            bad.append(index)
        if progress:
            progress(length)
    return bad


def _read_into(source: int, buffer: memoryview, offset: int) -> int:
    """Fill `buffer` from `offset` on; returns the bytes read, fewer only at the end of the file."""
    done = 0
    while done < len(buffer):
        count = os.preadv(source, [buffer[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def changed(path: Path) -> StoreError:
    """Return the error for a file that somebody wrote to meanwhile."""
    return StoreError(f"{path} changed while it was read", path=str(path), hint="publish when nothing writes to it")
