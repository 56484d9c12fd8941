"""Where a case works: a folder, the files it moves, the homes of its nodes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from p2phub.testing.netns import NoNamespaces
from p2phub.testing.samples import write_safetensors

from .measuring import Failure, check_space
from .nodes import P2PHUB, environment_of

COLUMNS = 4096  # of a tensor; with as many rows it has 32 MiB in BF16
TENSORS_MIN = 16  # of a model; those of a small one have fewer rows


class Missing(Exception):
    """Something is not installed; the text says what."""


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line; None is the choice of the case."""

    size: int | None = None  # bytes
    nodes: tuple[int, ...] | None = None
    rate: float | None = None  # bytes per second
    full: bool = False  # the sizes of the targets, not those that suit a short run
    records: int | None = None
    keep: Path | None = None  # where what takes long to make is kept for other runs


@dataclass
class Workplace:
    """The folder of one case. What `stack` holds ends with the case."""

    case: str
    folder: Path
    options: Options
    stack: ExitStack
    skipped: list[str]  # sentences: what was left out, and why
    _count: int = 0

    @property
    def target(self) -> Path:
        """The folder that runs write to; empty before each."""
        return self.folder / "target"

    @property
    def output(self) -> Path:
        """The file that the measured command prints to."""
        return self.folder / "output"

    def clear(self) -> None:
        """Empty the folder that runs write to."""
        shutil.rmtree(self.target, ignore_errors=True)
        self.target.mkdir()

    def size(self, short: int, full: int) -> int:
        """Return how many bytes to move: as asked for, or of a short run or a full one."""
        return self.options.size or (full if self.options.full else short)

    def new(self, name: str) -> Path:
        """Return a path in the folder that nobody has yet."""
        self._count += 1
        return self.folder / f"{self._count}-{name}"

    @contextmanager
    def optional(self, what: str) -> Iterator[None]:
        """Leave out what is done inside, with a word, if it needs what is not installed or not allowed."""
        try:
            yield
        except (Missing, NoNamespaces) as exc:
            sentence = f"{self.case}: {what} left out: {exc}"
            if sentence not in self.skipped:
                self.skipped.append(sentence)

    def p2phub(self, home: Path, *arguments: str) -> Any:
        """Run a command and return the JSON that it prints."""
        command = [P2PHUB, *arguments, "--json"]
        result = subprocess.run(command, env=environment_of(home), capture_output=True, text=True, check=False)
        if result.returncode:
            raise Failure(f"`{shlex.join(command)}` failed: {result.stderr.strip()}")
        return json.loads(result.stdout)

    def model(self, size: int) -> Path:
        """Return a new folder with a model of about `size` bytes in one file, `model.safetensors`."""
        check_space(self.folder, 2 * size)  # and a copy in a store
        folder = self.new("model")
        folder.mkdir()
        rows = min(COLUMNS, max(1, size // (2 * COLUMNS * TENSORS_MIN)))
        count = max(TENSORS_MIN, round(size / (2 * COLUMNS * rows)))
        tensors = {f"layers.{number}.weight": (rows, COLUMNS) for number in range(count)}
        write_safetensors(folder / "model.safetensors", tensors, np.random.default_rng(7))
        return folder

    def publisher(self, source: Path, *options: str) -> tuple[Path, str]:
        """Return a new home that has published the folder `source`, and the revision."""
        home = self.new("publisher")
        self.p2phub(home, "id", "new")
        return home, self.publish(home, source, *options)

    def publish(self, home: Path, source: Path, *options: str) -> str:
        """Publish the folder `source` from `home` and return the revision."""
        revision: str = self.p2phub(home, "publish", str(source), "bench", *options)["revision"]
        return revision

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
