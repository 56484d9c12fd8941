"""Repositories of other hubs: how they are named, and what their hub says of them (spec/mirrors.md §1).

    hf://org/name@main ──parse──▶ Foreign, revision
    JSON of the hub ──read, bounded──▶ Info, files ──▶ Listing

The hub is asked over the network and is believed in what it lists, as everybody who downloads
from it believes it. Its files are not believed: each must have the hash that was listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha1
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from .choices import DEFAULT_BRANCH, Kind
from .description import Card
from .errors import AccessDenied, InvalidData, InvalidName, NotFound
from .filetree import FILE_SIZE_MAX
from .gitobjects import blob_id, pointer
from .manifest import FILES_MAX
from .names import OWNER_PATTERN, check_model, is_owner
from .origins import HUB_PATTERN, HUB_SIZE_MAX, Url, parse_url
from .paths import check_paths

DEFAULT_HUB_URL = "https://huggingface.co"  # whom `hf://` means if nothing else is said; spec/mirrors.md §1
REVISION_SIZE_MAX = 256  # characters
NAMES_MAX = 16  # of one commit, in an attestation; spec/records.md §2.2
GIT_ID_SIZE, SHA256_SIZE = 20, 32  # bytes

_KINDS: dict[str, Kind] = {"models": "model", "datasets": "dataset"}
_REVISION = r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/+-]*"
_COMMIT = r"[0-9a-f]{40}"

HubName = Annotated[str, Meta(pattern=rf"\A{HUB_PATTERN}\Z", max_length=HUB_SIZE_MAX)]
OwnerName = Annotated[str, Meta(pattern=rf"\A{OWNER_PATTERN}\Z", max_length=96)]
CommitName = Annotated[str, Meta(pattern=rf"\A{_COMMIT}\Z")]
RevisionName = Annotated[str, Meta(pattern=rf"\A{_REVISION}\Z", max_length=REVISION_SIZE_MAX)]


class NoSuchRevision(NotFound):
    """The hub has the repository, and in it no such revision."""


class Gated(AccessDenied):
    """The hub has the repository, and gives it to those alone whom its owner lets."""


class Foreign(Struct, frozen=True):
    """A repository of another hub."""

    hub: str  # HOST[:PORT], in lower case
    kind: Kind
    owner: str
    model: str  # a dataset is called so, too

    @property
    def name(self) -> str:
        """What the hub calls it."""
        return f"{self.owner}/{self.model}"

    def __str__(self) -> str:
        return f"hf://{'datasets/' if self.kind == 'dataset' else ''}{self.name}"


class UpstreamFile(Struct, frozen=True):
    """A file as the hub lists it."""

    path: str
    size: int  # bytes
    id: bytes  # SHA-256 (32 bytes) of a large file, the id that git gives it (20) of others

    @property
    def sha256(self) -> bytes | None:
        """The SHA-256 of the content, if the hub says it."""
        return self.id if len(self.id) == SHA256_SIZE else None

    @property
    def git_id(self) -> bytes:
        """What git calls the file: of a large one its pointer."""
        return self.id if len(self.id) == GIT_ID_SIZE else blob_id(pointer(self.id, self.size))


class Info(Struct, frozen=True):
    """What the hub says of a repository at a revision."""

    commit: str  # 40 hex digits
    is_restricted: bool  # private or gated: not everybody may have it
    created: int  # of the commit, in seconds since 1970; 0: not said
    card: Card  # task, library and tags only


class Listing(Struct, frozen=True):
    """A commit of a foreign repository: all its files, by the word of the hub."""

    info: Info
    files: tuple[UpstreamFile, ...]  # sorted by path

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)

    def file(self, path: str) -> UpstreamFile | None:
        """Return the file at `path`, or None."""
        return next((file for file in self.files if file.path == path), None)


# ── names ───────────────────────────────────────────────────────────────────


def parse_upstream(text: str) -> Url:
    """Return the URL of a hub. Raises InvalidName, whose text repeats nothing of it."""
    url = parse_url(text)
    if url.user is not None:
        raise InvalidName("the URL of an upstream has a user", hint="its token is told in HF_TOKEN or in a file")
    if "?" in url.target or "%" in url.target:
        raise InvalidName("the URL of an upstream has a query or a % in its path")
    return url


def foreign(hub: str, kind: Kind, name: str) -> Foreign:
    """Return the repository that `hub` calls `name`. Raises InvalidName if it cannot have that name."""
    owner, slash, model = name.partition("/")
    if not slash or not is_owner(owner):
        raise InvalidName(f"'{name}' is no repository of a hub: expected ORG/NAME")
    check_model(model)
    return Foreign(hub, kind, owner, model)


def parse_foreign(text: str, hub: str, kind: Kind | None = None) -> tuple[Foreign, str]:
    """Return the repository and the revision that `hf://[datasets/]ORG/NAME[@REVISION]` means. Raises InvalidName."""
    rest = text.removeprefix("hf://")
    if rest == text:
        raise InvalidName(f"'{text}' is no name of a mirror: expected hf://ORG/NAME or hf://datasets/ORG/NAME")
    name, at, revision = rest.partition("@")
    first, _, behind = name.partition("/")
    if behind.count("/") == 1 and first in _KINDS:
        kind, name = _KINDS[first], behind
    if at and not is_revision(revision):
        raise InvalidName(f"'{revision}' is no revision of a hub: expected a branch, a tag or a commit")
    return foreign(hub, kind or "model", name), revision or DEFAULT_BRANCH


def is_revision(text: str) -> bool:
    """Say whether `text` can be a branch, a tag or a commit of a hub."""
    return re.fullmatch(_REVISION, text) is not None and len(text) <= REVISION_SIZE_MAX


def is_commit(text: str) -> bool:
    """Say whether `text` is spelled like a commit, which never changes its meaning."""
    return re.fullmatch(_COMMIT, text) is not None


def git_id_of(data: Iterable[bytes], size: int) -> bytes:
    """Return the id that git gives to a file of `size` bytes whose content is `data`, one piece after the other."""
    whole = sha1(b"blob %d\0" % size, usedforsecurity=False)
    for piece in data:
        whole.update(piece)
    return whole.digest()


# ── what the hub says ───────────────────────────────────────────────────────


def read_info(data: bytes) -> Info:
    """Return what the hub's answer about a repository says. Raises InvalidData."""
    fields = _decode(data, dict[str, Any])
    commit = fields.get("sha")
    if not isinstance(commit, str) or not is_commit(commit):
        raise InvalidData("the answer names no commit of 40 hex digits")
    # What is neither true nor false is a way of gating; what is not said is no restriction.
    is_restricted = any(fields.get(name) not in (None, False) for name in ("private", "gated", "disabled"))
    tags = fields.get("tags")
    words = tuple(word for word in map(_word, tags if isinstance(tags, list) else ()) if word)
    card = Card(task=_word(fields.get("pipeline_tag")), library=_word(fields.get("library_name")), tags=words[:128])
    return Info(commit, is_restricted, _seconds(fields.get("lastModified")), card)


