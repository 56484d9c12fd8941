"""Publish a folder: files become content, content a manifest, which is released (spec/store.md §2)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import trio

from p2phub.core import manifest as manifests
from p2phub.core.choices import DEFAULT_BRANCH, Kind, Profile, Visibility
from p2phub.core.chunking import profile_for
from p2phub.core.description import Card, Facts
from p2phub.core.errors import HubError, InvalidData, InvalidName, StoreError
from p2phub.core.facts import derive
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.manifest import BaseModel, FileEntry, Manifest, Relation, Role, Variant
from p2phub.core.modelcard import parse_card
from p2phub.core.names import NameRef, is_domain, is_namespace_id, is_version, parse_reference
from p2phub.core.origins import ORIGIN_URLS_MAX, check_published
from p2phub.core.paths import check_paths
from p2phub.core.private import Repository
from p2phub.store.disk import disk_errors
from p2phub.store.ingest import Progress as Advance
from p2phub.store.intake import Ingested
from p2phub.store.keyring import HEAD_SIZE, begins_as_keys
from p2phub.store.leaks import find_leak
from p2phub.store.ownfiles import OwnFiles

from .catchup import ready_to_publish
from .disk import from_thread, on_disk
from .events import Notice, Progress, Tell
from .node import Node
from .operations.content import PublishResult
from .ownnames import own_version
from .releasing import Destination, check_version, destination_of, keep_manifest, release

TICK_S = 0.1  # seconds between looks at how far hashing is
INGEST_TASKS = 2  # files hashed at the same time
KEY_SUFFIX = ".key"  # of the files in which a home keeps keys; spec/store.md §6
# Folders that tools keep their own state in; nobody means to publish them.
LEFT_OUT = frozenset({".git", ".hg", ".svn", ".cache", "__pycache__", ".ipynb_checkpoints", ".DS_Store"})

_WEIGHTS = (
    ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack", ".tflite", ".ot", ".ckpt", ".pb",
)  # fmt: skip
_TOKENIZER = ("vocab.json", "vocab.txt", "merges.txt", "special_tokens_map.json", "spiece.model")
_DATA = (".parquet", ".csv", ".jsonl", ".arrow", ".tsv", ".txt", ".zip", ".gz", ".zst", ".tar", ".wav", ".jpg", ".png")


@dataclass(frozen=True)
class SourceFile:
    """A file of the folder that is published."""

    path: str  # in the repository
    location: Path  # on disk, absolute
    size: int  # bytes


async def publish(
    node: Node,
    folder: Path,
    name: str,
    tell: Tell,
    *,
    branch: str = DEFAULT_BRANCH,
    message: str = "",
    in_place: bool = False,
    profile: Profile | None = None,
    kind: Kind = "model",
    origin_urls: Sequence[str] = (),
    sealed: bool = False,
    sealed_for: Sequence[str] = (),
    is_open: bool = False,
    visibility: Visibility | None = None,
    allow_secrets: bool = False,
) -> PublishResult:
    """Publish the files of `folder` as `name` (`MODEL` or `MODEL@VERSION`, in one's own namespace).

    sealed, sealed_for: so that keepers cannot read it, but the publisher and who is named can; else as the tip is.
    is_open: let everybody read it, though the tip is sealed.
    origin_urls: where else the files can be fetched; if there are none and the files did not change, those
    of the branch's tip stay. visibility: None for what the repository has, or public.
    allow_secrets: publish private keys that are no keys of p2phub, as of a data set about them.
    Raises Conflict if the version exists with other content, or the repository is for others, StoreError if a file
    cannot be read or changes meanwhile, InvalidData if a path cannot be published.
    """
    from .sealing import choose_sealing, publish_seal, seal_sources  # reads files as is done here

    _check_origins(origin_urls)
    identity, _ = await ready_to_publish(node, tell)
    model, version = await own_version(node, name, identity.namespace)
    destination = await on_disk(destination_of, node, identity.namespace, model, kind, branch, visibility)
    seal = None
    if not is_open:
        seal = await choose_sealing(node, identity, model, branch, tell, sealed=sealed, sealed_for=sealed_for)
    if seal and (in_place or origin_urls):
        raise InvalidName("what is sealed is another file than lies in the folder or at an origin")
    sources = await on_disk(_sources, node, folder, from_thread(tell), allow_secrets)
    if seal:
        manifest, written = await seal_sources(node, destination, sources, seal.key, tell, profile=profile)
    else:
        entries, written = await ingest_sources(
            node, sources, tell, in_place=in_place, profile=profile, kind=kind, only_in=destination.only_in
        )
        manifest = await on_disk(describe_files, node, destination, sources, entries, origin_urls, from_thread(tell))
    # Before anything is signed: what was published must not be lost.
    await on_disk(node.store.blobs.sync)
    if version:
        # Before the manifest: what may not be published is not kept either.
        revision = manifests.manifest_id(manifests.encode(manifest))
        await on_disk(check_version, node, destination, version, revision)
    revision = await on_disk(keep_manifest, node, destination, manifest)
    if seal:
        # Before the release, so that nobody finds it and cannot open it.
        await publish_seal(node, identity.namespace, model, seal, visibility=destination.visibility)
    entry = await release(node, destination, manifest, revision, version=version, message=message)
    return PublishResult(
        namespace=str(identity.namespace),
        model=model,
        version=version,
        branch=branch,
        revision=str(revision),
        files=len(sources),
        size=manifest.size,
        written=written,
        new=entry is not None,
        log_index=entry.record.index if entry else None,
        sealed=seal is not None,
        visibility=destination.visibility,
    )


def _sources(node: Node, folder: Path, tell: Tell, allow_secrets: bool) -> list[SourceFile]:
    """Return the files to publish of `folder`, looked through for keys.

    Raises as `find_files` and `refuse_leaks` do.
    """
    sources = find_files(folder, OwnFiles(node.store.layout), tell)
    refuse_leaks(sources, allow_secrets)
    return sources


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


def role_of(path: str, kind: Kind) -> Role:
    """Return what a file is for, by its name."""
    name = path.rsplit("/", 1)[-1].lower()
    if name == "readme.md":
        return "card"
    if "tokenizer" in name or name in _TOKENIZER:
        return "tokenizer"
    if kind == "model" and name.endswith(_WEIGHTS):
        return "weights"
    if name.endswith(".py"):
        return "code"
    if kind == "dataset" and name.endswith((*_DATA, *_WEIGHTS)):
        return "data"
    if name.endswith((".json", ".yaml", ".yml", ".toml", ".jinja")):
        return "config"
    return "data" if name.endswith(_DATA) and name not in ("license.txt", "notice.txt") else "other"


def _check_origins(urls: Sequence[str]) -> None:
    """Raise InvalidName unless a manifest may name these origins."""
    if len(urls) > ORIGIN_URLS_MAX:
        raise InvalidName(f"{len(urls)} origins are too many, the limit is {ORIGIN_URLS_MAX}")
    if len(set(urls)) != len(urls):
        raise InvalidName("an origin is named twice")
    for url in urls:
        try:
            check_published(url)
        except InvalidData as exc:
            raise InvalidName(str(exc)) from exc


async def ingest_sources(
    node: Node,
    sources: list[SourceFile],
    tell: Tell,
    *,
    in_place: bool,
    profile: Profile | None,
    kind: Kind,
    only_in: Repository | None = None,
) -> tuple[list[FileEntry], int]:
    """Take all files into the store; returns their entries in order, and the bytes written.

    only_in: the private repository that they are for.
    """

    def take(source: SourceFile, advance: Advance) -> tuple[Ingested, Profile]:
        return _ingest_file(node, source, in_place, profile, advance, only_in)

    return await read_sources(sources, take, tell, kind=kind)


async def read_sources(
    sources: list[SourceFile],
    take: Callable[[SourceFile, Advance], tuple[Ingested, Profile]],
    tell: Tell,
    *,
    kind: Kind,
) -> tuple[list[FileEntry], int]:
    """Let `take` read all files, each in a worker thread; returns their entries in order, and the bytes written.

    take: returns what a file is and how it was cut, and tells of the bytes it has read.
    """
    total = sum(source.size for source in sources)
    done = 0
    start = trio.current_time()
    entries: dict[str, FileEntry] = {}
    written = 0
    limiter = trio.CapacityLimiter(INGEST_TASKS)
    failure: HubError | None = None

    def advance(size: int) -> None:
        nonlocal done
        done += size

    async def one(source: SourceFile) -> None:
        nonlocal written, failure
        async with limiter:
            if failure:
                return
            try:
                result, used = await on_disk(take, source, advance)
            except HubError as exc:
                failure = failure or exc
                return
        written += result.written
        entries[source.path] = FileEntry(
            source.path, result.size, result.root, result.sha256, role_of(source.path, kind), used
        )

    async def show() -> None:
        while True:
            tell(Progress("hashing", done, total, rate=done / max(trio.current_time() - start, 1e-6)))
            await trio.sleep(TICK_S)

    async with trio.open_nursery() as beside:
        beside.start_soon(show)
        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(one, source)
        beside.cancel_scope.cancel()
    if failure:
        raise failure
    tell(Progress("hashing", total, total, rate=total / max(trio.current_time() - start, 1e-6)))
    return [entries[source.path] for source in sources], written


def fitting_profile(source: SourceFile, profile: Profile | None) -> Profile:
    """Return how a file that is to be published is cut. profile: how it is wanted, None for what suits it.

    Raises InvalidData if it holds keys.
    """
    with disk_errors(source.location), open(source.location, "rb") as file:
        descriptor = file.fileno()
        _refuse_keys(source, os.pread(descriptor, HEAD_SIZE, 0))
        fitting = profile_for(source.path, source.size, lambda offset, size: os.pread(descriptor, size, offset))
    used = fitting if profile is None else profile
    # Asked for tensors, but this file has none.
    return "cdc-1m" if used == "tensor-1m" and fitting != "tensor-1m" else used


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
        _refuse_keys(source, file.read(HEAD_SIZE))


def _refuse_keys(source: SourceFile, head: bytes) -> None:
    if begins_as_keys(head):
        # An upload lies under a name that tells nobody anything.
        is_telling = source.location.name == source.path.rsplit("/", 1)[-1]
        raise _keys_found(f"{source.location if is_telling else source.path} holds")


def _keys_found(where: str) -> InvalidData:
    return InvalidData(
        f"{where} secret keys of p2phub: whoever has them publishes in their owner's name",
        hint="take it away from there; what is published cannot be taken back",
    )


def _ingest_file(
    node: Node,
    source: SourceFile,
    in_place: bool,
    profile: Profile | None,
    advance: Advance,
    only_in: Repository | None,
) -> tuple[Ingested, Profile]:
    used = fitting_profile(source, profile)
    result = node.store.intake.ingest(source.location, used, in_place=in_place, progress=advance)
    if only_in is not None:
        node.store.private.mark(only_in, [result.root])
    return result, used


class _Readable:
    """A file as `facts.derive` reads it."""

    def __init__(self, source: SourceFile) -> None:
        self.size = source.size
        self._location = source.location

    def read(self, offset: int, size: int) -> bytes:
        with disk_errors(self._location), open(self._location, "rb") as file:
            return os.pread(file.fileno(), size, offset)


def describe_files(
    node: Node,
    destination: Destination,
    sources: list[SourceFile],
    entries: list[FileEntry],
    origin_urls: Sequence[str],
    tell: Tell,
) -> Manifest:
    """Return the manifest of the files; the tip of the branch that it is for itself if nothing changed since."""
    kind = destination.kind
    # What is private may name what is private, too.
    is_private = destination.only_in is not None
    card, facts, variants = describe(sources, entries, tell)
    tip_claim = node.store.catalogue.branch(destination.namespace, destination.model, destination.branch)
    parents: tuple[ManifestId, ...] = ()
    depth = 1
    if tip_claim and tip_claim.manifest:
        tip = node.store.manifests.get(tip_claim.manifest)
        is_same = tip is not None and tip.files == tuple(entries) and tip.kind == kind
        if tip and is_same and tuple(origin_urls) in ((), tip.origin_urls):
            return tip
        parents, depth = (tip_claim.manifest,), tip_claim.depth + 1
    return Manifest(
        schema=1,
        kind=kind,
        created=int(node.clock()),
        files=tuple(entries),
        depth=depth,
        parents=parents,
        base_models=known_base_models(node, card, is_private=is_private),
        datasets=known_datasets(node, card, is_private=is_private),
        variants=variants,
        card=card,
        facts=facts,
        origin_urls=tuple(origin_urls),
    )


def describe(
    sources: list[SourceFile], entries: list[FileEntry], tell: Tell
) -> tuple[Card | None, Facts | None, tuple[Variant, ...]]:
    """Return what the files say of themselves. sources: those that can be read."""
    facts, problems = derive({source.path: _Readable(source) for source in sources})
    for problem in problems:
        tell(Notice(problem))
    return _card(sources, tell), facts if facts != Facts() else None, _variants(entries)


def _card(sources: list[SourceFile], tell: Tell) -> Card | None:
    source = next((source for source in sources if source.path == "README.md"), None)
    if source is None:
        return None
    try:
        with disk_errors(source.location):
            return parse_card(source.location.read_bytes())
    except InvalidData as exc:
        tell(Notice(f"README.md: {exc}"))
        return None


def known_datasets(node: Node, card: Card | None, *, is_private: bool = False) -> tuple[ManifestId, ...]:
    """Return the datasets that the card names and the catalogue knows, by revision."""
    return tuple(_known_revisions(node, card.datasets, is_private)) if card else ()


def known_base_models(node: Node, card: Card | None, *, is_private: bool = False) -> tuple[BaseModel, ...]:
    """Return the base models that the card names and the catalogue knows, by revision."""
    if card is None:
        return ()
    relation = card.base_model_relation
    known: Relation = "finetune"
    for choice in get_args(Relation):
        if relation == choice:
            known = choice
    return tuple(BaseModel(revision, known) for revision in _known_revisions(node, card.base_models, is_private))


def _pinned(node: Node, name: str | None) -> NamespaceId | None:
    """Return whom a card means by `name`: a namespace id, or a domain; not a petname, which others do not know."""
    if name is None:
        return None
    if is_namespace_id(name):
        return NamespaceId.parse(name)
    binding = node.store.bindings.get(name) if is_domain(name) else None
    return binding.namespace if binding and binding.offered is None else None


def _known_revisions(node: Node, names: Iterable[str], is_private: bool) -> list[ManifestId]:
    """Return what the tips of `main` of these repositories are, as far as the catalogue knows them.

    is_private: also of private ones, of which not even the hash is for everybody.
    """
    found: list[ManifestId] = []
    for name in names:
        try:
            reference = parse_reference(name)
        except InvalidName:
            continue
        if isinstance(reference, NameRef) and (namespace := _pinned(node, reference.namespace)):
            revision = reference.revision or DEFAULT_BRANCH
            look_up = node.store.catalogue.version if is_version(revision) else node.store.catalogue.branch
            claim = look_up(namespace, reference.model, revision)
            if claim is None or claim.manifest is None or claim.manifest in found:
                continue
            if is_private or not node.store.private.owners([claim.manifest]):
                found.append(claim.manifest)
    return found


def _variants(entries: list[FileEntry]) -> tuple[Variant, ...]:
    """Return the GGUF files grouped by their quantization, if there are several."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        match = re.search(r"[-.](I?Q\d\w*|BF16|F16|F32)(?:-\d{5}-of-\d{5})?\.gguf$", entry.path, re.IGNORECASE)
        if match:
            groups.setdefault(match[1].upper(), []).append(entry.path)
    if len(groups) < 2:
        return ()
    return tuple(Variant(name, tuple(paths)) for name, paths in sorted(groups.items()))[: manifests.REFERENCES_MAX]


def _raise(error: OSError) -> None:
    with disk_errors(error.filename):
        raise error
