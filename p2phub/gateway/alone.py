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
        is_first = _lock(file, path)
        # Looked for in any case: it says which process it is, and one of an older version holds no lock.
        other = find_daemon(layout, {})
        if other is not None:
            raise HubError(
                f"a node of {layout.home} runs already (process {other.pid})",
                hint="stop it first, or use another home: P2PHUB_HOME",
            )
        if not is_first:
            raise HubError(
                f"a node of {layout.home} runs already, and does not answer now",
                hint="it is starting or stopping, or hangs: wait for it or end it, or use another home: P2PHUB_HOME",
            )
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
