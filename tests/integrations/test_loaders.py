"""What loads models and datasets by name, unchanged, from a node that holds nothing."""

from __future__ import annotations

from pathlib import Path

from clientkit import run_client

from p2phub.store.links import reflink
from p2phub.testing.processes import Home, tree


def test_transformers_loads_by_every_kind_of_revision(client, shelf):
    told = client(f"""
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline
        name = f"{{NS}}/parrot"
        tokens = AutoTokenizer.from_pretrained(name)("hello", return_tensors="pt")
        shapes = [
            list(AutoModel.from_pretrained(name, revision=revision)(**tokens).last_hidden_state.shape)
            for revision in ("main", "old", "1.0.0", "{shelf.commits["parrot"]}")
        ]
        config = AutoConfig.from_pretrained(name)
        text = pipeline(model=name)("hi", max_new_tokens=2)[0]["generated_text"]
        loaded = type(AutoModelForCausalLM.from_pretrained(name)).__name__
        tell([shapes, config.model_type, text[:2], loaded])
    """)

    assert told == [[[1, 5, 256]] * 4, "llama", "hi", "LlamaForCausalLM"]


def test_sentence_transformers_encodes(client):
    told = client("""
        from sentence_transformers import SentenceTransformer
        model = SentenceTransformer(f"{NS}/sentences")
        tell(list(model.encode(["hello world", "world"]).shape))
    """)

    assert told == [2, 32]


def test_mteb_finds_a_model(client):
    told = client("""
        import mteb
        model = mteb.get_model(f"{NS}/sentences")
        tell([model.mteb_model_meta.name, model.mteb_model_meta.embed_dim])
    """)

    assert told[0].endswith("/sentences")


def test_datasets_load_whole_and_as_a_stream(client):
    told = client("""
        from datasets import load_dataset
        tell({
            name: [
                load_dataset(f"{NS}/{name}", split="train").num_rows,
                # To the end: pyarrow may abort a process that ends in the middle of a stream.
                list(load_dataset(f"{NS}/{name}", split="train", streaming=True)),
            ]
            for name in ("table", "lines", "records")
        })
    """)

    assert {name: (rows, len(streamed), streamed[0]) for name, (rows, streamed) in told.items()} == {
        "table": (1000, 1000, {"text": "row 0", "label": 0}),
        "lines": (100, 100, {"text": "bon", "label": 1}),
        "records": (100, 100, {"text": "bon", "label": 1}),
    }


def test_the_cache_view_loads_with_no_network_and_no_second_copy(shelf, tmp_path):
    home = Home(tmp_path / "home")
    cache = tmp_path / "client" / "hf" / "hub"
    for name in ("parrot", "sentences"):
        home.ask("fetch", shelf.name(name), "--view", "hf", "--to", str(cache), "--peer", shelf.node.address)
    told = run_client(
        """
        import sys
        from huggingface_hub import snapshot_download
        from sentence_transformers import SentenceTransformer
        from transformers import AutoModelForCausalLM, AutoTokenizer
        AutoTokenizer.from_pretrained(sys.argv[1])
        AutoModelForCausalLM.from_pretrained(sys.argv[1], revision="main")
        SentenceTransformer(sys.argv[2]).encode(["hello"])
        print(snapshot_download(sys.argv[1]))
        """,
        tmp_path / "client", shelf.name("parrot"), shelf.name("sentences"), HF_HUB_OFFLINE="1",
    )  # fmt: skip

    assert tree(Path(told.splitlines()[-1])) == tree(shelf.folders["parrot"])
    inodes = {path.stat().st_ino for path in home.objects}
    blobs = [path for path in cache.glob("*/blobs/*") if not path.is_symlink()]
    # A clone shares its extents but not its inode; where there are none, there are links.
    assert all(path.stat().st_ino in inodes for path in blobs) or _clones_here(tmp_path)


def _clones_here(folder: Path) -> bool:
    source, target = folder / "clone-source", folder / "clone-target"
    source.write_bytes(b"x" * 4096)
    with open(source, "rb") as old, open(target, "wb") as new:
        return reflink(old.fileno(), new.fileno())


def test_what_servers_of_models_ask_is_answered(client, shelf):
    """vLLM and llama.cpp are not run here; these are the requests that they make, in their order."""
    told = client("""
        import json, os, urllib.request
        from huggingface_hub import HfApi, HfFileSystem, parse_safetensors_file_metadata, snapshot_download
        name = f"{NS}/parrot"

        commit = HfApi().model_info(name).sha
        weights = [path for path in HfApi().list_repo_files(name, revision=commit) if path.endswith(".safetensors")]
        folder = snapshot_download(name, revision=commit, allow_patterns=["*.safetensors"])
        found = HfFileSystem().glob(f"{name}@{commit}/*.safetensors")
        header = parse_safetensors_file_metadata(name, weights[0], revision=commit)

        def get(path, **headers):
            url = f"{os.environ['HF_ENDPOINT']}/{path}"
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
                return answer.read(), dict(answer.headers)

        branches = json.loads(get(f"api/models/{name}/refs")[0])["branches"]
        pinned = next(branch["targetCommit"] for branch in branches if branch["name"] == "main")
        rows = json.loads(get(f"api/models/{name}/tree/{pinned}?recursive=true")[0])
        oids = {row["path"]: row["lfs"]["oid"] for row in rows if row["type"] == "file"}
        byte, fields = get(f"{name}/resolve/{pinned}/{weights[0]}", Range="bytes=0-0")
        tell({
            "commits": [commit, pinned, fields["x-repo-commit"]],
            "weights": [weights, sorted(os.listdir(folder)), [path.rpartition("/")[2] for path in found]],
            "tensors": len(header.tensors),
            "oids": oids,
            "byte": [len(byte), fields["content-range"], fields["etag"]],
        })
    """)
    folder = shelf.folders["parrot"]
    first, second = sorted(path.name for path in folder.glob("*.safetensors"))
    digests = tree(folder)

    assert told["commits"] == [shelf.commits["parrot"]] * 3
    assert told["weights"] == [[first, second]] * 3
    assert told["tensors"] > 0
    assert told["oids"] == digests
    assert told["byte"] == [1, f"bytes 0-0/{(folder / first).stat().st_size}", f'"{digests[first]}"']
