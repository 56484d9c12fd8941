"""Move branches, yank versions and recall revisions of one's own repositories (spec/records.md §2)."""

from __future__ import annotations

from functools import partial

from p2phub.core.errors import InvalidName, NotFound
from p2phub.core.names import check_branch
from p2phub.core.records import Branch, Recall, Yank

from .catchup import ready_to_publish
from .disk import on_disk
from .events import Notice, Tell
from .meant import check_published, revisions_there
from .node import Node
from .operations.records import BranchResult, RecallResult, YankResult
from .ownnames import own_model, own_reference, own_version
from .privatenews import announce
from .resolve import load_manifest, resolve
from .visibility import append_record


async def move_branch(
    node: Node, model: str, branch: str, revision: str | None, message: str, tell: Tell
) -> BranchResult:
    """Let `branch` of one's own `model` stand for `revision`, which may be older (a rollback); None deletes it.

    Raises NotFound if there is no such model or revision.
    """
    identity, _ = await ready_to_publish(node, tell)
    model = await own_model(node, model, identity.namespace)
    check_branch(branch)
    await on_disk(check_published, node, identity.namespace, model)
    manifest, depth = None, 1
    if revision is not None:
        target = await resolve(node, f"{identity.namespace}/{model}@{revision}", tell, refresh=False)
        assert target.manifest is not None
        manifest = target.manifest
        depth = (await load_manifest(node, manifest, tell)).depth
    elif branch not in (known := await on_disk(node.store.catalogue.branches, identity.namespace, model)):
        raise NotFound(f"{model} has no branch {branch}", hint=revisions_there(known) or None)

    make = partial(
        Branch,
        namespace=identity.namespace,
        model=model,
        branch=branch,
        manifest=manifest,
        depth=depth,
        message=message,
    )

    entry = await on_disk(append_record, node, model, make)
    await announce(node, entry)
    return BranchResult(model, branch, str(manifest) if manifest else None, entry.record.index)


async def yank(node: Node, name: str, message: str, tell: Tell) -> YankResult:
    """Say that a version of one's own should not be chosen any more. Raises NotFound if there is none."""
    identity, _ = await ready_to_publish(node, tell)
    model, version = await own_version(node, name, identity.namespace)
    if version is None:
        raise InvalidName(f"'{name}' names no version: expected MODEL@1.2.0")
    await on_disk(check_published, node, identity.namespace, model)
    if await on_disk(node.store.catalogue.version, identity.namespace, model, version) is None:
        known = await on_disk(node.store.catalogue.versions, identity.namespace, model)
        raise NotFound(f"{model} has no version {version}", hint=revisions_there(known) or None)

    make = partial(Yank, namespace=identity.namespace, model=model, version=version, message=message)

    entry = await on_disk(append_record, node, model, make)
    await announce(node, entry)
    return YankResult(model, version, entry.record.index)


async def recall(node: Node, name: str, message: str, tell: Tell) -> RecallResult:
    """Say that a revision of one's own must not be used any more, for ever. Raises NotFound if there is none."""
    identity, _ = await ready_to_publish(node, tell)
    expected = "MODEL@1.2.0, or MODEL@HASH"
    reference = await own_reference(node, name, identity.namespace, expected=expected)
    if not reference.revision:
        raise InvalidName(f"'{name}' names no revision: expected {expected}")
    await on_disk(check_published, node, identity.namespace, reference.model)
    target = await resolve(node, f"{identity.namespace}/{reference.model}@{reference.revision}", tell, refresh=False)
    assert target.manifest is not None
    manifest = target.manifest

    make = partial(Recall, namespace=identity.namespace, model=reference.model, manifest=manifest, message=message)

    entry = await on_disk(append_record, node, reference.model, make)
    await announce(node, entry)
    branches = await on_disk(node.store.catalogue.branches, identity.namespace, reference.model)
    for branch in (branch for branch, claim in branches.items() if claim.manifest == manifest):
        tell(Notice(f"{branch} still stands for it: `p2phub branch {reference.model} {branch} REVISION` moves it"))
    return RecallResult(reference.model, str(manifest), entry.record.index)
