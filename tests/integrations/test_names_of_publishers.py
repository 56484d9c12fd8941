"""huggingface_hub, unchanged, loads by the domain and the petname of a publisher."""

from __future__ import annotations

import json
import os
from pathlib import Path

from clientkit import run_client

from p2phub.testing.domain import Domain
from p2phub.testing.processes import Home

_LOAD = """
    import json, sys
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError
    name = sys.argv[1]
    try:
        path = hf_hub_download(name, "weights.bin")
    except RepositoryNotFoundError as exc:
        print("TOLD", json.dumps(str(exc)))
    else:
        api = HfApi()
        told = {
            "size": len(open(path, "rb").read()),
            "cached": "models--" + name.replace("/", "--") in path,
            "id": api.model_info(name).id,
            "listed": [model.id for model in api.list_models(author=name.split("/")[0])],
            "files": api.list_repo_files(name),
            "folder": len(snapshot_download(name, revision="1.0.0")) > 0,
        }
        print("TOLD", json.dumps(told))
"""


def load(name: str, folder: Path, endpoint: str):
    out = run_client(_LOAD, folder, name, HF_ENDPOINT=endpoint)
    return json.loads(out.rpartition("TOLD ")[2])


def test_names_are_what_stands_in_from_pretrained(tmp_path: Path) -> None:
    lab = Home(tmp_path / "lab", {"P2PHUB_LAN": "off"})
    namespace = lab.ask("id", "new")["namespace"]
    (tmp_path / "parrot").mkdir()
    (tmp_path / "parrot" / "weights.bin").write_bytes(os.urandom(70_000))
    lab.call("publish", str(tmp_path / "parrot"), "parrot@1.0.0")
    with lab.node() as seed, Domain(tmp_path / "web") as domain:
        domain.say(lab.ask("id", "domain", "lab.example")["text"])
        home = Home(tmp_path / "home", domain.environment)
        with home.node() as node:
            by_domain = load("lab.example/parrot", tmp_path / "one", node.local_url)
            home.call("trust", "add", f"bob={namespace}")
            by_petname = load("bob/parrot", tmp_path / "two", node.local_url)
            nobody = load("rob/parrot", tmp_path / "three", node.local_url)
            domain.say('{"p2phub": 1, "namespace": "' + "b" * 51 + 'a"}')
            home.call("trust", "add", "lab.example", code=5)
            changed = load("lab.example/parrot", tmp_path / "four", node.local_url)
        assert seed.process.poll() is None

    expected = {"size": 70_000, "cached": True, "files": ["weights.bin"], "folder": True}
    for name, told in (("lab.example/parrot", by_domain), ("bob/parrot", by_petname)):
        assert told == {**expected, "id": name, "listed": [name]}
    assert "rob" in nobody
    assert "lab.example names another publisher than before" in changed
