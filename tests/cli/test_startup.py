"""What a command loads before it works: code that it does not need makes people wait."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from p2phub.testing.processes import DEADLINE_S, Home, tree

# Writes down the modules that are loaded when the command has done its work.
PROGRAM = """
import atexit, os, sys
from pathlib import Path
atexit.register(lambda: Path(os.environ["LOADED"]).write_text("\\n".join(sys.modules)))
from p2phub.cli.main import entry
entry()
"""
WORKERS = {"trio", "ssl", "sqlite3", "cryptography", "cbor2", "blake3", "h11", "numpy"}  # what a node is made of
SLOW = {"asyncio", "httpx", "rich", "starlette", "yaml", "markdown_it", "license_expression"}


def loaded(home: Home, *arguments: str) -> set[str]:
    """Return the modules that a command loads, which must succeed."""
    home.folder.mkdir(exist_ok=True)
    written = home.folder / "loaded"
    subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=home.environment({"LOADED": str(written)}),
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=DEADLINE_S,
    )
    return set(written.read_text().split())


@pytest.mark.parametrize("arguments", [["--help"], ["fetch", "--help"], ["--version"]])
def test_help_loads_next_to_nothing(tmp_path: Path, arguments: list[str]) -> None:
    found = loaded(Home(tmp_path), *arguments)

    assert "click" in found
    assert not found & (WORKERS | SLOW | {"msgspec"})


def test_where_a_daemon_does_the_work_nothing_is_loaded_to_do_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.node():
        found = loaded(home, "status")

    assert "p2phub.gateway.client" in found
    assert not found & (WORKERS | SLOW)


def test_a_fetch_loads_nothing_that_a_small_one_does_not_need(tmp_path: Path) -> None:
    publisher, home = Home(tmp_path / "publisher"), Home(tmp_path / "home")
    folder = tmp_path / "model"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"file {number}\n")
    publisher.call("id", "new")
    published = publisher.ask("publish", str(folder), "small@1.0.0")
    name = f"{published['namespace']}/small@1.0.0"
    with publisher.node() as node:
        found = loaded(home, "fetch", name, "--to", str(tmp_path / "out"), "--peer", node.address)

    assert tree(tmp_path / "out") == tree(folder)
    assert WORKERS - found <= {"numpy"}
    # Each takes as long to load as a small repository takes to travel.
    assert not found & (SLOW | {"numpy", "cryptography.x509", "p2phub.core.safetensors"})
