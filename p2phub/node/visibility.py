"""For whom a repository of one's own is: the first publication decides, and so in which log (spec/private.md §1)."""

from __future__ import annotations

from p2phub.core.choices import Visibility
from p2phub.core.errors import Conflict
from p2phub.core.ids import NamespaceId
from p2phub.core.private import Repository
from p2phub.core.records import Entry

from .identity import RecordMaker, own_publisher, placed, publish_record
from .node import Node

_OTHER_NAME = "publish it under another name"


def visibility_of(node: Node, namespace: NamespaceId, model: str) -> Visibility | None:
    """Return for whom a repository is, as far as is known here; None if it is not there."""
    if node.store.private.is_private(Repository(namespace, model)):
        return "private"
    if node.store.catalogue.kind(namespace, model) is None:
        return None
    return "public" if node.store.catalogue.is_listed(namespace, model) else "unlisted"


def decide_visibility(node: Node, namespace: NamespaceId, model: str, wanted: Visibility | None) -> Visibility:
    """Return for whom a repository of one's own is to be. wanted: None for what it is.

    Raises Conflict if it is for others than is wanted.
    """
    known = visibility_of(node, namespace, model)
    if known is None:
        return wanted or "public"
    if wanted not in (None, known):
        raise Conflict(f"{model} is {known}; the first publication decides that", hint=_OTHER_NAME)
    return known


def append_record(node: Node, model: str, make: RecordMaker, *, visibility: Visibility | None = None) -> Entry:
    """Sign what `make` returns and append it to the log that a repository of one's own is written in.

    visibility: None for what it is. Raises as `own_publisher` does.
    """
    identity, key = own_publisher(node)
    if visibility is None:
        visibility = visibility_of(node, identity.namespace, model)
    if visibility != "private":
        return publish_record(node, make)
    # An index that was lost does not know it any more, and those who may read it will ask for it.
    node.store.logs.add_identity(identity, own=True)
    entry = node.store.private.append_own(identity, key, model, placed(node, make), may_begin=True)
    assert entry is not None
    return entry
