"""Which file paths a repository may have (spec/manifest.md §3).

A manifest's paths are written to disk on any system. So what escapes the folder,
names a device, or would fall together with another path on some file system is
refused where the manifest is read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from .errors import InvalidData

PATH_SIZE_MAX = 1024  # bytes of UTF-8; spec/manifest.md §3
COMPONENT_SIZE_MAX = 255  # bytes of UTF-8; spec/manifest.md §3

_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{name}{digit}" for name in ("com", "lpt") for digit in "0123456789¹²³"]
)
# The categories Cc and Cs of Unicode, which never change, and what some file system does not take.
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff\\:*?"<>|]')


def check_path(path: str) -> None:
    """Raise InvalidData unless `path` is a safe relative path with `/` between its parts."""
    if not path:
        raise InvalidData("a path is empty")
    if len(path.encode("utf-8", "surrogatepass")) > PATH_SIZE_MAX:
        raise InvalidData(f"path '{path[:40]}…' has more than {PATH_SIZE_MAX} bytes")
    if _FORBIDDEN.search(path):
        raise InvalidData(f"path {path!r} has a character that not every file system takes")
    if not unicodedata.is_normalized("NFC", path):
        raise InvalidData(f"path {path!r} is not in Unicode normal form C")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise InvalidData(f"path {path!r} is absolute or has an empty, '.' or '..' part")
        if len(part.encode()) > COMPONENT_SIZE_MAX:
            raise InvalidData(f"path {path!r} has a part of more than {COMPONENT_SIZE_MAX} bytes")
        if part[-1] in " .":
            raise InvalidData(f"path {path!r} has a part that ends in a space or a dot")
        if part.split(".")[0].rstrip().lower() in _DEVICES:
            raise InvalidData(f"path {path!r} has a part that names a device on Windows")
        if part.lower() == ".git":
            # Git runs programs that it finds named there.
            raise InvalidData(f"path {path!r} lies in a folder that Git takes for its own")


def check_paths(paths: Iterable[str]) -> None:
    """Raise InvalidData unless each path is safe, they are sorted, and none stands in another's way.

    Two paths collide if they are equal but for case, or if one is a folder of the other.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    previous = ""
    for path in paths:
        check_path(path)
        if path <= previous:
            raise InvalidData(f"paths are not sorted: {path!r} comes after {previous!r}")
        previous = path
        folded = _fold(path)
        if folded in files or folded in folders:
            raise InvalidData(f"paths {(files.get(folded) or folders[folded])!r} and {path!r} collide")
        files[folded] = path
        folder = folded.rpartition("/")[0]
        # The folders above one that is known are known as well.
        while folder and folder not in folders:
            if folder in files:
                raise InvalidData(f"paths {files[folder]!r} and {path!r} collide")
            folders[folder] = path
            folder = folder.rpartition("/")[0]


def _fold(path: str) -> str:
    """Return what is equal for paths that differ only in case (Unicode 3.13, D145)."""
    # Folding can undo the normal form, so that it is made before and after.
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())
