"""Put a file of the store at another path without a second copy, where the file system can (spec/store.md §4)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from p2phub.core.choices import LinkMode
from p2phub.core.errors import StoreError

from .disk import disk_errors, new_name

_FICLONE = 0x40049409  # linux/fs.h: share all extents of one file with another
_COPY_BLOCK = 64 * 1024 * 1024  # bytes in one call of copy_file_range
# What a file system answers that cannot do it, rather than failed at it.
_CANNOT = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.EMLINK, errno.ENOSYS)


def place(source: Path, target: Path, mode: LinkMode, *, shared: bool) -> LinkMode:
    """Put the content of `source` at `target`, replacing what is there; returns how it was done.

    shared: whether `source` is an object of the store, which nobody writes to. A file
    that somebody may change is never linked to, only cloned or copied.
    `auto` takes the first that works: reflink, hard link, symbolic link, copy.
    """
    ways: dict[LinkMode, Callable[[Path, Path], None]] = {
        "reflink": _place_reflink,
        "hard": os.link,
        "sym": os.symlink,
        "copy": _place_copy,
    }
    modes: tuple[LinkMode, ...] = (mode,)
    if mode == "auto":
        modes = ("reflink", "hard", "sym", "copy") if shared else ("reflink", "copy")
    elif not shared and mode == "hard":
        raise StoreError(
            f"{source} was registered in place and may change, so it cannot be hard linked",
            path=str(source),
            hint="use --link reflink, sym or copy",
        )
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = new_name(target.parent)
        for way in modes:
            try:
                ways[way](source, temporary)
            except OSError as exc:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                if exc.errno in _CANNOT and way != modes[-1]:
                    continue
                if exc.errno in _CANNOT:
                    raise StoreError(
                        f"the file system cannot make a {way} link from {source} to {target}", path=str(target)
                    ) from exc
                raise
            try:
                # Atomic: a reader sees the old file or the new one.
                os.replace(temporary, target)
            finally:
                # Renaming one hard link of a file over another does nothing at all; over a folder it fails.
                with contextlib.suppress(FileNotFoundError):
                    temporary.unlink()
            return way
    raise AssertionError("no way to place a file")


def reflink(source: int, target: int) -> bool:
    """Let the open file `target` share all extents of the open file `source`; returns whether it could."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as exc:
        if exc.errno not in _CANNOT:
            raise
        return False
    return True


def link_read_only(source: int, path: Path, target: Path) -> bool:
    """Replace the file `target` by a hard link to the open file `source` at `path`, if that is safe.

    It is safe if nobody may write to the file; and as objects are, all may read it. Returns whether it was done.
    """
    status = os.fstat(source)
    if status.st_mode & 0o666 != 0o444 or status.st_uid != os.geteuid():
        return False
    link = target.with_name(target.name + "-link")
    try:
        os.link(path, link)
    except OSError as exc:
        if exc.errno not in _CANNOT:
            raise
        return False
    if not os.path.samestat(os.stat(link), status):
        link.unlink()
        return False
    os.replace(link, target)
    return True


def _place_reflink(source: Path, target: Path) -> None:
    with open(source, "rb") as old, open(target, "xb") as new:
        fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())


def _place_copy(source: Path, target: Path) -> None:
    """Copy in the kernel where it can."""
    with open(source, "rb") as old, open(target, "xb") as new:
        size = os.fstat(old.fileno()).st_size
        done = 0
        while done < size:
            try:
                count = os.copy_file_range(
                    old.fileno(), new.fileno(), min(_COPY_BLOCK, size - done), done, done
                )
            except OSError as exc:
                if exc.errno not in _CANNOT:
                    raise
                count = os.pwrite(new.fileno(), os.pread(old.fileno(), 1024 * 1024, done), done)
            if count == 0:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            done += count
