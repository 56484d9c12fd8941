"""Which names known here a new one could be taken for (spec/names.md §9). Runs on the disk's threads."""

from __future__ import annotations

from p2phub.core.ids import NamespaceId
from p2phub.core.lookalikes import is_overshadowed, warnings
from p2phub.core.names import is_namespace_id

from .node import Node

SHOWN_MAX = 3  # warnings about one name


def name_warnings(node: Node, name: str, namespace: NamespaceId) -> list[str]:
    """Return what to know of a domain or petname of a publisher, a sentence each."""
    if is_namespace_id(name):
        return []
    known = [binding.name for binding in node.store.bindings.all() if binding.namespace != namespace]
    return warnings(name, known)[:SHOWN_MAX]


def model_warnings(node: Node, namespace: NamespaceId, model: str) -> list[str]:
    """Return what to know of a repository: whether far more nodes hold one of the same name, of another publisher."""
    found = node.store.listing.most_held(model, but=namespace)
    own = node.store.listing.replicas(namespace, model)
    if found is None or not is_overshadowed(own, found[1]):
        return []
    other, most = found
    names = node.store.bindings.names_of(other)
    return [f"{most} nodes hold {names[0] if names else other}/{model}, and {own} this one of the same name"]
