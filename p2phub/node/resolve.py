"""From what people type to a manifest: names through the catalogue, hashes through peers (spec/names.md §4)."""

from __future__ import annotations

from msgspec import Struct

from p2phub.core.choices import DEFAULT_BRANCH
from p2phub.core.errors import Conflict, HubError, InvalidName, NotFound, Offline
from p2phub.core.ids import ContentId, ManifestId, NamespaceId
from p2phub.core.manifest import Manifest
from p2phub.core.names import (
    HashRef,
    NameRef,
    is_hash_prefix,
    is_version,
    parse_reference,
)
from p2phub.core.private import Repository
from p2phub.core.upstream import parse_foreign
from p2phub.net.peerclient import PeerClient

from .allowed import peers_about
from .asking import ask_in_turn
from .calling import nobody_to_ask, require_peers, usable_peers
from .disk import on_disk
from .events import Notice, Tell, ignore
from .identity import own_namespace as own_namespace
from .node import Node

SYNC_TIMEOUT_S = 10.0  # to ask peers for news before a name is looked up


class Target(Struct, frozen=True):
    """What a reference means."""

    reference: str  # as it was typed
    namespace: NamespaceId | None  # None for a bare hash that nobody here published
    model: str | None
    manifest: ManifestId | None  # None: a single file
    file: ContentId | None = None
    version: str | None = None
    branch: str | None = None
    vouchers: frozenset[NamespaceId] | None = None  # by whose word it is what the name of another hub stands for

    @property
    def asked_by(self) -> NamespaceId | None:
        """The publisher whose word on it counts; None for a bare hash, which anybody may have published."""
        return None if self.reference.startswith("b3:") else self.namespace


async def resolve(node: Node, text: str, tell: Tell, *, refresh: bool) -> Target:
    """Return what `text` refers to.

    refresh: ask peers for news first, unless the name cannot change or the node is
    offline. Raises InvalidName, NotFound, Conflict for a prefix that fits several
    revisions, Offline.
    """
    if text.startswith("hf://"):
        return await _resolve_mirror(node, text)
    reference = parse_reference(text)
    if isinstance(reference, HashRef):
        return await _resolve_hash(node, text, reference)
    return await _resolve_name(node, text, reference, tell, refresh=refresh)


async def _resolve_name(node: Node, text: str, reference: NameRef, tell: Tell, *, refresh: bool) -> Target:
    # Loads all that takes records over, which who asks for a hash has no need of.
    from .fresh import freshness_of, tell_freshness, tell_missing
    from .lookalikes import model_warnings
    from .syncing import ask_for_news
    from .unasked import ask_for

    namespace = await find_namespace(node, reference, tell)
    target = await on_disk(_look_up, node, text, reference, namespace)
    moving = reference.revision is None or not (is_version(reference.revision) or is_hash_prefix(reference.revision))
    repository = Repository(namespace, reference.model)
    if refresh and not node.settings.offline and (target is None or moving):
        # No statement tells of a private repository, and no peer is asked about one.
        about = () if await on_disk(node.store.private.is_private, repository) else (namespace,)
        await ask_for_news(node, tell, timeout_s=SYNC_TIMEOUT_S, about=about)
        target = await on_disk(_look_up, node, text, reference, namespace)
    if target is None:
        tell_missing(await on_disk(freshness_of, node.store, namespace), tell)
        raise await on_disk(_not_found, node, reference, namespace)
    # Before anything of it is fetched, or named to others.
    await on_disk(ask_for, node, repository)
    if reference.namespace == str(namespace) and tell is not ignore:
        # Who wrote a name that he pinned means just that publisher; an id tells nobody anything.
        for warning in await on_disk(model_warnings, node, namespace, reference.model):
            tell(Notice(warning))
    if refresh and moving and not await on_disk(node.store.private.is_private, repository):
        await tell_freshness(node, namespace, str(reference), tell)
    if target.version and (message := await on_disk(_yank_message, node, target)) is not None:
        why = f": {message}" if message else ""
        tell(Notice(f"{reference.model}@{target.version} was yanked by its publisher{why}"))
    return target


async def load_manifest(node: Node, manifest: ManifestId, tell: Tell) -> Manifest:
    """Return a manifest, fetched from a peer if it is not here. Raises NotFound or Offline."""
    known = await on_disk(node.store.manifests.get, manifest)
    if known is not None:
        return known
    data = await _ask_for_manifest(node, manifest, tell)
    if data is None:
        await require_peers(node)
        peers = await peers_about(node, [manifest])
        raise NotFound(
            f"no peer we know of offers the manifest {manifest}",
            hint=f"{_asked(node, len(peers))}; `p2phub peers ls` shows when each last answered",
        )
    return await on_disk(node.store.manifests.take, data)


