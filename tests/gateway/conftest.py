"""A hub door on a real socket: a node that holds nothing, and one that has published a few things."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import trio
from doorkit import CARD, ODD_PATH, Shelf, open_door

from p2phub.node import connections, crowd, swarm
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.processes import copy_home


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    base = tmp_path_factory.mktemp("shelf")
    files = {
        "README.md": CARD.encode(),
        "config.json": b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}',
        "weights.onnx": os.urandom(9_000_000),
        "empty": b"",
        ODD_PATH: b"odd\n",
    }
    for path, data in files.items():
        (base / "parrot" / path).parent.mkdir(parents=True, exist_ok=True)
        (base / "parrot" / path).write_bytes(data)
    (base / "words").mkdir()
    (base / "words" / "train.csv").write_text("text,label\na,1\n")

    async def work() -> Shelf:
        async with open_home(base / "home") as node:
            create_identity(node)
            (base / "parrot" / "config.json").write_bytes(b"{}")
            first = await publish(node, base / "parrot", "parrot@1.0.0", ignore, message="begin\n\nwith care")
            (base / "parrot" / "config.json").write_bytes(files["config.json"])
            second = await publish(node, base / "parrot", "parrot", ignore, message="say what it is")
            await publish(node, base / "words", "words", ignore, kind="dataset")
            return Shelf(base / "home", first.namespace, files, first.revision, second.revision)

    return trio.run(work)


@pytest.fixture
def copy_of(shelf: Shelf, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes another home which holds the shelf, as a node of its own."""

    return lambda name: copy_home(shelf.home, tmp_path / name)


@pytest.fixture
async def door(copy_of: Callable[[str], Path]) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of a node that holds the shelf and knows nobody."""
    async with open_home(copy_of("here")) as node, open_door(node) as client:
        yield client


@pytest.fixture
async def cold(copy_of: Callable[[str], Path], tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of a node that holds nothing and knows one that holds the shelf."""
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        address = await stack.enter_async_context(serving(seed))
        node = await stack.enter_async_context(open_home(tmp_path / "cold"))
        node.store.peers.add(address)
        yield await stack.enter_async_context(open_door(node))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a download give up after seconds, not minutes."""
    monkeypatch.setattr(connections, "RETRY_S", tuple(wait_s / 10 for wait_s in connections.RETRY_S))
    for module, names in ((swarm, ("PATIENCE_S", "PATIENCE_ALONE_S")), (crowd, ("PEERS_S", "PAUSE_S"))):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name) / 10)
