"""Which files of a folder are published: all but what tools keep there, and no keys (spec/store.md §2, §6)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from p2phub.core import manifest as manifests
from p2phub.core.errors import InvalidData, StoreError
from p2phub.core.paths import check_paths
from p2phub.store.disk import disk_errors
from p2phub.store.keyring import HEAD_SIZE, begins_as_keys
from p2phub.store.leaks import find_leak
from p2phub.store.ownfiles import OwnFiles

from .events import Notice, Tell

KEY_SUFFIX = ".key"  # of the files in which a home keeps keys; spec/store.md §6
# Folders that tools keep their own state in; nobody means to publish them.
LEFT_OUT = frozenset({".git", ".hg", ".svn", ".cache", "__pycache__", ".ipynb_checkpoints", ".DS_Store"})


@dataclass(frozen=True)
class SourceFile:
    """A file of the folder that is published."""

    path: str  # in the repository
    location: Path  # on disk, absolute
    size: int  # bytes


def find_files(folder: Path, own: OwnFiles, tell: Tell) -> list[SourceFile]:
    """Return the files to publish of `folder`, sorted by their path in the repository.

    Links to files are followed, links to folders are not. Raises StoreError if there is
    no folder or nothing in it, InvalidData if a path cannot be published, or one of the `own` files or keys are
    among them.
    """
    with disk_errors(folder):
        if not folder.is_dir():
            raise StoreError(f"{folder} is no folder", path=str(folder), hint="name the folder that holds the files")
        found = []
        for parent, folders, names in os.walk(folder, onerror=_raise):
            own.refuse(parent)
            folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
            for name in folders:
                if (Path(parent) / name).is_symlink():
                    tell(Notice(f"{Path(parent) / name} is a link to a folder and is left out"))
            for name in names:
                if name in LEFT_OUT:
                    continue
                location = Path(parent) / name
                with disk_errors(location):
                    if location.is_symlink() and not location.exists():
                        hint = "remove the link, or bring back what it leads to"
                        raise StoreError(f"{location} is a link to nothing", path=str(location), hint=hint)
                    status = location.stat()
                if not stat.S_ISREG(status.st_mode):
                    tell(Notice(f"{location} is no regular file and is left out"))
                    continue
                own.refuse(location)
                path = location.relative_to(folder).as_posix()
                source = SourceFile(path, location.resolve(), status.st_size)
                if name.endswith(KEY_SUFFIX):
                    # Before others are taken in: whose keys these are, the rest may be a secret of, too.
                    refuse_keys(source)
                found.append(source)
    if not found:
        hint = f"what tools keep is left out: {', '.join(sorted(LEFT_OUT))}"
        raise StoreError(f"there are no files in {folder}", path=str(folder), hint=hint)
    found.sort(key=lambda source: source.path)
    check_paths(source.path for source in found)
    if len(found) > manifests.FILES_MAX:
        hint = "put small ones into archives, such as tar or Parquet, or publish folders of it under names of their own"
        raise InvalidData(f"{folder} has {len(found)} files, the limit is {manifests.FILES_MAX}", hint=hint)
    return found


def refuse_leaks(sources: Iterable[SourceFile], allow_secrets: bool) -> None:
    """Raise InvalidData if secret keys are found somewhere in these files.

    allow_secrets: not for private keys that are no keys of p2phub.
    """
    for source in sources:
        leak = find_leak(source.location, source.path)
        if leak is None or (leak.kind == "pem" and allow_secrets):
            continue
        where = f"{source.path} holds" if leak.member is None else f"{leak.member} in {source.path} holds"
        if leak.kind == "p2phub":
            raise _keys_found(where)
        raise InvalidData(
            f"{where} a private key, which everybody could use who fetches it",
            hint="take it away from there, or say --allow-secrets if it is meant to be published",
        )


def refuse_keys(source: SourceFile) -> None:
    """Raise InvalidData if a file holds keys of p2phub, which nobody means to publish."""
    with disk_errors(source.location), open(source.location, "rb") as file:
        refuse_head(source, file.read(HEAD_SIZE))


def refuse_head(source: SourceFile, head: bytes) -> None:
    """Raise InvalidData if a file that begins with `head` holds keys of p2phub."""
    if begins_as_keys(head):
        # An upload lies under a name that tells nobody anything.
        is_telling = source.location.name == source.path.rsplit("/", 1)[-1]
        raise _keys_found(f"{source.location if is_telling else source.path} holds")


def _keys_found(where: str) -> InvalidData:
    return InvalidData(
        f"{where} secret keys of p2phub: whoever has them publishes in their owner's name",
        hint="take it away from there; what is published cannot be taken back",
    )


def _raise(error: OSError) -> None:
    with disk_errors(error.filename):
        raise error