async def find_namespace(node: Node, reference: NameRef, tell: Tell) -> NamespaceId:
    """Return the namespace that `reference` names; one's own if it names none. Raises as `names.find`."""
    if reference.namespace is not None:
        from .names import find

        return await find(node, reference.namespace, tell)
    own = await on_disk(own_namespace, node)
    if own is None:
        raise InvalidName(
            f"'{reference}' names no publisher, and there is no identity of your own",
            hint="names look like NAMESPACE/MODEL@1.0.0; `p2phub search` shows them",
        )
    return own


async def _resolve_hash(node: Node, text: str, reference: HashRef) -> Target:
    manifest = ManifestId(reference.digest)
    root = ContentId(reference.digest)
    if await on_disk(node.store.manifests.data, manifest) is not None:
        return await on_disk(_hash_target, node, text, manifest)
    if await on_disk(node.store.blobs.find, root):
        return Target(text, None, None, None, file=root)
    if node.settings.offline:
        raise Offline(f"{text} is not here, and the network is switched off")
    data = await _ask_for_manifest(node, manifest, lambda _: None)
    if data is not None:
        await on_disk(node.store.manifests.add, data)
        return await on_disk(_hash_target, node, text, manifest)
    # No manifest: the hash may be of a single file, which the fetch finds out.
    return Target(text, None, None, None, file=root)


async def _resolve_mirror(node: Node, text: str) -> Target:
    """Return what a name of another hub stands for, by what is known of it here."""
    from .foreign import known_manifest  # resolves names itself

    repository, revision = parse_foreign(text, node.hub.name)
    known = await known_manifest(node, repository, revision)
    if known is None:
        raise NotFound(
            f"no mirror of {repository}@{revision} is known whom you trust",
            hint=f"`p2phub mirror add {text}` makes one; `p2phub mirror trust` takes a publisher at his word",
        )
    manifest, vouchers = known
    return Target(text, None, None, manifest, vouchers=vouchers)


def _hash_target(node: Node, text: str, manifest: ManifestId) -> Target:
    for namespace, model in node.store.catalogue.publishers_of(manifest):
        return Target(text, namespace, model, manifest)
    return Target(text, None, None, manifest)


def _look_up(node: Node, text: str, reference: NameRef, namespace: NamespaceId) -> Target | None:
    catalogue = node.store.catalogue
    revision = reference.revision or DEFAULT_BRANCH
    if is_version(revision):
        claim = catalogue.version(namespace, reference.model, revision)
        return Target(text, namespace, reference.model, claim.manifest, version=revision) if claim else None
    if is_hash_prefix(revision):
        found = catalogue.revisions(namespace, reference.model, revision)
        if len(found) > 1:
            raise Conflict(
                f"{len(found)} revisions of {reference.model} begin with {revision}", hint="write more of its digits"
            )
        return Target(text, namespace, reference.model, found[0]) if found else None
    claim = catalogue.branch(namespace, reference.model, revision)
    if claim is None or claim.manifest is None:
        return None
    return Target(text, namespace, reference.model, claim.manifest, branch=revision)


def _yank_message(node: Node, target: Target) -> str | None:
    assert target.namespace
    assert target.model
    assert target.version
    return node.store.catalogue.yanked(target.namespace, target.model, target.version)


def _not_found(node: Node, reference: NameRef, namespace: NamespaceId) -> HubError:
    from .meant import names_meant, revisions_there  # only who mistyped something waits for it

    catalogue = node.store.catalogue
    if catalogue.kind(namespace, reference.model) is not None:
        names = [*catalogue.versions(namespace, reference.model), *catalogue.branches(namespace, reference.model)]
        known = revisions_there(names)
        return NotFound(
            f"{reference.model} has no revision {reference.revision or DEFAULT_BRANCH}",
            hint="; ".join(each for each in (known, node.calls.apart()) if each) or None,
        )
    if node.settings.offline:
        return Offline(f"{reference} is not known here, and the network is switched off")
    meant = names_meant(node, namespace, reference.model)
    known = f"of its publisher {meant} can be had" if meant else ""
    if peers := len(usable_peers(node)):
        return NotFound(f"nothing is known of {reference}", hint="; ".join(filter(None, (known, _asked(node, peers)))))
    error = nobody_to_ask(node)
    return NotFound(f"nothing is known of {reference}, and {error}", hint=known or error.hint)


async def _ask_for_manifest(node: Node, manifest: ManifestId, tell: Tell) -> bytes | None:
    if node.settings.offline:
        raise Offline(f"the manifest {manifest} is not here, and the network is switched off")
    found: list[bytes] = []

    async def ask(client: PeerClient) -> bool:
        data = await client.manifest(manifest)
        found.extend([data] if data is not None else [])
        return bool(found)

    for reason in await ask_in_turn(node, await peers_about(node, [manifest]), ask, tell, what="the manifest"):
        tell(Notice(reason))
    return found[0] if found else None


def _asked(node: Node, peers: int) -> str:
    """Return how many were asked, and what may have kept them from answering."""
    asked = "1 peer was asked" if peers == 1 else f"{peers} peers were asked"
    apart = node.calls.apart()
    return f"{asked}; {apart}" if apart else asked
