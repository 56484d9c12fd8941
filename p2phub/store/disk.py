"""Small things about files that several stores need: translating errors, writing whole files.

Every error of the disk becomes a StoreError with the path, here and nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from p2phub.core.errors import NoSpace, StoreError

NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # flags to open a file at `new_name`

WRITE_SIZE = 256 * 1024  # bytes in one call
WRITEBACK_SIZE = 16 * 1024 * 1024  # bytes written until the system is told to bring them to the disk
SPACE_RESERVE = 64 * 1024 * 1024  # bytes that what comes in leaves free
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h: begin, and do not wait

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def disk_errors(path: os.PathLike[str] | str) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError that names `path`."""
    try:
        yield
    except OSError as exc:
        if exc.errno in _FULL:
            raise NoSpace(
                f"no space left for {path}", path=str(path), hint="`p2phub store gc` frees what nothing needs"
            ) from exc
        raise StoreError(f"cannot use {path}: {exc.strerror or exc}", path=str(path)) from exc


def write_file(path: Path, data: bytes, *, mode: int = 0o444, exclusive: bool = False) -> None:
    """Write `data` so that after a crash `path` is whole or is not there.

    exclusive: raise StoreError, from FileExistsError, if there is something at `path` already.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = new_name(path.parent)
        descriptor = os.open(temporary, NEW_FILE, 0o600)
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(data)
                file.flush()
                # fsync before rename: after a crash the name must never point at a short file.
                os.fsync(descriptor)
            if not exclusive or not _link_new(temporary, path):
                os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    sync_folder(path.parent)


def new_name(folder: os.PathLike[str] | str) -> str:
    """Return the path of a file in `folder` that is about to be written: no other has it, and gc removes leftovers."""
    return f"{folder}/.new-{os.urandom(8).hex()}"


def _link_new(temporary: str, path: Path) -> bool:
    """Give a file the name `path`, which must be new; returns False where there are no hard links."""
    try:
        # Renaming would overwrite what another process put there just now.
        os.link(temporary, path)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        return False
    os.unlink(temporary)
    return True


class FileWriter:
    """Writes into one open file, and has the system bring it to the disk meanwhile.

    Otherwise most of a large file is still in memory when it is complete, and the sync at its end
    waits for all of it. May be used from several threads.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self._waiting = 0  # bytes written since the system was last told to begin

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` from `offset` on. Raises OSError."""
        # If two threads count at once, a piece may be left out: the next writes make up for it.
        self._waiting += len(data)
        while data:
            # In pieces: for each large call Linux looks for as large a piece of free memory, and takes 5 times as long.
            count = os.pwrite(self.file, data[:WRITE_SIZE], offset)
            data, offset = data[count:], offset + count
        if self._waiting >= WRITEBACK_SIZE:
            self._waiting = 0
            # Of the whole file: what is on the disk already is passed over. Errors show when it is synced.
            if begin := getattr(_libc(), "sync_file_range", None):  # of Linux
                begin(self.file, 0, 0, _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _libc() -> Any:
    import ctypes  # most commands write nothing that is synced

    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "sync_file_range"):
        library.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return library


def sync_file_system(path: Path) -> None:
    """Bring everything written so far to the file system of the folder `path` onto its disk."""
    with disk_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # One call for any number of files. The standard library has only `sync`,
            # which would wait for every other disk as well.
            if _libc().syncfs(descriptor) != 0:
                import ctypes

                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
        finally:
            os.close(descriptor)


def boot_id() -> str:
    """Return 32 hex digits that name this boot of this machine: what was written in it survives our death.

    Where the system does not tell, they name this process only.
    """
    global _boot
    if _boot is None:
        try:
            _boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
        except OSError:
            _boot = os.urandom(16).hex()
    return _boot


_boot: str | None = None


def sync_folder(path: Path) -> None:
    """Make names that were put into the folder `path` outlive a crash."""
    with disk_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def freed_by_removing(status: os.stat_result) -> int:
    """Return the bytes that come free when a file loses its name: none if another one, as of a checkout, is left."""
    return status.st_blocks * 512 if status.st_nlink == 1 else 0


def remove_older(paths: Iterable[Path], age_s: float) -> int:
    """Delete files that got their name or their bytes more than `age_s` seconds ago; returns the bytes freed."""
    freed = 0
    for path in paths:
        with disk_errors(path), contextlib.suppress(FileNotFoundError):
            status = os.stat(path)
            # A link to an old file has the file's time, but was made only now.
            if max(status.st_mtime, status.st_ctime) < time.time() - age_s:
                path.unlink()
                freed += freed_by_removing(status)
    return freed


def has_room(folder: Path, size: int) -> bool:
    """Say whether `size` more bytes can be written, and a disk be left on which others can still work."""
    return size + SPACE_RESERVE <= free_bytes(folder)


def check_space(folder: Path, size: int, what: str) -> None:
    """Raise NoSpace unless there is room for `size` bytes. what: becomes of them, such as `are to come`."""
    if size + SPACE_RESERVE > (free := free_bytes(folder)):
        raise NoSpace(
            f"{size} bytes {what} and {free} are free on {folder}, of which {SPACE_RESERVE} stay free",
            path=str(folder),
            hint="`p2phub store gc` frees what nothing needs; P2PHUB_STORE can lie on another disk",
        )


def free_bytes(path: Path) -> int:
    """Return how many bytes can still be written to the file system that holds `path`."""
    with disk_errors(path):
        status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
