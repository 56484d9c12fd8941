"""A hub door on a real socket, and what stands on the shelf behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import trio

from p2phub.gateway.control import control_app
from p2phub.gateway.hub.app import HubDoor
from p2phub.gateway.local import local_app
from p2phub.net.localdoor import bind_local, serve_local
from p2phub.node.node import Node

TOKEN = "the-token-of-this-node"

CARD = """---
license: mit
library_name: transformers
pipeline_tag: text-generation
language: [en, fr]
tags: [small, odd_one]
datasets: [some/data]
---
# Parrot
"""
ODD_PATH = "sub/ä b#%41+.txt"


@dataclass(frozen=True)
class Shelf:
    """What a home has published: `parrot` twice on `main`, the first time as 1.0.0, and the dataset `words`."""

    home: Path
    namespace: str
    files: dict[str, bytes]  # of parrot's tip
    first: str  # revision of 1.0.0
    tip: str  # revision of main

    @property
    def name(self) -> str:
        return f"{self.namespace}/parrot"

    @property
    def commit(self) -> str:
        return self.tip.removeprefix("b3:")[:40]


@asynccontextmanager
async def open_door(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    """Let `node` answer clients; gives one with its token."""
    async with open_local(node) as client:
        client.headers["authorization"] = f"Bearer {TOKEN}"
        yield client


@asynccontextmanager
async def open_local(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    """Let `node` answer programs of this machine, at the whole local door; gives a client without a token."""
    listener, endpoint = bind_local("127.0.0.1", 0)
    hosts = frozenset({endpoint})
    try:
        async with trio.open_nursery() as nursery:
            door = local_app(control_app(node, TOKEN, hosts), HubDoor(node, TOKEN, hosts, nursery))
            await nursery.start(serve_local, door, listener)
            async with httpx.AsyncClient(base_url=f"http://{endpoint}", timeout=60) as client:
                yield client
            nursery.cancel_scope.cancel()
    finally:
        listener.close()
