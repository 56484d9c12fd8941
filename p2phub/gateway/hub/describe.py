"""What clients are told of a repository (spec/hub-api.md §3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from p2phub.core.choices import GateApproval
from p2phub.core.description import Card, Facts, MetricResult
from p2phub.core.gates import Gate
from p2phub.node.foreign import ForeignCommit

from .lookup import Commit
from .trees import File, sibling


def moment(time: int) -> str:
    """Return a time in seconds since 1970 as clients expect it."""
    # Years that a clock of the other end cannot show are the publisher's mistake, not ours to fail at.
    return datetime.fromtimestamp(min(time, 253402300799), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def repository_info(
    commit: Commit | ForeignCommit, *, created: int, blobs: bool, gate: Gate | None = None
) -> dict[str, Any]:
    """Return all that is said of a repository at one commit.

    created: when it was first published, in seconds since 1970. blobs: with size and hash of each file.
    gate: that stands before its files.
    """
    name, card = commit.name, commit.card or Card()
    fields: dict[str, Any] = {
        "_id": commit.id[:24],
        "id": name,
        "author": name.partition("/")[0],
        "sha": commit.id,
        "lastModified": moment(commit.created),
        "createdAt": moment(created),
        "private": isinstance(commit, Commit) and commit.repository.is_private,
        "gated": gated(gate.approval if gate else None),
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(card, _formats(commit.files)),
        "siblings": [sibling(file, blobs=blobs) for file in commit.files],
        "usedStorage": sum(file.size for file in commit.files),
    }
    if commit.card:
        fields["cardData"] = card_data(card, commit.kind, name.partition("/")[2])
    if commit.kind == "model":
        facts = commit.facts or Facts()
        fields |= {"modelId": name, "config": _config(facts), "spaces": []}
        if card.task:
            fields["pipeline_tag"] = card.task
        if card.library:
            fields["library_name"] = card.library
        if any(file.path.endswith(".safetensors") for file in commit.files) and facts.parameters is not None:
            counts = {count.dtype: count.parameters for count in facts.tensor_types}
            fields["safetensors"] = {"parameters": counts, "total": facts.parameters}
    elif card.excerpt:
        fields["description"] = card.excerpt
    return fields


def gated(approval: GateApproval | None) -> str | bool:
    """Return how clients are told of a gate; None: there is none."""
    return {"automatic": "auto", "manual": "manual"}[approval] if approval else False


def card_data(card: Card, kind: str, model: str) -> dict[str, Any]:
    """Return the head of the card, as it would be written in the README.md."""
    fields: dict[str, Any] = {
        "license": card.license.lower() if card.license else ("other" if card.license_name else None),
        "license_name": card.license_name,
        "license_link": card.license_link,
        "language": list(card.languages),
        "tags": list(card.tags),
        "datasets": list(card.datasets),
        "metrics": list(card.metrics),
    }
    if kind == "dataset":
        fields |= {
            "task_categories": [card.task] if card.task else [],
            "size_categories": list(card.size_categories),
            "pretty_name": card.title,
        }
    else:
        fields |= {
            "library_name": card.library,
            "pipeline_tag": card.task,
            "base_model": list(card.base_models) if len(card.base_models) != 1 else card.base_models[0],
            "base_model_relation": card.base_model_relation,
        }
        if card.results:
            fields["model-index"] = [{"name": model, "results": [_result(result) for result in card.results]}]
    return {name: value for name, value in fields.items() if value not in (None, [], "")}


def summary_tags(words: dict[str, Any]) -> list[str]:
    """Return the tags of a repository that is known by its summary; the keys are those of a card."""
    card = Card(
        task=words["task"],
        library=words["library"],
        license=words["license"],
        languages=tuple(words["languages"]),
        tags=tuple(words["tags"]),
        base_models=tuple(words["base_models"]),
        datasets=tuple(words["datasets"]),
    )
    return _tags(card, ())


def _tags(card: Card, formats: Iterable[str]) -> list[str]:
    groups: list[Sequence[str | None]] = [
        [card.library],
        list(formats),
        [card.task],
        card.tags,
        card.languages,
        [f"dataset:{name}" for name in card.datasets],
        [f"base_model:{name}" for name in card.base_models],
        [f"license:{card.license.lower()}" if card.license else None],
    ]
    return list(dict.fromkeys(tag for group in groups for tag in group if tag))


def _formats(files: Iterable[File]) -> list[str]:
    endings = {".safetensors": "safetensors", ".gguf": "gguf", ".onnx": "onnx", ".parquet": "format:parquet"}
    return sorted({tag for file in files for ending, tag in endings.items() if file.path.endswith(ending)})


def _config(facts: Facts) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if facts.architecture:
        fields["architectures"] = [facts.architecture]
    if facts.model_type:
        fields["model_type"] = facts.model_type
    return fields


def _result(result: MetricResult) -> dict[str, Any]:
    value = float(result.value) if "." in result.value else int(result.value)
    name = result.dataset or "unknown"
    dataset = {"name": name, "type": name, "config": result.dataset_config, "split": result.dataset_split}
    return {
        "task": {"type": result.task or "unknown"},
        "dataset": {key: text for key, text in dataset.items() if text},
        "metrics": [{"type": result.metric, "value": value}],
    }
