"""How a publisher describes a repository: its card and its facts (spec/manifest.md §4, §5).

The values alone, which every reader of a manifest needs. `modelcard` and `facts` make them
from the files, which only publishing does.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from .licenses import TEXT_LENGTH_MAX as LICENSE_LENGTH_MAX
from .tensors import INT_MAX

# Characters of a text; longer ones are cut.
NAME_LENGTH_MAX = 128  # a task, tag, language, metric
REPOSITORY_LENGTH_MAX = 256  # a model or dataset, which may be a URL
LINK_LENGTH_MAX = 1024
TITLE_LENGTH_MAX = 200
EXCERPT_LENGTH_MAX = 500
VALUE_LENGTH_MAX = 40  # a score in plain decimal

CONFIG_SIZE_MAX = 8 * 1024 * 1024  # bytes; one with 20,000 labels has 2 MiB

# Items of a list; more are dropped.
LANGUAGES_MAX = 512  # translation models name some hundreds
TAGS_MAX = 128
REPOSITORIES_MAX = 128
METRICS_MAX = 64
RESULTS_MAX = 256
TENSOR_TYPES_MAX = 32

Name = Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)]
Repository = Annotated[str, Meta(min_length=1, max_length=REPOSITORY_LENGTH_MAX)]
Link = Annotated[str, Meta(min_length=1, max_length=LINK_LENGTH_MAX)]
License = Annotated[str, Meta(min_length=1, max_length=LICENSE_LENGTH_MAX)]
Score = Annotated[str, Meta(pattern=r"\A-?[0-9]+(\.[0-9]+)?\Z", max_length=VALUE_LENGTH_MAX)]
Count = Annotated[int, Meta(ge=0, le=INT_MAX)]


class MetricResult(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One measured value, as the publisher states it in `model-index`."""

    metric: Name  # "accuracy", "wer"
    value: Score  # decimal text, because signed data has no floats
    task: Name | None = None
    dataset: Repository | None = None
    dataset_config: Name | None = None
    dataset_split: Name | None = None


class Card(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a card says, in bounded plain text."""

    task: Name | None = None  # pipeline_tag; of a dataset its first task category
    library: Name | None = None
    license: License | None = None  # SPDX expression
    license_name: Name | None = None
    license_link: Link | None = None
    languages: Annotated[tuple[Name, ...], Meta(max_length=LANGUAGES_MAX)] = ()
    tags: Annotated[tuple[Name, ...], Meta(max_length=TAGS_MAX)] = ()
    base_models: Annotated[tuple[Repository, ...], Meta(max_length=REPOSITORIES_MAX)] = ()
    base_model_relation: Name | None = None
    datasets: Annotated[tuple[Repository, ...], Meta(max_length=REPOSITORIES_MAX)] = ()
    metrics: Annotated[tuple[Name, ...], Meta(max_length=METRICS_MAX)] = ()
    results: Annotated[tuple[MetricResult, ...], Meta(max_length=RESULTS_MAX)] = ()
    size_categories: Annotated[tuple[Name, ...], Meta(max_length=TAGS_MAX)] = ()  # of a dataset
    title: Annotated[str, Meta(min_length=1, max_length=TITLE_LENGTH_MAX)] | None = None
    excerpt: Annotated[str, Meta(min_length=1, max_length=EXCERPT_LENGTH_MAX)] | None = None


class TensorTypeCount(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How many parameters have one type."""

    dtype: Name  # as the format spells it: "BF16", "Q4_K"
    parameters: Count


class Facts(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the files of a model say about it."""

    parameters: Count | None = None
    tensor_types: Annotated[tuple[TensorTypeCount, ...], Meta(max_length=TENSOR_TYPES_MAX)] = ()  # by dtype
    architecture: Name | None = None  # "LlamaForCausalLM"; of a GGUF file alone "llama"
    model_type: Name | None = None
    context_length: Count | None = None  # tokens
    embedding_size: Count | None = None
    vocabulary_size: Count | None = None
    layers: Count | None = None
    quantization: Name | None = None  # "gptq", "Q4_K_M"
