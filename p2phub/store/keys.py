"""Secret keys in files that only their owner can read (spec/store.md §6).

A key file holds what kind of key it is, such as `p2phub-key-1 `, and its 32 secret bytes in hex, one line.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from p2phub.core import companion, recipient
from p2phub.core.companion import CompanionKey
from p2phub.core.errors import NotFound, StoreError
from p2phub.core.recipient import RecipientKey
from p2phub.core.signing import SEED_SIZE, SigningKey

from .disk import disk_errors, write_file

# What a file begins with; spec/store.md §6.
_SIGNING = "p2phub-key-1 "
_COMPANION = "p2phub-companion-1 "
_RECIPIENT = "p2phub-recipient-1 "

COMPANION_FILE = "companion.key"
RECIPIENT_FILE = "recipient.key"


def load_key(path: Path) -> SigningKey:
    """Return the key in the file `path`.

    Raises NotFound if there is none, StoreError if others may read it or it is damaged.
    """
    return SigningKey(_load(path, _SIGNING, SEED_SIZE))


def load_companion(keys: Path) -> CompanionKey:
    """Return the companion key in the folder `keys`. Raises as `load_key` does."""
    path = keys / COMPANION_FILE
    try:
        return CompanionKey(_load(path, _COMPANION, companion.SECRET_SIZE))
    except ValueError as exc:
        raise StoreError(f"{path} is no key file", path=str(path)) from exc


def load_recipient(keys: Path) -> RecipientKey:
    """Return the recipient key in the folder `keys`. Raises as `load_key` does."""
    return RecipientKey(_load(keys / RECIPIENT_FILE, _RECIPIENT, recipient.SECRET_SIZE))


def _load(path: Path, header: str, size: int) -> bytes:
    """Return the secret of `size` bytes in a key file that begins with `header`."""
    try:
        with disk_errors(path), open(path) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(1024).strip()
    except StoreError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            raise NotFound(f"there is no key {path}") from exc
        raise
    except UnicodeDecodeError:
        # The error has the text in it, which must never reach a message.
        text, mode = "", 0
    if mode & 0o077:
        raise StoreError(
            f"others may read the secret key {path} (mode {mode:04o})", path=str(path), hint=f"chmod 600 {path}"
        )
    try:
        # Nor must the text itself.
        secret = bytes.fromhex(text.removeprefix(header)) if text.startswith(header) else b""
    except ValueError:
        secret = b""
    if len(secret) != size:
        raise StoreError(f"{path} is no key file", path=str(path))
    return secret


def create_key(path: Path) -> SigningKey:
    """Make a new key and keep it in the new file `path`. Raises StoreError if there is one already."""
    key = SigningKey(os.urandom(SEED_SIZE))
    keep_key(path, key)
    return key


def keep_key(path: Path, key: SigningKey) -> None:
    """Keep `key` in the new file `path`. Raises StoreError if there is one already."""
    _keep(path, _SIGNING, key.seed)


def keep_companion(keys: Path, key: CompanionKey) -> None:
    """Keep `key` as the companion key in the folder `keys`. Raises StoreError if there is one already."""
    _keep(keys / COMPANION_FILE, _COMPANION, key.secret)


def keep_recipient(keys: Path, key: RecipientKey) -> None:
    """Keep `key` as the recipient key in the folder `keys`. Raises StoreError if there is one already."""
    _keep(keys / RECIPIENT_FILE, _RECIPIENT, key.secret)


def load_or_create_companion(keys: Path) -> CompanionKey:
    """Return the companion key in the folder `keys`, made now if there is none."""
    try:
        return load_companion(keys)
    except NotFound:
        # Of all keys that P-256 has, one in 2^32 random numbers is none.
        key = CompanionKey(os.urandom(companion.SECRET_SIZE))
        keep_companion(keys, key)
        return key


def load_or_create_recipient(keys: Path) -> RecipientKey:
    """Return the recipient key in the folder `keys`, made now if there is none."""
    try:
        return load_recipient(keys)
    except NotFound:
        key = RecipientKey(os.urandom(recipient.SECRET_SIZE))
        keep_recipient(keys, key)
        return key


def _keep(path: Path, header: str, secret: bytes) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(path.parent, 0o700)
    try:
        write_file(path, f"{header}{secret.hex()}\n".encode(), mode=0o600, exclusive=True)
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
