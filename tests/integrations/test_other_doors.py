"""PyTorch Hub and file systems read from a node that holds nothing."""

from __future__ import annotations

from clientkit import run_client

from p2phub.testing.processes import Home


def test_torch_hub_loads_weights_by_url_and_checks_their_hash(writer, tmp_path):
    _, variables = writer
    told = run_client(
        """
        import hashlib, os, sys, torch
        from huggingface_hub import HfApi
        api = HfApi()
        name = f"{api.whoami()['name']}/weights"
        torch.save({"a": torch.arange(1000)}, "weights.pt")
        digest = hashlib.sha256(open("weights.pt", "rb").read()).hexdigest()
        api.create_repo(name)
        api.upload_file(path_or_fileobj="weights.pt", path_in_repo="weights.pt", repo_id=name)
        base = f"{os.environ['OTHER']}/{name}/resolve/main"
        loaded = torch.hub.load_state_dict_from_url(f"{base}/weights-{digest[:8]}.pt", check_hash=True)
        torch.hub.download_url_to_file(f"{base}/weights.pt", "again.pt", hash_prefix=digest)
        assert loaded["a"].sum() == 499500
        print(open("again.pt", "rb").read() == open("weights.pt", "rb").read())
        """,
        tmp_path / "client",
        **variables,
        OTHER=variables["HF_ENDPOINT"],
    )

    assert told.splitlines()[-1] == "True"


def test_torch_hub_runs_code_that_is_trusted_by_its_hash(shelf, tmp_path):
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "hubconf.py").write_text(
        "dependencies = ['torch']\nimport torch\ndef ones(size=2):\n    return torch.ones(size)\n"
    )
    home = Home(tmp_path / "home")
    home.ask("id", "new")
    revision = home.ask("publish", str(folder), "code")["revision"]
    told = run_client(
        """
        import sys
        import p2phub, p2phub.torch
        try:
            p2phub.torch.load("code", "ones")
        except p2phub.AccessDenied:
            print(p2phub.torch.load("code", "ones", size=3, trust=sys.argv[1]).tolist())
        """,
        tmp_path / "client", revision, P2PHUB_HOME=str(home.folder),
    )  # fmt: skip

    assert told.splitlines()[-1] == "[1.0, 1.0, 1.0]"


def test_tables_and_tensors_are_read_through_the_file_system(shelf, tmp_path):
    home = Home(tmp_path / "home")
    with home.node(peers=(shelf.node.address,)):
        told = run_client(
            """
            import sys
            import fsspec, pandas, pyarrow.parquet
            from safetensors.torch import load
            table = f"p2p://{sys.argv[1]}/table/data/train-00000-of-00001.parquet"
            print(pandas.read_parquet(table).shape)
            fs = fsspec.filesystem("p2p")
            with fs.open(table) as file:
                print(pyarrow.parquet.ParquetFile(file).read_row_group(3).num_rows)
            with fs.open(f"p2p://{sys.argv[1]}/parrot@1.0.0/model-00002-of-00002.safetensors") as file:
                print(len(load(file.read())) > 0)
            """,
            tmp_path / "client", shelf.namespace, P2PHUB_HOME=str(home.folder),
        )  # fmt: skip

    assert told.splitlines()[-3:] == ["(1000, 2)", "100", "True"]
