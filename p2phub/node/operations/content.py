"""Publish a folder, and fetch a repository or a file of it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2phub.core.choices import DEFAULT_BRANCH, Kind, LinkClass, LinkMode, Profile, Visibility
from p2phub.core.origins import ORIGIN_URLS_MAX

from . import AbsolutePath, Given, Namespaces, Operation, Text, View

Patterns = Annotated[tuple[Text, ...], Meta(max_length=1000)]
Published = Annotated[tuple[Text, ...], Meta(max_length=ORIGIN_URLS_MAX)]


class PublishResult(Struct, frozen=True):
    """What was published."""

    namespace: str
    model: str
    version: str | None
    branch: str
    revision: str
    files: int
    size: int  # bytes
    written: int  # bytes that had to be written to the store
    new: bool  # False: exactly this was published before
    log_index: int | None
    confirmed: list[str] = []  # node ids, if others were waited for
    sealed: bool = False  # its keepers cannot read it
    visibility: Visibility = "public"


class PublishFolder(Operation, tag="publish", frozen=True):
    """Publish a folder as a revision of a repository."""

    result = PublishResult

    folder: AbsolutePath
    name: Text
    branch: Text = DEFAULT_BRANCH
    message: Annotated[str, Meta(max_length=4096)] = ""
    in_place: bool = False
    profile: Profile | None = None
    kind: Kind = "model"
    origin_urls: Published = ()
    wait: Annotated[int, Meta(ge=0, le=100)] = 0  # other nodes that are to confirm that they have it
    sealed: bool = False  # so that keepers cannot read it
    sealed_for: Namespaces = ()  # who can, beside the publisher
    is_open: bool = False  # everybody can, though the revision before is sealed
    allow_secrets: bool = False  # also private keys that are no keys of p2phub
    visibility: Visibility | None = None  # None: as it is, or public


class LinkShare(Struct, frozen=True):
    """What came over links of one class, or is expected to."""

    link: LinkClass
    size: int  # bytes
    providers: int  # over these links: who gave something, or offer something


class ProviderSummary(Struct, frozen=True):
    """What one provider did: a peer or an HTTP origin."""

    node: str | None  # node id
    received: int  # bytes
    rate: float  # bytes a second
    state: str
    reason: str | None
    origin: str | None = None  # host and port
    link: LinkClass | None = None  # of the link to it; None: it was never asked


class LeftOut(Struct, frozen=True):
    """A file that the policy left out."""

    path: str
    reason: str
    hint: str | None = None


class FetchResult(Struct, frozen=True):
    """What was fetched, and where it is."""

    reference: str
    revision: str | None  # None for a single file
    path: str | None  # the folder, or the single file; None if nothing was checked out
    files: int
    size: int  # bytes of the files asked for
    here_before: int  # bytes of them that were here already
    copied: int  # bytes that were taken from other files here
    shared: int  # of these, that lie on disk once: extents that both files share
    received: int  # bytes that came from providers
    duplicates: int  # bytes that came twice
    seconds: float
    linked: str | None  # how the files were placed
    providers: list[ProviderSummary]
    dry_run: bool = False
    links: list[LinkShare] = []  # what came, or would come, over which class of links
    unoffered: int = 0  # bytes that nobody offers, of a dry run
    expected_s: float | None = None  # seconds that what would come takes; None: not known, or no dry run
    left_out: list[LeftOut] = []  # files of it that the policy does not let in


class Fetch(Operation, tag="fetch", frozen=True):
    """Bring a repository into the store, and check it out."""

    result = FetchResult

    reference: Text
    to: AbsolutePath | None = None
    include: Patterns = ()
    exclude: Patterns = ()
    link: LinkMode = "auto"
    force: bool = False
    dry_run: bool = False
    kind: Kind | None = None
    origins: Given = ()
    standing_origins: Given = ()  # of the environment: those that do not fit are passed over
    view: View | None = None  # `to` is the cache of a client of this kind
    background: bool = False
    sealed: bool = False  # keep what is sealed as it is, for others
    allow_pickle: bool = False  # pickles are taken too, if a scan finds nothing against them
    with_code: bool = False  # and programs
    recalled: bool = False  # and what its publisher recalled


class FileResult(Struct, frozen=True):
    """Where a file is."""

    location: str
    size: int  # bytes


class FetchFile(Operation, tag="fetch-file", frozen=True):
    """Bring one file of a repository into the store; the result says where it is."""

    result = FileResult

    reference: Text
    path: Text
    origins: Given = ()
    standing_origins: Given = ()  # of the environment: those that do not fit are passed over


def exact_pattern(path: str) -> str:
    """Return the glob pattern that matches `path` alone."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)
