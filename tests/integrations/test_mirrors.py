"""huggingface_hub and transformers, unchanged, load what another hub has through a node that has it as upstream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clientkit import run_client

from p2phub.testing.fakehub import FakeHub, is_file, like_missing
from p2phub.testing.processes import Home, tree
from p2phub.testing.webserver import answering, only, slowly

NAME = "Lab/parrot-1.0"
SNAPSHOT = """
    import sys
    from huggingface_hub import snapshot_download
    print(snapshot_download(sys.argv[1], max_workers=8))
"""
LOAD = """
    import sys
    from transformers import AutoModelForCausalLM, AutoTokenizer
    AutoTokenizer.from_pretrained(sys.argv[1])
    print(AutoModelForCausalLM.from_pretrained(sys.argv[1]).config.model_type)
"""

LIST = """
    from huggingface_hub import HfApi
    (one,), (other,) = HfApi().list_models(author="Lab"), HfApi().list_models(search="parrot", full=True)
    print(one.id, other.id, len(other.siblings), list(HfApi().list_models(author="Nobody")))
"""


@pytest.fixture
def hub(shelf) -> Iterator[FakeHub]:
    """Give a hub that has the files of parrot."""
    folder = shelf.folders["parrot"]
    with FakeHub(like_missing) as server:
        server.publish(NAME, {path: (folder / path).read_bytes() for path in tree(folder)})
        yield server


def snapshot(client: Path, endpoint: str) -> Path:
    return Path(run_client(SNAPSHOT, client, NAME, HF_ENDPOINT=endpoint).splitlines()[-1])


def test_a_snapshot_comes_from_the_upstream_and_then_without_it(hub, shelf, tmp_path):
    expected = tree(shelf.folders["parrot"])
    with Home(tmp_path / "home").node("--upstream", hub.url) as node:
        first = snapshot(tmp_path / "one", node.local_url)
        fetched = {path: hub.fetched(path) for path in expected}
        hub.behaviours[:] = [answering(500)]
        second = snapshot(tmp_path / "two", node.local_url)
        told = run_client(LOAD, tmp_path / "three", NAME, HF_ENDPOINT=node.local_url)

    assert tree(first) == tree(second) == expected
    assert first.name == second.name
    assert fetched == dict.fromkeys(expected, 1)
    assert told.splitlines()[-1] == "llama"


def test_a_client_waits_for_a_slow_upstream(hub, shelf, tmp_path):
    hub.behaviours.append(only(is_file, slowly(1_000_000)))
    with Home(tmp_path / "home").node("--upstream", hub.url) as node:
        folder = snapshot(tmp_path / "client", node.local_url)

    assert tree(folder) == tree(shelf.folders["parrot"])
    assert hub.fetched("model-00001-of-00002.safetensors") == 1


def test_a_mirror_that_is_trusted_stands_for_the_hub(hub, shelf, tmp_path):
    mirror, other = Home(tmp_path / "mirror"), Home(tmp_path / "other")
    namespace = mirror.ask("id", "new")["namespace"]
    with mirror.node("--upstream", hub.url) as node:
        mirror.run("mirror", "add", f"hf://{NAME}")
        hub.behaviours[:] = [answering(500)]
        other.run("mirror", "trust", namespace)
        with other.node("--upstream", hub.url, peers=(node.address,)) as cold:
            told = run_client(LOAD, tmp_path / "client", NAME, HF_ENDPOINT=cold.local_url)
            folder = snapshot(tmp_path / "client", cold.local_url)
            listed = run_client(LIST, tmp_path / "client", HF_ENDPOINT=cold.local_url)

    assert told.splitlines()[-1] == "llama"
    assert tree(folder) == tree(shelf.folders["parrot"])
    assert listed.splitlines()[-1] == f"{NAME} {NAME} {len(tree(folder))} []"


def test_the_hub_s_refusals_raise_the_client_s_own_errors(hub, tmp_path):
    with Home(tmp_path / "home").node("--upstream", hub.url) as node:
        hub.behaviours.append(only(lambda asked: "gated" in asked.path, answering(403, x_error_code="GatedRepo")))
        told = run_client(
            """
            from huggingface_hub import HfApi, hf_hub_download
            from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError
            calls = {
                "info": (lambda: HfApi().model_info("Lab/nope"), RepositoryNotFoundError),
                "gated": (lambda: hf_hub_download("Lab/gated", "config.json"), GatedRepoError),
                "file": (lambda: hf_hub_download("Lab/parrot-1.0", "nope.json"), EntryNotFoundError),
            }
            for label, (call, error) in calls.items():
                try:
                    call()
                    print("no error", label)
                except error:
                    pass
            checked = HfApi().verify_repo_checksums
            hf_hub_download("Lab/parrot-1.0", "config.json")
            print("MISMATCHES", checked("Lab/parrot-1.0").mismatches)
            """,
            tmp_path / "client", HF_ENDPOINT=node.local_url,
        )  # fmt: skip

    assert "no error" not in told
    assert told.splitlines()[-1] == "MISMATCHES []"
