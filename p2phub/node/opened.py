"""Sealed repositories that were opened: what they hold, and which of them are remembered (spec/sealing.md §3)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from p2phub.core.ids import ManifestId
from p2phub.core.manifest import FileEntry, Manifest

if TYPE_CHECKING:
    from p2phub.core.sealing import OpenedFile, RepositoryKey

OPENED_MAX = 32  # indexes that are kept in memory, of up to 2 MiB each


class Opened(Struct, frozen=True):
    """A sealed repository whose key is here."""

    key: RepositoryKey
    is_public: bool  # the publisher told the key to everybody
    manifest: Manifest  # of the files as they are
    files: tuple[OpenedFile, ...]

    def of(self, files: Sequence[FileEntry]) -> list[OpenedFile]:
        """Return what each of `files`, which are of `manifest`, is kept as."""
        known = {each.file.path: each for each in self.files}
        return [known[file.path] for file in files]


class OpenedLately:
    """The repositories that were opened lately, so that not every question decrypts an index."""

    def __init__(self) -> None:
        self._opened: OrderedDict[ManifestId, Opened] = OrderedDict()

    def get(self, revision: ManifestId) -> Opened | None:
        """Return a revision that was opened, None if it was not, or long ago."""
        return self._opened.get(revision)

    def keep(self, revision: ManifestId, opened: Opened) -> None:
        """Remember a revision that was opened."""
        self._opened[revision] = opened
        self._opened.move_to_end(revision)
        # Worker threads may do this at once.
        while len(self._opened) > OPENED_MAX:
            self._opened.popitem(last=False)
