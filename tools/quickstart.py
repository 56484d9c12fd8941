"""The main job, on this machine: publish on one node, find and fetch on another.

    A ◀──peer── B ◀──peer── C        C has never been told of A

A publishes. B hears of it from A, C from B. B fetches from A; C searches, then fetches
from A and B at once, and verifies.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from p2phub.cli.text import human_bytes, human_files
from p2phub.testing.samples import write_sample_model

READY_TIMEOUT_S = 30.0
NEWS_TIMEOUT_S = 60.0
FETCHED = "fetched"  # the folder in which C has the files
P2PHUB = [str(Path(sys.executable).with_name("p2phub"))]


class Failure(Exception):
    """A step that did not work; its text says which."""


class QuickNode:
    """One node with a home of its own, running as a process."""

    def __init__(self, name: str, folder: Path, peers: list[str]) -> None:
        self.name = name
        self.home = folder / name
        # What the person who tries this has set is about another home.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("P2PHUB_")}
        self._environment = {**kept, "P2PHUB_HOME": str(self.home)}
        ready = folder / f"{name}.ready"
        command = [*P2PHUB, "node", "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", "--ready-file", str(ready)]
        for peer in peers:
            command += ["--peer", peer]
        self._log = open(folder / f"{name}.log", "wb")  # noqa: SIM115 (as long as the process)
        # A session of its own: Ctrl-C reaches us, and we stop it in order.
        self.process = subprocess.Popen(
            command, env=self._environment, stdout=self._log, stderr=self._log, start_new_session=True
        )
        try:
            self.address = self._wait_ready(ready, folder / f"{name}.log")
        except BaseException:
            self.stop()
            raise

    def _wait_ready(self, ready: Path, log: Path) -> str:
        """Return the address of the node once it answers. Raises Failure."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"node {self.name} did not start:\n{log.read_text()}")
            time.sleep(0.05)
        address: str = json.loads(ready.read_text())["address"]
        return address

    def run(self, *arguments: str) -> Any:
        """Run a command against this node and return what it answers; its progress is shown."""
        result = subprocess.run(
            [*P2PHUB, *arguments, "--json"], env=self._environment, stdout=subprocess.PIPE, check=False
        )
        if result.returncode:
            raise Failure(f"`p2phub {' '.join(arguments)}` on node {self.name} ended with {result.returncode}")
        return json.loads(result.stdout)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/quickstart", description="Publish, find and fetch, on three nodes.")
    parser.add_argument("folder", nargs="?", metavar="DIR", type=Path, help="what to publish; else a sample is made")
    parser.add_argument("--keep", action="store_true", help="leave the nodes running and the files in place")
    arguments = parser.parse_args()
    if arguments.folder is not None and not arguments.folder.is_dir():
        parser.error(f"{arguments.folder} is no folder")
    work = Path(tempfile.mkdtemp(prefix="p2phub-quickstart-"))
    nodes: list[QuickNode] = []
    kept = False
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        reference = show_main_job(work, nodes, arguments.folder)
        if arguments.keep:
            kept = True
            say_how_to_go_on(nodes, work, reference)
        return 0
    except Failure as exc:
        print(f"p2phub: error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\np2phub: interrupted", file=sys.stderr)
        return 130
    finally:
        if not kept:
            for node in nodes:
                node.stop()
            shutil.rmtree(work, ignore_errors=True)
            print(f"\nstopped the nodes and removed {work}; --keep leaves them to look around")


def show_main_job(work: Path, nodes: list[QuickNode], folder: Path | None) -> str:
    """Publish, find and fetch; returns the name of what was published. The nodes are added to `nodes`."""
    start = time.monotonic()

    def step(text: str) -> None:
        print(f"[{time.monotonic() - start:5.1f} s] {text}", flush=True)

    if folder is None:
        folder, name = work / "parrot", "parrot"
        size = write_sample_model(folder)
        step(f"made a sample model: {human_bytes(size)} in {human_files(len(list(folder.iterdir())))}")
    else:
        folder = folder.resolve()
        name = "".join(char if char.isalnum() and char.isascii() else "-" for char in folder.name).strip("-") or "model"
        while "--" in name:
            name = name.replace("--", "-")
    for label in "ABC":
        nodes.append(QuickNode(label, work, [nodes[-1].address] if nodes else []))
    first, second, third = nodes
    step("started nodes A, B and C; B knows A, C knows B")
    identity = first.run("id", "new")
    published = first.run("publish", str(folder), f"{name}@1.0.0")
    reference = f"{identity['namespace']}/{name}@1.0.0"
    step(f"A published {name}@1.0.0: {human_files(published['files'])}, {human_bytes(published['size'])}")
    wait_for_news(third, name, published["revision"])
    step("C's catalogue knows it, two hops away")
    for model in third.run("search", name)["models"]:
        print(f"          found {model['namespace'][:12]}…/{model['model']}: {model['title'] or model['kind']}")
    fetched = second.run("fetch", reference)
    step(f"B fetched it from A: {rate(fetched)}")
    target = work / FETCHED
    fetched = third.run("fetch", reference, "--to", str(target))
    step(f"C fetched it: {rate(fetched)}")
    givers = [provider for provider in fetched["providers"] if provider["received"]]
    for provider in givers:
        label = next((node.name for node in nodes if provider["node"] in node.address), "?")
        print(f"          {label} gave {human_bytes(provider['received'])}")
    checked = third.run("verify", str(target))
    step(f"verified {human_files(checked['files'])}, {human_bytes(checked['size'])}, all as A published them")
    return reference


def wait_for_news(node: QuickNode, name: str, revision: str) -> None:
    deadline = time.monotonic() + NEWS_TIMEOUT_S
    while not any(model["revision"] == revision for model in node.run("search", name)["models"]):
        if time.monotonic() > deadline:
            raise Failure(f"node {node.name} did not hear of the release within {NEWS_TIMEOUT_S:.0f} s")
        time.sleep(0.2)


def rate(fetched: dict[str, Any]) -> str:
    seconds = max(fetched["seconds"], 1e-3)
    received = human_bytes(fetched["received"])
    return f"{received} in {seconds:.1f} s, {human_bytes(fetched['received'] / seconds)}/s, hashed and on disk"


def say_how_to_go_on(nodes: list[QuickNode], work: Path, reference: str) -> None:
    command = f"P2PHUB_HOME={nodes[2].home} {P2PHUB[0]}"
    pids = " ".join(str(node.process.pid) for node in nodes)
    print(
        f"\nthe files: {work / FETCHED}\nthe name:  {reference}\n"
        f"\nthe nodes go on running; try\n"
        f"  {command} status\n"
        f"  {command} search\n"
        f"  {command} peers ls\n"
        f"and stop them with\n"
        f"  kill {pids}; rm -r {work}"
    )


if __name__ == "__main__":
    sys.exit(main())
