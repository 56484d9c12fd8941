"""Show the store as the cache of another hub's client, without a second copy (spec/store.md §8).

    CACHE/models--NAMESPACE--MODEL/blobs/<SHA-256>            a link to the object
                                   snapshots/<commit>/PATH ─▶ ../../blobs/<SHA-256>
                                   refs/<branch or tag>       the commit

A client with HF_HUB_OFFLINE=1 loads from there. It replaces files by renaming, and never
writes into one, so the objects that its links lead to stay as they are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from p2phub.core.choices import Kind, LinkMode
from p2phub.core.errors import AccessDenied, Conflict
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.core.private import Repository
from p2phub.core.rules import Consent
from p2phub.store.disk import disk_errors, write_file
from p2phub.store.store import Store

from .checkout import Contents, StoredContents
from .disk import from_thread, on_disk
from .events import Notice, Tell
from .identity import own_namespace
from .node import Node
from .operations.storage import CachedRepository, CacheView
from .recalled import recall_of_repository
from .rulefacts import vouched
from .rules import Scanner, Selection, facts_of, scan_stored

SHOWN_MAX = 5  # paths in one notice


def place_in_cache(
    cache: Path,
    name: str,
    revision: ManifestId,
    kind: Kind,
    files: Sequence[FileEntry],
    references: Sequence[str],
    contents: Contents,
) -> tuple[Path, str]:
    """Place `files` of a revision, all of them in `contents`, in a client's cache; returns the snapshot and how.

    name: NAMESPACE/MODEL as the client will write it. references: branches and tags that stand for the revision.
    Raises Conflict if something else stands where a folder or file should be.
    """
    folder = cache / f"{kind}s--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / revision.commit
    used = set()
    contents.find(files)
    for file in files:
        blob = folder / "blobs" / file.sha256.hex()
        # The client may have put it there, and it checks sizes only.
        if not contents.stands(file, blob):
            used.add(contents.place(file, blob))
        link = snapshot / file.path
        target = os.path.relpath(blob, link.parent)
        with disk_errors(link):
            link.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(link):
                if link.is_symlink() and os.readlink(link) == target:
                    continue
                if not link.is_symlink() and link.is_dir():
                    raise Conflict(f"{link} is a folder where a file should be")
                link.unlink()
            os.symlink(target, link)
    for reference in references:
        write_file(folder / "refs" / reference, revision.commit.encode(), mode=0o644)
    return snapshot, "+".join(sorted(used)) or "kept"


async def view_store(node: Node, cache: Path, link: LinkMode, tell: Tell, *, consent: Consent) -> CacheView:
    """Place all that is whole in the store and has a name in a client's cache, as far as the policy lets it."""
    tell = from_thread(tell)

    def work() -> CacheView:
        shown = []
        rules, own = node.rules.current(), own_namespace(node)
        for revision in node.store.manifests.all():
            manifest = node.store.manifests.get(revision)
            if manifest is None or any(node.store.blobs.find(file.root) is None for file in manifest.files):
                continue
            inner, contents, look = _contents(node, revision, manifest, link)
            if contents is None:
                continue
            for namespace, model in node.store.catalogue.publishers_of(revision):
                name = f"{namespace}/{model}"
                recalled = recall_of_repository(node, Repository(namespace, model), revision)
                facts = facts_of(node.store, inner, revision, namespace, recalled)
                # A cache shows branches, too.
                facts = vouched(node.store, rules, facts, model, own=own, now=node.clock(), moving=True)
                selection = Selection(rules, facts, consent)
                try:
                    files = selection.by_content(selection.by_name(inner.files), look)
                except AccessDenied as exc:
                    tell(Notice(f"{name} is left out: {exc}"))
                    continue
                if selection.left_out:
                    paths = ", ".join(out.path for out in selection.left_out[:SHOWN_MAX])
                    tell(Notice(f"{len(selection.left_out)} files of {name} are left out: {paths}"))
                names = references_of(node.store, namespace, model, revision)
                folder, _ = place_in_cache(cache, name, revision, manifest.kind, files, names, contents)
                shown.append(CachedRepository(name, manifest.kind, revision.commit, names, str(folder)))
        return CacheView(str(cache), shown)

    return await on_disk(work)


def references_of(store: Store, namespace: NamespaceId, model: str, revision: ManifestId) -> list[str]:
    """Return the branches and versions of a repository that stand for `revision`."""
    claims = {**store.catalogue.branches(namespace, model), **store.catalogue.versions(namespace, model)}
    return [name for name, claim in claims.items() if claim.manifest == revision]


def _contents(
    node: Node, revision: ManifestId, manifest: Manifest, link: LinkMode
) -> tuple[Manifest, Contents | None, Scanner]:
    """Return what a whole revision shows, where its files come from, and what looks into them.

    They come from nowhere (None) if they are sealed for others.
    """
    stored = scan_stored(node.store)
    if manifest.sealed is None:
        return manifest, StoredContents(node.store, link), stored
    from .opening import OpenedContents, find_opened, scan_opened

    opened = find_opened(node, revision, manifest)
    if opened is None:
        return manifest, None, stored
    return opened.manifest, OpenedContents(node.store, opened), scan_opened(node.store, opened)
