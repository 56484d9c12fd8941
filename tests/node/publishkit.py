"""What tests of publishing share: a home with keys, folders, and what people see."""

from __future__ import annotations

from pathlib import Path

from p2phub.core.errors import NotFound
from p2phub.core.search import Query
from p2phub.node import inspect
from p2phub.node.housekeeping import list_repositories
from p2phub.node.identity import create_identity, own_identity
from p2phub.node.node import Node


async def fresh(node: Node) -> Node:
    create_identity(node)
    return node


def folder_with(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


async def state(node: Node) -> object:
    """Return everything that people can see of what a node has published."""
    name = str(own_identity(node).namespace)
    try:
        log = await inspect.log_lines(node, name)
    except NotFound:
        log = []
    return log, await inspect.search(node, Query()), await list_repositories(node), node.store.keeping.pins()
