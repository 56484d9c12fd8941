"""Let all members of a federation read a private repository, as long as they are members (spec/federation.md §4).

    who is granted, who is a member now ──▶ grants and revocations, one for each member

Others that serve the repository know the grants and not the federation: so a grant to it is a grant
to each of its members, and this node sees to it that they stay the same.
"""

from __future__ import annotations

import logging

import trio
from msgspec import Struct

from p2phub.core.errors import HubError, NotFound
from p2phub.core.ids import FederationId, NamespaceId
from p2phub.core.private import Grantee, Repository

from . import granting
from .charters import require
from .disk import on_disk
from .events import Tell, ignore
from .federations import membership_of, memberships
from .identity import own_namespace
from .node import Node
from .operations.grants import PrivateInfo

log = logging.getLogger(__name__)

PREFIX = "federation:"  # before the name, where namespaces are meant otherwise; spec/federation.md §4
SETTING = "federation-grants"  # name in the index
ROUND_S = 60.0  # seconds between looks, if nothing wakes it


class FederatedGrant(Struct, frozen=True):
    """A private repository that members of a federation may read."""

    model: str
    federation: str  # its id
    members: tuple[str, ...] = ()  # namespaces that were granted it for this alone


async def grant(node: Node, name: str, federation: str, tell: Tell) -> PrivateInfo:
    """Let all who are, or will be, members of `federation` read one's own private repository. Raises NotFound."""
    model = (await granting.own_private(node, name)).model
    found = await on_disk(lambda: membership_of(node.store, federation, own_namespace(node), node.clock()))
    made = FederatedGrant(model, str(found.known.charter.id))

    def add(old: list[FederatedGrant] | None) -> list[FederatedGrant]:
        return old if old and any(_is_same(each, made) for each in old) else [*(old or ()), made]

    await on_disk(lambda: node.store.settings.change(SETTING, list[FederatedGrant], add))
    await sync_grants(node)
    return (await granting.show(node, model, tell))[0]


async def revoke(node: Node, name: str, federation: str, tell: Tell) -> PrivateInfo:
    """Take back what was granted to a federation; what its members were granted besides stays. Raises NotFound."""
    model = (await granting.own_private(node, name)).model
    identifier = str((await on_disk(require, node, federation)).charter.id)
    given = await on_disk(_given, node)
    chosen = next((each for each in given if (each.model, each.federation) == (model, identifier)), None)
    if chosen is None:
        raise NotFound(f"{model} is not granted to {federation}", hint="`p2phub grants` shows to whom it is")
    await _take_back(node, chosen, chosen.members)

    def drop(old: list[FederatedGrant] | None) -> list[FederatedGrant]:
        return [each for each in old or () if not _is_same(each, chosen)]

    await on_disk(lambda: node.store.settings.change(SETTING, list[FederatedGrant], drop))
    return (await granting.show(node, model, tell))[0]


async def keep_grants(node: Node) -> None:
    """Let grants follow who is a member, from now on; runs until cancelled."""
    while True:
        woken = node.federated.woken
        try:
            await sync_grants(node)
        except HubError as exc:
            log.warning("cannot bring grants to federations up to date: %s", exc)
        with trio.move_on_after(ROUND_S):
            await woken.wait()


async def sync_grants(node: Node) -> None:
    """Grant what members lack, and take back what is granted to those who are members no longer."""
    for given in await on_disk(_given, node):
        members = await on_disk(_members, node, given)
        gone = [each for each in given.members if each not in members]
        # First, and all of it: who left must not wait for who came.
        await _take_back(node, given, gone)
        kept = [each for each in given.members if each in members]
        fresh = []
        for member in sorted(members.difference(given.members)):
            if not await on_disk(_is_granted, node, given.model, member):
                await granting.grant(node, given.model, member, None, ignore)
                fresh.append(member)
        if gone or fresh:
            await on_disk(_note, node, given, (*kept, *fresh))


async def _take_back(node: Node, given: FederatedGrant, members: list[str] | tuple[str, ...]) -> None:
    for member in members:
        try:
            await granting.revoke(node, given.model, member, "", ignore)
        except NotFound:
            continue  # it was taken back by hand


def _note(node: Node, given: FederatedGrant, members: tuple[str, ...]) -> None:
    def change(old: list[FederatedGrant] | None) -> list[FederatedGrant]:
        new = FederatedGrant(given.model, given.federation, members)
        return [new if _is_same(each, given) else each for each in old or ()]

    node.store.settings.change(SETTING, list[FederatedGrant], change)


def _given(node: Node) -> list[FederatedGrant]:
    return node.store.settings.get(SETTING, list[FederatedGrant]) or []


def _members(node: Node, given: FederatedGrant) -> set[str]:
    """Return the other members of a federation now; none, if this home is no member any more."""
    own, wanted = own_namespace(node), FederationId.parse(given.federation)
    for each in memberships(node.store, own, node.clock()):
        if each.known.charter.id == wanted:
            return {str(member) for member in each.members if member != own}
    return set()


def _is_granted(node: Node, model: str, member: str) -> bool:
    own = own_namespace(node)
    if own is None:
        return False
    said = node.store.private.grants(Repository(own, model)).get(Grantee("namespace", bytes(NamespaceId.parse(member))))
    return said is not None and said.until > node.clock()


def _is_same(one: FederatedGrant, other: FederatedGrant) -> bool:
    return (one.model, one.federation) == (other.model, other.federation)
