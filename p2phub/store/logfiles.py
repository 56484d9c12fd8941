"""The files of their own that those logs have which are written here (spec/store.md §4).

    length (4 bytes) │ entry │ length │ entry │ …      and beside it, in `.head`, the newest head

An entry counts once it is whole: one that a crash cut short is overwritten by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterable, Iterator, Sequence

from p2phub.core.envelope import ENVELOPE_SIZE_MAX
from p2phub.core.errors import ForkedLog, StoreError
from p2phub.core.ids import LogId

from .disk import disk_errors, write_file
from .journals import Place
from .layout import Layout

OWN_FILE = 0  # as the number of a journal: the log has a file of its own

_LENGTH = struct.Struct(">I")  # before each entry; spec/store.md §4


class LogFiles:
    """The logs of one home and its store that have files of their own."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def has(self, log: LogId) -> bool:
        """Say whether a log has one."""
        return self._layout.has_log(log)

    def entries(self, log: LogId, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield entries from byte `start` on, each with the place where it begins, up to one that is cut short.

        Raises StoreError.
        """
        path = self._layout.log(log)
        try:
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read()
        except FileNotFoundError:
            return
        except OSError as exc:
            raise StoreError(f"cannot read {path}: {exc.strerror}", path=str(path)) from exc
        at = 0
        while at + _LENGTH.size <= len(data):
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            if length > ENVELOPE_SIZE_MAX or at + length > len(data):
                return
            yield start + at, data[at : at + length]
            at += length

    def append(self, log: LogId, size: int, entries: Sequence[bytes], head: bytes) -> list[Place]:
        """Write entries behind the first `size` bytes, and the head if there is one; returns where the entries lie.

        All of it outlives a crash. Raises StoreError.
        """
        path = self._layout.log(log)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, self._mode(log))
            before = os.fstat(file).st_size
            try:
                blob = _framed(entries)
                if os.pwrite(file, blob, size) != len(blob):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fdatasync(file)
                if head:
                    self.write_head(log, head)
            except BaseException:
                # What failed is not to be found and taken in later.
                with contextlib.suppress(OSError):
                    os.ftruncate(file, max(before, size))
                raise
            finally:
                os.close(file)
        return _places(entries, size)

    def begin(self, log: LogId, entries: Sequence[bytes], head: bytes) -> list[Place]:
        """Write a log that came from peers to a file of its own; returns where its entries lie.

        What the file has beyond them stays. Raises StoreError, ForkedLog if it has another history.
        """
        path = self._layout.log(log)
        data = _framed(entries)
        there = _framed(entry for _, entry in self.entries(log))
        if not data.startswith(there) and not there.startswith(data):
            raise ForkedLog(f"the file of log {log} and what came from peers are two histories", ours=head, theirs=b"")
        if len(there) < len(data):
            write_file(path, data, mode=0o644)
        if head:
            self.write_head(log, head)
        return _places(entries, 0)

    def write_head(self, log: LogId, head: bytes) -> None:
        """Write the newest head. Raises StoreError."""
        write_file(self._layout.log(log).with_suffix(".head"), head, mode=self._mode(log))

    def _mode(self, log: LogId) -> int:
        """Return who may read the files of a log."""
        return 0o600 if self._layout.private_log(log).exists() else 0o644


def end_of(places: Sequence[Place], before: int) -> int:
    """Return the bytes of a file whose last entries lie at `places`, and which had `before` bytes if there are none."""
    return places[-1].offset + places[-1].length if places else before


def _framed(entries: Iterable[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(entry)) + entry for entry in entries)


def _places(entries: Sequence[bytes], size: int) -> list[Place]:
    places = []
    for entry in entries:
        places.append(Place(OWN_FILE, size + _LENGTH.size, len(entry)))
        size += _LENGTH.size + len(entry)
    return places
