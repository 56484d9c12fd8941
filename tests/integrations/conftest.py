"""The real clients of other hubs, as processes, against nodes that are processes too.

Run by `./tools/test --integrations`, which sets up an environment with these clients.
"""

from __future__ import annotations

import importlib.util
import json
import os
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clientkit import run_client

from p2phub.testing.processes import Home, RunningNode
from p2phub.testing.samples import write_sample_model

# Without the option they are not even looked at: plain `./tools/test` stays light.
collect_ignore_glob = [] if "P2PHUB_INTEGRATIONS" in os.environ else ["test_*.py"]

_SENTENCES = """
    import sys
    from pathlib import Path
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel, BertTokenizerFast

    base = Path(sys.argv[1])
    (base / "vocab.txt").write_text("\\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]))
    BertTokenizerFast(vocab_file=str(base / "vocab.txt")).save_pretrained(base / "bert")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=7, **shape)).save_pretrained(base / "bert")
    words = models.Transformer(str(base / "bert"))
    SentenceTransformer(modules=[words, models.Pooling(32)]).save(str(base / "sentences"))
"""


@dataclass(frozen=True)
class Shelf:
    """What one node has published, with the folders it came from."""

    home: Home
    node: RunningNode
    namespace: str
    folders: dict[str, Path]  # by model or dataset
    commits: dict[str, str]  # of the tips of `main`, and of parrot@1.0.0

    def name(self, model: str) -> str:
        return f"{self.namespace}/{model}"


Run = Callable[..., Any]


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """Publish a language model, a sentence model and three datasets, and serve them."""
    assert importlib.util.find_spec("transformers"), "run these with ./tools/test --integrations"
    base = tmp_path_factory.mktemp("shelf")
    folders = {name: base / name for name in ("parrot", "sentences", "table", "lines", "records")}
    write_sample_model(folders["parrot"], size=24_000_000)
    run_client(_SENTENCES, base, str(base))
    _write_datasets(folders)
    home = Home(base / "home")
    namespace = home.ask("id", "new")["namespace"]
    revisions = {"parrot@1.0.0": home.ask("publish", str(folders["parrot"]), "parrot@1.0.0")["revision"]}
    (folders["parrot"] / "notes.txt").write_text("a second revision\n")
    for name, folder in folders.items():
        kind = "dataset" if name in ("table", "lines", "records") else "model"
        revisions[name] = home.ask("publish", str(folder), name, "--kind", kind, "-m", f"publish {name}")["revision"]
    home.call("branch", "parrot", "old", "1.0.0")
    commits = {name: revision.removeprefix("b3:")[:40] for name, revision in revisions.items()}
    with home.node() as node:
        yield Shelf(home, node, namespace, folders, commits)


@pytest.fixture
def cold(shelf: Shelf, tmp_path: Path) -> Iterator[RunningNode]:
    """Give a node that holds nothing and knows the one that has published."""
    with Home(tmp_path / "cold").node(peers=(shelf.node.address,)) as node:
        yield node


@pytest.fixture
def client(cold: RunningNode, shelf: Shelf, tmp_path: Path) -> Run:
    """Return a function that runs code as a client of the cold node and returns what it prints as JSON.

    The code sees `NS`, the namespace, and calls `tell(value)` once.
    """

    def run(code: str, *, endpoint: str = cold.local_url, folder: str = "client", **variables: str) -> Any:
        prelude = f"import json\nNS = {shelf.namespace!r}\ndef tell(value):\n    print('TOLD ' + json.dumps(value))\n"
        out = run_client(prelude + textwrap.dedent(code), tmp_path / folder, **{"HF_ENDPOINT": endpoint, **variables})
        told = [line.removeprefix("TOLD ") for line in out.splitlines() if line.startswith("TOLD ")]
        return json.loads(told[-1]) if told else None

    return run


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[tuple[RunningNode, dict[str, str]]]:
    """Give a node with an identity, and what its clients need to write."""
    home = Home(tmp_path / "writer")
    home.call("id", "new")
    with home.node() as node:
        yield node, home.ask("env")


def _write_datasets(folders: dict[str, Path]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folders["table"] / "data").mkdir(parents=True)
    rows = {"text": [f"row {number}" for number in range(1000)], "label": [number % 2 for number in range(1000)]}
    pq.write_table(pa.table(rows), folders["table"] / "data" / "train-00000-of-00001.parquet", row_group_size=100)
    folders["lines"].mkdir()
    (folders["lines"] / "train.csv").write_text("text,label\n" + "bon,1\nmal,0\n" * 50)
    folders["records"].mkdir()
    (folders["records"] / "train.jsonl").write_text('{"text": "bon", "label": 1}\n{"text": "mal", "label": 0}\n' * 50)
