"""Pickles that today's tools write and load: those of data come, those that run something do not."""

from __future__ import annotations

import pytest
from clientkit import run_client

from p2phub.testing.processes import Home

pytestmark = pytest.mark.timeout(600)

_WRITE = """
    import collections, os, pickle, sys
    from pathlib import Path
    import numpy, torch
    from transformers import BertConfig, BertModel, TrainingArguments

    base = Path(sys.argv[1])
    (base / "good").mkdir(parents=True)
    (base / "evil").mkdir()
    layer = torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.BatchNorm1d(400))
    state = layer.state_dict()
    for type_ in ("bfloat16", "float16", "int8", "int64", "bool", "complex64", "float8_e4m3fn"):
        state[type_] = torch.zeros(7, dtype=getattr(torch, type_))
    state["sparse"] = torch.eye(5).to_sparse()
    state["strided"] = torch.arange(12.0).reshape(3, 4).t()
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.randn(4, 300)).sum().backward()
    optimizer.step()
    training = {"model": state, "optimizer": optimizer.state_dict(), "epoch": 3, "loss": numpy.float64(0.5),
                "history": [0.1, 0.2], "seen": {1, 2}, "rng": torch.get_rng_state(), "shape": torch.Size([3, 4]),
                "parameter": torch.nn.Parameter(torch.ones(3)), "device": torch.device("cpu"), "dtype": torch.bfloat16}
    torch.save(state, base / "good" / "pytorch_model.bin")
    torch.save(training, base / "good" / "training.pt")
    del state["float8_e4m3fn"]  # which PyTorch cannot read back from a file of the old kind
    torch.save(training, base / "good" / "legacy.pth", _use_new_zipfile_serialization=False)
    (base / "good" / "arrays.pkl").write_bytes(pickle.dumps({"x": numpy.random.rand(50, 60), "y": numpy.arange(9)}))
    numpy.savez(base / "good" / "arrays.npz", a=numpy.arange(10), b=numpy.random.rand(4, 4))
    numpy.savez_compressed(base / "good" / "packed.npz", a=numpy.zeros((1000, 1000)))
    numpy.save(base / "good" / "plain.npy", numpy.arange(10))

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {base}/owned",)

    bad = base / "evil"
    torch.save({"model": state, "x": Evil()}, bad / "zip.pt")
    torch.save({"model": state, "x": Evil()}, bad / "legacy.pth", _use_new_zipfile_serialization=False)
    (bad / "plain.pkl").write_bytes(pickle.dumps(Evil()))
    numpy.save(bad / "objects.npy", numpy.array([Evil()], dtype=object), allow_pickle=True)
    torch.save(layer, bad / "module.pt")  # a whole module: it is made by calling classes of PyTorch
    torch.save({"storage": state["int8"].untyped_storage()}, bad / "storage.pkl")
    torch.jit.save(torch.jit.script(layer), bad / "script.pt")
    numpy.save(bad / "z.npy", numpy.arange(3))
"""


@pytest.fixture(scope="module")
def pickled(tmp_path_factory):
    """Publish what PyTorch and numpy write, and what somebody evil writes with them, and serve it."""
    base = tmp_path_factory.mktemp("pickled")
    run_client(_WRITE, base, str(base))
    home = Home(base / "home")
    namespace = home.ask("id", "new")["namespace"]
    for name in ("good", "evil"):
        home.call("publish", str(base / name), name)
    with home.node() as node:
        yield home, node, namespace, base


def test_all_that_pytorch_and_numpy_write_of_data_passes(pickled):
    home, _, _, base = pickled
    checked = home.ask("policy", "check", str(base / "good"), "--allow-pickle")

    assert [finding["text"] for finding in checked["findings"] if finding["outcome"] != "fine"] == []
    assert {finding["path"] for finding in checked["findings"]} >= {
        "pytorch_model.bin", "training.pt", "legacy.pth", "arrays.pkl",
    }  # fmt: skip


def test_what_runs_something_does_not_pass(pickled):
    home, _, _, base = pickled
    findings = home.ask("policy", "check", str(base / "evil"), "--allow-pickle", code=5)["findings"]

    refused = {each["path"]: each["text"] for each in findings if each["outcome"] == "refused"}
    assert refused.keys() >= {"zip.pt", "legacy.pth", "plain.pkl", "objects.npy", "module.pt", "script.pt"}
    assert all("posix.system" in refused[path] for path in ("zip.pt", "legacy.pth", "plain.pkl", "objects.npy"))
    assert "TorchScript" in refused["script.pt"]
    assert "z.npy" not in refused


def test_clients_of_the_hub_load_data_and_are_told_of_the_rest(pickled, tmp_path):
    _, node, namespace, base = pickled
    printed = run_client(
        """
        import sys, torch
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        namespace = sys.argv[1]
        for path in ("pytorch_model.bin", "training.pt", "legacy.pth"):
            loaded = torch.load(hf_hub_download(f"{namespace}/good", path), weights_only=False)
            print(path, len(loaded))
        for path in ("zip.pt", "legacy.pth", "plain.pkl", "objects.npy"):
            try:
                hf_hub_download(f"{namespace}/evil", path)
            except HfHubHTTPError as exc:
                print(path, exc.response.status_code, "posix.system" in str(exc))
        """,
        tmp_path,
        namespace,
        HF_ENDPOINT=node.local_url,
    )

    assert printed.splitlines() == [
        "pytorch_model.bin 16", "training.pt 11", "legacy.pth 11",
        "zip.pt 403 True", "legacy.pth 403 True", "plain.pkl 403 True", "objects.npy 403 True",
    ]  # fmt: skip
    assert not (base / "owned").exists()
