"""A node that offers some small repositories, as processes see it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2phub.testing.processes import Home, RunningNode

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-classification
language: fr
---
# Sentences

Sorts sentences by the mood of whoever wrote them.
"""


@dataclass(frozen=True)
class Seed:
    """What the node offers."""

    node: RunningNode
    namespace: str
    folder: Path  # the files of `mood@1.0.0`
    revision: str  # of it

    @property
    def name(self) -> str:
        return f"{self.namespace}/mood"

    @property
    def peer(self) -> tuple[str, str]:
        """The option that names the node."""
        return "--peer", self.node.address


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seed]:
    """Run a node that has published a model of 3 MB and a small dataset."""
    base = tmp_path_factory.mktemp("seed")
    folder = base / "mood"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text('{"architectures": ["BertForSequenceClassification"], "model_type": "bert"}')
    (folder / "weights.bin").write_bytes(os.urandom(3_000_000))
    (folder / "sub" / "notes.txt").write_text("notes\n")
    data = base / "data"
    data.mkdir()
    (data / "train.csv").write_text("text,mood\n" + "bon,1\n" * 1000)
    home = Home(base / "home")
    namespace = home.ask("id", "new")["namespace"]
    revision = home.ask("publish", str(folder), "mood@1.0.0", "-m", "first")["revision"]
    home.call("publish", str(data), "sentences", "--kind", "dataset")
    with home.node() as node:
        yield Seed(node, namespace, folder, revision)


@pytest.fixture(scope="session")
def known_home(seed: Seed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home that has fetched the model and knows the seed; for copies."""
    folder = tmp_path_factory.mktemp("known") / "home"
    home = Home(folder)
    home.call("id", "new")
    home.call("fetch", seed.name, *seed.peer)
    return folder


@pytest.fixture
def copy_home(known_home: Path, tmp_path: Path) -> Callable[..., Home]:
    """Return a function that makes a home which has fetched the model already."""

    def copy(name: str = "home") -> Home:
        shutil.copytree(known_home, tmp_path / name)
        return Home(tmp_path / name)

    return copy


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a home that does not exist yet."""
    return Home(tmp_path / "home")
