"""Write down what names mean now, and say later whether they still do (spec/lock.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from p2phub.core.choices import DEFAULT_BRANCH, Kind
from p2phub.core.errors import Conflict, HubError, InvalidName, NotFound
from p2phub.core.locked import Locked
from p2phub.core.lockfile import check_locked
from p2phub.core.names import HashRef, NameRef, is_domain, is_namespace_id, parse_reference

from .disk import on_disk
from .events import Notice, Tell
from .names import find
from .node import Node
from .resolve import Target, load_manifest, resolve


async def lock_names(node: Node, names: Sequence[str], tell: Tell) -> list[Locked]:
    """Return what `names` mean now. Raises as `resolve` does, and InvalidName for what has no name."""
    return [await _lock(node, name, tell) for name in names]


async def _lock(node: Node, text: str, tell: Tell) -> Locked:
    reference = parse_reference(text)
    if isinstance(reference, HashRef):
        raise InvalidName(f"{text} is a hash, which needs no lock: it means the same for ever")
    target = await resolve(node, text, tell, refresh=True)
    if target.namespace is None or target.manifest is None:
        raise NotFound(f"{text} is no repository that is known here")
    # Elsewhere one's own is somebody else's.
    named = NameRef(reference.namespace or str(target.namespace), reference.model, reference.revision)
    kind = await on_disk(node.store.catalogue.kind, target.namespace, reference.model)
    if kind is None:
        kind = (await load_manifest(node, target.manifest, tell)).kind
    log, index = await on_disk(_record, node, target)
    return Locked(str(named), cast(Kind, kind), str(target.namespace), str(target.manifest), log, index)


def _record(node: Node, target: Target) -> tuple[str | None, int | None]:
    """Return log and index of the record that says what the name means; None if the name is a hash."""
    catalogue, namespace, model = node.store.catalogue, target.namespace, target.model
    assert namespace
    assert model
    if target.version:
        claim = catalogue.version(namespace, model, target.version)
    elif target.branch:
        claim = catalogue.branch(namespace, model, target.branch)
    else:
        claim = None
    return (str(claim.log), claim.index) if claim else (None, None)


async def check_locks(node: Node, locked: Sequence[Locked], tell: Tell) -> list[str]:
    """Return the names that mean another revision now than when they were locked.

    Tells of each, and of those of which nothing can be found out. Raises Conflict if a name belongs to another
    publisher now: then nobody knows whose word the lock is. A petname that is not known here is left out.
    """
    moved = []
    for each in locked:
        check_locked(each)
        reference = parse_reference(each.name)
        assert isinstance(reference, NameRef)
        assert reference.namespace is not None
        await _check_publisher(node, each, reference.namespace, tell)
        asked = NameRef(each.namespace, reference.model, reference.revision)
        try:
            now = await resolve(node, str(asked), tell, refresh=True)
        except HubError as exc:
            tell(Notice(f"cannot find out what {each.name} means now: {exc}"))
            continue
        if str(now.manifest) != each.revision:
            revision = reference.revision or DEFAULT_BRANCH
            tell(Notice(f"{each.name} was locked at another revision than {revision} is now: {now.manifest}"))
            moved.append(each.name)
    return moved


async def _check_publisher(node: Node, locked: Locked, name: str, tell: Tell) -> None:
    if not is_namespace_id(name) and not is_domain(name):
        # A petname of whoever made the lock; here it may be somebody else's, or nobody's.
        binding = await on_disk(node.store.bindings.get, name)
        if binding is None:
            return
    try:
        namespace = await find(node, name, tell)
    except NotFound as exc:
        tell(Notice(f"cannot find out whose {locked.name} is: {exc}"))
        return
    if str(namespace) != locked.namespace:
        raise Conflict(
            f"{locked.name} is locked to the publisher {locked.namespace}, and {name} means {namespace} here",
            hint="`p2phub lock --update` takes over what it means now; `p2phub sync --frozen` fetches what is locked",
        )
