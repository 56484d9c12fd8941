"""What tests of several nodes share: nodes that replicate, and small folders to publish."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from p2phub.node import replicate
from p2phub.node.node import Node


@asynccontextmanager
async def replicating(*nodes: Node) -> AsyncIterator[None]:
    """Let nodes pull and announce during the block, as daemons do."""
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(replicate.replicate, node)
        yield
        nursery.cancel_scope.cancel()


def write_files(folder: Path, **files: str) -> Path:
    """Let `folder` hold these small files and no others; `__` in a name stands for a dot. Returns the folder."""
    folder.mkdir(exist_ok=True, parents=True)
    for path in folder.iterdir():
        path.unlink()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder
