"""Release a revision: where it goes, who may have it, and the signed record that says so (spec/records.md §2.3).

    Destination ──▶ manifest is kept ──▶ record in the log of the publisher ──▶ told to others
                          ▲                        │ another process published to the branch meanwhile
                          └───────TipMoved─────────┘

Whatever makes a manifest of one's own, from a folder, from single changes or sealed, releases it here. It is made to
follow the tip of its branch, and whether it does is seen in the transaction that signs it: so publications at once come
one after the other, without a lock that a crash would leave behind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from p2phub.core import manifest as manifests
from p2phub.core.choices import Kind, Visibility
from p2phub.core.description import Card, Facts
from p2phub.core.errors import Conflict
from p2phub.core.ids import LogId, ManifestId, NamespaceId
from p2phub.core.manifest import Manifest, Variant
from p2phub.core.names import check_branch
from p2phub.core.private import Repository
from p2phub.core.records import Entry, Publish, Record, Score, Summary, VariantSize
from p2phub.store.catalogue import Claim

from .disk import on_disk
from .node import Node
from .privatenews import announce
from .visibility import append_record, decide_visibility


class TipMoved(Conflict):
    """Something was published to the branch since the manifest was made: it is to be made anew, to follow that."""


class _SaidAlready(Exception):
    """There is nothing to sign: the catalogue says it."""


@dataclass(frozen=True)
class Destination:
    """Where in one's own namespace a revision is published, and for whom."""

    namespace: NamespaceId
    model: str
    kind: Kind
    branch: str
    visibility: Visibility

    @property
    def only_in(self) -> Repository | None:
        """Return the private repository that all of it is for; None if it is for everybody."""
        return Repository(self.namespace, self.model) if self.visibility == "private" else None


def destination_of(
    node: Node, namespace: NamespaceId, model: str, kind: Kind, branch: str, visibility: Visibility | None
) -> Destination:
    """Return where a revision of one's own `model` goes. visibility: None for what the repository has, or public.

    Raises InvalidName for what is no branch, Conflict if the repository is of another kind or for others.
    """
    check_branch(branch)
    known = node.store.catalogue.kind(namespace, model)
    if known and known != kind:
        raise Conflict(f"{model} is a {known}; a name has one kind for ever", hint=f"publish it as a {known}")
    return Destination(namespace, model, kind, branch, decide_visibility(node, namespace, model, visibility))


def check_next(
    node: Node, destination: Destination, manifest: Manifest, revision: ManifestId, version: str | None
) -> None:
    """Raise TipMoved unless `manifest` follows the tip of its branch, Conflict if it cannot be published at all."""
    namespace, model = destination.namespace, destination.model
    # Before the tip: another publication that gave the version away until now has moved that by then.
    known = node.store.catalogue.version(namespace, model, version) if version else None
    claim = node.store.catalogue.branch(namespace, model, destination.branch)
    check_follows(claim.manifest if claim else None, manifest, revision)
    _check_may_be(node, destination, revision, version, known)


def check_follows(tip: ManifestId | None, manifest: Manifest, revision: ManifestId) -> None:
    """Raise TipMoved unless `manifest` was made to follow `tip`, or is that."""
    if tip not in (revision, *(manifest.parents or (None,))):
        raise TipMoved(f"the branch has moved on: it is {tip or 'empty'} now")


def _check_may_be(
    node: Node, destination: Destination, revision: ManifestId, version: str | None, known: Claim | None
) -> None:
    """Raise Conflict if the name is of another kind or for others, or the version stands for another revision.

    known: what the version stands for.
    """
    namespace, model = destination.namespace, destination.model
    destination_of(node, namespace, model, destination.kind, destination.branch, destination.visibility)
    if known and known.manifest != revision:
        raise Conflict(
            f"{model}@{version} was published before with other content ({known.manifest})",
            hint="a version never changes its meaning: publish under a new one",
        )


