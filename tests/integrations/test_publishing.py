"""huggingface_hub, unchanged, publishes through the door of one node, and loads through that of another."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from clientkit import run_client

from p2phub.testing.processes import Home, tree
from p2phub.testing.samples import write_sample_model

UPLOAD = """
    import os, sys
    from huggingface_hub import HfApi
    api = HfApi()
    name = f"{api.whoami()['name']}/macaw"
    api.create_repo(name)
    api.create_repo(name, exist_ok=True)
    api.upload_folder(repo_id=name, folder_path=sys.argv[1], commit_message="first", commit_description="of two lines")
    print(name)
"""


@pytest.mark.parametrize("xet", ["0", "1"], ids=["xet", "lfs"])
def test_a_model_of_300_mb_is_published_and_loaded_through_another_node(writer, tmp_path, xet):
    node, variables = writer
    write_sample_model(tmp_path / "model", size=300_000_000)
    name = run_client(
        UPLOAD, tmp_path / "a", str(tmp_path / "model"), **variables, HF_HUB_DISABLE_XET=xet
    ).splitlines()[-1]
    with Home(tmp_path / "other").node(peers=(node.address,)) as other:
        told = run_client(
            """
            import sys
            from huggingface_hub import snapshot_download
            from transformers import AutoModelForCausalLM
            model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
            print(sum(tensor.numel() for tensor in model.parameters()))
            print(snapshot_download(sys.argv[1]))
            """,
            tmp_path / "b", name, HF_ENDPOINT=other.local_url,
        )  # fmt: skip
    *_, parameters, folder = told.splitlines()
    files = tree(Path(folder))

    assert int(parameters) > 100_000_000
    assert {path: digest for path, digest in files.items() if path != ".gitattributes"} == tree(tmp_path / "model")


def test_a_changed_file_is_published_again(writer, tmp_path):
    _, variables = writer
    code = textwrap.dedent(UPLOAD) + textwrap.dedent("""
        import random
        from pathlib import Path
        # The client remembers what it sent before, in this process and in its cache.
        path = Path(sys.argv[1]) / "data.bin"
        data = bytearray(path.read_bytes())
        for round in range(3):
            data[len(data) // 2] ^= 1 + round
            path.write_bytes(data)
            api.upload_folder(repo_id=name, folder_path=sys.argv[1])
            assert Path(api.hf_hub_download(name, "data.bin")).read_bytes() == data, round
        print(len(api.list_repo_commits(name)))
    """)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "data.bin").write_bytes(bytes(range(256)) * 80_000)

    assert run_client(code, tmp_path / "a", str(folder), **variables).split()[-1] == "5"


def test_everything_a_client_can_do_to_a_repository(writer, tmp_path):
    _, variables = writer
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "sub" / "a.txt").write_text("a")
    (tmp_path / "model" / "empty").write_text("")
    code = textwrap.dedent(UPLOAD) + textwrap.dedent("""
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
        first = api.model_info(name).sha
        api.create_commit(name, [
            CommitOperationAdd("new.bin", os.urandom(2_000_000)),
            CommitOperationDelete("sub/", is_folder=True),
            CommitOperationCopy("empty", "still-empty"),
        ], commit_message="second", parent_commit=first)
        files = api.list_repo_files(name)
        assert files == [".gitattributes", "empty", "new.bin", "still-empty"], files
        try:
            api.create_commit(name, [CommitOperationDelete("empty")], commit_message="late", parent_commit=first)
        except Exception as exc:
            assert "412" in str(exc), exc
        else:
            raise AssertionError("a late commit was taken")
        api.create_tag(name, tag="1.0.0")
        api.create_tag(name, tag="stable", revision=first)
        api.create_branch(name, branch="dev/x", revision="stable")
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=name, revision="dev/x")
        refs = api.list_repo_refs(name)
        assert [ref.name for ref in refs.branches] == ["dev/x", "main"], refs
        assert {ref.name: ref.target_commit for ref in refs.tags}["stable"] == first, refs
        assert "x" in api.list_repo_files(name, revision="dev/x")
        assert "x" not in api.list_repo_files(name)
        api.upload_file(path_or_fileobj=b"Be kind.", path_in_repo="LICENSE", repo_id=name)
        api.update_repo_settings(name, gated="manual")
        assert api.model_info(name).gated == "manual"
        assert [model.id for model in api.list_models(gated=True)] == [name]
        api.update_repo_settings(name, gated=False)
        assert (api.model_info(name).gated, list(api.list_models(gated=True))) == (False, [])
        api.delete_file("new.bin", name)
        api.delete_branch(name, branch="dev/x")
        api.delete_tag(name, tag="stable")
        api.delete_tag(name, tag="1.0.0")
        refs = api.list_repo_refs(name)
        assert ([ref.name for ref in refs.branches], refs.tags) == (["main"], []), refs
        api.move_repo(name, name + "-two")
        assert (api.repo_exists(name), api.repo_exists(name + "-two")) == (False, True)
        api.delete_repo(name + "-two")
        assert not api.repo_exists(name + "-two")
        for call in (
            lambda: api.create_repo("someone/else"),
            lambda: api.create_repo(name, private=True),
            lambda: api.upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id="someone/else"),
            lambda: HfApi(token="hf_wrong").create_repo(name),
        ):
            try:
                call()
            except Exception as exc:
                assert "50" not in str(exc)[:40] or "501" in str(exc), exc
            else:
                raise AssertionError("it was done")
        print("all done")
    """)

    assert run_client(code, tmp_path / "a", str(tmp_path / "model"), **variables).endswith("all done\n")


def test_push_to_hub_publishes(writer, tmp_path):
    _, variables = writer
    told = run_client(
        """
        from huggingface_hub import HfApi
        from transformers import BertConfig, BertModel
        import datasets
        shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        model = BertModel(BertConfig(vocab_size=100, **shape))
        name = HfApi().whoami()["name"]
        model.push_to_hub(f"{name}/tiny")
        again = BertModel.from_pretrained(f"{name}/tiny")
        assert all((a == b).all() for a, b in zip(model.parameters(), again.parameters()))
        datasets.Dataset.from_dict({"a": [1, 2, 3]}).push_to_hub(f"{name}/numbers")
        print(datasets.load_dataset(f"{name}/numbers", split="train")["a"][:])
        """,
        tmp_path / "a", **variables,
    )  # fmt: skip

    assert told.splitlines()[-1] == "[1, 2, 3]"
