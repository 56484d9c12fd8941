"""What a manifest says of its files: for what each is, card, facts, and what they came from (spec/manifest.md)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import get_args

from p2phub.core import manifest as manifests
from p2phub.core.choices import DEFAULT_BRANCH, Kind
from p2phub.core.description import Card, Facts
from p2phub.core.errors import InvalidData, InvalidName
from p2phub.core.facts import derive
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.manifest import BaseModel, FileEntry, Manifest, Relation, Role, Variant
from p2phub.core.modelcard import parse_card
from p2phub.core.names import NameRef, is_domain, is_namespace_id, is_version, parse_reference
from p2phub.store.disk import disk_errors

from .events import Notice, Tell
from .node import Node
from .releasing import Destination
from .sources import SourceFile

_WEIGHTS = (
    ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack", ".tflite", ".ot", ".ckpt", ".pb",
)  # fmt: skip
_TOKENIZER = ("vocab.json", "vocab.txt", "merges.txt", "special_tokens_map.json", "spiece.model")
_DATA = (".parquet", ".csv", ".jsonl", ".arrow", ".tsv", ".txt", ".zip", ".gz", ".zst", ".tar", ".wav", ".jpg", ".png")


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


class _Readable:
    """A file as `facts.derive` reads it."""

    def __init__(self, source: SourceFile) -> None:
        self.size = source.size
        self._location = source.location

    def read(self, offset: int, size: int) -> bytes:
        with disk_errors(self._location), open(self._location, "rb") as file:
            return os.pread(file.fileno(), size, offset)
