"""Publish what keepers cannot read, say who can, and let everybody (spec/sealing.md).

    files ──hash──▶ entries ──describe──▶ manifest ──▶ index ─┐
      └──seal, with a key of their own──▶ objects ────────────┴──▶ the manifest that everybody sees

The key of a repository is nowhere but in its `seal` records, wrapped for its recipients.
One of them is always the publisher: so another machine of the same publisher can go on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from msgspec import Struct

from p2phub.core import manifest as manifests
from p2phub.core import sealing
from p2phub.core.choices import Kind, Profile, Visibility
from p2phub.core.errors import AccessDenied, InvalidData, NotFound
from p2phub.core.identity import Identity
from p2phub.core.ids import ContentId, NamespaceId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.core.records import RECIPIENTS_MAX, Entry, Seal, Unseal
from p2phub.core.sealing import RepositoryKey
from p2phub.net.peerclient import PeerClient
from p2phub.store.disk import disk_errors
from p2phub.store.ingest import Progress as Advance
from p2phub.store.ingest import Stamp, changed, scan
from p2phub.store.intake import Ingested

from .asking import ask_in_turn
from .calling import usable_peers
from .describing import describe, known_base_models, known_datasets
from .disk import from_thread, on_disk
from .events import Tell
from .identity import own_identity, own_recipient
from .ingesting import fitting_profile, read_sources
from .names import find
from .node import Node
from .opening import find_key_called, find_opened, recipients_of, sealing_key
from .operations.seals import SealResult
from .ownnames import own_model
from .privatenews import announce
from .publishers import learn_identities
from .releasing import Destination
from .resolve import resolve
from .sources import SourceFile
from .visibility import append_record


@dataclass(frozen=True)
class Sealing:
    """The seal under which a revision is published: its key, and for whom it is wrapped."""

    key: RepositoryKey
    recipients: Mapping[NamespaceId, bytes]  # X25519 keys of those who have no wrapped key yet


class _Hashed(Struct, frozen=True):
    """What a file is that was read for a publication, as long as nobody writes to it."""

    stamp: Stamp
    profile: Profile
    root: ContentId
    sha256: bytes


class Begun(Struct):
    """What the tries at one publication have hashed and sealed: after a moved tip it is not done again."""

    hashed: dict[str, _Hashed] = {}  # by the path in the repository
    sealed: dict[str, FileEntry] = {}  # by the path of the sealed file, which the key and the content decide
    written: int = 0  # bytes


async def choose_sealing(
    node: Node,
    identity: Identity,
    model: str,
    branch: str,
    tell: Tell,
    *,
    sealed: bool,
    sealed_for: Sequence[str],
) -> Sealing | None:
    """Return the seal for the next revision of one's own `model`, None if it is to be open.

    sealed: for oneself at least. sealed_for: who else may open it. Without both, it stays as the branch's tip is.
    A key that somebody has who is not named any more, or by a recipient key that he changed, is not used again; nor is
    one that everybody has.
    Raises NotFound for a recipient of whom no key is known, AccessDenied if the tip cannot be opened here.
    """
    identifier = await on_disk(sealing_key, node, identity.namespace, model, branch)
    if identifier is None and not (sealed or sealed_for):
        return None
    found = await on_disk(find_key_called, node, identifier, [identity.namespace]) if identifier else None
    if found is None and not (sealed or sealed_for):
        raise AccessDenied(
            f"{model} is sealed, and its key cannot be opened here",
            hint="--sealed-for seals with a new key, and --open lets everybody read this revision",
        )
    known = await on_disk(recipients_of, node, found.key) if found else {}
    if sealed or sealed_for:
        wanted = await _recipients(node, identity, sealed_for, tell)
    else:
        wanted = await on_disk(_as_they_are_now, node, known)
    # Whoever changed his key may have done so because somebody has the old one.
    if found and known.items() <= wanted.items():
        return Sealing(found.key, {name: key for name, key in wanted.items() if name not in known})
    return Sealing(RepositoryKey(os.urandom(sealing.KEY_SIZE)), wanted)


async def seal_sources(
    node: Node,
    destination: Destination,
    sources: list[SourceFile],
    key: RepositoryKey,
    tell: Tell,
    *,
    profile: Profile | None,
    begun: Begun,
) -> tuple[Manifest, int]:
    """Take all files into the store, sealed; returns the manifest that everybody sees, and the bytes written.

    begun: what earlier tries did, whose bytes count, too. The manifest is that of the branch's tip if nothing changed
    since. Raises as `ingest_sources` does.
    """
    if len(sources) > sealing.FILES_MAX:
        raise InvalidData(f"a sealed repository has at most {sealing.FILES_MAX} files, not {len(sources)}")
    kind = destination.kind
    claim = await on_disk(node.store.catalogue.branch, destination.namespace, destination.model, destination.branch)
    tip = claim.manifest if claim else None
    before = await on_disk(node.store.manifests.get, tip) if tip else None
    if before and before.sealed:
        begun.sealed.update((file.path, file) for file in before.files)
    outer: dict[str, FileEntry] = {}

    def take(source: SourceFile, advance: Advance) -> tuple[Ingested, Profile]:
        return _seal_file(node, source, key, begun, outer, profile, advance)

    entries, written = await read_sources(sources, take, tell, kind=kind)
    begun.written += written
    if tip and before and before.sealed and before.sealed.key == key.identifier and before.kind == kind:
        opened = await on_disk(find_opened, node, tip, before)
        if opened and opened.manifest.files == tuple(entries):
            return before, begun.written

    index = await on_disk(_index_of, node, kind, sources, entries, from_thread(tell))
    seal = sealing.seal_manifest(key, manifests.encode(index))
    index_file = await on_disk(_seal_index, node, manifests.encode(index), key, seal.index)
    begun.written += index_file.size
    manifest = Manifest(
        schema=1,
        kind=kind,
        created=index.created,
        files=tuple(sorted([*outer.values(), index_file], key=lambda file: file.path)),
        depth=claim.depth + 1 if claim and tip else 1,
        parents=(tip,) if tip else (),
        sealed=seal,
    )
    return manifest, begun.written


def _index_of(node: Node, kind: Kind, sources: list[SourceFile], entries: list[FileEntry], tell: Tell) -> Manifest:
    """Return the manifest of the files as they are, which those alone see who can open them."""
    card, facts, variants = describe(sources, entries, tell)
    return Manifest(
        schema=1,
        kind=kind,
        created=int(node.clock()),
        files=tuple(entries),
        base_models=known_base_models(node, card),
        datasets=known_datasets(node, card),
        variants=variants,
        card=card,
        facts=facts,
    )


def _seal_file(
    node: Node,
    source: SourceFile,
    key: RepositoryKey,
    begun: Begun,
    outer: dict[str, FileEntry],
    profile: Profile | None,
    advance: Advance,
) -> tuple[Ingested, Profile]:
    """Hash a file, then seal it into the store, unless that was done before; returns what the file is.

    Its sealed file is noted in `outer`.
    """
    used = fitting_profile(source, profile)
    with disk_errors(source.location), open(source.location, "rb") as file:
        descriptor = file.fileno()
        stamp = Stamp.of(os.fstat(descriptor))
        found = begun.hashed.get(source.path)
        if found is None or (found.stamp, found.profile) != (stamp, used):
            result = scan(descriptor, source.location, used)
            found = _Hashed(stamp, used, result.root, result.sha256)
            begun.hashed[source.path] = found
        file_id = key.file_id(source.path, found.root)
        path = sealing.sealed_path(file_id)
        written, known = 0, begun.sealed.get(path)
        if known is not None and node.store.blobs.find(known.root):
            outer[path] = known
            advance(stamp.size)
        else:

            def read(offset: int, size: int) -> bytes:
                advance(size)
                return os.pread(descriptor, size, offset)

            sealed = _write_sealed(node, key.file(file_id, stamp.size), read)
            if Stamp.of(os.fstat(descriptor)) != stamp:
                raise changed(source.location)
            outer[path] = sealing.sealed_entry(path, sealed.size, sealed.root, sealed.sha256)
            written = sealed.written
            begun.sealed[path] = outer[path]
    return Ingested(found.root, stamp.size, found.sha256, written), used


def _seal_index(node: Node, index: bytes, key: RepositoryKey, file_id: bytes) -> FileEntry:
    sealed = _write_sealed(node, key.file(file_id, len(index)), lambda offset, size: index[offset : offset + size])
    return sealing.sealed_entry(sealing.INDEX_PATH, sealed.size, sealed.root, sealed.sha256)


def _write_sealed(node: Node, file: sealing.SealedFile, read: Callable[[int, int], bytes]) -> Ingested:
    """Seal what `read(offset, size)` gives into a new object of the store."""
    new = node.store.intake.begin_unverified()
    try:
        for index in range(file.count):
            data = read(index * sealing.CHUNK_SIZE, file.length(index))
            if len(data) != file.length(index):
                raise InvalidData("a file became shorter while it was sealed")
            new.write(file.seal(index, data))
        result = node.store.intake.take(new.path, "fixed-1m", lambda found: True)
        assert result
        return result
    finally:
        new.close()


async def publish_seal(
    node: Node, namespace: NamespaceId, model: str, seal: Sealing, *, visibility: Visibility | None = None
) -> int | None:
    """Sign for whom the key of `seal` is wrapped; returns the index of the last record, None if all have it already.

    visibility: None for what the repository has.
    """
    index = None
    for entry in await on_disk(_append_seal, node, namespace, model, seal, visibility):
        await announce(node, entry)
        index = entry.record.index
    return index


def _append_seal(
    node: Node, namespace: NamespaceId, model: str, seal: Sealing, visibility: Visibility | None
) -> list[Entry]:
    entries = []
    names = sorted(seal.recipients)
    for begin in range(0, len(names), RECIPIENTS_MAX):
        wrapped = tuple(
            sealing.wrap(seal.key, namespace, model, name, seal.recipients[name])
            for name in names[begin : begin + RECIPIENTS_MAX]
        )
        make = partial(Seal, namespace=namespace, model=model, key=seal.key.identifier, recipients=wrapped)
        entries.append(append_record(node, model, make, visibility=visibility))
    return entries


async def add_recipients(node: Node, model: str, whom: Sequence[str], tell: Tell) -> SealResult:
    """Let more namespaces open all revisions of one's own `model` that are sealed.

    Raises NotFound if it is not sealed or no key of a recipient is known, AccessDenied if its key is not here.
    """
    identity = await on_disk(own_identity, node)
    name = await own_model(node, model, identity.namespace)
    wanted = await _recipients(node, identity, whom, tell)
    index = None
    for key in await on_disk(_own_keys, node, identity.namespace, name):
        known = await on_disk(recipients_of, node, key)
        new = {recipient: public for recipient, public in wanted.items() if known.get(recipient) != public}
        if new:
            index = await publish_seal(node, identity.namespace, name, Sealing(key, new))
    return await on_disk(_result, node, identity.namespace, name, index)


async def show_seal(node: Node, reference: str, tell: Tell) -> SealResult:
    """Return who may open a repository. Raises NotFound if it is not sealed."""
    target = await resolve(node, reference, tell, refresh=True)
    if target.namespace is None or target.model is None:
        raise NotFound(f"{reference} is no repository that is known by name here")
    return await on_disk(_result, node, target.namespace, target.model, None)


async def unseal(node: Node, model: str, message: str) -> SealResult:
    """Let everybody open all revisions of one's own `model` that are sealed. It cannot be taken back.

    Raises NotFound if it is not sealed, AccessDenied if its key is not here.
    """
    identity = await on_disk(own_identity, node)
    name = await own_model(node, model, identity.namespace)

    index = None
    for key in await on_disk(_own_keys, node, identity.namespace, name):
        if await on_disk(node.store.seals.told, key.identifier, [identity.namespace]) is None:
            entry = await on_disk(_tell_key, node, identity.namespace, name, key, message)
            await announce(node, entry)
            index = entry.record.index
    return await on_disk(_result, node, identity.namespace, name, index)


def _tell_key(node: Node, namespace: NamespaceId, model: str, key: RepositoryKey, message: str) -> Entry:
    make = partial(Unseal, namespace=namespace, model=model, key=key.secret, message=message)

    return append_record(node, model, make)


def _own_keys(node: Node, namespace: NamespaceId, model: str) -> list[RepositoryKey]:
    """Return the keys of one's own repository. Raises NotFound if it has none, AccessDenied if one is not here."""
    identifiers = node.store.seals.keys_of(namespace, model)
    if not identifiers:
        raise NotFound(f"you have sealed nothing as {model}")
    found = [find_key_called(node, identifier, [namespace]) for identifier in identifiers]
    keys = [each.key for each in found if each]
    if len(keys) < len(found):
        raise AccessDenied(
            f"the key of {model} cannot be opened here",
            hint="it was wrapped for a recipient key that is not on this machine",
        )
    return keys


