"""What a command loads before it works: code that it does not need makes people wait."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2phub.testing.processes import DEADLINE_S, Home, tree

# Writes down the modules that are loaded when the command has done its work.
PROGRAM = """
import atexit, os, sys
from pathlib import Path
from dataclasses import is_dataclass

def told():
    ours = [module for name, module in list(sys.modules.items()) if name.startswith("p2phub")]
    classes = {each for module in ours for each in vars(module).values() if isinstance(each, type)}
    slow = [each for each in classes if each.__module__.startswith("p2phub") and is_dataclass(each)]
    return "\\n".join([*sys.modules, *(f"dataclass {each.__name__}" for each in slow)])

atexit.register(lambda: Path(os.environ["LOADED"]).write_text(told()))
from p2phub.cli.main import entry
entry()
"""
WORKERS = {"trio", "ssl", "sqlite3", "cryptography", "cbor2", "blake3", "h11", "numpy"}  # what a node is made of
# What takes records over, searches, opens what is sealed, and serves: of no use to who fetches by a hash.
STORES = (
    "logs",
    "cataloguewriter",
    "searchindex",
    "takeover",
    "verifier",
    "rebuild",
    "search",
    "keyring",
    "forks",
    "fresh",
)
TASKS = ("pulling", "taking", "fresh", "privatelogs", "authority", "access", "upstream", "names", "hubcache", "opened")
OF_OTHERS = {
    "p2phub.net.door",
    *(f"p2phub.store.{each}" for each in STORES),
    *(f"p2phub.node.{each}" for each in TASKS),
}
SLOW = {"asyncio", "httpx", "rich", "starlette", "yaml", "markdown_it", "license_expression"}


Small = tuple[Path, dict[str, Any], str]


def loaded(home: Home, *arguments: str) -> set[str]:
    """Return the modules that a command loads, which must succeed, and the dataclasses of ours in them."""
    home.folder.mkdir(exist_ok=True)
    written = home.folder / "loaded"
    subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=home.environment({"LOADED": str(written)}),
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=DEADLINE_S,
    )
    return set(written.read_text().splitlines())


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
    assert not found & (WORKERS | SLOW | {"logging"})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], str]]:
    """Give a folder of small files, how it was published, and the address of a node that has it."""
    folder = tmp_path_factory.mktemp("model")
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"file {number}\n")
    publisher = Home(tmp_path_factory.mktemp("publisher"))
    publisher.call("id", "new")
    published = publisher.ask("publish", str(folder), "small@1.0.0")
    with publisher.node() as node:
        yield folder, published, node.address


def test_a_fetch_loads_nothing_that_a_small_one_does_not_need(tmp_path: Path, small: Small) -> None:
    folder, published, address = small
    name = f"{published['namespace']}/small@1.0.0"
    found = loaded(Home(tmp_path / "home"), "fetch", name, "--to", str(tmp_path / "out"), "--peer", address)

    assert tree(tmp_path / "out") == tree(folder)
    assert WORKERS - found <= {"numpy"}
    # Each takes as long to load as a small repository takes to travel.
    seldom = {"p2phub.core.safetensors", "p2phub.store.compaction", "p2phub.store.rebuild"}
    assert not found & (SLOW | seldom | {"numpy", "cryptography.x509", "email"})


def test_a_fetch_by_a_hash_loads_nothing_that_takes_records_over(tmp_path: Path, small: Small) -> None:
    folder, published, address = small
    found = loaded(
        Home(tmp_path / "home"), "fetch", published["revision"], "--to", str(tmp_path / "out"), "--peer", address
    )

    assert tree(tmp_path / "out") == tree(folder)
    assert "p2phub.node.swarm" in found
    assert not found & OF_OTHERS
    # To make one of these takes Python half a millisecond, and msgspec a fiftieth of it.
    assert [each for each in found if each.startswith("dataclass ")] == []
