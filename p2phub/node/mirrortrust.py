"""Whose word about repositories of other hubs counts here (spec/mirrors.md §5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2phub.core.ids import NamespaceId

from .disk import on_disk
from .identity import own_namespace
from .node import Node

if TYPE_CHECKING:
    from .operations.mirrors import TrustedMirrors

SETTING = "mirror-trust"  # name in the index


async def trust(node: Node, namespace: NamespaceId | None, *, is_trusted: bool) -> TrustedMirrors:
    """Take the publisher `namespace` at his word about mirrors, or no longer (None: change nothing)."""

    from .operations.mirrors import TrustedMirrors  # who fetches only asks whom the owner trusts

    def change(old: list[str] | None) -> list[str]:
        names = set(old or ())
        if namespace is not None:
            names = names | {str(namespace)} if is_trusted else names - {str(namespace)}
        return sorted(names)

    def work() -> TrustedMirrors:
        return TrustedMirrors(node.store.settings.change(SETTING, list[str], change))

    return await on_disk(work)


def trusted(node: Node) -> set[NamespaceId]:
    """Return the publishers whose attestations count here: one's own, and those whom the owner trusts."""
    names = node.store.settings.get(SETTING, list[str]) or []
    own = own_namespace(node)
    return {NamespaceId.parse(name) for name in names} | ({own} if own else set())
