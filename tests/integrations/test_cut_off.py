"""Downloads of the real client that are cut off go on where they were, as far as the client can.

huggingface_hub resumes by a range within a call, in steps of 10 MiB. What a killed one had
got it throws away; the node has not, so nothing is fetched from peers twice.
"""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from clientkit import environment_of, run_client
from cutter import Cutter

from p2phub.testing.processes import Home, tree, wait_until

DOWNLOAD = "import sys; from huggingface_hub import hf_hub_download; print(hf_hub_download(*sys.argv[1:]))"
FILE = "model-00001-of-00002.safetensors"
STEP = 10 * 2**20  # bytes in which the client counts


def test_a_body_that_is_cut_goes_on_by_a_range(cold, shelf, tmp_path):
    with Cutter(cold.local_url, STEP + 500_000) as line:
        path = run_client(DOWNLOAD, tmp_path / "client", shelf.name("parrot"), FILE, HF_ENDPOINT=line.url).strip()

    assert line.cuts == 1
    assert line.ranges == [f"bytes={STEP}-"]
    assert tree(shelf.folders["parrot"])[FILE] == sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize("node_too", [False, True], ids=["client", "client and node"])
def test_what_is_killed_and_run_again_costs_peers_nothing_twice(shelf, tmp_path, node_too):
    size = (shelf.folders["parrot"] / FILE).stat().st_size
    home = Home(tmp_path / "cold")
    home.call("limits", "set", "lan", "--down", "4MB/s")
    before = uploaded(shelf)
    node = home.start_node(peers=(shelf.node.address,))
    try:
        arguments = [sys.executable, "-c", DOWNLOAD, shelf.name("parrot"), FILE]
        folder = tmp_path / "client"
        folder.mkdir()
        with subprocess.Popen(arguments, env=environment_of(folder, HF_ENDPOINT=node.local_url), cwd=folder) as client:
            wait_until(lambda: uploaded(shelf) - before > size // 3, "a third of the file")
            client.kill()
        if node_too:
            node.kill()
            node = home.start_node(peers=(shelf.node.address,))
        home.call("limits", "set", "lan", "--down", "none")
        path = run_client(DOWNLOAD, folder, shelf.name("parrot"), FILE, HF_ENDPOINT=node.local_url).strip()
    finally:
        node.kill()

    assert sha256(Path(path).read_bytes()).hexdigest() == tree(shelf.folders["parrot"])[FILE]
    # What was under way when the node was killed comes again.
    assert uploaded(shelf) - before < (1.6 if node_too else 1.2) * size


def uploaded(shelf) -> int:
    return json.loads(shelf.home.call("status", "--json").out)["uploaded"]
