"""Put a file of the store at another path without a second copy, where the file system can (spec/store.md §4)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from p2phub.core.choices import LinkMode
from p2phub.core.errors import StoreError

from .disk import disk_errors, new_name

_FICLONE = 0x40049409  # linux/fs.h: share all extents of one file with another
_FICLONERANGE = 0x4020940D  # linux/fs.h: share some; struct file_clone_range
_COPY_BLOCK = 64 * 1024 * 1024  # bytes in one call of copy_file_range
# What a file system answers that cannot do it, rather than failed at it.
_CANNOT = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.EMLINK, errno.ENOSYS)
# Those of them that are not about the one file.
_NOT_HERE = (errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.ENOSYS)


class Placer:
    """Puts files of the store at other paths, all of them in one way or the first that works."""

    def __init__(self, mode: LinkMode) -> None:
        """mode: `auto` takes the first that works of reflink, hard link, symbolic link and copy."""
        self._mode = mode
        # What the file system cannot do for one object, it cannot do for the next.
        self._auto: tuple[LinkMode, ...] = ("reflink", "hard", "sym", "copy")
        self._folders: set[str] = set()  # known to be there

    def place(self, source: Path, target: Path, *, shared: bool, file: int | None = None) -> LinkMode:
        """Put the content of `source` at `target`, replacing what is there; returns how it was done.

        shared: whether `source` is an object of the store, which nobody writes to. A file
        that somebody may change is never linked to, only cloned or copied; file: that file, open, as another may
        stand in its place by now.
        """
        if not shared and self._mode == "hard":
            raise StoreError(
                f"{source} was registered in place and may change, so it cannot be hard linked",
                path=str(source),
                hint="use --link reflink, sym or copy",
            )
        with disk_errors(target):
            self._make_folder(os.path.dirname(target))
            if self._mode != "auto":
                modes: tuple[LinkMode, ...] = (self._mode,)
            else:
                modes = self._auto if shared else ("reflink", "copy")
            opened = source if file is None else Path(f"/proc/self/fd/{file}")
            for mode in modes:
                try:
                    _WAYS[mode](source if mode == "sym" else opened, target)
                except OSError as exc:
                    if exc.errno not in _CANNOT:
                        raise
                    if mode == modes[-1]:
                        raise StoreError(
                            f"the file system cannot make a {mode} link from {source} to {target}", path=str(target)
                        ) from exc
                    if shared and exc.errno in _NOT_HERE:
                        self._auto = tuple(other for other in self._auto if other != mode)
                else:
                    return mode
        raise AssertionError("no way to place a file")

    def _make_folder(self, folder: str) -> None:
        if folder not in self._folders:
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)


def place(source: Path, target: Path, mode: LinkMode, *, shared: bool) -> LinkMode:
    """Put one file of the store at `target`; see `Placer.place`."""
    return Placer(mode).place(source, target, shared=shared)


def reflink(source: int, target: int) -> bool:
    """Let the open file `target` share all extents of the open file `source`; returns whether it could."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as exc:
        if exc.errno not in _CANNOT:
            raise
        return False
    return True


def reflink_range(source: int, source_offset: int, target: int, offset: int, size: int) -> bool:
    """Let `size` bytes of the open file `target` share the extents of `source`; returns whether it could.

    All three numbers are multiples of the block size of the file system.
    """
    try:
        fcntl.ioctl(target, _FICLONERANGE, struct.pack("=qQQQ", source, source_offset, size, offset))
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


def _reflink(source: Path, target: Path) -> None:
    with _replacing(target) as new, open(source, "rb") as old, open(new, "xb") as file:
        fcntl.ioctl(file.fileno(), _FICLONE, old.fileno())


def _link(make: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    def way(source: Path, target: Path) -> None:
        try:
            make(source, target)
        except FileExistsError:
            with _replacing(target) as new:
                make(source, new)

    return way


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Give a path whose file becomes `target` at the end. Atomic: a reader sees the old file or the new one."""
    temporary = Path(new_name(target.parent))
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        # Renaming one hard link of a file over another does nothing at all; over a folder it fails.
        with contextlib.suppress(OSError):
            temporary.unlink()


def _copy(source: Path, target: Path) -> None:
    """Copy in the kernel where it can."""
    with _replacing(target) as temporary, open(source, "rb") as old, open(temporary, "xb") as new:
        size = os.fstat(old.fileno()).st_size
        done = 0
        while done < size:
            try:
                count = os.copy_file_range(old.fileno(), new.fileno(), min(_COPY_BLOCK, size - done), done, done)
            except OSError as exc:
                if exc.errno not in _CANNOT:
                    raise
                count = os.pwrite(new.fileno(), os.pread(old.fileno(), 1024 * 1024, done), done)
            if count == 0:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            done += count


_WAYS: dict[LinkMode, Callable[[Path, Path], None]] = {
    "reflink": _reflink,
    "hard": _link(os.link),
    "sym": _link(os.symlink),
    "copy": _copy,
}
