"""Secret keys in files that only their owner can read (spec/store.md §6).

A key file holds `p2phub-key-1 ` and the 32-byte seed in hex, one line.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from p2phub.core.errors import NotFound, StoreError
from p2phub.core.signing import SEED_SIZE, SigningKey

from .disk import disk_errors, write_file

_HEADER = "p2phub-key-1 "


def load_key(path: Path) -> SigningKey:
    """Return the key in the file `path`.

    Raises NotFound if there is none, StoreError if others may read it or it is damaged.
    """
    try:
        with disk_errors(path), open(path) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(1024).strip()
    except StoreError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            raise NotFound(f"there is no key {path}") from exc
        raise
    except UnicodeDecodeError as exc:
        raise StoreError(f"{path} is no key file", path=str(path)) from exc
    if mode & 0o077:
        raise StoreError(
            f"others may read the secret key {path} (mode {mode:04o})", path=str(path), hint=f"chmod 600 {path}"
        )
    try:
        # The text itself must never reach a message.
        seed = bytes.fromhex(text.removeprefix(_HEADER)) if text.startswith(_HEADER) else b""
    except ValueError:
        seed = b""
    if len(seed) != SEED_SIZE:
        raise StoreError(f"{path} is no key file", path=str(path))
    return SigningKey(seed)


def create_key(path: Path) -> SigningKey:
    """Make a new key and keep it in the new file `path`. Raises StoreError if there is one already."""
    key = SigningKey(os.urandom(SEED_SIZE))
    keep_key(path, key)
    return key


def keep_key(path: Path, key: SigningKey) -> None:
    """Keep `key` in the new file `path`. Raises StoreError if there is one already."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(path.parent, 0o700)
    try:
        write_file(path, f"{_HEADER}{key.seed.hex()}\n".encode(), mode=0o600, exclusive=True)
    except StoreError as exc:
        if isinstance(exc.__cause__, FileExistsError):
            raise StoreError(f"there is a key {path} already", path=str(path)) from exc
        raise


def load_or_create_key(path: Path) -> SigningKey:
    """Return the key in the file `path`, made now if there is none."""
    try:
        return load_key(path)
    except NotFound:
        try:
            return create_key(path)
        except StoreError:
            if not path.exists():
                raise
            # Another process was quicker.
            return load_key(path)
