"""Nodes of one local network find each other without being told of any peer."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2phub.net.interfaces import own_addresses
from p2phub.net.lan import near
from p2phub.testing.netns import Machine, NoNamespaces, network

P2PHUB = Path(sys.executable).with_name("p2phub")


@contextlib.contextmanager
def machines(count: int):
    try:
        with network(count) as found:
            yield found
    except NoNamespaces as exc:
        pytest.skip(f"no network namespaces: {exc}")


@contextlib.contextmanager
def running(machine: Machine, home: Path, *options: str):
    """Run a node on `machine` while the block runs; it serves when the block begins."""
    environment = {**os.environ, "P2PHUB_HOME": str(home)}
    home.mkdir()
    ready = home / "ready.json"
    command = [str(P2PHUB), "node", "--listen", f"{machine.address}:8627", "--ready-file", str(ready), *options]
    with open(home / "log", "wb") as log:
        process = machine.popen(command, env=environment, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 60
            while not ready.exists():
                assert process.poll() is None, (home / "log").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
            yield json.loads(ready.read_text())
        finally:
            process.terminate()
            process.wait(30)


def peers(machine: Machine, home: Path) -> dict[str, dict]:
    environment = {**os.environ, "P2PHUB_HOME": str(home)}
    answer = machine.run([str(P2PHUB), "peers", "ls", "--json"], env=environment, stdout=subprocess.PIPE)
    return {peer["node"]: peer for peer in json.loads(answer.stdout)}


@pytest.mark.timeout(180)
def test_nodes_of_one_network_find_each_other_unless_they_are_told_not_to(tmp_path):
    with (
        machines(3) as (a, b, c),
        running(c, tmp_path / "c", "--no-lan") as hidden,
        running(a, tmp_path / "a") as first,
        running(b, tmp_path / "b") as second,
    ):
        end = time.monotonic() + 90
        seen: dict[str, dict] = {}
        while not (peer := seen.get(second["node_id"])) or not peer["last_seen"]:
            assert time.monotonic() < end, ((tmp_path / "a" / "log").read_text(), seen)
            time.sleep(0.3)
            seen = peers(a, tmp_path / "a")
        others = peers(b, tmp_path / "b")

        assert peer["addresses"] == [second["address"]]
        assert not peer["added"]
        assert first["node_id"] in others
        assert hidden["node_id"] not in {*seen, *others}
        assert peers(c, tmp_path / "c") == {}


def test_only_addresses_of_own_networks_are_near():
    assert near(["203.0.113.9", "2001:db8::1", "8.8.8.8"]) == []
    assert near(["169.254.3.4", "127.0.0.1"]) == ["169.254.3.4", "127.0.0.1"]
    own = own_addresses()
    assert near(own) == own
