"""Who asks: what a request proved of its sender, and whoever decides what it may have goes by."""

from __future__ import annotations

from msgspec import Struct

from .ids import NamespaceId, NodeId


class Caller(Struct, frozen=True):
    """Who asks a node for something. Anybody can say anything: only what was proved stands here."""

    node: NodeId | None = None  # None: it did not say
    namespaces: frozenset[NamespaceId] = frozenset()  # that let this node act for them


ANYBODY = Caller()
