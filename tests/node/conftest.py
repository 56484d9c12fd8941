"""A published model, and nodes of this process that offer it on real sockets."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from p2phub.net import bulk, frames, http, web
from p2phub.node import connections, crowd, swarm, wholefiles
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home
from p2phub.testing.processes import copy_home, tree
from p2phub.testing.samples import write_sample_model


@dataclass(frozen=True)
class Published:
    """A model that a home has published as `parrot@1.0.0`."""

    home: Path
    folder: Path
    name: str  # NAMESPACE/parrot
    revision: str
    size: int  # bytes
    files: dict[str, str]  # SHA-256 by path


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Publish a model of 24 MB once; tests work on copies of the home."""
    base = tmp_path_factory.mktemp("published")
    size = write_sample_model(base / "model", size=24_000_000)

    async def work() -> Published:
        async with open_home(base / "home") as node:
            create_identity(node)
            result = await publish(node, base / "model", "parrot@1.0.0", ignore)
            name = f"{result.namespace}/parrot"
            return Published(base / "home", base / "model", name, result.revision, size, tree(base / "model"))

    return trio.run(work)


@pytest.fixture
def copy_of(published: Published, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes another home which holds the model, as a node of its own."""

    return lambda name: copy_home(published.home, tmp_path / name)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what takes a minute for people take some seconds: most times of a download, a tenth each."""
    # Not less, or on a busy machine a peer looks like one that stalls, and a download gives up before it has begun.
    monkeypatch.setattr(bulk, "STALL_TIMEOUT_S", 2.0)
    monkeypatch.setattr(frames, "STALL_TIMEOUT_S", 2.0)
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 2.0)
    monkeypatch.setattr(connections, "RETRY_S", tuple(wait_s / 10 for wait_s in connections.RETRY_S))
    monkeypatch.setattr(swarm, "QUIET_S", 0.3)
    monkeypatch.setattr(swarm, "PATIENCE_SILENT_S", 6.0)
    monkeypatch.setattr(swarm, "PATIENCE_S", 4.0)
    monkeypatch.setattr(swarm, "PATIENCE_ALONE_S", 2.0)
    for name in ("SAVE_S", "RATE_S"):
        monkeypatch.setattr(swarm, name, getattr(swarm, name) / 10)
    monkeypatch.setattr(connections, "OFFER_MAX_S", connections.OFFER_MAX_S / 10)
    for name in ("PEERS_S", "PAUSE_S", "PAUSE_SILENT_S"):
        monkeypatch.setattr(crowd, name, getattr(crowd, name) / 10)


@pytest.fixture
def files(published) -> dict[str, bytes]:
    """The published files by path, as a web server has them below `parrot/`."""
    return {f"parrot/{path}": (published.folder / path).read_bytes() for path in published.files}


@pytest.fixture
def bare_copy_of(copy_of):
    """Return a function that makes a home which knows the model and its chunk lists, and has nothing of it."""

    def copy(name: str) -> Path:
        home = copy_of(name)
        shutil.rmtree(home / "store" / "objects")
        return home

    return copy


@pytest.fixture
def listless_copy_of(bare_copy_of):
    """Return a function that makes a home which knows the manifest alone."""

    def copy(name: str) -> Path:
        home = bare_copy_of(name)
        shutil.rmtree(home / "store" / "trees", ignore_errors=True)
        with sqlite3.connect(home / "index.sqlite") as index:
            index.execute("DELETE FROM chunk_lists")
        return home

    return copy


@pytest.fixture
def impatient_files(monkeypatch):
    monkeypatch.setattr(wholefiles, "RETRY_S", tuple(wait_s / 10 for wait_s in wholefiles.RETRY_S))
    monkeypatch.setattr(web.Web.left_s, "__defaults__", (2.0,))
