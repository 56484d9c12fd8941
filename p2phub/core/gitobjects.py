"""The ids that git would give to files and folders: what hub clients call `oid` (spec/hub-api.md §3).

Every file that is not empty is shown as if it were in large-file storage: then its git
object is a pointer, which follows from SHA-256 and size, and no content is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha1


def pointer(sha256: bytes, size: int) -> bytes:
    """Return the text that stands for a large file of `size` bytes in git; of an empty file nothing."""
    if size == 0:
        return b""
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (sha256.hex().encode(), size)


def blob_id(data: bytes) -> bytes:
    """Return the id of a file with the bytes `data`."""
    return _object_id(b"blob", data)


def tree_id(entries: Iterable[tuple[str, bytes, bool]]) -> bytes:
    """Return the id of a folder that holds `entries`: name, id, whether it is a folder."""
    rows = []
    for name, identifier, is_folder in entries:
        encoded = name.encode()
        # Git sorts a folder as if its name ended in a slash.
        key = encoded + b"/" if is_folder else encoded
        mode = b"40000" if is_folder else b"100644"
        rows.append((key, mode + b" " + encoded + b"\0" + identifier))
    return _object_id(b"tree", b"".join(row for _, row in sorted(rows)))


def _object_id(kind: bytes, data: bytes) -> bytes:
    return sha1(b"%s %d\0" % (kind, len(data)) + data, usedforsecurity=False).digest()
