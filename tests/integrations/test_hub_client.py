"""huggingface_hub, unchanged, reads from a node that holds nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
from clientkit import run_client

from p2phub.testing.processes import Home, tree
from p2phub.testing.samples import publish_crowd


def test_the_command_downloads_everything(cold, shelf, tmp_path):
    run_client(
        """
        import subprocess, sys
        from pathlib import Path
        hf = Path(sys.executable).with_name("hf")
        subprocess.run([hf, "download", sys.argv[1], "--local-dir", "out"], check=True)
        """,
        tmp_path / "client", shelf.name("parrot"), HF_ENDPOINT=cold.local_url,
    )  # fmt: skip
    files = tree(tmp_path / "client" / "out")
    kept = {path: digest for path, digest in files.items() if not path.startswith(".cache/")}

    assert kept == tree(shelf.folders["parrot"])


def test_a_snapshot_has_what_the_patterns_name(client, shelf):
    told = client("""
        import os
        from huggingface_hub import snapshot_download
        whole = snapshot_download(f"{NS}/parrot", max_workers=8)
        some = snapshot_download(f"{NS}/parrot", revision="1.0.0", allow_patterns=["*.json"], ignore_patterns=["tok*"])
        tell([whole, sorted(os.listdir(some))])
    """)

    assert tree(Path(told[0])) == tree(shelf.folders["parrot"])
    assert told[1] == ["config.json", "model.safetensors.index.json"]
    assert Path(told[0]).name == shelf.commits["parrot"]


def test_every_kind_of_revision_is_found(client, shelf):
    told = client(
        f"""
        from huggingface_hub import HfApi
        api = HfApi()
        revisions = ["main", "old", "1.0.0", "{shelf.commits["parrot"]}", "refs/heads/old"]
        tell({{revision: api.model_info(f"{{NS}}/parrot", revision=revision).sha for revision in revisions}})
    """
    )
    new, old = shelf.commits["parrot"], shelf.commits["parrot@1.0.0"]

    assert told == {"main": new, "old": old, "1.0.0": old, new: new, "refs/heads/old": old}


def test_what_is_not_there_raises_the_client_s_own_errors(client):
    told = client("""
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
        api, name = HfApi(), f"{NS}/parrot"
        calls = {
            "info": (lambda: api.model_info("nobody/nothing"), RepositoryNotFoundError),
            "kind": (lambda: api.dataset_info(name), RepositoryNotFoundError),
            "download": (lambda: hf_hub_download(f"{NS}/nope", "config.json"), RepositoryNotFoundError),
            "revision": (lambda: hf_hub_download(name, "config.json", revision="nope"), RevisionNotFoundError),
            "info-revision": (lambda: api.model_info(name, revision="9.9.9"), RevisionNotFoundError),
            "file": (lambda: hf_hub_download(name, "nope.json"), EntryNotFoundError),
            "tree": (lambda: list(api.list_repo_tree(name, "nope")), EntryNotFoundError),
        }
        wrong = []
        for label, (call, error) in calls.items():
            try:
                call()
                wrong.append(label)
            except error:
                pass
        tell([wrong, api.repo_exists(name), api.file_exists(name, "nope"), api.revision_exists(name, "nope")])
    """)

    assert told == [[], True, False, False]


def test_metadata_and_checksums_are_those_of_the_files(client, shelf):
    told = client("""
        from huggingface_hub import HfApi, ModelCard, get_safetensors_metadata, snapshot_download
        api, name = HfApi(), f"{NS}/parrot"
        info = api.model_info(name, files_metadata=True)
        snapshot_download(name)
        checked = api.verify_repo_checksums(name)
        tell({
            "parameters": get_safetensors_metadata(name).parameter_count,
            "said": info.safetensors.total,
            "license": ModelCard.load(name).data.license,
            "card": info.card_data.to_dict()["language"],
            "checked": [checked.checked_count, checked.mismatches, checked.missing_paths],
            "files": {row.rfilename: [row.size, row.lfs.sha256] for row in info.siblings},
            "refs": sorted(ref.name for ref in api.list_repo_refs(name).branches + api.list_repo_refs(name).tags),
            "commits": [commit.title for commit in api.list_repo_commits(name)],
            "paths": [row.path for row in api.get_paths_info(name, ["config.json", "nope"], expand=True)],
        })
    """)
    folder = shelf.folders["parrot"]

    assert told["parameters"] == {"BF16": told["said"]}
    assert (told["license"], told["card"]) == ("apache-2.0", ["en", "fr"])
    assert told["checked"] == [len(tree(folder)), [], []]
    assert told["files"] == {path: [(folder / path).stat().st_size, digest] for path, digest in tree(folder).items()}
    assert told["refs"] == ["1.0.0", "main", "old"]
    assert told["commits"] == ["publish parrot", "Publish 1.0.0"]
    assert told["paths"] == ["config.json"]


def test_a_file_is_not_fetched_twice_and_reused_in_a_local_folder(client):
    told = client("""
        import os
        from huggingface_hub import hf_hub_download
        paths = [hf_hub_download(f"{NS}/parrot", "tokenizer.json") for _ in range(2)]
        local = [hf_hub_download(f"{NS}/parrot", "tokenizer.json", local_dir="here") for _ in range(2)]
        times = os.stat(local[0]).st_mtime_ns
        hf_hub_download(f"{NS}/parrot", "tokenizer.json", local_dir="here")
        tell([paths[0] == paths[1], os.stat(local[0]).st_mtime_ns == times])
    """)

    assert told == [True, True]


def test_the_file_system_reads_and_globs(client, shelf):
    told = client("""
        import pandas as pd
        from huggingface_hub import HfFileSystem
        fs, name = HfFileSystem(), f"{NS}/parrot"
        path = f"{name}/model-00001-of-00002.safetensors"
        with fs.open(path) as file:
            file.seek(1_000_000)
            part = file.read(100)
            file.seek(-5, 2)
            part += file.read()
        table = pd.read_parquet(f"hf://datasets/{NS}/table/data/train-00000-of-00001.parquet")
        tell([sorted(fs.glob(f"{name}/*.json")), part.hex(), fs.info(path)["size"], len(table), fs.exists(f"{name}/x")])
    """)
    weights = (shelf.folders["parrot"] / "model-00001-of-00002.safetensors").read_bytes()
    name = shelf.name("parrot")

    assert told[0] == sorted(f"{name}/{path.name}" for path in shelf.folders["parrot"].glob("*.json"))
    assert told[1] == (weights[1_000_000:1_000_100] + weights[-5:]).hex()
    assert told[2:] == [len(weights), 1000, False]


def test_sixteen_at_once_cost_one_fetch(client, cold, shelf):
    before = json.loads(shelf.home.call("status", "--json").out)["uploaded"]
    told = client("""
        import hashlib, httpx2, os
        from concurrent.futures import ThreadPoolExecutor
        url = f"{os.environ['HF_ENDPOINT']}/{NS}/parrot/resolve/main/model-00001-of-00002.safetensors"
        with ThreadPoolExecutor(16) as pool:
            sums = list(pool.map(lambda _: hashlib.sha256(httpx2.get(url, timeout=60).content).hexdigest(), range(16)))
        tell(sums)
    """)
    uploaded = json.loads(shelf.home.call("status", "--json").out)["uploaded"] - before
    digest = tree(shelf.folders["parrot"])["model-00001-of-00002.safetensors"]
    size = (shelf.folders["parrot"] / "model-00001-of-00002.safetensors").stat().st_size

    assert told == [digest] * 16
    assert uploaded < 1.5 * size


@pytest.mark.parametrize("sort", ["last_modified", "created_at", "downloads"])
def test_lists_are_filtered_and_sorted(client, shelf, sort):
    told = client(f"""
        import time
        from huggingface_hub import HfApi
        api = HfApi()
        # The node has just begun to hear of what there is.
        end = time.time() + 60
        while len([*api.list_models(), *api.list_datasets()]) < 5 and time.time() < end:
            time.sleep(0.1)
        tell({{
            "all": [row.id for row in api.list_models(sort="{sort}")],
            "task": [row.id for row in api.list_models(pipeline_tag="text-generation")],
            "tag": [row.id for row in api.list_models(filter=["llama", "license:apache-2.0"])],
            "search": [row.id for row in api.list_models(search="parr")],
            "author": [row.id for row in api.list_models(author=NS, limit=1)],
            "nobody": [row.id for row in api.list_models(author="nobody")],
            "full": [len(row.siblings) for row in api.list_models(search="parrot", full=True, cardData=True)],
            "datasets": sorted(row.id for row in api.list_datasets()),
        }})
    """)
    parrot = [shelf.name("parrot")]

    assert sorted(told["all"]) == sorted([shelf.name("parrot"), shelf.name("sentences")])
    assert (told["task"], told["tag"], told["search"], told["nobody"]) == (parrot, parrot, parrot, [])
    assert len(told["author"]) == 1
    assert told["datasets"] == sorted(shelf.name(name) for name in ("lines", "records", "table"))


def test_five_thousand_repositories_are_listed_and_filtered(tmp_path):
    home = Home(tmp_path / "home")
    trio.run(publish_crowd, home.folder, 5000)
    with home.node() as node:
        told = run_client(
            """
            from huggingface_hub import HfApi
            api = HfApi()
            names = [model.id.partition("/")[2] for model in api.list_models()]
            assert names == [f"model-{number:04}" for number in reversed(range(5000))]
            assert len(list(api.list_models(filter=["odd", "license:mit"], pipeline_tag="text-generation"))) == 1250
            assert len(list(api.list_models(num_parameters="min:1B,max:2B", sort="created_at"))) == 1001
            assert [model.id[-4:] for model in api.list_models(search="model 4321", limit=5)] == ["4321"]
            print(len(list(api.list_models(expand=["sha"]))))
            """,
            tmp_path / "client", HF_ENDPOINT=node.local_url,
        )  # fmt: skip

    assert told.split()[-1] == "5000"
