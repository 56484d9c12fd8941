"""Homes that know a published model and have less of it, and what a download from an HTTP origin came to."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2phub.core.errors import NotFound
from p2phub.node.events import ignore
from p2phub.node.fetch import FetchResult, fetch
from p2phub.node.node import Node
from p2phub.node.origins import GivenOrigins
from p2phub.testing.processes import tree
from p2phub.testing.webserver import WebServer


def given(*templates: str) -> GivenOrigins:
    """Return origins that somebody names for one fetch."""
    return GivenOrigins(templates)


def base(server: WebServer) -> str:
    return f"{server.url}/parrot/{{path}}"


def host(server: WebServer) -> str:
    return f"127.0.0.1:{server.port}"


def by_origin(result: FetchResult) -> dict[str, object]:
    return {provider.origin: provider for provider in result.providers if provider.origin}


def leftovers(node: Node) -> list[Path]:
    return [path for path in node.settings.layout.store.rglob("*") if path.name.startswith(".new-")]


async def failing(node: Node, name: str, server: WebServer, to: Path, *include: str) -> str:
    """Fetch, which must fail; returns what people are told."""
    with pytest.raises(NotFound) as failure:
        await fetch(node, name, ignore, to=to, origins=given(base(server)), include=include)
    assert not tree(to)
    return f"{failure.value} {failure.value.hint}"
