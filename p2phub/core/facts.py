"""Derive the facts of a model from the headers of its files.

A card says what people wrote; this says what is in the files: how many parameters,
of which types, which architecture. `derive` reads headers and configurations, never
the tensors, and it never fails: what it cannot read becomes a problem that publishing
shows, while the bytes still travel.

    *.safetensors, or else *.gguf ──▶ parameters, tensor types
    config.json, then GGUF metadata ──▶ architecture, context, sizes, quantization

Rule: each tensor counts once. So of several sets of weights in a folder (shards and a
consolidated copy, precisions, quantizations) one is taken, and the folders below count
only where the top has no weights, as in pipelines of several models.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard

import msgspec
from msgspec import Struct

from . import gguf, safetensors
from .description import CONFIG_SIZE_MAX, NAME_LENGTH_MAX, TENSOR_TYPES_MAX, Facts, TensorTypeCount
from .errors import InvalidData
from .tensors import INT_MAX, Read, Tensor

INDEX_SIZE_MAX = 64 * 1024 * 1024  # bytes; the largest we know has 10 MiB
PROBLEMS_MAX = 32


class ReadableFile(Protocol):
    """A file by its size and a way to read parts of it."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, size: int, /) -> bytes: ...


def derive(files: Mapping[str, ReadableFile]) -> tuple[Facts, tuple[str, ...]]:
    """Return the facts of the model that consists of `files`, by path, and the problems met.

    A problem is a sentence that begins with the path of the file it is about.
    """
    derivation = _Derivation(files)
    facts = derivation.facts()
    return facts, tuple(derivation.problems[:PROBLEMS_MAX])


# What configurations call the same thing; the first that is there counts.
_CONTEXT_LENGTH = (
    "max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx",
    "model_max_length",
)  # fmt: skip
_EMBEDDING_SIZE = ("hidden_size", "n_embd", "d_model", "dim", "num_features")
_VOCABULARY_SIZE = ("vocab_size", "padded_vocab_size")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers")
# Models that see or hear keep the language model's configuration one or two levels down.
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.(?:safetensors|gguf)")
_INDEX_SUFFIX = ".safetensors.index.json"
_MAIN_STEMS = ("model", "pytorch_model", "diffusion_pytorch_model")  # what libraries load by default
_ADAPTER = re.compile(r"adapter_model|pytorch_lora_weights|.*[._-]lora\b", re.IGNORECASE)
_GGUF_SIDE_FILE = re.compile(r"mmproj|mtp-|.*(?:imatrix|mmproj)", re.IGNORECASE)
_CHECKPOINT = re.compile(r"(?:.*/)?checkpoint-([0-9]{1,18})")
_DENSE_CONFIG = re.compile(r"([0-9]{1,4})_Dense/config\.json")


class _WeightSet(NamedTuple):
    """Files of one folder that together are all weights of a model."""

    stem: str  # what their names begin with
    paths: tuple[str, ...]  # one or more
    size: int  # bytes
    missing: int = 0  # how many more files belong to it and are not here


class _Index(Struct):
    """What we read of a *.safetensors.index.json."""

    weight_map: dict[str, str]  # tensor name to file name


