"""Say which of one's own repositories a name means (spec/names.md §1).

    MODEL, NAMESPACE/MODEL, NAME/MODEL of a name that is pinned to oneself ──▶ MODEL

Whoever writes for himself may leave his name out. Another's name is never dropped: who named a repository of
somebody else must not be answered about one of his own that is called alike.
"""

from __future__ import annotations

from p2phub.core.errors import InvalidName
from p2phub.core.ids import NamespaceId
from p2phub.core.names import NameRef, is_version, parse_reference

from .disk import on_disk
from .node import Node


async def own_model(node: Node, name: str, namespace: NamespaceId) -> str:
    """Return which of the models of `namespace`, one's own, `name` means. Raises InvalidName if it means no such."""
    reference = await own_reference(node, name, namespace, expected="MODEL")
    if reference.revision is not None:
        raise InvalidName(f"'{name}' names a revision; this is about all of {reference.model}")
    return reference.model


async def own_version(node: Node, name: str, namespace: NamespaceId) -> tuple[str, str | None]:
    """Return which model, and which version of it, `name` means. Raises InvalidName if it means neither."""
    reference = await own_reference(node, name, namespace, expected="MODEL or MODEL@VERSION")
    if reference.revision is not None and not is_version(reference.revision):
        raise InvalidName(
            f"'{reference.revision}' is no version: expected something like 1.2.0",
            hint="a branch is given with --branch",
        )
    return reference.model, reference.revision


async def own_reference(node: Node, name: str, namespace: NamespaceId, *, expected: str) -> NameRef:
    """Return what `name` means, which is a repository of `namespace`, one's own. Raises InvalidName if it is not.

    expected: how such a name looks, for people.
    """
    reference = parse_reference(name)
    if not isinstance(reference, NameRef):
        raise InvalidName(f"'{name}' is a hash; expected {expected}")
    if reference.namespace not in (None, str(namespace)):
        # As it is pinned: what a domain says today does not make another's repository one's own.
        binding = await on_disk(node.store.bindings.get, reference.namespace)
        if binding is None or binding.namespace != namespace:
            raise InvalidName(
                f"'{reference.namespace}' is not your namespace",
                hint=f"write {reference.model}, if you mean yours; your namespace is {namespace}",
            )
    return reference
