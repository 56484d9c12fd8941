"""The keys that this home can sign with, wherever they are: in files, in an ssh-agent, in the file of P2PHUB_KEY_FILE.

Which of them does what is said by the identity document, and not by the name of a file: so a crash between a new
key and the document that names it, or the other way round, leaves nothing to repair. Source: spec/store.md §6.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from p2phub.core.armor import armor, kind_of, unarmor
from p2phub.core.companion import CompanionKey
from p2phub.core.errors import InvalidData, InvalidName, NotFound, StoreError
from p2phub.core.ids import PublicKey
from p2phub.core.joining import Secrets
from p2phub.core.keybundle import BUNDLE_SIZE_MAX, KeyBundle, decode_bundle, encode_bundle
from p2phub.core.passphrase import LOCKED_SIZE_MAX, SALT_SIZE, lock, unlock
from p2phub.core.recipient import RecipientKey
from p2phub.core.signing import SEED_SIZE, Signer, SigningKey

from .agent import Agent, AgentKey
from .disk import disk_errors, write_file
from .keys import AGENT, COMPANION, RECIPIENT, SIGNING, check_private, keep_key, keep_secret, read_key_file

NODE_FILE = "node.key"  # names the node, and signs nothing else
REQUEST_FILE = "request.key"  # an X25519 key: what answers a request to be named is encrypted to it
_OTHER_FILES = {NODE_FILE, REQUEST_FILE, "witness.key"}  # with keys that sign for no publisher

BUNDLE_KIND, LOCKED_KIND = "keys", "locked"  # spec/identity.md §9
_TEXT_SIZE_MAX = LOCKED_SIZE_MAX * 3 // 2  # characters of a file with keys

HEAD_SIZE = 256  # bytes of a file that tell whether it holds keys
_HEADS = tuple(
    head.strip().encode()
    for head in (SIGNING, COMPANION, RECIPIENT, AGENT, armor(BUNDLE_KIND, b""), armor(LOCKED_KIND, b""))
)

AskPassphrase = Callable[[Path], str]


def begins_as_keys(head: bytes) -> bool:
    """Say whether a file that begins with `head` holds keys, as a home keeps them or as a bundle, locked or not."""
    # Keys are read with white space around and in them, as mail programs and editors put it there.
    return b"".join(head.removeprefix(b"\xef\xbb\xbf").split()).startswith(_HEADS)


def signers(keys: Path) -> dict[PublicKey, Signer]:
    """Return those that sign with the keys of the folder `keys`, by public key.

    Raises StoreError if a file is damaged, or others may read it.
    """
    found: dict[PublicKey, Signer] = {}
    for path in _key_files(keys):
        kind, text = read_key_file(path)
        if kind == SIGNING:
            signer: Signer = SigningKey(_secret(text, path))
        elif kind == AGENT:
            signer = _agent_key(text, path)
        else:
            continue
        found.setdefault(signer.public_key, signer)
    return found


def keep_signing_key(keys: Path, key: SigningKey) -> Path:
    """Keep `key` in the folder `keys`, in a file called after it; returns where. Nothing is done if it is there."""
    path = keys / f"{str(key.public_key)[:16]}.key"
    if not path.exists():
        keep_key(path, key)
    return path


def new_signing_key(keys: Path) -> SigningKey:
    """Make a key and keep it in the folder `keys`, beside those that are there."""
    key = SigningKey(os.urandom(SEED_SIZE))
    keep_signing_key(keys, key)
    return key


def load_request_key(keys: Path) -> RecipientKey:
    """Return the key to which answers for this machine are encrypted, made now if there is none."""
    path = keys / REQUEST_FILE
    if not path.exists():
        keep_secret(path, RECIPIENT, os.urandom(32))
    _, text = read_key_file(path)
    return RecipientKey(_secret(text, path))


def keep_agent_key(keys: Path, key: PublicKey) -> None:
    """Note in the folder `keys` that the ssh-agent has `key`."""
    with disk_errors(keys):
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(keys, 0o700)
    write_file(keys / f"{str(key)[:16]}.key", f"{AGENT}{key}\n".encode(), mode=0o600)


def companions(keys: Path) -> list[CompanionKey]:
    """Return the companion keys in the folder `keys`. Raises StoreError."""
    found = []
    for path in _key_files(keys):
        kind, text = read_key_file(path)
        if kind == COMPANION:
            try:
                found.append(CompanionKey(_secret(text, path)))
            except ValueError:
                raise StoreError(f"{path} is no key file", path=str(path)) from None
    return found


def recipients(keys: Path) -> list[RecipientKey]:
    """Return the recipient keys in the folder `keys`: that of now, and those of before. Raises StoreError."""
    files = [(path, *read_key_file(path)) for path in _key_files(keys)]
    return [RecipientKey(_secret(text, path)) for path, kind, text in files if kind == RECIPIENT]


def new_companion(keys: Path) -> CompanionKey:
    """Make a companion key and keep it in the folder `keys`, beside those of before."""
    # Of all keys that P-256 has, one in 2^32 random numbers is none.
    key = CompanionKey(os.urandom(32))
    keep_secret(keys / f"companion-{key.public_key.hex()[2:18]}.key", COMPANION, key.secret)
    return key


def new_recipient(keys: Path) -> RecipientKey:
    """Make a recipient key and keep it in the folder `keys`, beside those of before."""
    key = RecipientKey(os.urandom(32))
    keep_secret(keys / f"recipient-{key.public_key.hex()[:16]}.key", RECIPIENT, key.secret)
    return key


def keep_secrets(keys: Path, secrets: Secrets) -> None:
    """Keep what another machine of the publisher has, in the folder `keys`; what is there stays."""
    if secrets.companion and secrets.companion not in {each.secret for each in companions(keys)}:
        key = CompanionKey(secrets.companion)
        keep_secret(keys / f"companion-{key.public_key.hex()[2:18]}.key", COMPANION, key.secret)
    known = {each.secret for each in recipients(keys)}
    for secret in secrets.recipients:
        if secret not in known:
            name = f"recipient-{RecipientKey(secret).public_key.hex()[:16]}.key"
            keep_secret(keys / name, RECIPIENT, secret)


def read_bundle(path: Path, ask: AskPassphrase) -> KeyBundle:
    """Return the keys in the file `path`: one key as a home keeps it, or several, perhaps locked.

    ask: says the passphrase. Raises NotFound if there is no file, StoreError if others may read it or it holds no
    keys, WrongPassphrase. Of several calls for one file, the first alone costs much.
    """
    with disk_errors(path):
        try:
            with open(path, "rb") as file:
                data = file.read(_TEXT_SIZE_MAX + 1)
                status = os.fstat(file.fileno())
        except FileNotFoundError:
            raise NotFound(f"there is no key file {path}") from None
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise StoreError(f"{path} is no key file", path=str(path)) from None
    if not text.startswith(SIGNING) and kind_of(text) not in (BUNDLE_KIND, LOCKED_KIND):
        raise StoreError(f"{path} is no key file", path=str(path))
    check_private(path, status)
    if kind_of(text) != LOCKED_KIND:
        return _read_text(text, path)
    passphrase = ask(path)
    return _read_locked(text, path, status.st_mtime_ns, passphrase)


def write_bundle(path: Path, bundle: KeyBundle, passphrase: str | None) -> None:
    """Write keys to the new file `path`, locked unless `passphrase` is None. Raises StoreError if it exists."""
    try:
        write_file(path, _bundle_text(bundle, passphrase), mode=0o600, exclusive=True)
    except StoreError as exc:
        if isinstance(exc.__cause__, FileExistsError):
            raise StoreError(f"there is a file {path} already", path=str(path)) from exc
        raise


def replace_bundle(path: Path, bundle: KeyBundle, passphrase: str | None) -> None:
    """Write keys in the place of what `write_bundle` wrote: after a crash, the one or the other is there."""
    write_file(path, _bundle_text(bundle, passphrase), mode=0o600)


def _bundle_text(bundle: KeyBundle, passphrase: str | None) -> bytes:
    data = encode_bundle(bundle)
    if passphrase is not None:
        return f"{armor(LOCKED_KIND, lock(data, passphrase, salt=os.urandom(SALT_SIZE)))}\n".encode()
    return f"{armor(BUNDLE_KIND, data)}\n".encode()


@lru_cache(maxsize=8)
def _read_locked(text: str, path: Path, changed: int, passphrase: str) -> KeyBundle:
    # A process that publishes often would spend half a second on each record.
    try:
        return decode_bundle(unlock(unarmor(LOCKED_KIND, text, size_max=LOCKED_SIZE_MAX + 256), passphrase))
    except InvalidData:
        raise StoreError(f"{path} is no key file, or damaged", path=str(path)) from None


def _read_text(text: str, path: Path) -> KeyBundle:
    if text.startswith(SIGNING):
        return KeyBundle(1, (_secret(text.removeprefix(SIGNING).strip(), path),))
    try:
        return decode_bundle(unarmor(BUNDLE_KIND, text, size_max=BUNDLE_SIZE_MAX))
    except InvalidData:
        raise StoreError(f"{path} is no key file, or damaged", path=str(path)) from None


def _key_files(keys: Path) -> list[Path]:
    with disk_errors(keys):
        return sorted(path for path in keys.glob("*.key") if path.name not in _OTHER_FILES)


def _secret(text: str, path: Path) -> bytes:
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise StoreError(f"{path} is no key file", path=str(path))
    return secret


def _agent_key(text: str, path: Path) -> AgentKey:
    try:
        key = PublicKey.parse(text)
    except InvalidName as exc:
        raise StoreError(f"{path} is no key file", path=str(path)) from exc
    return AgentKey(key, Agent(os.environ.get("SSH_AUTH_SOCK", "")))
