"""The command `search`: words, conditions, order, pages, counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from .names import pinned_names
from .running import json_option, offline_option, peer_option, print_json, run
from .text import (
    human_bytes,
    human_count,
    human_time,
    parse_byte_range,
    parse_bytes,
    parse_range,
    say,
    shorten,
)

if TYPE_CHECKING:
    from p2phub.core.search import FacetCounts, MetricBound, Model

SORTS = ("relevance", "newest", "created", "size", "parameters", "name", "replicas", "metric")


@click.command()
@click.argument("text", nargs=-1)
@click.option("--kind", type=click.Choice(["model", "dataset"]))
@click.option("--task", help="Such as text-generation.")
@click.option("--library", help="Such as transformers.")
@click.option("--license", "license_", help="SPDX id, such as Apache-2.0.")
@click.option("--language", "languages", multiple=True, help="Such as fr; all that are given.")
@click.option("--tag", "tags", multiple=True)
@click.option("--base-model", "base_models", multiple=True, metavar="NAME", help="As the card names it.")
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="That it was made with, by the card.")
@click.option("--tensor-type", "tensor_types", multiple=True, metavar="TYPE", help="Such as BF16.")
@click.option("--architecture", help="Such as LlamaForCausalLM.")
@click.option("--publisher", metavar="NAMESPACE")
@click.option("--variant", "variants", multiple=True, metavar="NAME", help="Such as Q4_K_M.")
@click.option("--has-variant", is_flag=True, help="It comes in several variants, such as quantizations.")
@click.option("--params", metavar="RANGE", help="Number of parameters: 1B-8B, 1B- or -500M.")
@click.option("--size", metavar="RANGE", help="Bytes of all files: 1GB-8GB, 1GB- or -500MB.")
@click.option("--fits", metavar="SIZE", help="Its smallest variant has at most this size: 16 or 16GB.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="CONDITION",
    help="A result that the card claims: METRIC, DATASET/METRIC or TASK/DATASET/METRIC, then >=60, <=5 or nothing.",
)  # fmt: skip
@click.option("--replicas", type=click.IntRange(1), metavar="N", help="So many other nodes were seen to hold it.")
@click.option("--here", is_flag=True, help="All of its files are in the store.")
@click.option("--gated/--open", default=None, help="A licence must be accepted first, or none.")
@click.option("--sort", type=click.Choice(SORTS), default="relevance", show_default=True)
@click.option("--limit", type=click.IntRange(0, 1000), default=20, show_default=True)
@click.option("--cursor", metavar="CURSOR", help="Go on after the page that showed it; the conditions stay the same.")
@click.option("--facets", is_flag=True, help="Also count which tasks, licences and the like are found how often.")
@offline_option
@peer_option
@json_option
def search(
    text: tuple[str, ...],
    license_: str | None,
    has_variant: bool,
    variants: tuple[str, ...],
    params: str | None,
    size: str | None,
    fits: str | None,
    metrics: tuple[str, ...],
    replicas: int | None,
    offline: bool,
    peer: tuple[str, ...],
    as_json: bool,
    **same: Any,
) -> None:
    """Search the catalogue that this node replicates; without TEXT, list it.

    Words are found in names, titles, tags and card texts; the last one may be the beginning of a word, and names are
    found by a part of them, too. All conditions must hold.
    """
    from p2phub.core.licenses import to_spdx
    from p2phub.core.search import Query
    from p2phub.node.operations.catalogue import Search

    parameters_min, parameters_max = _parsed("--params", params, parse_range, "1B-8B") or (None, None)
    size_min, size_max = _parsed("--size", size, parse_byte_range, "1GB-8GB") or (None, None)
    query = Query(
        text=" ".join(text),
        # People write the existing hub's ids as well.
        license=(to_spdx(license_) or license_) if license_ else None,
        variants=(*variants, *(["*"] if has_variant else [])),
        metrics=tuple(_metric(metric) for metric in metrics),
        parameters_min=parameters_min,
        parameters_max=parameters_max,
        size_min=size_min,
        size_max=size_max,
        fits=_parsed("--fits", fits, _parse_fits, "16GB"),
        replicas_min=replicas,
        **same,
    )
    found = run(Search(query), offline=offline, peers=peer, news=True)
    if as_json:
        print_json(found)
        return
    names = pinned_names() if found.models else {}
    for model in found.models:
        _show(model, [metric.metric for metric in query.metrics], names)
    if found.counts:
        _show_counts(found.counts)
    if not found.models and query.limit:
        say(
            "nothing found" if found.complete else "nothing found among what was looked at, which was not all", err=True
        )
    elif not found.complete:
        say("not all that matches was looked at; the newest was", err=True)
    if found.cursor:
        say(f"more with --cursor {found.cursor}", err=True)


def _parsed(option: str, text: str | None, parse: Any, example: str) -> Any:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as exc:
        raise click.BadParameter(f"'{text}' is not such as {example}", param_hint=option) from exc


def _parse_fits(text: str) -> int:
    """Return the bytes that `16` (in GB) or `16GB` mean. Raises ValueError."""
    return parse_bytes(f"{text}GB" if text.strip().replace(".", "", 1).isdecimal() else text)


def _metric(text: str) -> MetricBound:
    from p2phub.core.errors import InvalidData
    from p2phub.core.search import parse_metric

    try:
        return parse_metric(text)
    except InvalidData as exc:
        raise click.BadParameter(str(exc), param_hint="--metric") from exc


def _show(model: Model, metrics: list[str], names: Mapping[str, str]) -> None:
    """names: of publishers, by namespace id."""
    publisher = names.get(model.namespace, model.namespace)
    name = f"{publisher}/{model.model}" + (f"@{model.version}" if model.version else "")
    facts = [
        model.task,
        f"{human_count(model.parameters)} parameters" if model.parameters else None,
        human_bytes(model.size),
        ", ".join(variant.name for variant in model.variants[:6]) or None,
        model.license,
        human_time(model.time)[:10],
        f"{model.replicas} seen to hold it, last {human_time(model.replicas_seen)}" if model.replicas else None,
        "gated" if model.gate else None,
        "here" if model.here else None,
    ]
    say(name)
    say("  " + ", ".join(fact for fact in facts if fact))
    for result in model.results:
        if any(f"/{result.metric}".lower().endswith(f"/{metric}".lower()) for metric in metrics):
            say(f"  {result.metric} {result.value}")
    if model.title or model.excerpt:
        say(f"  {shorten(model.title or model.excerpt, 100)}")


def _show_counts(counts: FacetCounts) -> None:
    of = "all" if counts.complete else "the newest"
    say(f"counts of {of} {counts.of:,} that match")
    for facet, values in counts.facets.items():
        for number, item in enumerate(values):
            say(f"{facet if not number else '':>13}  {item.count:>9,}  {shorten(item.value, 80)}")