def _result(node: Node, namespace: NamespaceId, model: str, index: int | None) -> SealResult:
    identifiers = node.store.seals.keys_of(namespace, model)
    if not identifiers:
        raise NotFound(f"{model} is not sealed")
    each = [{row.wrapped.namespace for row in node.store.seals.recipients(identifier)} for identifier in identifiers]
    told = [node.store.seals.told(identifier, [namespace]) is not None for identifier in identifiers]
    everywhere = sorted(str(name) for name in set.intersection(*each))
    return SealResult(model, len(identifiers), everywhere, all(told), index)


def _as_they_are_now(node: Node, known: Mapping[NamespaceId, bytes]) -> dict[NamespaceId, bytes]:
    """Return the recipient keys of the same namespaces, by their newest identity documents here."""
    identities = {name: node.store.logs.identity(name) for name in known}
    return {name: (each.current.recipient if each else None) or known[name] for name, each in identities.items()}


async def _recipients(node: Node, identity: Identity, whom: Sequence[str], tell: Tell) -> dict[NamespaceId, bytes]:
    """Return the recipient keys of those named, and the own one. Raises NotFound if one has none that is known."""
    own = await on_disk(own_recipient, node)
    found = {identity.namespace: own.public_key}
    for text in whom:
        namespace = await find(node, text, tell)
        if namespace != identity.namespace:
            found[namespace] = await _recipient_key(node, namespace, tell)
    return found


async def _recipient_key(node: Node, namespace: NamespaceId, tell: Tell) -> bytes:
    """Return the key of `namespace` that is encrypted to, by its newest identity document that can be had."""
    if not node.settings.offline:
        await _ask_for_identity(node, namespace, tell)
    identity = await on_disk(node.store.logs.identity, namespace)
    if identity is None:
        raise NotFound(
            f"the identity of {namespace} is not known here",
            hint="a peer that knows it must be reachable: that publisher's own node, for one",
        )
    if identity.current.recipient is None:
        raise NotFound(
            f"the identity of {namespace} names no key to seal for", hint="that publisher's `p2phub id renew` makes one"
        )
    return identity.current.recipient


async def _ask_for_identity(node: Node, namespace: NamespaceId, tell: Tell) -> None:
    """Take over the identity of a publisher, who may have published nothing yet, from the first peer that knows it."""

    async def ask(client: PeerClient) -> bool:
        return bool(await learn_identities(node, client, [namespace]))

    peers = await on_disk(usable_peers, node)
    await ask_in_turn(node, peers, ask, tell, what="a publisher's keys")
