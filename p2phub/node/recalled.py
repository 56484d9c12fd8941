"""Say why what was asked for was taken back, by the word of those who count for it (spec/records.md §5).

NAMESPACE/MODEL   its publisher
hf://ORG/NAME     by whose word the name stands for it: this node's, or that of publishers who are trusted in it
b3:HASH           all who stand behind it; the reason is that of whom the owner knows
"""

from __future__ import annotations

from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.private import Repository
from p2phub.core.upstream import Foreign
from p2phub.store.recalls import Voices

from .identity import own_namespace
from .mirrortrust import trusted
from .node import Node
from .resolve import Target


def recall_of(node: Node, target: Target) -> str | None:
    """Return why what `target` means must not be used any more, None if it may be."""
    revision = target.manifest or target.file
    assert revision is not None
    if target.asked_by is not None and target.model is not None:
        return recall_of_repository(node, Repository(target.asked_by, target.model), ManifestId(revision))
    voices = Voices(None, target.vouchers, lambda: own_namespace(node), lambda: _known(node))
    return node.store.recalls.message(ManifestId(revision), voices)


def recall_of_repository(node: Node, repository: Repository, manifest: ManifestId) -> str | None:
    """Return why a manifest must not be used as a revision of a repository, None if it may be."""
    return node.store.recalls.message(manifest, Voices(repository))


def recall_of_mirror(node: Node, repository: Foreign, commit: str, manifest: ManifestId) -> str | None:
    """Return why a manifest must not be used as what another hub has, None if it may be."""
    return node.store.recalls.message(manifest, Voices(None, vouchers_of(node, repository, commit, manifest)))


def vouchers_of(node: Node, repository: Foreign, commit: str, manifest: ManifestId) -> frozenset[NamespaceId]:
    """Return the publishers by whose word a commit of another hub is `manifest` here."""
    if node.store.mirrors.manifest(repository, commit) == manifest:
        # This node took it from there itself: nobody else takes it back here.
        own = own_namespace(node)
        return frozenset({own} if own else ())
    said = node.store.mirrors.attestations(repository, trusted(node))
    return frozenset(each.namespace for each in said if (each.commit, each.manifest) == (commit, manifest))


def _known(node: Node) -> set[NamespaceId]:
    """Return whose words the owner is shown: his own, of whom he gave a name, and whom he trusts in mirrors."""
    pinned = {binding.namespace for binding in node.store.bindings.all() if binding.offered is None}
    return pinned | trusted(node)
