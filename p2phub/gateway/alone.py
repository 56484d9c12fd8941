"""One node to a home, by a lock that its process holds (spec/local-api.md §1).

The lock is the system's, on a file that stays: it ends with the process, however that ends, so that nothing is left
to be cleared away. `daemon.json`, which tells commands where the node is, says here who has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from p2phub.core.errors import HubError, StoreError
from p2phub.store.disk import disk_errors
from p2phub.store.layout import Layout

from .client import find_daemon

LOCK = "daemon.lock"  # in the home


@contextlib.contextmanager
def only_node(layout: Layout) -> Iterator[None]:
    """Be the only node of this home during the block. Raises HubError if there is another one."""
    layout.create()
    path = layout.home / LOCK
    with disk_errors(path):
        # Never removed: one process would hold the lock of a file without a name, and the next one that of a new file.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _lock(file, path):
            raise _refusal(layout, _holder(file))
        _note_holder(file)
        # One of an older version holds no lock.
        if older := find_daemon(layout, {}):
            raise _refusal(layout, older.pid)
        yield
    finally:
        os.close(file)


def _lock(file: int, path: os.PathLike[str]) -> bool:
    """Take the lock of a file for as long as it is open; returns False if another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        raise StoreError(
            f"cannot lock {path}: {exc.strerror}",
            path=str(path),
            hint="a home needs a disk on which files can be locked, such as one of this machine: P2PHUB_HOME",
        ) from exc
    return True


def _note_holder(file: int) -> None:
    """Write down which process has the lock."""
    # A full disk keeps nobody from running: the number is for people alone.
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, b"%d\n" % os.getpid(), 0)


def _holder(file: int) -> int | None:
    """Return which process has the lock, None if it did not write that down."""
    try:
        return int(os.pread(file, 32, 0))
    except (OSError, ValueError):
        return None


def _refusal(layout: Layout, pid: int | None) -> HubError:
    """Return the error of who starts a second node."""
    # It is not asked whether it answers: one that is starting, stopping or hanging keeps others out as well.
    which = f" (process {pid})" if pid else ""
    how = f"stop it first (kill {pid}; if it hangs, kill -9 {pid})" if pid else "stop it first"
    return HubError(f"a node of {layout.home} runs already{which}", hint=f"{how}, or use another home: P2PHUB_HOME")
