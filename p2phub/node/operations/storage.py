"""What is in the store, and how much room it takes."""

from __future__ import annotations

from msgspec import Struct

from p2phub.core.choices import LinkMode

from . import AbsolutePath, Operation, Text, View


class StoredRepository(Struct, frozen=True):
    """A manifest in the store."""

    revision: str
    names: list[str]  # NAMESPACE/MODEL of those who published it
    kind: str
    size: int  # bytes of all its files
    here: int  # bytes of them in the store
    pinned: str | None  # why: "published", "kept" or "mirrored"


class StoreList(Operation, tag="store-ls", frozen=True):
    """Show what is in the store."""

    result = list[StoredRepository]


class Freed(Struct, frozen=True):
    """What was removed."""

    items: int
    bytes: int


class StoreRemove(Operation, tag="store-rm", frozen=True):
    """Remove a repository from the store."""

    result = Freed

    reference: Text


class StoreCollect(Operation, tag="store-gc", frozen=True):
    """Remove what nothing needs."""

    result = Freed

    unpinned: bool = False


class PinResult(Struct, frozen=True):
    """What is kept, or no longer."""

    revision: str


class StorePin(Operation, tag="store-pin", frozen=True):
    """Keep a repository whatever else is removed."""

    result = PinResult

    reference: Text


class StoreUnpin(Operation, tag="store-unpin", frozen=True):
    """Keep a repository no longer."""

    result = PinResult

    reference: Text


class DiskUse(Struct, frozen=True):
    """How much the store takes."""

    store: str
    objects: int
    objects_bytes: int
    partials: int
    partials_bytes: int
    in_place: int
    in_place_bytes: int
    index_bytes: int
    free_bytes: int


class StoreUse(Operation, tag="store-df", frozen=True):
    """Say how much room the store takes."""

    result = DiskUse


class CachedRepository(Struct, frozen=True):
    """A revision that was placed in the cache of another hub's client."""

    name: str
    kind: str
    commit: str
    references: list[str]
    folder: str  # of the snapshot


class CacheView(Struct, frozen=True):
    """What was placed in the cache of another hub's client."""

    cache: str
    repositories: list[CachedRepository]


class StoreView(Operation, tag="store-view", frozen=True):
    """Place all that is whole here in the cache of another hub's client."""

    result = CacheView

    view: View
    folder: AbsolutePath
    link: LinkMode = "auto"
    allow_pickle: bool = False
    with_code: bool = False


class WantedRepository(Struct, frozen=True):
    """A repository that adopted files belong to."""

    revision: str
    names: list[str]
    files: int  # of the adopted ones
    here: int  # bytes of it that are in the store now
    size: int  # bytes


class Adopted(Struct, frozen=True):
    """What was taken in where it lies."""

    folder: str
    shape: str  # "hub-cache", "ollama" or "folder"
    files: int
    size: int  # bytes
    repositories: list[WantedRepository]


class StoreAdopt(Operation, tag="store-adopt", frozen=True):
    """Take files of other tools in where they lie."""

    result = Adopted

    folder: AbsolutePath


class RebuildResult(Struct, frozen=True):
    """What a rebuild found."""

    manifests: int
    records: int
    objects: int
    damaged: int


class StoreRebuild(Operation, tag="store-rebuild", frozen=True):
    """Make the index anew from the files."""

    result = RebuildResult
