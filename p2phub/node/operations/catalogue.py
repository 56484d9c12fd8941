"""Find repositories, and show what is recorded of them."""

from __future__ import annotations

from msgspec import Struct

from p2phub.core.choices import Visibility
from p2phub.core.description import Card, Facts
from p2phub.core.search import Page, Query

from . import Operation, Text


class Search(Operation, tag="search", frozen=True):
    """Look for repositories in the catalogue."""

    result = Page

    query: Query


class FoundBy(Struct, frozen=True):
    """What a publisher found of a repository, or of one of its files."""

    namespace: str
    claim: str
    verdict: str
    path: str | None
    metric: str | None
    value: str | None
    tool: str | None
    message: str
    time: int  # seconds since 1970


class FileInfo(Struct, frozen=True):
    """One file of a repository."""

    path: str
    size: int  # bytes
    root: str
    sha256: str
    role: str
    profile: str
    here: bool


class RepositoryInfo(Struct, frozen=True):
    """A repository at one revision."""

    reference: str
    namespace: str | None
    model: str | None
    kind: str
    revision: str
    commit: str
    version: str | None
    branch: str | None
    created: int  # seconds since 1970
    size: int  # bytes
    here: int  # bytes of it that are in the store, whole files only
    pinned: bool
    parents: list[str]
    base_models: dict[str, str]  # revision -> relation
    versions: dict[str, str]
    branches: dict[str, str]
    yanked: list[str]
    card: Card | None
    facts: Facts | None
    variants: dict[str, list[str]]
    origin_urls: list[str]
    files: list[FileInfo]
    sealed: str | None = None  # whether it can be read here: "closed", "open to you", "open to all"; None: not sealed
    gate: str | None = None  # name of the licence that must be accepted first
    recalled: str | None = None  # why its publisher took it back; None: it was not
    found: list[FoundBy] = []  # what publishers found of it
    visibility: Visibility | None = None  # None: nothing is known by a name here


class Info(Operation, tag="info", frozen=True):
    """Show a repository at one revision."""

    result = RepositoryInfo

    reference: Text


class LogLine(Struct, frozen=True):
    """One record, as people read it."""

    log: str
    index: int
    time: int  # seconds since 1970
    type: str
    model: str
    branch: str | None
    version: str | None
    revision: str | None
    message: str
    refused: str | None  # why it does not count


class Log(Operation, tag="log", frozen=True):
    """Show the records about a repository, or of a whole publisher."""

    result = list[LogLine]

    name: Text


class ConflictInfo(Struct, frozen=True):
    """Something about which the keys of one publisher do not agree."""

    kind: str  # identity, fork, version, branch, refused
    namespace: str
    text: str
    log: str | None = None
    index: int | None = None  # of the record: the first that does not count of a fork
    model: str | None = None
    name: str | None = None  # of the version or branch
    counts: str | None = None  # revision
    others: list[str] = []  # revisions that do not


class ListConflicts(Operation, tag="conflicts", frozen=True):
    """Where the keys of publishers do not agree."""

    result = list[ConflictInfo]

    namespace: Text | None = None
