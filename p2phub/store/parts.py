"""Files that come from another hub, until they are whole and can be checked (spec/store.md §10).

    upstream/<hash>                          a part that nobody writes to
    upstream/<hash>.<boot>-<pid>-<random>    the same, while a process does

Whoever wants to go on with a part renames it to a name of its own, which only one can. Nothing is
known of a part but its length; the hash decides when it is whole, and a wrong one is thrown away.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from .disk import boot_id, disk_errors

ABANDONED_S = 120.0  # seconds without a byte, after which a part of another machine counts as left behind

_mine: set[Path] = set()  # that this process writes to


class Part:
    """A file that is written from its beginning on. Made by `Parts.begin`."""

    def __init__(self, path: Path, free: Path) -> None:
        self.path = path
        self._free = free
        with disk_errors(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self.size = os.fstat(self._file).st_size  # bytes that are here
        self.was_resumed = self.size > 0  # some of it came earlier

    def write(self, data: bytes) -> None:
        """Append `data`."""
        view = memoryview(data)
        with disk_errors(self.path):
            while view:
                count = os.pwrite(self._file, view, self.size)
                self.size += count
                view = view[count:]

    def start_over(self) -> None:
        """Forget what was written."""
        with disk_errors(self.path):
            os.ftruncate(self._file, 0)
        self.size = 0
        self.was_resumed = False

    def close(self, *, keep: bool) -> None:
        """Close the file, and leave it to whoever goes on with it, or delete it."""
        os.close(self._file)
        _mine.discard(self.path)
        with contextlib.suppress(FileNotFoundError), disk_errors(self.path):
            if keep and self.size:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.path, self._free)
            else:
                self.path.unlink(missing_ok=True)


class Parts:
    """The files in `upstream/`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, identifier: bytes) -> Part:
        """Open the longest part of this file that nobody writes to, or a new one. The caller closes it."""
        free = self._folder / identifier.hex()
        own = self._folder / f"{free.name}.{boot_id()}-{os.getpid()}-{secrets.token_hex(8)}"
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            _mine.add(own)
            try:
                for path in self._left_behind(free):
                    try:
                        os.rename(path, own)
                        break
                    except FileNotFoundError:
                        continue  # another process was quicker
                return Part(own, free)
            except BaseException:
                _mine.discard(own)
                raise

    def remove_old(self, *, age_s: float) -> int:
        """Delete parts to which nothing was written for `age_s` seconds; returns the bytes freed."""
        freed = 0
        for path in self._folder.glob("*"):
            with disk_errors(path), contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                if status.st_mtime < time.time() - age_s:
                    path.unlink()
                    freed += status.st_blocks * 512
        return freed

    def _left_behind(self, free: Path) -> list[Path]:
        """Return the parts that can be gone on with, the longest first."""
        found = []
        for path in [free, *self._folder.glob(f"{free.name}.*")]:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                if path == free or _is_abandoned(path, status.st_mtime):
                    found.append((status.st_size, path))
        return [path for _, path in sorted(found, reverse=True)]


def _is_abandoned(path: Path, changed: float) -> bool:
    """Say whether nobody writes to a part any more."""
    if path in _mine:
        return False
    boot, _, rest = path.name.partition(".")[2].partition("-")
    pid = rest.partition("-")[0]
    if boot == boot_id() and pid.isdigit():
        # Our own number, and not among what we write to: a process before us had it.
        return int(pid) == os.getpid() or not _is_alive(int(pid))
    return changed < time.time() - ABANDONED_S


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
