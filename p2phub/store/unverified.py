"""A file that came whole from somewhere, before anybody knows what it is (spec/origins.md §4).

It has a name that nobody looks for, beside the objects, so that it becomes one by a
rename. `Intake.adopt` hashes it and decides.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from .disk import disk_errors


class Unverified:
    """An open file that is written from its beginning on. Made by `Intake.begin_unverified`."""

    def __init__(self, folder: Path) -> None:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.file, name = tempfile.mkstemp(prefix=".new-", dir=folder)
        self.path = Path(name)
        self.size = 0  # bytes written

    def write(self, data: bytes) -> None:
        """Append `data`."""
        view = memoryview(data)
        with disk_errors(self.path):
            while view:
                count = os.pwrite(self.file, view, self.size)
                self.size += count
                view = view[count:]

    def start_over(self) -> None:
        """Forget what was written."""
        with disk_errors(self.path):
            os.ftruncate(self.file, 0)
        self.size = 0

    def close(self) -> None:
        """Close the file, and delete it if it was not adopted."""
        os.close(self.file)
        with contextlib.suppress(OSError):
            self.path.unlink()
