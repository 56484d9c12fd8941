"""Facts of models as they lie in repositories, and of what is broken in them."""

from __future__ import annotations

import json
import math
import re
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2phub.core import facts, gguf
from p2phub.core.description import Facts, TensorTypeCount
from p2phub.core.facts import derive
from p2phub.core.tensors import INT_MAX


class MemoryFile:
    """A file in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int, size: int, /) -> bytes:
        return self.data[offset : offset + size]


def derive_from(files: dict[str, bytes]) -> tuple[Facts, tuple[str, ...]]:
    return derive({path: MemoryFile(data) for path, data in files.items()})


def facts_of(files: dict[str, bytes]) -> Facts:
    """Return the facts of files that have no problem."""
    found, problems = derive_from(files)
    assert problems == ()
    return found


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def weights(*tensors: tuple[str, str, list[int]]) -> bytes:
    """Return a safetensors file with `tensors` (name, dtype, shape)."""
    header = {}
    position = 0
    for name, dtype, shape in tensors:
        size = math.prod(shape) * {"F32": 4, "BF16": 2, "U8": 1}.get(dtype, 1)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(position)


def parameters(count: int) -> bytes:
    return weights((f"w{count}", "BF16", [count]))


def index(**shards: str) -> bytes:
    return as_json({"metadata": {"total_size": 1}, "weight_map": shards})


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def quantized(tensors: dict[str, list[int]], **metadata: str | int) -> bytes:
    """Return a GGUF file with tensors of type Q8_0, innermost dimension first."""
    pairs = b""
    for key, value in metadata.items():
        encoded = struct.pack("<IQ", 10, value) if isinstance(value, int) else struct.pack("<I", 8) + string(value)
        pairs += string(key.replace("__", ".")) + encoded
    infos = b""
    position = 0
    for name, shape in tensors.items():
        infos += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 8, position)
        size = math.prod(shape) // 32 * 34
        position += size + -size % 32
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + pairs + infos
    return header + bytes(-len(header) % 32) + bytes(position)


# --- Weights


def test_one_safetensors_file_is_counted_by_type() -> None:
    found = facts_of(
        {"model.safetensors": weights(("a", "F32", [3]), ("b", "BF16", [4, 5]), ("c", "F32", []), ("d", "U8", [0]))}
    )

    assert found == Facts(
        parameters=24,
        tensor_types=(TensorTypeCount("BF16", 20), TensorTypeCount("F32", 4), TensorTypeCount("U8", 0)),
    )


ONE, TWO, TEN, HUNDRED = (parameters(n) for n in (1, 2, 10, 100))
SHARD_1, SHARD_2, SHARD_3 = (f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, None, id="no file"),
        pytest.param({"README.md": b"# x", "pytorch_model.bin": b"x"}, None, id="no weights that we read"),
        pytest.param({SHARD_1: ONE, SHARD_2: TWO, SHARD_3: TEN}, 13, id="shards without an index"),
        pytest.param(
            {"model.safetensors.index.json": index(w1=SHARD_1, w2=SHARD_2), SHARD_1: ONE, SHARD_2: TWO, SHARD_3: TEN},
            3,
            id="an index leaves out a stray shard",
        ),
        pytest.param(
            {"model.safetensors.index.json": index(w1="x.safetensors"), "x.safetensors": ONE, "y.safetensors": TEN},
            1,
            id="an index names files of any name",
        ),
        pytest.param(
            {
                "model.safetensors.index.json": index(w1=SHARD_1, w2=SHARD_2),
                SHARD_1: ONE,
                SHARD_2: TWO,
                "consolidated.safetensors": HUNDRED,
            },
            3,
            id="consolidated copy beside shards",
        ),
        pytest.param({"consolidated.safetensors": TEN}, 10, id="consolidated alone"),
        pytest.param({"model.safetensors": TEN, "adapter_model.safetensors": HUNDRED}, 10, id="adapter beside a model"),
        pytest.param({"adapter_model.safetensors": TWO, "sub/model.safetensors": TEN}, 2, id="adapter at the top"),
        pytest.param(
            {"model.safetensors": TEN, "model.fp16.safetensors": HUNDRED}, 10, id="another precision of the model"
        ),
        pytest.param(
            {"v1-pruned.safetensors": TEN, "v1.safetensors": HUNDRED, "v1-vae.safetensors": TWO},
            100,
            id="several checkpoints, the largest counts",
        ),
        pytest.param(
            {"model.safetensors": TEN, "onnx/model.safetensors": TWO, "1_Dense/model.safetensors": ONE},
            10,
            id="the top hides the folders",
        ),
        pytest.param(
            {
                "unet/diffusion_pytorch_model.safetensors": HUNDRED,
                "unet/diffusion_pytorch_model.fp16.safetensors": HUNDRED,
                "vae/diffusion_pytorch_model.safetensors": TEN,
                "text_encoder/model-00001-of-00002.safetensors": ONE,
                "text_encoder/model-00002-of-00002.safetensors": TWO,
                "lora/pytorch_lora_weights.safetensors": TWO,
            },
            113,
            id="folders of a pipeline",
        ),
        pytest.param(
            {"checkpoint-90/model.safetensors": TEN, "checkpoint-100/model.safetensors": TWO},
            2,
            id="the last of the checkpoints of a training",
        ),
        pytest.param(
            {"checkpoint-100/model.safetensors": TWO, "final/model.safetensors": TEN},
            10,
            id="checkpoints beside a model",
        ),
        pytest.param(
            {"model-00001-of-00001.safetensors": TEN, "model-00002-of-00001.safetensors": ONE},
            10,
            id="a number beyond the count",
        ),
        pytest.param(
            {SHARD_1: ONE, SHARD_2: ONE, SHARD_3: weights(("w1", "BF16", [1]), ("w9", "BF16", [9]))},
            10,
            id="a tensor in several shards counts once",
        ),
    ],
)
def test_each_tensor_of_a_repository_counts_once(files: dict[str, bytes], expected: int | None) -> None:
    assert facts_of(files).parameters == expected


def test_the_largest_gguf_variant_counts_and_describes() -> None:
    metadata: dict[str, str | int] = {
        "general__architecture": "llama",
        "llama__context_length": 4096,
        "llama__embedding_length": 64,
        "llama__block_count": 2,
        "llama__vocab_size": 3,
    }
    found = facts_of(
        {
            "parrot-Q4_K_M.gguf": quantized({"a": [32, 3]}, **metadata, general__file_type=15),
            "parrot-Q8_0.gguf": quantized({"a": [64, 3], "b": [32]}, **metadata, general__file_type=7 | 1024),
            "mmproj-parrot.gguf": quantized({"v": [32, 1000]}),
            "parrot.imatrix.gguf": quantized({"v": [32, 1000]}),
        }
    )

    assert found == Facts(
        parameters=224,
        tensor_types=(TensorTypeCount("Q8_0", 224),),
        architecture="llama",
        context_length=4096,
        embedding_size=64,
        layers=2,
        vocabulary_size=3,
        quantization="Q8_0",
    )


def test_gguf_shards_are_summed_and_the_first_describes() -> None:
    found = facts_of(
        {
            "Q8_0/parrot-00002-of-00002.gguf": quantized({"b": [64]}),
            "Q8_0/parrot-00001-of-00002.gguf": quantized({"a": [32]}, general__architecture="qwen2"),
            "Q4_0/parrot.gguf": quantized({"a": [32]}),
        }
    )

    assert (found.parameters, found.architecture) == (96, "qwen2")


def test_the_vocabulary_of_a_gguf_file_is_its_list_of_tokens() -> None:
    tokens = struct.pack("<IIQ", 9, 8, 3) + string("a") + string("b") + string("c")
    file = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("tokenizer.ggml.tokens") + tokens

    assert facts_of({"vocab.gguf": file}).vocabulary_size == 3


def test_safetensors_count_before_gguf() -> None:
    assert facts_of({"model.safetensors": TEN, "model.gguf": quantized({"a": [32]})}).parameters == 10


# --- Configurations


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param(
            {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "max_position_embeddings": 8192,
                "hidden_size": 4096,
                "vocab_size": 128256,
                "num_hidden_layers": 32,
                "quantization_config": {"quant_method": "gptq", "bits": 4},
            },
            Facts(
                architecture="LlamaForCausalLM",
                model_type="llama",
                context_length=8192,
                embedding_size=4096,
                vocabulary_size=128256,
                layers=32,
                quantization="gptq",
            ),
            id="llama",
        ),
        pytest.param(
            {"model_type": "gpt2", "n_positions": 1024, "n_embd": 768, "n_layer": 12, "vocab_size": 50257},
            Facts(model_type="gpt2", context_length=1024, embedding_size=768, layers=12, vocabulary_size=50257),
            id="gpt2",
        ),
        pytest.param(
            {"d_model": 512, "num_layers": 6, "n_positions": 512},
            Facts(context_length=512, embedding_size=512, layers=6),
            id="t5",
        ),
        pytest.param(
            {"dim": 768, "n_layers": 6, "max_position_embeddings": 512},
            Facts(context_length=512, embedding_size=768, layers=6),
            id="distilbert",
        ),
        pytest.param(
            {"max_seq_len": 2048, "d_model": 4096, "n_layers": 32},
            Facts(context_length=2048, embedding_size=4096, layers=32),
            id="mpt",
        ),
        pytest.param(
            {"architecture": "resnet50", "num_features": 2048},
            Facts(architecture="resnet50", embedding_size=2048),
            id="timm",
        ),
        pytest.param({"_class_name": "AutoencoderKL"}, Facts(architecture="AutoencoderKL"), id="diffusers"),
        pytest.param(
            {"text_config": {"hidden_size": 2048, "vocab_size": 9}, "vision_config": {"hidden_size": 1}},
            Facts(embedding_size=2048, vocabulary_size=9),
            id="nested",
        ),
        pytest.param(
            {"thinker_config": {"text_config": {"hidden_size": 7}}}, Facts(embedding_size=7), id="nested twice"
        ),
        pytest.param(
            {"hidden_size": 1, "text_config": {"hidden_size": 2}}, Facts(embedding_size=1), id="the outer one counts"
        ),
        pytest.param(
            {
                "architectures": "x",
                "model_type": 7,
                "hidden_size": True,
                "n_embd": 1.0,
                "d_model": -1,
                "vocab_size": 2**63,
                "num_layers": "6",
                "max_position_embeddings": None,
                "n_ctx": INT_MAX,
                "quantization_config": "gptq",
            },
            Facts(context_length=INT_MAX),
            id="wrong types",
        ),
        pytest.param(
            {"architectures": [], "model_type": "a\nb", "quantization_config": {"quant_method": "x" * 200}},
            Facts(),
            id="no names",
        ),
        pytest.param({"time_step_limit": [0.0, math.inf], "dropout": math.nan}, Facts(), id="NaN and Infinity"),
    ],
)
def test_a_configuration_is_read_as_its_family_writes_it(config: dict[str, Any], expected: Facts) -> None:
    assert facts_of({"config.json": as_json(config)}) == expected


def test_the_pooling_of_sentence_transformers_gives_the_embedding_size() -> None:
    files = {
        "config.json": as_json({"hidden_size": 384}),
        "1_Pooling/config.json": as_json({"word_embedding_dimension": 768}),
    }
    dense = {
        "2_Dense/config.json": as_json({"in_features": 768, "out_features": 256}),
        "10_Dense/config.json": as_json({"in_features": 256, "out_features": 64}),
    }

    assert facts_of(files).embedding_size == 768
    assert facts_of(files | dense).embedding_size == 64


def test_a_pipeline_is_named_by_its_index() -> None:
    found = facts_of(
        {
            "model_index.json": as_json({"_class_name": "StableDiffusionPipeline"}),
            "unet/config.json": as_json({"_class_name": "UNet2DConditionModel"}),
            "unet/diffusion_pytorch_model.safetensors": TEN,
            "vae/diffusion_pytorch_model.safetensors": TWO,
        }
    )

    assert (found.architecture, found.parameters) == ("StableDiffusionPipeline", 12)


def test_the_configuration_lies_beside_the_only_weights() -> None:
    found = facts_of({"0_Transformer/model.safetensors": TEN, "0_Transformer/config.json": as_json({"n_embd": 9})})

    assert found.embedding_size == 9


def test_a_configuration_counts_before_gguf_metadata() -> None:
    found = facts_of(
        {
            "config.json": as_json({"architectures": ["LlamaForCausalLM"]}),
            "a.gguf": quantized({"a": [32]}, general__architecture="llama", llama__block_count=2),
        }
    )

    assert (found.architecture, found.layers) == ("LlamaForCausalLM", 2)


# --- Problems


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        pytest.param({"model.safetensors": b"x"}, "model.safetensors: .*too short", id="malformed safetensors"),
        pytest.param({"a.gguf": b"GGUF\1\0\0\0"}, "a.gguf: .*version 1", id="malformed GGUF"),
        pytest.param({SHARD_1: ONE, SHARD_2: b"x" * 9, SHARD_3: ONE}, f"{SHARD_2}: ", id="malformed shard"),
        pytest.param({SHARD_1: ONE, SHARD_3: ONE}, f"{SHARD_1}: 1 more files belong to it", id="missing shard"),
        pytest.param(
            {"model.safetensors.index.json": index(w1=SHARD_1, w2="gone.safetensors"), SHARD_1: ONE},
            f"{SHARD_1}: 1 more files belong to it",
            id="index with a missing shard",
        ),
        pytest.param(
            {"model-00001-of-99999.safetensors": ONE}, "99998 more files belong to it", id="99,998 missing shards"
        ),
        pytest.param(
            {"a-00001-of-00002.gguf": quantized({"a": [32]})}, "1 more files belong to it", id="missing GGUF shard"
        ),
        pytest.param(
            {"model.safetensors": weights(*((f"w{i}", f"X{i}", [1]) for i in range(40)))},
            "more parameters or types",
            id="too many dtypes",
        ),
        pytest.param(
            {"model.safetensors": weights(("a", "X", [0])).replace(b"[0]", b"[%d]" % 2**63)},
            "model.safetensors: ",
            id="header whose length is wrong",
        ),
    ],
)
def test_weights_that_cannot_be_read_are_a_problem_and_not_counted(files: dict[str, bytes], problem: str) -> None:
    found, problems = derive_from(files | {"config.json": as_json({"n_embd": 9})})

    assert (found.parameters, found.tensor_types, found.embedding_size) == (None, (), 9)
    assert len(problems) == 1
    assert re.search(problem, problems[0])


def test_more_parameters_than_a_number_holds_are_a_problem() -> None:
    header = as_json({"a": {"dtype": "X", "shape": [2**63], "data_offsets": [0, 0]}})
    found, problems = derive_from({"model.safetensors": struct.pack("<Q", len(header)) + header})

    assert found == Facts()
    assert problems == ("the weights declare more parameters or types than can be",)


@pytest.mark.parametrize(
    ("path", "data", "problem"),
    [
        ("config.json", b"{", "config.json: is not JSON"),
        ("config.json", b"[]", "config.json: is not a JSON object"),
        ("config.json", b"\xff", "config.json: is not JSON"),
        ("config.json", b"[" * 100_000, "config.json: is not JSON"),
        ("config.json", b'{"a":' + b"1" * 10_000 + b"}", "config.json: is not JSON"),
        ("config.json", b" " * (facts.CONFIG_SIZE_MAX + 1), "config.json: has 8388609 bytes, the limit is 8388608"),
        ("model_index.json", b"{", "model_index.json: is not JSON"),
        ("1_Pooling/config.json", b"7", "1_Pooling/config.json: is not a JSON object"),
        ("model.safetensors.index.json", b"{", "model.safetensors.index.json: is no index"),
        ("model.safetensors.index.json", b'{"weight_map":{"a":1}}', "model.safetensors.index.json: is no index"),
        ("model.safetensors.index.json", b'{"weight_map":{}}', "model.safetensors.index.json: lists no file"),
        ("model.safetensors.index.json", index(a="../x"), "model.safetensors.index.json: lists no file"),
    ],
)
def test_a_malformed_configuration_is_a_problem(path: str, data: bytes, problem: str) -> None:
    found, problems = derive_from({path: data, "consolidated.safetensors": TEN})

    assert found == facts_of({"consolidated.safetensors": TEN})
    assert [text[: len(problem)] for text in problems] == [problem]


def test_problems_are_bounded() -> None:
    _, problems = derive_from({f"d{i}/model.safetensors": b"x" for i in range(1000)})

    assert len(problems) == facts.PROBLEMS_MAX


# --- Laws

PATHS = st.sampled_from(
    [
        "config.json",
        "model_index.json",
        "1_Pooling/config.json",
        "model.safetensors.index.json",
        "model.safetensors",
        SHARD_1,
        SHARD_3,
        "a/model.safetensors",
        "a/adapter_model.safetensors",
        "checkpoint-1/model.safetensors",
        "a.gguf",
        "b-00001-of-00002.gguf",
    ]
)
CONFIG_KEYS = st.sampled_from(
    """
    architectures model_type hidden_size vocab_size n_layer n_ctx text_config quantization_config quant_method
    weight_map _class_name word_embedding_dimension
    """.split()  # noqa: SIM905
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(CONFIG_KEYS, inner, max_size=4),
)
CONTENTS = (
    st.binary(max_size=40)
    | JSON.map(as_json)
    | st.sampled_from([ONE, TWO, TEN, quantized({"a": [32]}, general__architecture="llama"), index(w1=SHARD_1)])
)


@settings(deadline=None)
@given(st.dictionaries(PATHS, CONTENTS, max_size=6))
def test_any_files_give_facts_that_can_be_signed(files: dict[str, bytes]) -> None:
    found, problems = derive_from(files)

    assert msgspec.convert(msgspec.to_builtins(found), Facts) == found
    assert (found.parameters is None) == (found.tensor_types == ()) or found.parameters == 0
    assert sum(count.parameters for count in found.tensor_types) == (found.parameters or 0)
    assert all(problem.split(":")[0] in files for problem in problems)
    assert derive_from(dict(reversed(files.items()))) == (found, problems)


def test_every_quantization_of_gguf_fits() -> None:
    for name in gguf.FILE_TYPES.values():
        msgspec.convert({"quantization": name}, Facts)
