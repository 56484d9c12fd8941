"""A manifest: the immutable list of a repository's files, one revision (spec/manifest.md).

Its BLAKE3 hash is the revision. It holds what can be known from the files
themselves, so that search, listing and loading decisions need no content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from blake3 import blake3
from msgspec import Meta, Struct

from .choices import Kind, Profile
from .description import Card, Facts
from .encoding import decode as decode_value
from .encoding import encode as encode_value
from .errors import InvalidData
from .filetree import FILE_SIZE_MAX
from .ids import ContentId, ManifestId
from .origins import ORIGIN_URLS_MAX, URL_SIZE_MAX, check_published
from .paths import PATH_SIZE_MAX, check_paths

MANIFEST_SIZE_MAX = 2 * 1024 * 1024  # bytes, so that FILES_MAX entries fit; spec/manifest.md §1
FILES_MAX = 10_000  # spec/manifest.md §1
PARENTS_MAX = 16  # spec/manifest.md §2
REFERENCES_MAX = 64  # base models, datasets, variants; spec/manifest.md §2

Role = Literal["weights", "config", "tokenizer", "card", "code", "data", "other"]
Relation = Literal["finetune", "adapter", "quantized", "merge", "distill", "convert"]
Text = Annotated[str, Meta(min_length=1, max_length=256)]
Time = Annotated[int, Meta(ge=0, le=2**53)]  # seconds since 1970-01-01 UTC


class FileEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a repository, by content."""

    path: Annotated[str, Meta(min_length=1, max_length=PATH_SIZE_MAX)]
    size: Annotated[int, Meta(ge=0, le=FILE_SIZE_MAX)]  # bytes
    root: ContentId
    sha256: Annotated[bytes, Meta(min_length=32, max_length=32)]  # of the whole file
    role: Role
    profile: Profile


class BaseModel(Struct, frozen=True, forbid_unknown_fields=True):
    """A model that this one was made from."""

    manifest: ManifestId
    relation: Relation


class Variant(Struct, frozen=True, forbid_unknown_fields=True):
    """Files that are one choice among several, such as a quantization."""

    name: Text  # e.g. "Q4_K_M"
    paths: Annotated[tuple[str, ...], Meta(min_length=1, max_length=1000)]


class Origin(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the files came from, if from another hub."""

    hub: Text  # host name
    repository: Text
    commit: Text


class Sealed(Struct, frozen=True, forbid_unknown_fields=True):
    """That the files are sealed: what opens them, and the file among them that says what they are."""

    key: Annotated[bytes, Meta(min_length=32, max_length=32)]  # names the key and does not tell it
    index: Annotated[bytes, Meta(min_length=32, max_length=32)]  # file id of the index; spec/sealing.md §3


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One revision of a repository."""

    schema: Literal[1]
    kind: Kind
    created: Time
    files: Annotated[tuple[FileEntry, ...], Meta(min_length=1, max_length=FILES_MAX)]  # sorted by path
    depth: Annotated[int, Meta(ge=1, le=2**31)] = 1  # 1 + the largest depth of the parents
    parents: Annotated[tuple[ManifestId, ...], Meta(max_length=PARENTS_MAX)] = ()
    base_models: Annotated[tuple[BaseModel, ...], Meta(max_length=REFERENCES_MAX)] = ()
    datasets: Annotated[tuple[ManifestId, ...], Meta(max_length=REFERENCES_MAX)] = ()
    variants: Annotated[tuple[Variant, ...], Meta(max_length=REFERENCES_MAX)] = ()
    card: Card | None = None
    facts: Facts | None = None
    origin: Origin | None = None
    # Where the files can be fetched besides peers; what is said there is worth nothing, the hashes decide.
    origin_urls: Annotated[
        tuple[Annotated[str, Meta(min_length=8, max_length=URL_SIZE_MAX)], ...], Meta(max_length=ORIGIN_URLS_MAX)
    ] = ()
    sealed: Sealed | None = None  # spec/sealing.md

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)

    def file(self, path: str) -> FileEntry | None:
        """Return the file at `path`, or None."""
        return next((file for file in self.files if file.path == path), None)


def encode(manifest: Manifest) -> bytes:
    """Return the bytes of `manifest`; raises InvalidData if it breaks a rule, so that none is ever made."""
    data = encode_value(manifest)
    decode(data)
    return data


def decode(data: bytes) -> Manifest:
    """Return the manifest that `data` encodes, with every rule of spec/manifest.md checked."""
    manifest = decode_value(data, Manifest, size_max=MANIFEST_SIZE_MAX)
    check_paths(file.path for file in manifest.files)
    _check_distinct("parent", manifest.parents)
    _check_distinct("base model", [base.manifest for base in manifest.base_models])
    _check_distinct("dataset", manifest.datasets)
    _check_distinct("variant", [variant.name for variant in manifest.variants])
    _check_distinct("origin's URL", manifest.origin_urls)
    for url in manifest.origin_urls:
        check_published(url)
    if (manifest.depth == 1) != (not manifest.parents):
        raise InvalidData("a manifest has depth 1 if and only if it has no parents")
    paths = {file.path for file in manifest.files}
    for variant in manifest.variants:
        _check_distinct("file of a variant", variant.paths)
        if missing := set(variant.paths) - paths:
            raise InvalidData(f"variant {variant.name!r} names a file that is not there: {min(missing)!r}")
    return manifest


def manifest_id(data: bytes) -> ManifestId:
    """Return the revision: the BLAKE3 hash of the manifest's bytes."""
    return ManifestId(blake3(data).digest())


def _check_distinct(what: str, values: Sequence[object]) -> None:
    if len(set(values)) != len(values):
        raise InvalidData(f"a manifest names one {what} twice")
