"""Search by conditions: each of them, and metrics."""

from __future__ import annotations

from typing import Any

import pytest
from storekit import Known, Writer, summary

from p2phub.core.errors import InvalidData
from p2phub.core.records import Score, VariantSize
from p2phub.core.search import MetricBound, parse_metric


def zoo(known: Known, writer: Writer) -> None:
    known.apply(
        writer.publish("a", model="ant", summary=summary(
            size=3_000_000_000, parameters=1_500_000_000, languages=("en", "fr"), tags=("Small",),
            base_models=("acme/queen",), datasets=("acme/hill",), tensor_types=("BF16",), architecture="AntForCausalLM",
            scores=(Score("qa", "mteb/quiz", "f1", "61.5"), Score("qa", "other", "f1", "12"))),
        ),
        writer.publish("b", model="bee", summary=summary(
            size=9_000_000_000, languages=("fr",), tags=("small", "flies"), tensor_types=("F32", "Q4_K"),
            variants=(VariantSize("Q4_K_M", 900_000_000), VariantSize("F16", 7_000_000_000)),
            scores=(Score("qa", "mteb/quiz", "f1", "70"), Score("asr", "talk", "wer", "5.5"))),
        ),
        writer.publish("c", model="cow", kind="dataset", summary=summary(size=1000, task="qa")),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ({"languages": ("fr",)}, ["ant", "bee"]), ({"languages": ("fr", "en")}, ["ant"]),
        ({"tags": ("SMALL",)}, ["ant", "bee"]), ({"tags": ("small", "flies")}, ["bee"]), ({"tags": ("fl",)}, []),
        ({"base_models": ("acme/queen",)}, ["ant"]), ({"datasets": ("acme/hill",)}, ["ant"]),
        ({"tensor_types": ("Q4_K",)}, ["bee"]), ({"architecture": "antforcausallm"}, ["ant"]),
        ({"variants": ("*",)}, ["bee"]), ({"variants": ("q4_k_m",)}, ["bee"]), ({"variants": ("Q8_0",)}, []),
        ({"fits": 10**9}, ["bee", "cow"]), ({"fits": 899_999_999}, ["cow"]), ({"fits": 999}, []),
        ({"fits": 3 * 10**9}, ["ant", "bee", "cow"]), ({"size_min": 3 * 10**9}, ["ant", "bee"]),
        ({"size_max": 3 * 10**9}, ["ant", "cow"]),
        ({"size_min": 1001, "size_max": 8 * 10**9}, ["ant"]),
        ({"parameters_min": 0}, ["ant"]), ({"parameters_max": 1_500_000_000}, ["ant"]), ({"parameters_max": 10**9}, []),
        ({"parameters_min": 2, "parameters_max": 1}, []), ({"size_min": 2 * 10**9, "size_max": 10**9}, []),
        ({"metrics": (MetricBound("f1", 62, 61),)}, []),
        ({"metrics": (MetricBound("f1"),)}, ["ant", "bee"]), ({"metrics": (MetricBound("qa"),)}, []),
        ({"metrics": (MetricBound("mteb/quiz/f1", 61.5),)}, ["ant", "bee"]),
        ({"metrics": (MetricBound("qa/mteb/quiz/F1", 61.6),)}, ["bee"]),
        ({"metrics": (MetricBound("f1", None, 12),)}, ["ant"]), ({"metrics": (MetricBound("f1", 12.1, 61),)}, []),
        ({"metrics": (MetricBound("f1", 60), MetricBound("wer", None, 6))}, ["bee"]),
        ({"filters": ("fr", "small")}, ["ant", "bee"]), ({"filters": ("qa",)}, ["cow"]), ({"filters": ("none",)}, []),
        ({"here": True}, []), ({"replicas_min": 1}, []), ({"kind": "model", "fits": 10**9}, ["bee"]),
    ],
)  # fmt: skip
def test_every_facet_is_a_condition(known: Known, writer: Writer, conditions: dict[str, Any], found: list[str]) -> None:
    zoo(known, writer)

    # Alone and with words, in every order: each way to look for them finds the same.
    for text in ("", str(writer.namespace)):
        for sort in ("relevance", "newest", "created", "size", "parameters", "name", "replicas"):
            assert sorted(known.find(text, sort=sort, **conditions)) == found, sort
    known.apply(*(writer.publish(name, model=name, summary=summary(title="Insect")) for name in "xyz"))
    assert sorted(known.find("an", **conditions)) == [name for name in found if name == "ant"]


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("qa/mteb/quiz/f1>=60", MetricBound("qa/mteb/quiz/f1", 60.0, None)),
        ("wer <= 5.5", MetricBound("wer", None, 5.5)),
        ("mteb/quiz/f1", MetricBound("mteb/quiz/f1")), ("f1=-1", MetricBound("f1", -1.0, -1.0)),
    ],
)  # fmt: skip
def test_a_metric_is_written_with_its_bound(text: str, bound: MetricBound) -> None:
    assert parse_metric(text) == bound


@pytest.mark.parametrize("text", ["", ">=60", "f1>60", "f1>=", "f1>=x", "f1>=1e9", "a>=1>=2"])
def test_what_is_no_metric_is_refused(text: str) -> None:
    with pytest.raises(InvalidData, match="no condition"):
        parse_metric(text)


def test_results_can_be_sorted_by_a_metric(known: Known, writer: Writer) -> None:
    zoo(known, writer)

    assert known.find(sort="metric", metrics=(MetricBound("f1"),)) == ["bee", "ant"]
    assert known.find(sort="metric", metrics=(MetricBound("f1", 65),), text="small") == ["bee"]
    with pytest.raises(InvalidData, match="by which one"):
        known.find(sort="metric")
