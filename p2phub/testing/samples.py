"""Make a small but real model: safetensors shards, configuration, tokenizer, card.

For trying the hub out and for tests; the weights are random, the files are what any
loader expects of a Llama-shaped model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from p2phub.core.ids import LogId, ManifestId, NamespaceId
from p2phub.core.records import Publish, Record, Summary
from p2phub.store.layout import Layout

_VOCABULARY = 32_000
_LAYER_SHAPES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "input_layernorm.weight": lambda h: (h,),
    "self_attn.q_proj.weight": lambda h: (h, h),
    "self_attn.k_proj.weight": lambda h: (h // 4, h),
    "self_attn.v_proj.weight": lambda h: (h // 4, h),
    "self_attn.o_proj.weight": lambda h: (h, h),
    "post_attention_layernorm.weight": lambda h: (h,),
    "mlp.gate_proj.weight": lambda h: (3 * h, h),
    "mlp.up_proj.weight": lambda h: (3 * h, h),
    "mlp.down_proj.weight": lambda h: (h, 3 * h),
}

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language:
- en
- fr
tags:
- sample
- llama
model-index:
- name: parrot
  results:
  - task: {{type: text-generation}}
    dataset: {{name: Sample Suite, type: sample-suite}}
    metrics:
    - {{type: accuracy, value: 0.25}}
---
# Parrot {size}

A sample model with random weights. It has the shape of a language model and the wisdom
of a parrot, and exists so that there is something real to publish, search and fetch.
"""


def write_sample_model(folder: Path, *, size: int = 240_000_000, seed: int = 1, shards: int = 3) -> int:
    """Write a Llama-shaped model of about `size` bytes into the new folder `folder`; returns its bytes.

    The same seed gives the same files.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    hidden = 1024 if size >= 200_000_000 else 256
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_VOCABULARY, hidden)}
    layer_bytes = sum(2 * int(np.prod(shape(hidden))) for shape in _LAYER_SHAPES.values())
    layers = max(1, round((size - 2 * _VOCABULARY * hidden) / layer_bytes))
    for layer in range(layers):
        tensors.update({f"model.layers.{layer}.{name}": shape(hidden) for name, shape in _LAYER_SHAPES.items()})
    tensors["model.norm.weight"] = (hidden,)
    names = list(tensors)
    total = sum(2 * int(np.prod(shape)) for shape in tensors.values())
    weight_map: dict[str, str] = {}
    files: list[list[str]] = [[]]
    filled = 0
    for name in names:
        if filled > total / shards and len(files) < shards:
            files.append([])
            filled = 0
        files[-1].append(name)
        filled += 2 * int(np.prod(tensors[name]))
    for number, members in enumerate(files, start=1):
        path = folder / f"model-{number:05}-of-{len(files):05}.safetensors"
        weight_map.update(dict.fromkeys(members, path.name))
        write_safetensors(path, {name: tensors[name] for name in members}, rng)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "config.json").write_text(json.dumps(_config(hidden, layers), indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048, "eos_token": "<|end|>"})
    )
    (folder / "README.md").write_text(_CARD.format(size=f"{total // 2_000_000}M"))
    return sum(path.stat().st_size for path in folder.iterdir())


def write_safetensors(
    path: Path,
    tensors: Mapping[str, tuple[int, ...]],
    rng: np.random.Generator,
    *,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write BF16 tensors of these shapes with small random values."""
    header: dict[str, object] = {"__metadata__": metadata or {"format": "pt"}}
    offset = 0
    for name, shape in tensors.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "xb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for shape in tensors.values():
            bits = rng.integers(0, 2**16, int(np.prod(shape)), dtype=np.uint16)
            # Keep sign and mantissa, set the exponent to that of 2^-7.
            file.write(((bits & np.uint16(0x807F)) | np.uint16(0x3C00)).tobytes())


def _config(hidden: int, layers: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "vocab_size": _VOCABULARY,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def _tokenizer() -> dict[str, object]:
    """Return a byte-level tokenizer: every byte is a token."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = {byte: chr(byte) for byte in printable}
    spare = 256
    for byte in range(256):
        if byte not in symbols:
            symbols[byte] = chr(spare)
            spare += 1
    vocabulary = {"<|end|>": 0, **{symbols[byte]: byte + 1 for byte in range(256)}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = {"id": 0, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**special, "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }


async def publish_crowd(home: Path, count: int) -> str:
    """Publish `count` models, `model-0000` and so on, a second apart, by their records alone; returns the namespace.

    Every second one is for `fill-mask` and tagged `even`, the others for `text-generation` and `odd`. Number n is
    also tagged `n_<n mod 10>` and has n million parameters. Every third one is in French, every hundredth was made
    from `org/base`.
    """
    from p2phub.node.identity import create_identity, publish_record
    from p2phub.node.node import Node, open_node
    from p2phub.node.settings import Settings

    start = int(time.time()) - 10 * count

    def publish_one(node: Node, namespace: NamespaceId, number: int) -> None:
        summary = Summary(
            files=1,
            size=number,
            title=f"Model {number}",
            task=("fill-mask", "text-generation")[number % 2],
            license=("Apache-2.0", "MIT")[number // 2 % 2],
            library="transformers",
            tags=("even" if number % 2 == 0 else "odd", f"n_{number % 10}"),
            languages=("fr",) if number % 3 == 0 else (),
            base_models=("org/base",) if number % 100 == 0 else (),
            parameters=number * 1_000_000,
        )

        def make(*, log: LogId, index: int, previous: bytes, time: int) -> Record:
            return Publish(
                namespace=namespace, log=log, index=index, previous=previous, time=start + number,
                model=f"model-{number:04}", kind="model", manifest=ManifestId(number.to_bytes(32, "big")),
                depth=1, branch="main", summary=summary,
            )  # fmt: skip

        publish_record(node, make)

    async with open_node(Settings(Layout(home, home / "store"), offline=True)) as node:
        namespace = create_identity(node).namespace
        for number in range(count):
            publish_one(node, namespace, number)
        return str(namespace)
