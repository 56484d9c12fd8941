"""What a command loads before it works: code that it does not need makes people wait."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from p2phub.testing.processes import DEADLINE_S, Home

# Prints the modules that are loaded when the command has done its work.
PROGRAM = """
import atexit, sys
atexit.register(lambda: print(*sorted(sys.modules), sep="\\n", file=sys.__stderr__))
from p2phub.cli.main import main
main()
"""
WORKERS = {"trio", "ssl", "sqlite3", "cryptography", "cbor2", "blake3", "h11", "numpy"}  # what a node is made of
SLOW = {"asyncio", "httpx", "rich", "starlette", "hypercorn", "yaml", "markdown_it", "license_expression"}


def loaded(home: Home, *arguments: str) -> set[str]:
    """Return the modules that the command loads; each package with its modules."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=home.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        timeout=DEADLINE_S,
    )
    return set(result.stderr.splitlines())


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
