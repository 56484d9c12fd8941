"""Let others read a private repository of one's own, and take that back (spec/private.md §3)."""

from __future__ import annotations

from functools import partial

from p2phub.core.choices import GranteeKind
from p2phub.core.errors import HubError, InvalidName, NotFound
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.core.names import NameRef, is_namespace_id, parse_address, parse_reference
from p2phub.core.private import Grantee, Repository
from p2phub.core.records import Entry, Ungrant

from .disk import on_disk
from .events import Tell, ignore
from .grants import append_grant
from .identity import own_identity
from .names import find
from .node import Node
from .operations.grants import GrantInfo, PrivateInfo
from .ownnames import own_model
from .privatenews import announce
from .resolve import find_namespace
from .visibility import append_record


async def grant(node: Node, name: str, who: str, days: int | None, tell: Tell = ignore) -> PrivateInfo:
    """Let `who` (a namespace, a name of one, or a node) read one's own private repository.

    days: until then; None: as long as the publisher's node runs, which renews it.
    Raises NotFound if there is no such repository or nobody is known by that name.
    """
    repository = await own_private(node, name)
    grantee = await find_grantee(node, who, tell)
    if grantee.kind == "namespace" and grantee.id == repository.namespace:
        raise InvalidName("you may read your own repositories anyway")
    entry = await on_disk(append_grant, node, repository, grantee, days)
    if grantee.kind == "namespace":
        await on_disk(node.authority.remember, NamespaceId(grantee.id))
    told = await announce(node, entry)
    return await on_disk(_info, node, repository, told)


async def revoke(node: Node, name: str, who: str, message: str, tell: Tell = ignore) -> PrivateInfo:
    """Take back what was granted. Raises NotFound if nothing was."""
    repository = await own_private(node, name)
    grantee = await find_grantee(node, who, tell)

    make = partial(
        Ungrant,
        namespace=repository.namespace,
        model=repository.model,
        to=grantee.id,
        to_kind=grantee.kind,
        message=message,
    )

    def append() -> Entry:
        said = node.store.private.grants(repository).get(grantee)
        if said is None or not said.until:
            raise NotFound(f"{repository.model} is not granted to {grantee}", hint="`p2phub grants` shows to whom")
        return append_record(node, repository.model, make, visibility="private")

    entry = await on_disk(append)
    told = await announce(node, entry)
    return await on_disk(_info, node, repository, told)


async def show(node: Node, name: str | None, tell: Tell = ignore) -> list[PrivateInfo]:
    """Return the private repositories that are here, or one of them, and who may read each. Raises NotFound."""
    if name is None:
        repositories = await on_disk(node.store.private.repositories)
    else:
        reference = parse_reference(name)
        if not isinstance(reference, NameRef):
            raise InvalidName(f"'{name}' is a hash; grants belong to a name")
        namespace = await find_namespace(node, reference, tell)
        repositories = [Repository(namespace, reference.model)]
        if not await on_disk(node.store.private.is_private, repositories[0]):
            raise NotFound(f"no private repository {name} is known here", hint="`p2phub grants` lists those that are")
    return [await on_disk(_info, node, repository) for repository in repositories]


async def find_grantee(node: Node, who: str, tell: Tell) -> Grantee:
    """Return whom `who` means: a node by its address or `node:ID`, else a namespace by its id or a name.

    Raises InvalidName, NotFound.
    """
    if who.startswith("p2phub://"):
        return Grantee("node", bytes(parse_address(who).node))
    if who.startswith("node:"):
        return Grantee("node", bytes(NodeId.parse(who.removeprefix("node:"))))
    if is_namespace_id(who):
        kind: GranteeKind = "namespace"
        if await on_disk(_is_only_a_node, node, who):
            kind = "node"
        return Grantee(kind, bytes(NamespaceId.parse(who)))
    return Grantee("namespace", bytes(await find(node, who, tell)))


def _is_only_a_node(node: Node, text: str) -> bool:
    """Say whether an id is known as that of a node, and not as a namespace: both are written alike."""
    namespace = NamespaceId.parse(text)
    if node.store.logs.identity(namespace) is not None:
        return False
    try:
        return node.store.peers.get(NodeId(namespace)) is not None
    except HubError:
        return False


async def own_private(node: Node, name: str) -> Repository:
    """Return the private repository of one's own that `name` means. Raises InvalidName, NotFound if there is none."""
    identity = await on_disk(own_identity, node)
    repository = Repository(identity.namespace, await own_model(node, name, identity.namespace))
    if not await on_disk(node.store.private.is_private, repository):
        raise NotFound(
            f"you have no private repository {repository.model}",
            hint="`p2phub publish --private` makes one; `p2phub grants` lists them",
        )
    return repository


def _info(node: Node, repository: Repository, told: int = 0) -> PrivateInfo:
    said = node.store.private.grants(repository)
    now = node.clock()
    return PrivateInfo(
        namespace=str(repository.namespace),
        model=repository.model,
        kind=node.store.catalogue.kind(repository.namespace, repository.model),
        grants=[
            GrantInfo(grantee.kind, str(grantee), each.until, each.renewed)
            for grantee, each in sorted(said.items())
            if each.until > now
        ],
        told=told,
    )
