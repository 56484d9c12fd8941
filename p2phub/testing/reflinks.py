"""Make a file system whose files can share extents, in a file, for as long as a block lasts.

    with reflink_folder("xfs", tmp_path) as folder:
        ...
        assert shared_bytes(folder / "clone") == size

Needs Linux, root, loop devices, and `mkfs.xfs` of xfsprogs or `mkfs.btrfs` of btrfs-progs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Kind = Literal["xfs", "btrfs"]

IMAGE_SIZE = 1024 * 1024 * 1024  # bytes, of a sparse file; XFS wants 300 MB at least
_MAKE = {
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q"),
}

_FIEMAP = 0xC020660B  # linux/fs.h, linux/fiemap.h
_FIEMAP_HEAD = struct.Struct("=QQLLLL")  # start, length, flags, mapped extents, room for extents, reserved
_FIEMAP_EXTENT = struct.Struct("=QQQQQLLLL")  # logical, physical, length, reserved ×2, flags, reserved ×3
_FIEMAP_SYNC = 1
_EXTENT_LAST, _EXTENT_SHARED = 0x1, 0x2000
_EXTENTS_MAX = 100  # in one answer


class NoReflinks(Exception):
    """This machine, or this user, cannot make such a file system; the text says why."""


@contextlib.contextmanager
def reflink_folder(kind: Kind, folder: Path) -> Iterator[Path]:
    """Give the root of a new file system, whose image lies in `folder`, until the block ends. Raises NoReflinks."""
    if os.geteuid() != 0:
        raise NoReflinks("to mount a file system needs root")
    if not shutil.which(_MAKE[kind][0]):
        raise NoReflinks(f"{_MAKE[kind][0]} is not installed")
    image, root = folder / f"{kind}.img", folder / kind
    with open(image, "wb") as file:
        file.truncate(IMAGE_SIZE)
    try:
        _tool(*_MAKE[kind], str(image))
        root.mkdir()
        _tool("mount", "-o", "loop", "-t", kind, str(image), str(root))
        try:
            yield root
        finally:
            # Lazily: a process that a failing test left behind may still have a file open.
            _tool("umount", "--lazy", str(root))
    finally:
        image.unlink()


def shared_bytes(path: Path) -> int:
    """Return how many bytes of the file at `path` lie in extents that another file has too."""
    return sum(length for length, flags in _extents(path) if flags & _EXTENT_SHARED)


def _extents(path: Path) -> Iterator[tuple[int, int]]:
    """Give length (bytes) and flags of each extent of a file."""
    at, is_last = 0, os.stat(path).st_size == 0
    with open(path, "rb") as file:
        while not is_last:
            buffer = bytearray(_FIEMAP_HEAD.size + _EXTENTS_MAX * _FIEMAP_EXTENT.size)
            _FIEMAP_HEAD.pack_into(buffer, 0, at, 2**63 - at, _FIEMAP_SYNC, 0, _EXTENTS_MAX, 0)
            fcntl.ioctl(file, _FIEMAP, buffer)
            count = _FIEMAP_HEAD.unpack_from(buffer)[3]
            for number in range(count):
                place = _FIEMAP_HEAD.size + number * _FIEMAP_EXTENT.size
                begin, _, length, _, _, flags, *_ = _FIEMAP_EXTENT.unpack_from(buffer, place)
                yield length, flags
                at, is_last = begin + length, bool(flags & _EXTENT_LAST)
            is_last = is_last or count == 0


def _tool(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise NoReflinks(f"`{' '.join(command)}` failed: {result.stderr.strip()}")
