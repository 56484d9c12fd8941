"""Sealed repositories: files that whoever keeps them cannot read (spec/sealing.md).

    file ──chunks of 1 MiB − 16──▶ AES-256-GCM ──▶ sealed file: content like any other
    manifest of the files ──────── the same ─────▶ the index, one sealed file more
    repository key ──HPKE, for each recipient───▶ WrappedKey, in a `seal` record

A keeper stores, serves and checks sealed files by their hashes. Whoever has the key of
the repository opens each chunk by itself, and a chunk says where it belongs: at another
place, in another file, or of a file with another number of chunks it does not open.

The key of a file follows from the repository's key, the path and the content. So the
same file is sealed to the same bytes in the next revision, and no key ever meets two
contents with one nonce.
"""

from __future__ import annotations

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from msgspec import Struct

from . import manifest as manifests
from .errors import HashMismatch, InvalidData
from .ids import ContentId, NamespaceId
from .manifest import FileEntry, Manifest, Sealed
from .records import WrappedKey

KEY_SIZE = 32  # bytes; spec/sealing.md §1
TAG_SIZE = 16  # bytes that a sealed chunk is longer; spec/sealing.md §2
CHUNK_SIZE = 1024 * 1024 - TAG_SIZE  # bytes, so that a sealed chunk is a chunk of `fixed-1m`; spec/sealing.md §2
INDEX_PATH = "index"  # of the sealed file that says what the others are; spec/sealing.md §3
FILES_MAX = manifests.FILES_MAX - 1  # beside the index; spec/sealing.md §3

_KEY_CONTEXT = "p2phub 1 sealed key"  # spec/sealing.md §1
_FILE_CONTEXT = "p2phub 1 sealed file"  # spec/sealing.md §2
_FILE_KEY_CONTEXT = "p2phub 1 sealed file key"  # spec/sealing.md §2
_WRAP_CONTEXT = b"p2phub 1 sealed wrap\0"  # spec/sealing.md §4
_PATH_SIZE = 32  # characters of a file id that name the sealed file; spec/sealing.md §3

_suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class RepositoryKey:
    """The secret that opens a sealed repository. Never shows itself in text."""

    def __init__(self, secret: bytes) -> None:
        """secret: 32 random bytes. Raises InvalidData if it has another length."""
        if len(secret) != KEY_SIZE:
            raise InvalidData(f"the key of a sealed repository has {KEY_SIZE} bytes, not {len(secret)}")
        self.secret = secret
        self.identifier = blake3(secret, derive_key_context=_KEY_CONTEXT).digest()  # what manifests and records name

    def file_id(self, path: str, root: ContentId) -> bytes:
        """Return what the file at `path` with the content `root` is called inside this repository, 32 bytes."""
        name = path.encode()
        material = self.secret + len(name).to_bytes(4, "big") + name + root
        return blake3(material, derive_key_context=_FILE_CONTEXT).digest()

    def file(self, file_id: bytes, size: int) -> SealedFile:
        """Return what seals and opens the chunks of a file. size: bytes of the file, before it is sealed."""
        secret = blake3(self.secret + file_id, derive_key_context=_FILE_KEY_CONTEXT).digest()
        return SealedFile(AESGCM(secret), file_id, size)


class SealedFile:
    """The chunks of one sealed file. Made by `RepositoryKey.file`."""

    def __init__(self, cipher: AESGCM, file_id: bytes, size: int) -> None:
        self.size = size  # bytes, opened
        self.count = chunk_count(size)
        self._cipher = cipher
        self._file_id = file_id

    def seal(self, index: int, data: bytes | memoryview) -> bytes:
        """Return chunk `index`, sealed. data: CHUNK_SIZE bytes, or what is left in the last chunk."""
        assert len(data) == self.length(index)
        return self._cipher.encrypt(_nonce(index), data, self._place(index))

    def open(self, index: int, data: bytes | memoryview) -> bytes:
        """Return chunk `index`, opened. Raises InvalidData if `data` is not what was sealed at this place."""
        if not 0 <= index < self.count or len(data) != self.length(index) + TAG_SIZE:
            raise InvalidData(f"a sealed file of {self.size} bytes has no chunk {index} of {len(data)} bytes")
        try:
            return self._cipher.decrypt(_nonce(index), data, self._place(index))
        except InvalidTag as exc:
            raise HashMismatch(f"chunk {index} of a sealed file is not what was sealed there") from exc

    def length(self, index: int) -> int:
        """Return the bytes of chunk `index`, opened."""
        return min(CHUNK_SIZE, self.size - index * CHUNK_SIZE)

    def _place(self, index: int) -> bytes:
        """Return what is authenticated beside the bytes of a chunk: which one of how many it is, and of what."""
        return self._file_id + index.to_bytes(8, "big") + self.count.to_bytes(8, "big")


class OpenedFile(Struct, frozen=True):
    """A file of a sealed repository: what it is, and what it is kept as."""

    file: FileEntry
    sealed: FileEntry
    file_id: bytes


