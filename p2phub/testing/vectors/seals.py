"""Vectors of sealed repositories."""

from __future__ import annotations

from hashlib import sha256

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2phub.core import encoding, sealing
from p2phub.core import manifest as manifests
from p2phub.core.ids import ManifestId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.core.records import WrappedKey
from p2phub.testing import hpke, values

from .content import cut
from .plain import Json

_ORDER_8 = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")  # RFC 7748 §6.1

# Empty, one chunk, and two chunks of which the second is a byte.
_FILES: dict[str, Json] = {
    "README.md": {"hex": b"# Parrot\n".hex()},
    "empty.txt": {"hex": ""},
    "model.bin": {"blake3": "model.bin", "size": sealing.CHUNK_SIZE + 1},
}


def repository_key() -> sealing.RepositoryKey:
    """Return the key of the sealed repository of the vectors."""
    return sealing.RepositoryKey(values.content("repository key", 32))


def content_of(part: Json) -> bytes:
    """Return the bytes that a part of a recipe describes."""
    return bytes.fromhex(part["hex"]) if "hex" in part else values.content(part["blake3"], part["size"])


def seal_all(key: sealing.RepositoryKey, file_id: bytes, data: bytes) -> bytes:
    """Return a whole file, sealed."""
    file = key.file(file_id, len(data))
    size = sealing.CHUNK_SIZE
    return b"".join(file.seal(index, data[index * size : (index + 1) * size]) for index in range(file.count))


def sealed_repository(
    contents: dict[str, bytes], key: sealing.RepositoryKey
) -> tuple[Manifest, Manifest, dict[str, bytes], dict[str, bytes]]:
    """Return a repository's manifest as it is and as everybody sees it, and its sealed files and file ids by path."""
    entries = tuple(_entry(path, data) for path, data in sorted(contents.items()))
    opened = Manifest(schema=1, kind="model", created=values.TIME, files=entries)
    index = manifests.encode(opened)
    seal = sealing.seal_manifest(key, index)
    ids = {file.path: key.file_id(file.path, file.root) for file in entries} | {"": seal.index}
    sealed = {path: seal_all(key, ids[path], data) for path, data in {**contents, "": index}.items()}
    places = {path: sealing.sealed_path(ids[path]) if path else sealing.INDEX_PATH for path in sealed}
    kept = sorted((_sealed_entry(places[path], data) for path, data in sealed.items()), key=lambda file: file.path)
    outer = Manifest(schema=1, kind="model", created=values.TIME, files=tuple(kept), sealed=seal)
    return opened, outer, sealed, ids


def _entry(path: str, data: bytes) -> FileEntry:
    return FileEntry(path, len(data), cut("cdc-1m", data).root(), sha256(data).digest(), "other", "cdc-1m")


def _sealed_entry(path: str, data: bytes) -> FileEntry:
    return sealing.sealed_entry(path, len(data), cut("fixed-1m", data).root(), sha256(data).digest())


def sealed() -> Json:
    key = repository_key()
    opened, outer, sealed, ids = sealed_repository({path: content_of(part) for path, part in _FILES.items()}, key)
    data = manifests.encode(outer)
    secret = X25519PrivateKey.from_private_bytes(values.content("recipient", 32))
    public = secret.public_key().public_bytes_raw()
    publisher, reader = values.identity().namespace, values.identity("other").namespace
    info = b"p2phub 1 sealed wrap\0" + key.identifier + publisher + reader + b"parrot-7b"
    box = hpke.seal(key.secret, public, values.content("sender", 32), info=info)
    change = msgspec.structs.replace
    readme, index = sealed["README.md"], manifests.encode(opened)
    two = sealed["model.bin"]
    first, second = two[: sealing.CHUNK_SIZE + sealing.TAG_SIZE], two[sealing.CHUNK_SIZE + sealing.TAG_SIZE :]
    lacking = tuple(file for file in outer.files if file.path != sealing.sealed_path(ids["empty.txt"]))
    indexes: dict[str, tuple[bytes, Manifest]] = {
        "a file is missing": (index, change(outer, files=lacking)),
        "a file too many": (index, change(outer, files=(change(outer.files[0], path="0"), *outer.files))),
        "a file of another size": (index, change(outer, files=(change(outer.files[0], size=1), *outer.files[1:]))),
        "the index of another kind": (index, change(outer, kind="dataset")),
        "another index than is named": (manifests.encode(change(opened, created=1)), outer),
        "an index that is sealed itself": (data, outer),
    }
    return {
        "repository_key": key.secret,
        "key_id": key.identifier,
        "files": [
            {
                "path": path,
                "content": _FILES[path] if path else {"hex": index.hex()},
                "root": next((file.root for file in opened.files if file.path == path), blake3(index).digest()),
                "file_id": ids[path],
                "sealed_size": len(sealed[path]),
                "sealed_blake3": blake3(sealed[path]).digest(),
                "sealed_root": cut("fixed-1m", sealed[path]).root(),
            }
            for path in sorted(sealed)
        ],
        "readme": {"sealed": readme, "opened": b"# Parrot\n"},
        "manifest": {"encoded": data, "id": str(ManifestId(blake3(data).digest())), "value": outer},
        "invalid_chunks": [
            {"path": path, "size": size, "index": place, "sealed_blake3": blake3(part).digest(), "sealed": part[:64],
             "sealed_size": len(part), "why": why}
            for path, size, place, part, why in (
                ("README.md", 9, 0, readme[:-1] + bytes([readme[-1] ^ 1]), "another tag"),
                ("README.md", 9, 0, bytes([readme[0] ^ 1]) + readme[1:], "another byte"),
                ("README.md", 9, 0, readme[:-1], "a byte less"),
                ("empty.txt", 9, 0, readme, "of another file"),
                ("README.md", 9, 1, readme, "at another place"),
                ("model.bin", sealing.CHUNK_SIZE + 1, 1, first, "the first chunk in the place of the second"),
                ("model.bin", 1, 0, second, "the last chunk of two as the only one"),
            )
        ],
        "invalid_indexes": [
            {"index": content, "manifest": encoding.encode(manifest), "why": why}
            for why, (content, manifest) in indexes.items()
        ],
        "wrapped": {
            "publisher": publisher,
            "model": "parrot-7b",
            "recipient_secret": secret.private_bytes_raw(),
            "sender_secret": values.content("sender", 32),
            "info": info,
            "value": WrappedKey(reader, public, box),
        },
        "refused_recipients": [
            {"recipient": bytes(32), "why": "order 1"},
            {"recipient": b"\x01" + bytes(31), "why": "order 1"},
            {"recipient": _ORDER_8, "why": "order 8"},
        ],
    }  # fmt: skip
