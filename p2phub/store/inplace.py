"""Open files that the store does not own, and that somebody may put others in the place of (spec/store.md §2).

What was a file of weights when it was registered may be a link by now: to the index of this node, whose locks end
when any file of it is closed here; to a key; to a pipe, which waits for ever. So a path is looked at before it is
opened, without a moment between the two in which it could come to mean something else.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from .ingest import Stamp


def open_same(path: Path, stamp: Stamp) -> int:
    """Open the file that `stamp` was taken of. Raises OSError, FileNotFoundError if another is there now."""
    return _open(path, lambda real, status: Stamp.of(status) == stamp)


def open_foreign(path: Path, is_own: Callable[[str], bool]) -> int:
    """Open the file at `path` for reading. Raises OSError, FileNotFoundError if it is a link, a device or our own.

    is_own: says whether a path, all links in it followed, is one of this home or its store.
    """
    return _open(path, lambda real, status: not is_own(real))


def _open(path: Path, may_open: Callable[[str, os.stat_result], bool]) -> int:
    # This names the file and does nothing to it: no pipe waits, no lock ends when it is closed.
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        same = f"/proc/self/fd/{handle}"
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode) or not may_open(os.readlink(same), status):
            raise FileNotFoundError(errno.ENOENT, "another file is there now", str(path))
        return os.open(same, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(handle)