class _Derivation:
    """One pass over the files, and the problems met on the way."""

    def __init__(self, files: Mapping[str, ReadableFile]) -> None:
        self.problems: list[str] = []
        self._metadata: Mapping[str, gguf.Value] = {}  # of the first GGUF file
        self._files = files

    def facts(self) -> Facts:
        folders = self._safetensors_sets()
        counts: dict[str, int] | None = None
        if folders:
            counts = self._count(folders.values(), _safetensors)
        elif weights := self._gguf_set():
            counts = self._count([weights], self._gguf)

        folder = next(iter(folders)) if len(folders) == 1 else ""
        config = self._config("config.json") or (self._config(_join(folder, "config.json")) if folder else {})
        return self._with_counts(self._described(config), counts)

    # --- What configurations say

    def _described(self, config: dict[str, Any]) -> Facts:
        """Return the facts without the counts: `config` first, GGUF metadata for what it lacks."""
        metadata = self._metadata
        scopes = [config]
        for scope in scopes:  # grows as it goes
            scopes += [nested for key in _NESTED if isinstance(nested := scope.get(key), dict)]
        family = metadata.get("general.architecture")
        quantization = config.get("quantization_config")
        tokens = metadata.get("tokenizer.ggml.tokens")

        def whole(keys: Sequence[str], gguf_key: str) -> int | None:
            values = [scope.get(key) for scope in scopes for key in keys]
            values.append(metadata.get(f"{family}.{gguf_key}"))
            return next((value for value in values if _is_count(value)), None)

        return Facts(
            architecture=self._architecture(config) or _name(family),
            model_type=_name(config.get("model_type")),
            context_length=whole(_CONTEXT_LENGTH, "context_length"),
            embedding_size=self._sentence_embedding_size() or whole(_EMBEDDING_SIZE, "embedding_length"),
            vocabulary_size=whole(_VOCABULARY_SIZE, "vocab_size")
            or (tokens.length if isinstance(tokens, gguf.ArrayInfo) else None),
            layers=whole(_LAYERS, "block_count"),
            quantization=_name(quantization.get("quant_method") if isinstance(quantization, dict) else None)
            or _file_type(metadata.get("general.file_type")),
        )

    def _architecture(self, config: dict[str, Any]) -> str | None:
        """Return the class that loads the model: of transformers, timm, or diffusers."""
        architectures = config.get("architectures")
        return (
            _name(architectures[0] if isinstance(architectures, list) and architectures else None)
            or _name(config.get("architecture"))
            or _name(config.get("_class_name"))
            or _name(self._config("model_index.json").get("_class_name"))
        )

    def _sentence_embedding_size(self) -> int | None:
        """Return the size of what sentence-transformers gives out: of its last layer, else of its pooling."""
        dense = [(int(match[1]), path) for path in self._files if (match := _DENSE_CONFIG.fullmatch(path))]
        size = self._config(max(dense)[1]).get("out_features") if dense else None
        if not _is_count(size):
            size = self._config("1_Pooling/config.json").get("word_embedding_dimension")
        return size if _is_count(size) else None

    def _config(self, path: str) -> dict[str, Any]:
        """Return the object in a JSON file, an empty one if there is none."""
        data = self._read_whole(path, CONFIG_SIZE_MAX)
        if data is None:
            return {}
        try:
            # Not msgspec: Python programs write NaN and Infinity, which it refuses.
            config = json.loads(data)
        except (ValueError, RecursionError) as exc:
            self._problem(path, f"is not JSON: {exc}")
            return {}
        if not isinstance(config, dict):
            self._problem(path, "is not a JSON object")
            return {}
        return config

    # --- Which files are the weights

    def _safetensors_sets(self) -> dict[str, _WeightSet]:
        """Return the sets of weights to count, by folder."""
        names_by_folder: defaultdict[str, list[str]] = defaultdict(list)
        for path in sorted(self._files):
            if path.endswith((".safetensors", _INDEX_SUFFIX)):
                folder, _, name = path.rpartition("/")
                names_by_folder[folder].append(name)
        main = {
            folder: min(sets, key=_preference)
            for folder, names in names_by_folder.items()
            if (sets := self._sets_of_folder(folder, names))
        }
        if "" in main:
            return {"": main[""]}
        # An adapter beside a model is an extra.
        main = {f: s for f, s in main.items() if not _is_adapter(s)} or main
        # Training leaves copies; the last is the model, if there is nothing else.
        checkpoints = {folder: int(match[1]) for folder in main if (match := _CHECKPOINT.fullmatch(folder))}
        if len(checkpoints) == len(main) > 0:
            last = max(checkpoints, key=lambda folder: (checkpoints[folder], folder))
            return {last: main[last]}
        return {folder: weights for folder, weights in main.items() if folder not in checkpoints}

    def _sets_of_folder(self, folder: str, names: Sequence[str]) -> list[_WeightSet]:
        indexed = [
            weights for name in names if name.endswith(_INDEX_SUFFIX) and (weights := self._indexed_set(folder, name))
        ]
        listed = {path for weights in indexed for path in weights.paths}
        # A numbered file that the index of its name leaves out is a stray.
        stems = {weights.stem for weights in indexed}
        rest = [
            name
            for name in names
            if name.endswith(".safetensors")
            and _join(folder, name) not in listed
            and not ((match := _SHARD.fullmatch(name)) and match["stem"] in stems)
        ]
        return indexed + self._numbered_sets(folder, rest)

    def _indexed_set(self, folder: str, name: str) -> _WeightSet | None:
        """Return the shards that the index called `name` lists, if any is here."""
        path = _join(folder, name)
        data = self._read_whole(path, INDEX_SIZE_MAX)
        if data is None:
            return None
        try:
            shards = set(msgspec.json.decode(data, type=_Index).weight_map.values())
        except (ValueError, RecursionError) as exc:
            self._problem(path, f"is no index: {exc}")
            return None
        here = sorted(shard for shard in shards if _join(folder, shard) in self._files)
        if not here:
            self._problem(path, "lists no file that is here")
            return None
        return self._set(folder, name.removesuffix(_INDEX_SUFFIX), here, len(shards))

    def _numbered_sets(self, folder: str, names: Sequence[str]) -> list[_WeightSet]:
        """Return each file as a set, but numbered ones (NAME-00001-of-00003) together."""
        groups: defaultdict[tuple[str, int | None], list[str]] = defaultdict(list)
        for name in names:
            match = _SHARD.fullmatch(name)
            if match and 1 <= int(match["number"]) <= int(match["count"]):
                groups[match["stem"], int(match["count"])].append(name)
            else:
                groups[name.rpartition(".")[0], None].append(name)
        return [self._set(folder, stem, names, count or 1) for (stem, count), names in groups.items()]

    def _set(self, folder: str, stem: str, names: Sequence[str], count: int) -> _WeightSet:
        paths = tuple(_join(folder, name) for name in names)
        return _WeightSet(stem, paths, sum(self._files[path].size for path in paths), count - len(paths))

    def _gguf_set(self) -> _WeightSet | None:
        """Return the largest of the GGUF files, which are variants of one model."""
        names_by_folder: defaultdict[str, list[str]] = defaultdict(list)
        for path in sorted(self._files):
            folder, _, name = path.rpartition("/")
            if path.endswith(".gguf") and not _GGUF_SIDE_FILE.match(name):
                names_by_folder[folder].append(name)
        sets = [s for folder, names in names_by_folder.items() for s in self._numbered_sets(folder, names)]
        return max(sets, key=lambda weights: (weights.size, weights.paths), default=None)

    # --- How many parameters they have

    def _count(
        self, sets: Collection[_WeightSet], parse: Callable[[Read, int], Sequence[Tensor]]
    ) -> dict[str, int] | None:
        """Return the number of elements by dtype; None if some are unknown, as half a sum would mislead."""
        counts: defaultdict[str, int] = defaultdict(int)
        complete = True
        for weights in sets:
            if weights.missing:
                self._problem(weights.paths[0], f"{weights.missing} more files belong to it and are not here")
                complete = False
            seen: set[str] = set()
            for path in weights.paths:
                try:
                    tensors = parse(self._files[path].read, self._files[path].size)
                except InvalidData as exc:
                    self._problem(path, str(exc))
                    complete = False
                    continue
                for tensor in tensors:
                    if tensor.name not in seen:
                        seen.add(tensor.name)
                        counts[tensor.dtype] += tensor.elements
        return dict(counts) if complete else None

    def _gguf(self, read: Read, size: int) -> Sequence[Tensor]:
        header = gguf.parse_header(read, size)
        self._metadata = self._metadata or header.metadata
        return header.tensors

    def _with_counts(self, facts: Facts, counts: dict[str, int] | None) -> Facts:
        if counts is None:
            return facts
        if sum(counts.values()) > INT_MAX or len(counts) > TENSOR_TYPES_MAX:
            self.problems.append("the weights declare more parameters or types than can be")
            return facts
        return msgspec.structs.replace(
            facts,
            parameters=sum(counts.values()),
            tensor_types=tuple(TensorTypeCount(dtype, count) for dtype, count in sorted(counts.items())),
        )

    def _read_whole(self, path: str, size_max: int) -> bytes | None:
        file = self._files.get(path)
        if file is None:
            return None
        if file.size > size_max:
            self._problem(path, f"has {file.size} bytes, the limit is {size_max}")
            return None
        return file.read(0, file.size)

    def _problem(self, path: str, text: str) -> None:
        self.problems.append(f"{path}: {text}")


def _safetensors(read: Read, size: int) -> Sequence[Tensor]:
    return safetensors.parse_header(read, size).tensors


def _preference(weights: _WeightSet) -> tuple[object, ...]:
    """Return a key that is smallest for the set that a library would load."""
    return (
        _is_adapter(weights),
        weights.stem not in _MAIN_STEMS,
        # As transformers does: a single file before shards, if both have the default name.
        len(weights.paths) > 1 if weights.stem in _MAIN_STEMS else False,
        -weights.size,
        weights.stem,
    )


def _is_adapter(weights: _WeightSet) -> bool:
    return _ADAPTER.match(weights.stem) is not None


def _file_type(value: object) -> str | None:
    if type(value) is not int:
        return None
    return gguf.FILE_TYPES.get(value & ~gguf.FILE_TYPE_GUESSED)


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= INT_MAX


def _name(value: object) -> str | None:
    usable = isinstance(value, str) and 0 < len(value) <= NAME_LENGTH_MAX and value.isprintable()
    return str(value) if usable else None


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
