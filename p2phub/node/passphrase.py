"""The passphrase of files with keys, where nobody can be asked: from the file that P2PHUB_PASSPHRASE_FILE names."""

from __future__ import annotations

import os
from pathlib import Path

from p2phub.core.errors import AccessDenied, NotFound, StoreError
from p2phub.store.disk import disk_errors
from p2phub.store.keys import check_private

from .settings import Settings

PASSPHRASE_SIZE_MAX = 4096  # bytes


def read_passphrase(settings: Settings, of: Path, *, is_new: bool = False) -> str:
    """Return the passphrase for the file `of`; is_new: which is to be locked with it.

    Raises AccessDenied if P2PHUB_PASSPHRASE_FILE names no file, StoreError if others may read it or it holds none.
    """
    path = settings.passphrase_file
    if path is None:
        raise AccessDenied(
            f"a passphrase is needed to lock {of} with" if is_new else f"{of} is locked with a passphrase",
            hint="P2PHUB_PASSPHRASE_FILE names a file that holds it; it is asked for at a terminal",
        )
    with disk_errors(path):
        try:
            with open(path, "rb") as file:
                check_private(path, os.fstat(file.fileno()))
                data = file.read(PASSPHRASE_SIZE_MAX + 1)
        except FileNotFoundError:
            raise NotFound(f"there is no file {path}, which P2PHUB_PASSPHRASE_FILE names") from None
    try:
        # Editors and `echo` end it with a line feed.
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > PASSPHRASE_SIZE_MAX or "\n" in text:
        raise StoreError(f"{path} does not hold one line with a passphrase", path=str(path))
    return text
