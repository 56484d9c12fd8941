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
SIGNING = "p2phub-key-1 "
COMPANION = "p2phub-companion-1 "
RECIPIENT = "p2phub-recipient-1 "
AGENT = "p2phub-agent-1 "  # and a public key: the secret one is in an ssh-agent

COMPANION_FILE = "companion.key"
RECIPIENT_FILE = "recipient.key"


def load_key(path: Path) -> SigningKey:
    """Return the key in the file `path`.

    Raises NotFound if there is none, StoreError if others may read it or it is damaged.
    """
    return SigningKey(_load(path, SIGNING, SEED_SIZE))


def load_companion(keys: Path) -> CompanionKey:
    """Return the companion key in the folder `keys`. Raises as `load_key` does."""
    path = keys / COMPANION_FILE
    try:
        return CompanionKey(_load(path, COMPANION, companion.SECRET_SIZE))
    except ValueError as exc:
        raise StoreError(f"{path} is no key file", path=str(path)) from exc


def load_recipient(keys: Path) -> RecipientKey:
    """Return the recipient key in the folder `keys`. Raises as `load_key` does."""
    return RecipientKey(_load(keys / RECIPIENT_FILE, RECIPIENT, recipient.SECRET_SIZE))


def read_key_file(path: Path) -> tuple[str, str]:
    """Return what a key file begins with, and what follows.

    Raises NotFound if there is no file, StoreError if others may read it or it is none.
    """
    try:
        with disk_errors(path), open(path) as file:
            status = os.fstat(file.fileno())
            text = file.read(1024).strip()
    except StoreError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            raise NotFound(f"there is no key {path}") from exc
        raise
    except UnicodeDecodeError:
        # The error has the text in it, which must never reach a message.
        raise StoreError(f"{path} is no key file", path=str(path)) from None
    check_private(path, status)
    for header in (SIGNING, COMPANION, RECIPIENT, AGENT):
        if text.startswith(header):
            return header, text.removeprefix(header)
    raise StoreError(f"{path} is no key file", path=str(path))


def check_private(path: Path, status: os.stat_result) -> None:
    """Raise StoreError if others may use the secret file `path`."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise StoreError(
            f"others may read the secret key {path} (mode {mode:04o})", path=str(path), hint=f"chmod 600 {path}"
        )


def _load(path: Path, header: str, size: int) -> bytes:
    """Return the secret of `size` bytes in a key file that begins with `header`."""
    found, text = read_key_file(path)
    try:
        # The text itself must never reach a message.
        secret = bytes.fromhex(text) if found == header else b""
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
    keep_secret(path, SIGNING, key.seed)


def keep_companion(keys: Path, key: CompanionKey) -> None:
    """Keep `key` as the companion key in the folder `keys`. Raises StoreError if there is one already."""
    keep_secret(keys / COMPANION_FILE, COMPANION, key.secret)


def keep_recipient(keys: Path, key: RecipientKey) -> None:
    """Keep `key` as the recipient key in the folder `keys`. Raises StoreError if there is one already."""
    keep_secret(keys / RECIPIENT_FILE, RECIPIENT, key.secret)


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


def keep_secret(path: Path, header: str, secret: bytes) -> None:
    """Keep 32 secret bytes in the new file `path`, behind `header`. Raises StoreError if there is one already."""
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