def keep_manifest(node: Node, destination: Destination, manifest: Manifest, version: str | None) -> ManifestId:
    """Keep and pin a manifest that is about to be released; returns its id.

    Raises as `check_next` does; what may not be published is not kept either.
    """
    data = manifests.encode(manifest)
    check_next(node, destination, manifest, manifests.manifest_id(data), version)
    only_in = destination.only_in
    if only_in is not None:
        # It is kept from others before it is here.
        node.store.private.mark(only_in, [manifests.manifest_id(data), *(file.root for file in manifest.files)])
    revision = node.store.manifests.add(data)
    node.store.keeping.pin(revision, "published")
    return revision


def forget_manifest(node: Node, revision: ManifestId) -> None:
    """Let a manifest go that was kept, and whose branch moved before it was released."""
    if not node.store.catalogue.publishers_of(revision):
        node.store.keeping.unpin(revision)


async def release(
    node: Node,
    destination: Destination,
    manifest: Manifest,
    revision: ManifestId,
    *,
    version: str | None,
    message: str,
    is_next: bool = True,
) -> Entry | None:
    """Sign that `manifest` is the newest revision, and the version if one is named, and let others hear of it.

    is_next: it was made to follow the tip. Returns None if the catalogue says all of it already. Raises as
    `check_next` does; then `manifest` is not kept.
    """
    try:
        entry = await on_disk(_append_release, node, destination, manifest, revision, version, message, is_next)
    except TipMoved:
        await on_disk(forget_manifest, node, revision)
        raise
    if entry is not None:
        await announce(node, entry)
    return entry


def _append_release(
    node: Node,
    destination: Destination,
    manifest: Manifest,
    revision: ManifestId,
    version: str | None,
    message: str,
    is_next: bool,
) -> Entry | None:
    namespace, model, branch = destination.namespace, destination.model, destination.branch
    ids = [revision, *(file.root for file in manifest.files)]
    if destination.visibility != "private":
        # Whoever publishes says that all may have it. Of what is published for some, `Restricted` goes by who asks.
        node.store.mirrors.release(ids)
        node.store.private.share(ids)
    catalogue = node.store.catalogue

    def make(*, log: LogId, index: int, previous: bytes, time: int) -> Record:
        # Inside the transaction: another process may have published meanwhile.
        tip = catalogue.branch(namespace, model, branch)
        named = catalogue.version(namespace, model, version) if version else tip
        if tip and named and tip.manifest == named.manifest == revision:
            raise _SaidAlready
        if is_next:
            check_next(node, destination, manifest, revision, version)
        else:
            _check_may_be(node, destination, revision, version, named if version else None)
        return Publish(
            namespace=namespace,
            log=log,
            index=index,
            previous=previous,
            time=time,
            model=model,
            kind=destination.kind,
            manifest=revision,
            depth=manifest.depth,
            branch=branch,
            version=version,
            message=message,
            summary=summarize(manifest),
            listed=destination.visibility != "unlisted",
        )

    try:
        return append_record(node, model, make, visibility=destination.visibility)
    except _SaidAlready:
        return None


def summarize(manifest: Manifest) -> Summary:
    """Return what search needs to know of `manifest`."""
    card = manifest.card or Card()
    facts = manifest.facts or Facts()
    scores = tuple(
        Score(result.task or "unknown", result.dataset or "unknown", result.metric, result.value)
        for result in card.results[:32]
        if result.metric
        and result.value is not None
        and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", result.value)
        and len(result.value) <= 40
    )
    return Summary(
        files=len(manifest.files),
        size=manifest.size,
        title=(card.title or "")[:256],
        excerpt=(card.excerpt or "")[:500],
        task=_word(card.task),
        library=_word(card.library),
        license=_word(card.license),
        languages=_words(card.languages),
        tags=("sealed",) if manifest.sealed else _words(card.tags),
        base_models=_words(card.base_models),
        datasets=_words(card.datasets),
        scores=scores,
        architecture=_word(facts.architecture),
        parameters=facts.parameters,
        tensor_types=_words(tuple(count.dtype for count in facts.tensor_types)),
        variants=tuple(_variant_size(manifest, variant) for variant in manifest.variants),
    )


def _variant_size(manifest: Manifest, variant: Variant) -> VariantSize:
    paths = set(variant.paths)
    return VariantSize(variant.name[:128], sum(file.size for file in manifest.files if file.path in paths))


def _word(text: str | None) -> str | None:
    return text[:128] if text else None


def _words(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text[:128] for text in texts if text)[:64]
