"""What other tools take as proof: signed, compared and listed as the files are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from p2phub.core.companion import CompanionKey
from p2phub.core.errors import InvalidName, InvalidSignature, NotFound
from p2phub.core.ids import ManifestId
from p2phub.core.oms import key_text
from p2phub.node import vouching
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity, own_identity
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home

CARD = """---
license: apache-2.0
pipeline_tag: text-generation
base_model: org/base
datasets: [squad]
model-index:
- name: parrot
  results:
  - task: {type: text-generation}
    dataset: {name: squad, type: squad}
    metrics: [{type: f1, value: 81.5}]
---
# Parrot
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (folder / "sub" / "weights.bin").write_bytes(os.urandom(2_500_000))
    return folder


async def signed(node, model: Path, tmp_path: Path) -> Path:
    """Publish and sign it; returns the file with the signature. The key stands beside it."""
    create_identity(node)
    await publish(node, model, "parrot@1.0", ignore)
    found = await vouching.sign(node, "parrot", ignore)
    (tmp_path / "key.pem").write_text(found.public_key)
    (tmp_path / "model.sig").write_text(found.bundle)
    return tmp_path / "model.sig"


async def test_what_was_published_is_as_signed(model, tmp_path):
    async with open_home(tmp_path / "home") as node:
        bundle = await signed(node, model, tmp_path)

        by_key = await vouching.check(node, model, bundle, ignore, key=tmp_path / "key.pem")
        namespace = str(own_identity(node).namespace)
        by_name = await vouching.check(node, model, bundle, ignore, publisher=namespace)

    assert by_key.good
    assert (by_key.model, by_key.files) == ("parrot", 3)
    assert by_name.good
    assert by_name.signer == namespace


async def test_each_difference_is_named(model, tmp_path):
    async with open_home(tmp_path / "home") as node:
        bundle = await signed(node, model, tmp_path)
        (model / "README.md").unlink()
        weights = bytearray((model / "sub" / "weights.bin").read_bytes())
        weights[1_234_567] ^= 1
        (model / "sub" / "weights.bin").write_bytes(weights)
        (model / "sub" / "extra.py").write_text("print()")
        (model / ".git").mkdir()
        (model / ".git" / "HEAD").write_text("does not count")

        found = await vouching.check(node, model, bundle, ignore, key=tmp_path / "key.pem")

    assert not found.good
    assert (found.wrong, found.missing, found.unsigned) == (["sub/weights.bin"], ["README.md"], ["sub/extra.py"])


async def test_the_bundle_may_lie_in_the_folder(model, tmp_path):
    async with open_home(tmp_path / "home") as node:
        bundle = await signed(node, model, tmp_path)
        inside = model / "model.sig"
        bundle.rename(inside)

        assert (await vouching.check(node, model, inside, ignore, key=tmp_path / "key.pem")).good


async def test_another_key_is_refused(model, tmp_path):
    async with open_home(tmp_path / "home") as node:
        bundle = await signed(node, model, tmp_path)
        (tmp_path / "other.pem").write_text(key_text(CompanionKey(b"\1" * 32).private_key.public_key()))

        with pytest.raises(InvalidSignature, match="another key"):
            await vouching.check(node, model, bundle, ignore, key=tmp_path / "other.pem")
        with pytest.raises(InvalidName, match="who must have signed"):
            await vouching.check(node, model, bundle, ignore)


async def test_only_what_is_here_whole_is_signed(model, tmp_path):
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        published = await publish(node, model, "parrot@1.0", ignore)
        manifest = node.store.manifests.get(ManifestId.parse(published.revision))
        held = node.store.blobs.find(manifest.files[0].root)
        held.path.unlink()

        with pytest.raises(NotFound, match="1 of 3 files"):
            await vouching.sign(node, published.revision, ignore)


async def test_a_bill_of_materials_says_what_card_and_files_say(model, tmp_path):
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        published = await publish(node, model, "parrot@1.0", ignore)

        first = await vouching.bill(node, "parrot", "cyclonedx", ignore)
        again = await vouching.bill(node, published.revision, "cyclonedx", ignore)
        other = await vouching.bill(node, "parrot", "spdx", ignore)

    bom = json.loads(first.text)
    main = bom["metadata"]["component"]
    assert (main["name"], main["version"], main["type"]) == ("parrot", "1.0", "machine-learning-model")
    assert main["licenses"] == [{"expression": "Apache-2.0"}]
    assert main["pedigree"]["ancestors"][0]["name"] == "org/base"
    assert main["modelCard"]["modelParameters"]["modelArchitecture"] == "LlamaForCausalLM"
    assert main["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "f1", "value": "81.5", "slice": "squad"}
    ]
    assert [each["name"] for each in bom["components"]] == ["README.md", "config.json", "sub/weights.bin"]
    assert again.text == first.text
    kinds = [element["type"] for element in json.loads(other.text)["@graph"]]
    assert kinds.count("software_File") == 3
    assert kinds.count("ai_AIPackage") == 2


async def test_a_dataset_is_data(model, tmp_path):
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        await publish(node, model, "squeaks@1.0", ignore, kind="dataset")

        cyclonedx = json.loads((await vouching.bill(node, "squeaks", "cyclonedx", ignore)).text)
        spdx = json.loads((await vouching.bill(node, "squeaks", "spdx", ignore)).text)

    assert cyclonedx["metadata"]["component"]["type"] == "data"
    assert spdx["@graph"][1]["profileConformance"][-1] == "dataset"


async def test_what_was_fetched_is_as_signed(model, tmp_path):
    async with open_home(tmp_path / "home") as node:
        bundle = await signed(node, model, tmp_path)
        await fetch(node, "parrot", ignore, to=tmp_path / "placed")

        assert (await vouching.check(node, tmp_path / "placed", bundle, ignore, key=tmp_path / "key.pem")).good
