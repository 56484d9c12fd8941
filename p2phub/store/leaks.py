"""Notice secret keys in files that are about to be published (spec/store.md §6).

    a small text ──▶ a key of p2phub, or a private key as PEM, anywhere in it (JSON and .env escape its lines)
    a small archive ──▶ the same of its small members

This is for accidents, and finds no key that somebody hides. What is large is not read for it: a tokenizer or a data
set costs nothing, and a text that only speaks of keys has none.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from msgspec import Struct

from .disk import disk_errors

TEXT_SIZE_MAX = 1024 * 1024  # bytes of a file, or of a member, that is looked through; spec/store.md §6
ARCHIVE_SIZE_MAX = 16 * 1024 * 1024  # bytes of an archive that is opened; ibid.
UNPACKED_SIZE_MAX = 64 * 1024 * 1024  # bytes that are unpacked of it; ibid.
MEMBERS_MAX = 1000  # of it that are looked at; ibid.

# Line ends may be written out, as in JSON.
_GAP = rb"(?:\s|\\[nrt])"
_OWN = re.compile(
    rb"p2phub-(?:key|companion|recipient)-1" + _GAP + rb"+[0-9a-f]{64}(?![0-9a-f])"
    rb"|p2phub-(?:keys|locked)-1:" + _GAP + rb"*[0-9A-Za-z_-]{40}"
)  # fmt: skip
_PEM = re.compile(rb"-----BEGIN (?P<kind>[A-Z0-9 ]{0,20}PRIVATE KEY)-----")
_PEM_BODY = re.compile(rb"(?:[0-9A-Za-z+/=:,. -]|" + _GAP + rb")*")
_PEM_LINE = re.compile(rb"[0-9A-Za-z+/]{40}")  # of a key; where a text only speaks of one, it has words or dots
_UNPACK: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".tgz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
_BROKEN = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, lzma.LZMAError,
           tarfile.TarError, zipfile.BadZipFile)  # fmt: skip

LeakKind = Literal["p2phub", "pem"]


class Leak(Struct, frozen=True):
    """A secret key that was found."""

    kind: LeakKind
    member: str | None = None  # of an archive, in which it is


def find_leak(path: Path, name: str) -> Leak | None:
    """Return the first secret key in the file at `path`, which is called `name`; None if none is found."""
    with disk_errors(path), open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size <= TEXT_SIZE_MAX:
            kind = leak_in(file.read(TEXT_SIZE_MAX))
            if kind is not None:
                return Leak(kind)
            file.seek(0)
        if size <= ARCHIVE_SIZE_MAX:
            return _in_archive(file, name.lower())
    return None


def leak_in(data: bytes) -> LeakKind | None:
    """Return what kind of secret key is in a text, None if none is."""
    if b"-1" in data and _OWN.search(data):
        return "p2phub"
    return "pem" if any(_is_whole(data, begin) for begin in _PEM.finditer(data)) else None


def _is_whole(data: bytes, begin: re.Match[bytes]) -> bool:
    """Say whether a key follows its first line."""
    start = begin.end()
    end = data.find(b"-----", start)
    if end < 0 or not data.startswith(b"-----END " + begin["kind"] + b"-----", end):
        return False
    return bool(_PEM_BODY.fullmatch(data, start, end) and _PEM_LINE.search(data, start, end))


def _in_archive(file: IO[bytes], name: str) -> Leak | None:
    try:
        for member, data in _members(file, name):
            if (kind := leak_in(data)) is not None:
                return Leak(kind, member)
    except _BROKEN:
        pass  # it is damaged, locked or too large: nobody reads a key out of it by accident
    return None


def _members(file: IO[bytes], name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the small members of an archive. Raises one of `_BROKEN`."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(file) as archive:
            left = UNPACKED_SIZE_MAX
            for info in archive.infolist()[:MEMBERS_MAX]:
                if info.is_dir() or info.file_size > min(TEXT_SIZE_MAX, left):
                    continue
                with archive.open(info) as unpacking:
                    data = unpacking.read(TEXT_SIZE_MAX)
                left -= len(data)
                yield info.filename, data
        return
    suffix = next((suffix for suffix in _UNPACK if name.endswith(suffix)), None)
    if not name.endswith((".tar", ".tgz")) and not (suffix and name.endswith(f".tar{suffix}")):
        return
    unpacked = _UNPACK[suffix](file) if suffix else file
    # As a stream: whatever a header says, no more is unpacked than this reads.
    with tarfile.open(fileobj=_Bounded(unpacked), mode="r|") as tar:
        for count, entry in enumerate(tar):
            if count >= MEMBERS_MAX:
                return
            if entry.isreg() and entry.size <= TEXT_SIZE_MAX and (member := tar.extractfile(entry)) is not None:
                yield entry.name, member.read(TEXT_SIZE_MAX)


class _Bounded(io.RawIOBase):
    """A stream that ends with an error where too much was read of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = UNPACKED_SIZE_MAX

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("too much is unpacked")
        return data
