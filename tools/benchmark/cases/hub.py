"""The hub's own client through the local door: beside nginx, and beside its own cache.

What it fetches is in the node's store already: these rows are about the door. Offline, the
cache view of the store stands beside the cache that the client filled itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from p2phub.testing.samples import write_sample_model

from .. import others
from ..measuring import Failure, Row, Sample, Target
from ..nodes import Node, clean_environment, start_node
from ..usage import run_command
from ..workplace import Missing, Workplace, size_of

CASE = "hub"
SHORT, FULL = 2**28, 2**31  # bytes
# Set up by `./tools/test --integrations`.
PYTHON = Path(__file__).parents[3] / ".venv-integrations" / "bin" / "python"

NGINX, DOOR = "hub client, nginx", "hub client, p2phub"
OWN, VIEW = "transformers, its own cache", "transformers, cache view"
_DOWNLOAD = """
import sys
from huggingface_hub import hf_hub_download
print(hf_hub_download(*sys.argv[1:3], revision=sys.argv[3]))
"""
_SNAPSHOT = """
import sys
from huggingface_hub import snapshot_download
snapshot_download(sys.argv[1])
"""
_LOAD = """
import sys
from transformers import AutoModelForCausalLM
print(AutoModelForCausalLM.from_pretrained(sys.argv[1]).num_parameters())
"""


def rows(place: Workplace) -> list[Row]:
    """Return the rows of one file through a door, and of a model from a cache."""
    found: list[Row] = []
    with place.optional("everything"):
        if not PYTHON.exists():
            raise Missing("the hub's clients are not installed: ./tools/test --integrations does that")
        size = place.size(SHORT, FULL)
        found += file_rows(place, size)
        found += cache_rows(place, min(size, FULL // 2))
    return found


def file_rows(place: Workplace, size: int) -> list[Row]:
    """Return the rows of a large file."""
    source = place.model(size)
    file = source / "model.safetensors"
    node, name, commit = published(place, source)
    digest = others.digest(file)

    def row(title: str, server: others.Server, *targets: Target) -> Row:
        def run() -> Sample:
            cache, url = place.target / "cache", f"http://{server.address}"
            sample = run_client(place, cache, url, server.pid, _DOWNLOAD, name, file.name, commit)
            if others.digest(Path(place.output.read_text().strip())) != digest:
                raise Failure(f"{title} brought other bytes")
            return sample

        return Row(CASE, title, run, file.stat().st_size, targets=targets)

    door = others.Server(node.local_url.removeprefix("http://"), node.pid)
    found = [row(DOOR, door, Target("rate", "≥", 0.9, NGINX))]
    with place.optional(NGINX):
        folder = place.new("web")
        served = folder / name / "resolve" / commit / file.name
        served.parent.mkdir(parents=True)
        served.hardlink_to(file)
        # What the client asks a hub for, besides the bytes.
        headers = f"etag off; add_header ETag '\"{'0' * 64}\"'; add_header X-Repo-Commit {commit};"
        found.insert(0, row(NGINX, others.start_nginx(place, place.stack, folder, directives=headers)))
    return found


def cache_rows(place: Workplace, size: int) -> list[Row]:
    """Return the rows of loading a model without a network."""
    source = place.new("parrot")
    write_sample_model(source, size=size, shards=1)
    node, name, _ = published(place, source)
    own, view = place.new("own"), place.new("view")
    run_client(place, own, node.local_url, 0, _SNAPSHOT, name)
    place.p2phub(node.home, "store", "view", "hf", str(view / "hub"))

    def load(cache: Path) -> Callable[[], Sample]:
        return lambda: run_client(place, cache, "", 0, _LOAD, name)

    no_more = Target("seconds", "≤", 1.05, OWN)  # as much, up to chance
    amount = size_of(source)
    return [Row(CASE, OWN, load(own), amount), Row(CASE, VIEW, load(view), amount, targets=(no_more,))]


def published(place: Workplace, source: Path) -> tuple[Node, str, str]:
    """Return a node that has published the folder `source`, the name that clients use, and the commit."""
    home = place.new("home")
    namespace = place.p2phub(home, "id", "new")["namespace"]
    revision = place.publish(home, source)
    return start_node(place.stack, home), f"{namespace}/bench", revision.removeprefix("b3:")[:40]


def run_client(place: Workplace, cache: Path, endpoint: str, serving: int, code: str, *arguments: str) -> Sample:
    """Run code as a client whose cache is the folder `cache`. serving: the other side; endpoint: empty is offline."""
    kept = {key: text for key, text in clean_environment().items() if not key.startswith("HF_")}
    where = {"HF_ENDPOINT": endpoint} if endpoint else {"HF_HUB_OFFLINE": "1"}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    command = [str(PYTHON), "-c", code, *arguments]
    environment = {**kept, "HF_HOME": str(cache), **where, **quiet}
    return run_command(command, environment, output=place.output, serving=[serving] if serving else ())
