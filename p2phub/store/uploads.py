"""Files that clients sent and that no manifest names yet, by SHA-256 (spec/hub-api.md §8).

    upload ──hash──▶ uploads/<sha256> ──commit──▶ objects/

What nobody committed within a day is left over, and goes with the garbage.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from p2phub.core.errors import HashMismatch

from .disk import check_space, disk_errors, remove_older


class Uploads:
    """The files in `uploads/`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, digest: bytes) -> Path | None:
        """Return where the file with this SHA-256 is, None if it is not here."""
        path = self._folder / digest.hex()
        return path if path.exists() else None

    def begin(self, size: int) -> Upload:
        """Begin a file of `size` bytes. Raises NoSpace if it does not fit on the disk."""
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        check_space(self._folder, size, "are to come")
        return Upload(self._folder)

    def remove_old(self, *, age_s: float) -> int:
        """Delete what came more than `age_s` seconds ago; returns the bytes freed."""
        return remove_older(self._folder.glob("*"), age_s)


class Upload:
    """A file that is coming in. A context manager that throws away what was not finished."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"part-{secrets.token_hex(16)}"
        self._hash = sha256()
        self.size = 0
        with disk_errors(self._path):
            self._file = open(self._path, "xb", buffering=0)  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        view = memoryview(data)
        self._hash.update(view)
        self.size += len(view)
        with disk_errors(self._path):
            while view:
                view = view[self._file.write(view) :]

    def finish(self, digest: bytes | None, size: int) -> Path:
        """Keep the file under its SHA-256; returns where. Raises HashMismatch unless it is `digest` (None: any)."""
        found = self._hash.digest()
        if self.size != size or digest not in (None, found):
            raise HashMismatch(
                f"what came has {self.size} bytes and SHA-256 {found.hex()}, not {size} bytes"
                + (f" and {digest.hex()}" if digest else "")
            )
        return self._keep(found.hex())

    def finish_part(self) -> Path:
        """Keep the file as a part that others will be made of; whoever asked for it deletes it."""
        return self._keep(f"xet-{secrets.token_hex(16)}")

    def _keep(self, name: str) -> Path:
        target = self._folder / name
        with disk_errors(self._path):
            # Read only: then it becomes an object without being copied.
            os.fchmod(self._file.fileno(), 0o444)
            os.replace(self._path, target)
        return target


def copy_ranges(source: Path, ranges: list[tuple[int, int]], write: Callable[[bytes], None]) -> None:
    """Give the bytes of each (begin, end) of the file `source` to `write`, in order."""
    with disk_errors(source), open(source, "rb") as file:
        for begin, end in ranges:
            file.seek(begin)
            while begin < end:
                data = file.read(min(end - begin, 1024 * 1024))
                if not data:
                    raise HashMismatch(f"{source.name} is shorter than it should be")
                write(data)
                begin += len(data)
