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
    """Raise InvalidData unless `path` is a safe relative path with `/` between its parts.

    Its hint is for who wants to publish it; who was sent it can do nothing.
    """
    if not path:
        raise InvalidData("a path is empty", hint="give the file a name, such as README.md")
    if (size := len(path.encode("utf-8", "surrogatepass"))) > PATH_SIZE_MAX:
        hint = f"this one has {size}: use fewer folders in each other, or shorter names"
        raise InvalidData(f"path '{path[:40]}…' has more than {PATH_SIZE_MAX} bytes", hint=hint)
    if found := _FORBIDDEN.search(path):
        hint = _hint_for(found[0])
        raise InvalidData(f"path {path!r} has a character that not every file system takes", hint=hint)
    if not unicodedata.is_normalized("NFC", path):
        # Both look alike, so that the codes of what is to be there are shown.
        name = ascii(unicodedata.normalize("NFC", path))
        hint = f"rename it to {name}, which looks the same; `convmv -f utf8 -t utf8 --nfc -r --notest DIR` does all"
        raise InvalidData(f"path {path!r} is not in Unicode normal form C", hint=hint)
    for part in path.split("/"):
        if part in ("", ".", ".."):
            hint = "a path begins in the repository's folder and stays in it, such as data/train.parquet"
            raise InvalidData(f"path {path!r} is absolute or has an empty, '.' or '..' part", hint=hint)
        if (size := len(part.encode())) > COMPONENT_SIZE_MAX:
            hint = f"give it a shorter name: '{part[:20]}…' has {size}"
            raise InvalidData(f"path {path!r} has a part of more than {COMPONENT_SIZE_MAX} bytes", hint=hint)
        if part[-1] in " .":
            hint = f"rename {part!r}: Windows drops these at the end"
            raise InvalidData(f"path {path!r} has a part that ends in a space or a dot", hint=hint)
        if part.split(".")[0].rstrip().lower() in _DEVICES:
            hint = f"rename {part!r}, with another word before its first dot: there this is a device in every folder"
            raise InvalidData(f"path {path!r} has a part that names a device on Windows", hint=hint)
        if part.lower() == ".git":
            # Git runs programs that it finds named there.
            hint = f"rename {part!r}, or move it out of the folder"
            raise InvalidData(f"path {path!r} lies in a folder that Git takes for its own", hint=hint)


def _hint_for(character: str) -> str:
    if "\ud800" <= character <= "\udfff":
        # Python reads bytes of a name that are no UTF-8 as these.
        return "its name is not UTF-8: rename it, or `convmv -f latin1 -t utf8 -r --notest DIR` does all"
    return f"rename it without {character!r}"


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
            raise _collision(files.get(folded) or folders[folded], path)
        files[folded] = path
        folder = folded.rpartition("/")[0]
        # The folders above one that is known are known as well.
        while folder and folder not in folders:
            if folder in files:
                raise _collision(files[folder], path)
            folders[folder] = path
            folder = folder.rpartition("/")[0]


def _collision(one: str, other: str) -> InvalidData:
    hint = "rename one of them: no file can be where another or its folder is, and some systems take a for A"
    return InvalidData(f"paths {one!r} and {other!r} collide", hint=hint)


def _fold(path: str) -> str:
    """Return what is equal for paths that differ only in case (Unicode 3.13, D145)."""
    # Folding can undo the normal form, so that it is made before and after.
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())