def chunk_count(size: int) -> int:
    """Return how many sealed chunks a file of `size` bytes has; an empty one has one, so that it is proved empty."""
    return max(1, -(-size // CHUNK_SIZE))


def sealed_size(size: int) -> int:
    """Return the bytes of a file of `size` bytes once it is sealed."""
    return size + TAG_SIZE * chunk_count(size)


def opened_size(size: int) -> int:
    """Return the bytes of the file that is sealed in `size` bytes. Raises InvalidData if none is."""
    count = max(1, -(-size // (CHUNK_SIZE + TAG_SIZE)))
    opened = size - TAG_SIZE * count
    if opened < 0 or sealed_size(opened) != size:
        raise InvalidData(f"no sealed file has {size} bytes")
    return opened


def sealed_path(file_id: bytes) -> str:
    """Return the path of a sealed file in the manifest that everybody sees."""
    return file_id.hex()[:_PATH_SIZE]


def sealed_entry(path: str, size: int, root: ContentId, sha256: bytes) -> FileEntry:
    """Return the entry of a sealed file. size, root, sha256: of the sealed bytes."""
    return FileEntry(path, size, root, sha256, "other", "fixed-1m")


def index_id(key: RepositoryKey, index: bytes) -> bytes:
    """Return the file id of the index, whose content is not named anywhere else."""
    # No file has this path, so no file has this id.
    return key.file_id("", ContentId(blake3(index).digest()))


def read_index(index: bytes, key: RepositoryKey, sealed: Manifest) -> tuple[Manifest, list[OpenedFile]]:
    """Return the manifest that `index`, opened, holds, and what each of its files is kept as, in its order.

    sealed: the manifest that everybody sees. Raises InvalidData if one is not about the other.
    """
    manifest = manifests.decode(index)
    assert sealed.sealed
    if manifest.sealed is not None or manifest.kind != sealed.kind:
        raise InvalidData("the index of a sealed repository holds the manifest of another one")
    if index_id(key, index) != sealed.sealed.index:
        raise InvalidData("the index of a sealed repository is another than its manifest names")
    kept = {file.path: file for file in sealed.files}
    kept.pop(INDEX_PATH, None)
    files = []
    for file in manifest.files:
        file_id = key.file_id(file.path, file.root)
        outer = kept.pop(sealed_path(file_id), None)
        if outer is None or outer.size != sealed_size(file.size):
            raise InvalidData(f"the sealed repository lacks what its index calls {file.path!r}")
        files.append(OpenedFile(file, outer, file_id))
    if kept:
        raise InvalidData("the sealed repository has files that its index does not name")
    return manifest, files


def index_entry(sealed: Manifest) -> FileEntry:
    """Return the file of a sealed manifest that says what the others are. Raises InvalidData if there is none."""
    entry = sealed.file(INDEX_PATH)
    if entry is None or opened_size(entry.size) > manifests.MANIFEST_SIZE_MAX:
        raise InvalidData("a sealed repository has an index of a possible size")
    return entry


def seal_manifest(key: RepositoryKey, index: bytes) -> Sealed:
    """Return what a manifest says of its seal. index: the encoded manifest of what was sealed."""
    return Sealed(key.identifier, index_id(key, index))


# ── the key, for each recipient ─────────────────────────────────────────────


def wrap(
    key: RepositoryKey, publisher: NamespaceId, model: str, namespace: NamespaceId, recipient: bytes
) -> WrappedKey:
    """Return the key of `publisher`'s repository `model` so that the X25519 key `recipient` of `namespace` reads it.

    Another one each time: HPKE draws a key pair of its own. Raises InvalidData if `recipient` is no usable key.
    """
    try:
        public = X25519PublicKey.from_public_bytes(recipient)
        box = _suite.encrypt(key.secret, public, info=_wrap_info(key.identifier, publisher, model, namespace))
    except ValueError as exc:
        raise InvalidData(f"{namespace} has a recipient key that cannot be used") from exc
    return WrappedKey(namespace, recipient, box)


def unwrap(
    wrapped: WrappedKey, private: X25519PrivateKey, identifier: bytes, publisher: NamespaceId, model: str
) -> RepositoryKey:
    """Return the key that was wrapped for `private`. identifier: of the key, as the record that brought it says.

    Raises InvalidData if it was not wrapped for this key, publisher and model, or is another key than was named.
    """
    info = _wrap_info(identifier, publisher, model, wrapped.namespace)
    try:
        key = RepositoryKey(_suite.decrypt(wrapped.box, private, info=info))
    except (InvalidTag, ValueError) as exc:
        raise InvalidData(f"the key of {model} was not wrapped for this recipient") from exc
    if key.identifier != identifier:
        raise InvalidData(f"what was wrapped is not the key of {model} that the record names")
    return key


def _wrap_info(identifier: bytes, publisher: NamespaceId, model: str, namespace: NamespaceId) -> bytes:
    return _WRAP_CONTEXT + identifier + publisher + namespace + model.encode()


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")
