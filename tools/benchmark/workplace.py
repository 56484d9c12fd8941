"""Where a case works: a folder, the files it moves, the homes of its nodes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .nodes import P2PHUB, clean_environment

TENSOR = 4096, 4096  # shape of the tensors of a model; 32 MiB in BF16


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line; None is the choice of the case."""

    size: int | None = None  # bytes
    nodes: tuple[int, ...] | None = None
    rate: float | None = None  # bytes per second


@dataclass
class Workplace:
    """The folder of one case. What `stack` holds ends with the case."""

    folder: Path
    options: Options
    stack: ExitStack
    skipped: list[str] = field(default_factory=list)  # sentences: what was left out, and why
    _count: int = 0

    @property
    def target(self) -> Path:
        """The folder that runs write to; empty before each."""
        return self.folder / "target"

    def clear(self) -> None:
        shutil.rmtree(self.target, ignore_errors=True)
        self.target.mkdir()

    def new(self, name: str) -> Path:
        """Return a path in the folder that nobody has yet."""
        self._count += 1
        return self.folder / f"{self._count}-{name}"

    def p2phub(self, home: Path, *arguments: str) -> Any:
        """Run a command and return the JSON that it prints."""
        environment = {**clean_environment(), "P2PHUB_HOME": str(home)}
        command = [*P2PHUB, *arguments, "--json"]
        return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)

    def model(self, size: int) -> Path:
        """Return a new folder with a model of about `size` bytes in one file, `model.safetensors`."""
        import numpy as np

        from p2phub.testing.samples import write_safetensors

        folder = self.new("model")
        folder.mkdir()
        rows, columns = TENSOR
        rows = min(rows, max(1, size // (2 * columns)))
        count = max(1, size // (2 * rows * columns))
        tensors = {f"layers.{number}.weight": (rows, columns) for number in range(count)}
        write_safetensors(folder / "model.safetensors", tensors, np.random.default_rng(7))
        return folder

    def publisher(self, source: Path) -> tuple[Path, str]:
        """Return a new home that has published the folder `source`, and the revision."""
        home = self.new("publisher")
        self.p2phub(home, "id", "new")
        revision: str = self.p2phub(home, "publish", str(source), "bench@1.0.0")["revision"]
        return home, revision

    def copy_of(self, home: Path) -> Path:
        """Return a home with the same content, its files shared and its index its own, and another node key."""
        copy = self.new("home")
        shutil.copytree(home, copy, copy_function=os.link, ignore=shutil.ignore_patterns("keys", "index.sqlite*"))
        for path in home.glob("index.sqlite*"):
            shutil.copy(path, copy / path.name)
        return copy


def size_of(folder: Path) -> int:
    """Return the bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