def read_files(data: bytes) -> list[UpstreamFile]:
    """Return the files in one page of a hub's tree. Raises InvalidData; paths are not checked yet."""
    files = []
    for row in _decode(data, list[dict[str, Any]]):
        if row.get("type") == "file":
            files.append(_file(row))
    return files


def listing(info: Info, files: Iterable[UpstreamFile]) -> Listing:
    """Return the commit that holds `files`. Raises InvalidData if that is none that can be kept here."""
    known = sorted(files, key=lambda file: file.path)
    if not 1 <= len(known) <= FILES_MAX:
        raise InvalidData(f"it has {'no files' if not known else f'more than {FILES_MAX} files'}")
    check_paths(file.path for file in known)
    return Listing(info, tuple(known))


def _file(row: dict[str, Any]) -> UpstreamFile:
    lfs = row.get("lfs")
    path, size, digits, length = row.get("path"), row.get("size"), row.get("oid"), 2 * GIT_ID_SIZE
    if isinstance(lfs, dict):
        size, digits, length = lfs.get("size"), lfs.get("oid"), 2 * SHA256_SIZE
    if not isinstance(path, str) or type(size) is not int or not 0 <= size <= FILE_SIZE_MAX:
        raise InvalidData("a file is listed without a path, or with a size that no file has")
    if not isinstance(digits, str) or not re.fullmatch(rf"[0-9a-f]{{{length}}}", digits):
        raise InvalidData(f"the file {path[:200]!r} is listed without a hash")
    return UpstreamFile(path, size, bytes.fromhex(digits))


def _decode(data: bytes, type_: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidData(f"the answer is not what a hub says: {str(exc)[:200]}") from exc


def _word(value: Any) -> str | None:
    return value[:128] if isinstance(value, str) and value else None


def _seconds(value: Any) -> int:
    try:
        return max(0, int(datetime.fromisoformat(value).timestamp()))
    except (TypeError, ValueError, OverflowError):
        return 0
