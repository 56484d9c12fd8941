"""A fine-tune of a model whose base is here: only what changed should move.

Two kinds: the header of each file has changed (somebody wrote a word into its metadata, and
every byte moved), and a LoRA was merged (some tensors of each layer have changed). What has
changed is counted here from the files, without p2phub's code.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from p2phub.testing.samples import write_safetensors

from .. import fetching
from ..measuring import Row, Sample, Target
from ..workplace import Workplace, size_of

CASE = "finetune"
SHORT, FULL = 2**28, 2**31  # bytes
HIDDEN = 1024
# The tensors of a layer of a language model, the smallest weight of which has 512 KiB in BF16.
LAYER = {
    "input_layernorm": (HIDDEN,),
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN // 4, HIDDEN),
    "self_attn.v_proj": (HIDDEN // 4, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "post_attention_layernorm": (HIDDEN,),
    "mlp.gate_proj": (3 * HIDDEN, HIDDEN),
    "mlp.up_proj": (3 * HIDDEN, HIDDEN),
    "mlp.down_proj": (HIDDEN, 3 * HIDDEN),
}
SHARDS = 2
MERGED = ("q_proj", "v_proj")  # what a LoRA commonly adapts
BOTH_SIDES = (Target("of_changed", "≥", 0.98), Target("of_changed", "≤", 1.02))

Header = dict[str, dict[str, list[int]]]


def rows(place: Workplace) -> list[Row]:
    """Return a row for each kind of change."""
    base = write_model(place.new("base"), place.size(SHORT, FULL))
    holder, _ = place.publisher(base)
    found = []
    for name, change in (("header changed", change_header), ("LoRA merged", merge_lora)):
        tuned = place.new("tuned")
        shutil.copytree(base, tuned)
        for path in tuned.glob("*.safetensors"):
            change(path)
        changed = sum(changed_bytes(base / path.name, path) for path in tuned.iterdir())
        publisher, revision = place.publisher(tuned)
        nodes = fetching.serve(place, place.stack, publisher, 1)
        fetch = fetching.fetch(place, revision, nodes)
        found.append(Row(CASE, name, _after_base(place, holder, fetch, changed), size_of(tuned), targets=BOTH_SIDES))
    return found


def write_model(folder: Path, size: int) -> Path:
    """Write a model of about `size` bytes, one layer in each of its files at least; returns `folder`."""
    folder.mkdir()
    layer_size = sum(2 * math.prod(shape) for shape in LAYER.values())
    layers = max(1, round(size / SHARDS / layer_size))
    rng = np.random.default_rng(5)
    for shard in range(SHARDS):
        numbers = range(shard * layers, (shard + 1) * layers)
        tensors = {f"layers.{number}.{name}.weight": shape for number in numbers for name, shape in LAYER.items()}
        write_safetensors(folder / f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors", tensors, rng)
    return folder


def change_header(path: Path) -> None:
    """Write a word into the metadata of a safetensors file, so that all its tensors move."""
    header, body = read(path)
    write(path, {"__metadata__": {"format": "pt", "note": "tuned"}, **header}, body)


def merge_lora(path: Path) -> None:
    """Change the tensors that a LoRA changes, all of their bytes."""
    header, body = read(path)
    rng = np.random.default_rng(11)
    for name, fields in header.items():
        if any(word in name for word in MERGED):
            begin, end = fields["data_offsets"]
            body[begin:end] ^= rng.integers(1, 128, end - begin, dtype=np.uint8)
    write(path, {"__metadata__": {"format": "pt"}, **header}, body)


def changed_bytes(old: Path, new: Path) -> int:
    """Return how many bytes of `new` a receiver that has `old` cannot have: its header, and tensors that differ."""
    if new.read_bytes() == old.read_bytes():
        return 0
    if new.suffix != ".safetensors":
        return new.stat().st_size
    (old_header, old_body), (header, body) = read(old), read(new)
    tensors = 0
    for name, fields in header.items():
        (begin, end), (old_begin, old_end) = fields["data_offsets"], old_header[name]["data_offsets"]
        if not np.array_equal(body[begin:end], old_body[old_begin:old_end]):
            tensors += end - begin
    same_header = new.read_bytes()[: -len(body)] == old.read_bytes()[: -len(old_body)]
    return tensors + (0 if same_header else new.stat().st_size - len(body))


def read(path: Path) -> tuple[Header, np.ndarray]:
    """Return the tensors of a safetensors file and its body."""
    data = np.fromfile(path, dtype=np.uint8)
    size = int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8 : 8 + size].tobytes())
    header.pop("__metadata__", None)
    return header, data[8 + size :]


def write(path: Path, header: object, body: np.ndarray) -> None:
    """Write a safetensors file."""
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + body.tobytes())


def _after_base(place: Workplace, holder: Path, fetch: Callable[[], Sample], changed: int) -> Callable[[], Sample]:
    def run() -> Sample:
        place.target.rmdir()
        place.copy_of(holder).rename(place.target)
        sample = fetch()
        return {**sample, "changed": changed, "of_changed": sample["received"] / changed}

    return run
