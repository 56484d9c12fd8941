"""Make up a catalogue: publishers, their logs and real signatures over releases that read like those of a large hub.

    make_logs(1_000_000) ──▶ MadeLog(identity, key, head, entries), one after the other

What counts for search and for the size of a record is as in life: a few words are everywhere and most are rare
(Zipf), a few publishers have thousands of releases and most have one, cards are long, short or missing. Equal
arguments give equal bytes, and a log of more records begins with those of the shorter one, so that two processes
can make parts of one catalogue, and a test can let some logs grow.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from blake3 import blake3

from p2phub.core.checkpoint import Head, sign_head
from p2phub.core.encoding import encode
from p2phub.core.envelope import seal
from p2phub.core.identity import Identity, new_document, open_identity, sign_document
from p2phub.core.ids import LogId, ManifestId, NamespaceId
from p2phub.core.merkle import LOG_TREE, Frontier
from p2phub.core.records import (
    NO_PREVIOUS,
    PURPOSE,
    Branch,
    Entry,
    Publish,
    Record,
    Score,
    Summary,
    Yank,
    log_id,
)
from p2phub.core.signing import SigningKey

END = 1_767_225_600  # seconds; no record is later: 2026-01-01 00:00 UTC
YEARS_S = 4 * 365 * 86400  # seconds before END in which publishers begin
LOG_RECORDS_MAX = 3000  # of one made-up publisher

WORDS_COUNT = 200_000  # of the language that cards are written in
BASE_MODELS_COUNT = 20_000
DATASETS_COUNT = 8_000
TAGS_COUNT = 5_000

# The most frequent first, as everywhere here.
TASKS = (
    "text-generation", "text-classification", "text-to-image", "feature-extraction", "sentence-similarity",
    "token-classification", "automatic-speech-recognition", "image-classification", "question-answering",
    "reinforcement-learning", "fill-mask", "translation", "summarization", "image-text-to-text", "text-to-speech",
    "object-detection", "image-segmentation", "zero-shot-classification", "text-ranking", "audio-classification",
    "depth-estimation", "table-question-answering", "video-classification", "robotics", "tabular-classification",
    "time-series-forecasting", "image-to-image", "text-to-video", "graph-ml", "voice-activity-detection",
)  # fmt: skip
LIBRARIES = (
    "transformers", "peft", "diffusers", "gguf", "sentence-transformers", "stable-baselines3", "timm", "keras",
    "adapter-transformers", "flair", "spacy", "nemo", "mlx", "open_clip", "setfit", "fasttext", "espnet", "fastai",
)  # fmt: skip
LICENSES = (
    "Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-NC-4.0", "LicenseRef-llama", "CC-BY-SA-4.0", "GPL-3.0-only",
    "BSD-3-Clause", "AFL-3.0", "AGPL-3.0-only", "CC0-1.0", "LGPL-3.0-only", "BSD-2-Clause", "MPL-2.0",
)  # fmt: skip
LANGUAGES = (
    "en", "zh", "fr", "de", "es", "ja", "ru", "ko", "pt", "it", "ar", "hi", "vi", "tr", "pl", "nl", "id", "th", "sv",
    "fa", "uk", "cs", "ro", "fi", "da", "bn", "ta", "he", "el", "hu", "bg", "ca", "no", "sk", "hr", "lt", "sl", "et",
)  # fmt: skip
FAMILIES = (
    "llama", "bert", "qwen", "mistral", "gpt", "whisper", "roberta", "t5", "gemma", "phi", "stable-diffusion", "vit",
    "wav2vec2", "deberta", "distilbert", "clip", "flux", "yolo", "falcon", "bloom", "mixtral", "electra", "bart",
    "resnet", "opt", "e5", "bge", "minilm", "pythia", "deepseek", "olmo", "granite", "convnext", "swin", "parrot",
)  # fmt: skip
QUALIFIERS = (
    "instruct", "base", "chat", "finetuned", "lora", "gguf", "v2", "merged", "large", "small", "v1", "uncased",
    "multilingual", "awq", "gptq", "dpo", "sft", "cased", "distilled", "test", "final", "tiny", "reasoning", "coder",
)  # fmt: skip
SIZES = (("0.5b", 5e8), ("1b", 1.2e9), ("3b", 3.2e9), ("7b", 7.2e9), ("8b", 8e9), ("13b", 1.3e10), ("70b", 7e10))
METRICS = ("accuracy", "f1", "ndcg_at_10", "cosine_spearman", "wer", "map", "mrr", "bleu", "rouge1", "mean_reward")
_STARTING_WORDS = (
    "model", "the", "a", "of", "and", "to", "for", "is", "on", "in", "this", "with", "fine", "tuned", "trained",
    "dataset", "language", "training", "version", "based", "text", "from", "it", "that", "are", "using", "was", "data",
    "evaluation", "results", "set", "following", "by", "generated", "large", "english", "loss", "learning",
    "pretrained", "sentence", "tokens", "vector", "embeddings", "weights", "checkpoint", "research", "task",
    "benchmark", "score", "parameters", "quantized", "adapter",
)  # fmt: skip
_SYLLABLES = tuple(f"{consonant}{vowel}" for consonant in "bdfgklmnprstvz" for vowel in ("a", "e", "i", "o", "u", "ei"))


@dataclass(frozen=True)
class MadeLog:
    """One publisher with one key, and all that the key signed."""

    number: int  # of the publisher, from 0
    identity: Identity
    key: SigningKey
    head: Head
    entries: list[Entry]

    @property
    def data(self) -> list[bytes]:
        """The entries as they travel."""
        return [entry.data for entry in self.entries]


def make_logs(records: int, *, seed: int = 1, part: int = 0, parts: int = 1) -> Iterator[MadeLog]:
    """Yield logs that together have `records` records, or every `parts`-th of them, from number `part` on."""
    for number, size in enumerate(log_sizes(records, seed=seed)):
        if number % parts == part:
            yield make_log(number, size, seed=seed)


def log_sizes(records: int, *, seed: int = 1) -> list[int]:
    """Return how many records each publisher has, so that they are `records` in all."""
    rng = random.Random(f"sizes {seed}")
    sizes: list[int] = []
    left = records
    while left > 0:
        size = min(left, LOG_RECORDS_MAX, int(rng.paretovariate(1.1)))
        sizes.append(size)
        left -= size
    return sizes


def make_log(number: int, size: int, *, seed: int = 1) -> MadeLog:
    """Return the log of publisher `number` with its first `size` records, one or more."""
    name = f"{seed} {number}"
    key = SigningKey(blake3(f"publisher {name}".encode()).digest())
    rng = random.Random(f"publisher {name}")
    began = END - int(YEARS_S * rng.random() ** 2) - 3600
    identity = open_identity([sign_document(new_document(key.public_key, created=began), [key])])
    author = _Author(rng, identity.namespace, log_id(identity.namespace, key.public_key))
    frontier = Frontier(LOG_TREE)
    entries: list[Entry] = []
    previous = NO_PREVIOUS
    for index in range(size):
        # Later and later, and never after END, however many there are.
        time = began + int((END - began) * (1 - 1 / (1 + index / 20)))
        record = author.next_record(index, previous, time)
        data = encode(seal(record, key, PURPOSE))
        entry = Entry(record, data, LOG_TREE.leaf(data))
        frontier.append(entry.leaf)
        previous = entry.leaf
        entries.append(entry)
    return MadeLog(number, identity, key, sign_head(author.log, size, frontier.root(), key), entries)


class _Author:
    """What a publisher has published so far, and what comes next."""

    def __init__(self, rng: random.Random, namespace: NamespaceId, log: LogId) -> None:
        self._rng = rng
        self.namespace = namespace
        self.log = log
        self._models: dict[str, list[Publish]] = {}
        # People keep to what they do.
        self._library, self._license = _one_of(rng, LIBRARIES), _one_of(rng, LICENSES)
        self._task, self._language = _one_of(rng, TASKS), _one_of(rng, LANGUAGES)

    def next_record(self, index: int, previous: bytes, time: int) -> Record:
        rng = self._rng
        position = {
            "namespace": self.namespace, "log": self.log, "index": index, "previous": previous, "time": time
        }  # fmt: skip
        dice = rng.random()
        known = rng.choice(list(self._models)) if self._models else None
        if known and dice < 0.01:
            versions = [release.version for release in self._models[known] if release.version]
            if versions:
                return Yank(**position, model=known, version=versions[0], message="superseded")  # type: ignore[arg-type]
        if known and dice < 0.02:
            first = self._models[known][0]
            return Branch(**position, model=known, branch="stable", manifest=first.manifest, depth=first.depth)  # type: ignore[arg-type]
        if known and dice < 0.16:
            before = self._models[known][-1]
            model, kind, depth, summary = known, before.kind, before.depth + 1, before.summary
        else:
            kind = "model" if rng.random() < 0.8 else "dataset"
            model, summary = self._describe(kind)
            while model in self._models:
                model += f"-{rng.randrange(10_000)}"
            depth = 1
        manifest = ManifestId(blake3(self.log + index.to_bytes(8, "big")).digest())
        version = f"{depth}.0.{rng.randrange(3)}" if rng.random() < 0.4 else None
        release = Publish(
            **position, model=model, kind=kind, manifest=manifest, depth=depth, branch="main", version=version,  # type: ignore[arg-type]
            message="" if rng.random() < 0.7 else f"step {rng.randrange(10_000)}", summary=summary,
        )  # fmt: skip
        self._models.setdefault(model, []).append(release)
        return release

    def _describe(self, kind: str) -> tuple[str, Summary]:
        """Return the name of something new, and what its card says."""
        rng = self._rng
        family, qualifier = _one_of(rng, FAMILIES), _one_of(rng, QUALIFIERS)
        size_name, parameters = rng.choice(SIZES)
        words = _words(rng, rng.choice((1, 1, 2)), offset=60)
        parts = [family, size_name, qualifier, *words] if kind == "model" else [*words, qualifier]
        if rng.random() < 0.5:
            parts.remove(qualifier)
        parameters = int(parameters * rng.lognormvariate(0, 0.1))
        language = self._language if rng.random() < 0.7 else _one_of(rng, LANGUAGES)
        is_model = kind == "model"
        has_card = rng.random() < 0.8
        return "-".join(parts), Summary(
            files=rng.randrange(2, 20),
            size=parameters * 2 if is_model else int(10 ** rng.uniform(4, 11)),
            title=" ".join(part.capitalize() for part in parts) if has_card else "",
            excerpt=_sentence(rng) if has_card else "",
            task=self._task if rng.random() < 0.6 else _one_of(rng, TASKS),
            library=(self._library if rng.random() < 0.6 else _one_of(rng, LIBRARIES)) if is_model else None,
            license=self._license if rng.random() < 0.7 else None,
            languages=(language,) if rng.random() < 0.6 else (),
            tags=tuple(dict.fromkeys(_choices(rng, _tags(), rng.randrange(0, 12)))),
            base_models=tuple(_choices(rng, _base_models(), 1)) if is_model and rng.random() < 0.5 else (),
            datasets=tuple(_choices(rng, _datasets(), 1)) if is_model and rng.random() < 0.3 else (),
            scores=_scores(rng) if is_model and rng.random() < 0.1 else (),
            architecture=f"{family.title().replace('-', '')}ForCausalLM" if is_model and rng.random() < 0.7 else None,
            parameters=parameters if is_model and rng.random() < 0.7 else None,
            tensor_types=(rng.choice(("BF16", "BF16", "F16", "F32", "Q4_K")),) if is_model else (),
        )


def _scores(rng: random.Random) -> tuple[Score, ...]:
    return tuple(
        Score(
            _one_of(rng, TASKS), _choices(rng, _datasets(), 1)[0], _one_of(rng, METRICS), f"{rng.uniform(10, 99):.2f}"
        )
        for _ in range(rng.randrange(1, 9))
    )


def _sentence(rng: random.Random) -> str:
    text = " ".join(_words(rng, int(rng.triangular(5, 85, 40))))[:499]
    return text[:1].upper() + text[1:]


# ── words, the frequent first ───────────────────────────────────────────────


def _words(rng: random.Random, count: int, *, offset: int = 0) -> list[str]:
    """Return words of the language; with an offset without its most frequent ones."""
    words = _vocabulary()
    found: list[str] = []
    while len(found) < count:
        found += [words[place] for place in _places(rng, len(words), count) if place >= offset]
    return found[:count]


def _choices(rng: random.Random, items: Sequence[str], count: int) -> list[str]:
    return [items[place] for place in _places(rng, len(items), count)]


def _one_of(rng: random.Random, items: Sequence[str]) -> str:
    return _choices(rng, items, 1)[0]


def _places(rng: random.Random, size: int, count: int) -> list[int]:
    return rng.choices(_numbers(size), cum_weights=_weights(size), k=count)


@cache
def _numbers(size: int) -> range:
    return range(size)


@cache
def _weights(size: int) -> list[float]:
    """Return Zipf's law, summed up: how often each of the first so many words occurs."""
    return list(accumulate(1 / (rank + 2.7) for rank in range(size)))


@cache
def _vocabulary() -> tuple[str, ...]:
    rng = random.Random("vocabulary")
    words = dict.fromkeys(_STARTING_WORDS)
    while len(words) < WORDS_COUNT:
        words["".join(rng.choices(_SYLLABLES, k=rng.randrange(2, 5)))] = None
    return tuple(words)


@cache
def _tags() -> tuple[str, ...]:
    rng = random.Random("tags")
    return (*LIBRARIES, *FAMILIES, "safetensors", *("-".join(_words(rng, 1, offset=40)) for _ in range(TAGS_COUNT)))


@cache
def _base_models() -> tuple[str, ...]:
    return tuple(_repositories("base models", BASE_MODELS_COUNT))


@cache
def _datasets() -> tuple[str, ...]:
    return tuple(_repositories("datasets", DATASETS_COUNT))


def _repositories(name: str, count: int) -> Iterator[str]:
    rng = random.Random(name)
    for _ in range(count):
        yield f"{_words(rng, 1, offset=200)[0]}/{_one_of(rng, FAMILIES)}-{_words(rng, 1, offset=60)[0]}"
