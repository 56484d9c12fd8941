"""PyTorch Hub and file systems read from a node that holds nothing."""

from __future__ import annotations

import os
from pathlib import Path

from clientkit import run_client

from p2phub.testing.processes import Home, tree


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


def test_tensorflow_hub_resolves_a_saved_model(writer, tmp_path):
    node, _ = writer
    model = tmp_path / "model"
    (model / "variables").mkdir(parents=True)
    (model / "assets" / "words").mkdir(parents=True)
    (model / "saved_model.pb").write_bytes(os.urandom(300_000))
    (model / "variables" / "variables.data-00000-of-00001").write_bytes(os.urandom(5_000_000))
    (model / "variables" / "variables.index").write_bytes(os.urandom(1000))
    (model / "assets" / "words" / "vocabulary.txt").write_text("un\ndeux\n")
    namespace = node.home.ask("publish", str(model), "saved@1.0.0")["namespace"]
    with Home(tmp_path / "cold").node(peers=(node.address,)) as cold:
        told = run_client(
            """
            import sys, urllib.error, urllib.request
            sys.path.append(sys.argv[2])
            import tensorflow_files
            tensorflow_files.set_up()
            from tensorflow_hub.compressed_module_resolver import HttpCompressedFileResolver
            from tensorflow_hub.uncompressed_module_resolver import HttpUncompressedFileResolver
            resolve = HttpCompressedFileResolver()
            assert resolve.is_supported(sys.argv[1] + "/1.0.0")
            for handle, call, status in (
                ("/9.9.9", resolve, 404), ("-not/1.0.0", resolve, 404), ("/1.0.0", HttpUncompressedFileResolver(), 501)
            ):
                try:
                    call(sys.argv[1] + handle)
                except (urllib.error.HTTPError, ValueError) as exc:
                    assert str(status) in str(exc), (handle, exc)
                else:
                    raise AssertionError(handle)
            print(resolve(sys.argv[1] + "/1.0.0"))
            """,
            tmp_path / "client", f"{cold.local_url}/{namespace}/saved", str(Path(__file__).parent),
            TFHUB_CACHE_DIR=str(tmp_path / "cache"),
        )  # fmt: skip

    assert tree(Path(told.splitlines()[-1])) == tree(model)
