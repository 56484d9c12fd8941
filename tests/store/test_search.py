"""Search: facets, orders, pages, counts, and that the index follows what the logs say."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storekit import TIME, Known, Writer, open_store, place_entry, revision, summary, write_old

from p2phub.core.errors import InvalidData
from p2phub.core.ids import NodeId
from p2phub.core.manifest import FileEntry, Manifest, encode
from p2phub.core.records import OpenGate, Publish, Score, SetGate, Summary, VariantSize
from p2phub.core.search import FACETS, MetricBound, Model, Page, Query, parse_metric
from p2phub.core.words import words
from p2phub.store import search as searching
from p2phub.store import searchindex, searchplan
from p2phub.store.holdings import FORGET_S, Holdings
from p2phub.store.searchindex import SearchIndex
from p2phub.testing import values
from p2phub.testing.releases import make_logs


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Known]:
    opened = Known(tmp_path / "index.sqlite")
    yield opened
    opened.database.close()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """A catalogue like that of a hub. Nobody changes it."""
    opened = Known(tmp_path_factory.mktemp("crowd") / "index.sqlite")
    for log in make_logs(1500):
        opened.apply(*log.entries)
    yield opened
    opened.database.close()


@pytest.fixture
def writer() -> Writer:
    return Writer()


def names(page: Page) -> list[str]:
    return [f"{model.namespace}/{model.model}" for model in page]


def everything(crowd: Known) -> list[Model]:
    return list(crowd.page(sort="newest", limit=1000)) + list(
        crowd.page(sort="newest", limit=1000, cursor=crowd.page(sort="newest", limit=1000).cursor)
    )


# ── words ───────────────────────────────────────────────────────────────────


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_text_is_cut_as_all_other_text_is(text: str) -> None:
    # With a character beyond ASCII it goes the way for all scripts.
    assert words(text) == words(f"{text} \N{EM DASH}")


def test_the_name_counts_most_then_any_other_words_and_parts_of_names_at_last(known: Known, writer: Writer) -> None:
    known.apply(
        writer.publish("a", model="llama", summary=summary()),
        writer.publish("b", model="llama-7b", summary=summary()),
        writer.publish("c", model="other", summary=summary(tags=("llama",))),
        writer.publish("d", model="text", summary=summary(excerpt="Not a llama.")),
        writer.publish("e", model="tinyllama", summary=summary()),
        writer.publish("f", model="nothing", summary=summary()),
    )

    assert known.find("llama") == ["llama", "llama-7b", "text", "other"]
    assert known.find("LLAMA 7b") == known.find("llama7b") == ["llama-7b"]
    # Where no words are found, parts of names are.
    assert known.find("ama") == known.every_name("ama") == ["tinyllama", "llama-7b", "llama"]
    assert known.find("ama 7b") == ["llama-7b"]
    assert known.find("llama", sort="newest") == ["text", "other", "llama-7b", "llama"]
    assert known.find("am") == known.find("ama", sort="newest") == []


def said(model: Model) -> set[str]:
    """Return the words by which a repository is found."""
    single = (model.model, model.title, model.excerpt, model.task or "", model.library or "", model.architecture or "")
    variants = (variant.name for variant in model.variants)
    lists = (*model.languages, *model.tags, *model.base_models, *model.datasets, *variants)
    return set(words(" ".join((*single, *lists))))


def in_tiers(models: Sequence[tuple[Model, set[str]]], text: str) -> list[str]:
    """Return what a text finds among models, of which each comes with its words, if it is looked for in each."""
    *whole, last = words(text)
    tiers: list[list[Model]] = [[], [], []]
    for model, found in models:
        name = words(model.model)
        where = [
            "".join(name) == "".join(words(text)),
            *(
                places.issuperset(whole) and any(word.startswith(last) for word in places)
                for places in (set(name), found)
            ),
        ]
        if any(where):
            tiers[where.index(True)].append(model)
    return [f"{model.namespace}/{model.model}" for tier in tiers for model in tier]


@pytest.mark.parametrize(("limit", "counted"), [(3, 1000), (400, 1)])
# Tier by tier; all tiers at once; all at once, though they turn out to be more than that is good for.
@pytest.mark.parametrize(("rare", "few"), [(0, 60), (10**9, 10**9), (10**9, 2)])
def test_words_and_facets_find_what_a_look_at_each_repository_finds(
    crowd: Known, monkeypatch: pytest.MonkeyPatch, limit: int, counted: int, rare: int, few: int
) -> None:
    monkeypatch.setattr(searchplan, "COUNTED_IN_NAMES_MAX", counted)
    monkeypatch.setattr(searchplan, "RARE_MAX", rare)
    monkeypatch.setattr(searching, "FEW_MAX", few)
    models = [(model, said(model)) for model in everything(crowd)]
    seen = set().union(*(found for _, found in models))
    rng = random.Random(3)

    for model, found in rng.sample(models, 8):
        texts = [model.model, *(" ".join(rng.sample(sorted(found), count)) for count in (1, 2, 3))]
        for text in texts:
            if sum(word.startswith(words(text)[-1]) for word in seen) > searchplan.BEGINNINGS_MAX:
                continue
            for asked in ((), ("kind",), ("kind", "task", "license")):
                fields = {name: value for name in asked if (value := getattr(model, name))}
                fitting = [each for each in models if all(getattr(each[0], name) == fields[name] for name in fields)]
                assert crowd.every(text, limit=limit, **fields) == in_tiers(fitting, text), (text, fields)


def test_as_much_can_be_asked_for_as_a_query_holds(known: Known, writer: Writer) -> None:
    many = tuple(f"t{number}" for number in range(16))
    letters = [f"w{number}" for number in range(16)]
    asked = summary(excerpt=" ".join(letters), tags=many, languages=many, base_models=many, datasets=many)
    known.apply(writer.publish("a", summary=asked), writer.publish("b", model="other", summary=summary()))
    # Every value is rare, as most are in a large catalogue.
    known.apply(*(writer.publish(f"v{number}", model=f"m{number}", summary=summary()) for number in range(3)))

    assert known.find(
        " ".join(letters), tags=many, languages=many, base_models=many, datasets=many, filters=many, size_max=2**40
    ) == ["parrot"]


def test_the_last_word_may_begin_any_of_many_words(known: Known, writer: Writer) -> None:
    count = searchplan.BEGINNINGS_MAX + 5
    for number in range(count):
        known.apply(writer.publish(f"{number}", model=f"m{number}", summary=summary(excerpt=f"bird{number}x")))
    known.apply(writer.publish("often", model="often", summary=summary(excerpt="birdie birdhouse")))

    # The first ones that were seen are the frequent ones, as a rule; the word as it stands always counts.
    assert len(known.every("bird")) == searchplan.BEGINNINGS_MAX
    assert known.find(f"bird{count - 1}x") == [f"m{count - 1}"]
    assert known.find("birdh") == ["often"]


def test_a_namespace_in_the_text_is_a_publisher(known: Known, writer: Writer) -> None:
    other = Writer(values.identity("somebody"), values.key("somebody"))
    known.apply(writer.publish("a", model="parrot"), other.publish("b", model="parrot"))

    for text in (f"{writer.namespace}/parrot", f"parrot {writer.namespace}", str(writer.namespace).upper()):
        assert names(known.page(text)) == [f"{writer.namespace}/parrot"]
    assert known.find(f"{writer.namespace} finch") == []
    assert known.find("a" * 52) == []


@pytest.mark.parametrize("text", ["{id} {word}", "{word} {id}"])
def test_a_word_that_only_looks_like_a_namespace_is_a_word(known: Known, writer: Writer, text: str) -> None:
    word = "b" * 52  # the last character of an id stands for one bit
    other = Writer(values.identity("somebody"), values.key("somebody"))
    known.apply(writer.publish("a", model=word), other.publish("b", model=word), writer.publish("c", model="parrot"))

    assert names(known.page(text.format(id=writer.namespace, word=word))) == [f"{writer.namespace}/{word}"]


def test_many_words_are_all_looked_for_up_to_a_limit(known: Known, writer: Writer) -> None:
    letters = [f"w{number}" for number in range(40)]
    known.apply(writer.publish("a", summary=summary(excerpt=" ".join(letters[:30]))))

    assert known.find(" ".join(letters[:16])) == ["parrot"]
    assert known.find(" ".join([*letters[:15], "other"])) == []
    # Behind the limit only the last one counts.
    assert known.find(" ".join([*letters[:15], "other", letters[29]])) == ["parrot"]
    assert known.find(" ".join([*letters[:15], letters[29], "other"])) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Parrot-7B_v2", ["parrot", "7b", "v2"]), ("Straße ﬁne x²", ["strasse", "fine", "x2"]),
        ("鹦鹉模型 AI模型", ["鹦鹉", "鹉模", "模型", "ai", "模型"]), ("한국어 모델", ["한국어", "모델"]),
        ("हिन्दी।", ["हिन्दी"]), ("", []), ("--", []), ("x" * 70, ["x" * 64]), ("İ", ["i"]),
    ],
)  # fmt: skip
def test_words_are_compared_in_one_form(text: str, found: list[str]) -> None:
    assert words(text) == found


@given(st.text(max_size=40))
def test_the_same_text_has_the_same_words_however_it_is_composed(text: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))

    assert words(composed) == words(decomposed)


# ── facets ──────────────────────────────────────────────────────────────────


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


# ── against what a person would do who reads all of it ──────────────────────


def expected(models: Sequence[Model], query: Query) -> set[str]:
    """Return what matches, found by looking at each."""
    return {
        f"{model.namespace}/{model.model}"
        for model in models
        if (query.kind is None or model.kind == query.kind)
        and (query.task is None or model.task == query.task)
        and (query.license is None or model.license == query.license)
        and set(query.languages) <= set(model.languages)
        and (query.parameters_min is None or (model.parameters or -1) >= query.parameters_min)
        and (query.fits is None or model.size <= query.fits)
        and set(words(query.text)) <= set(words(_text(model)))
    }


def _text(model: Model) -> str:
    single = (model.model, model.title, model.excerpt, model.task, model.library, model.architecture)
    lists = (*model.languages, *model.tags, *model.base_models, *model.datasets)
    return " ".join([*(text or "" for text in single), *lists])


@pytest.mark.parametrize("sort", ["relevance", "newest", "created", "size", "parameters", "name"])
def test_all_pages_together_hold_all_that_match_once_and_in_order(crowd: Known, sort: Any) -> None:
    models = {f"{model.namespace}/{model.model}": model for model in everything(crowd)}
    assert len(models) == crowd.search.count() > 1000
    rng = random.Random(sort)
    key: dict[str, Any] = {
        "newest": lambda model: -model.time, "created": lambda model: -model.created, "size": lambda model: -model.size,
        "parameters": lambda model: -(model.parameters or -1), "name": lambda model: model.model.lower(),
    }  # fmt: skip
    for _ in range(12):
        some = rng.choice(list(models.values()))
        fields: dict[str, Any] = {"limit": rng.choice([7, 50, 1000])}
        for name in ("kind", "task", "license"):
            if rng.random() < 0.3:
                fields[name] = getattr(some, name)
        if rng.random() < 0.3:
            fields["parameters_min"] = 10**9
        if rng.random() < 0.3:
            fields["fits"] = some.size
        if rng.random() < 0.3:
            fields["languages"] = tuple(some.languages)
        # A whole word that begins no other, so that it can be told what is found.
        text = rng.choice(["", "", f"{rng.choice(words(_text(some)))} {some.model}"])
        query = Query(text, sort=sort, **fields)
        found = crowd.every(text, sort=sort, **fields)

        assert len(set(found)) == len(found)
        if text:
            assert expected(list(models.values()), query) <= set(found)
        else:
            assert set(found) == expected(list(models.values()), query)
        if sort in key:
            order = [key[sort](models[name]) for name in found]
            assert order == sorted(order)


def test_counts_of_everything_are_exact(crowd: Known) -> None:
    models = everything(crowd)
    counts = crowd.page(limit=0, facets=True).counts
    assert counts is not None

    assert (counts.of, counts.complete) == (len(models), True)
    tasks = [model.task for model in models if model.task]
    for item in counts.facets["task"]:
        assert item.count == tasks.count(item.value)
    assert set(counts.facets) <= set(FACETS)
    assert len(counts.facets["publisher"]) == 20


def test_counts_of_what_matches_are_of_the_newest(crowd: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "COUNTED_MAX", 1000)
    whole = crowd.page("model", facets=True, limit=1000)
    assert whole.counts is not None
    matching = crowd.every("model", sort="newest", limit=1000)
    assert (whole.counts.of, whole.counts.complete) == (len(matching), True)
    monkeypatch.setattr(searching, "COUNTED_MAX", 40)
    some = crowd.page("model", facets=True, limit=0).counts
    newest = list(crowd.page("model", sort="newest", limit=40))
    assert some is not None

    assert (some.of, some.complete) == (40, False)
    assert {item.value: item.count for item in some.facets["kind"]} == {
        kind: sum(model.kind == kind for model in newest) for kind in {model.kind for model in newest}
    }


@pytest.mark.parametrize("fields", [{"kind": "model"}, {"kind": "model", "license": "Apache-2.0"}])
def test_what_nearly_all_have_is_counted_among_the_newest_that_have_the_rest(
    crowd: Known, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    monkeypatch.setattr(searchplan, "DENSE_PART", 10)
    monkeypatch.setattr(searching, "COUNTED_MAX", 1000)
    whole = crowd.page("model", facets=True, limit=0, **fields).counts
    matching = crowd.page("model", sort="newest", limit=1000, **fields)
    assert whole is not None

    assert (whole.of, whole.complete, matching.cursor) == (len(matching), True, None)
    assert {item.value: item.count for item in whole.facets["task"]} == dict(
        Counter(model.task for model in matching if model.task).most_common(20)
    )
    monkeypatch.setattr(searching, "COUNTED_MAX", 40)
    some = crowd.page("model", facets=True, limit=0, **fields).counts
    newest = crowd.page("model", sort="newest", limit=40)
    assert some is not None

    assert (some.of, some.complete) == (
        sum(all(getattr(model, key) == fields[key] for key in fields) for model in newest),
        False,
    )


# ── replicas, and what is here ──────────────────────────────────────────────


def test_replicas_are_the_nodes_that_said_to_hold_all_of_it(known: Known, writer: Writer) -> None:
    known.apply(writer.publish("a", model="ant"), writer.publish("b", model="bee"), writer.publish("c", model="cow"))
    holdings = Holdings(known.database)
    alice, bob = (NodeId(values.key(name).public_key) for name in ("alice", "bob"))
    holdings.note(alice, [(revision("a"), 1000), (revision("b"), 999)], TIME)
    holdings.note(bob, sorted([(revision("a"), 1000), (revision("c"), 1000)]), TIME + 5)

    assert known.find(sort="replicas") == ["ant", "cow", "bee"]
    assert known.find(replicas_min=1, sort="name") == ["ant", "cow"]
    assert known.find("ant", replicas_min=2) == ["ant"]
    ant = known.page("ant")[0]
    assert (ant.replicas, ant.replicas_seen) == (2, TIME + 5)
    # A node that has it no more, and one that was not heard of for long.
    holdings.note(bob, [], TIME + 9)
    assert (known.page("ant")[0].replicas, known.page("cow")[0].replicas) == (1, 0)
    holdings.note(bob, [(revision("b"), 1000)], TIME + FORGET_S + 1)
    assert known.find(replicas_min=1) == ["bee"]
    # A release that comes after word of it.
    holdings.note(alice, [(revision("d"), 1000)], TIME + FORGET_S + 2)
    known.apply(writer.publish("d", model="dog"))
    assert known.find(replicas_min=1, sort="name") == ["bee", "dog"]


def test_what_is_here_is_found(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        (tmp_path / "files").mkdir()
        entries = []
        for name in ("one", "two"):
            held = store.intake.ingest(write_old(tmp_path / "files" / name, name.encode()), "cdc-1m")
            entries.append(FileEntry(name, held.size, held.root, held.sha256, "other", "cdc-1m"))
        manifest = store.manifests.add(encode(Manifest(1, "model", TIME, tuple(entries))))
        writer = Writer()
        writer.publish("other", model="other")
        writer._add(Publish, manifest=manifest, kind="model", depth=1, branch="main", model="mine", summary=summary())
        writer.give(store)

        assert [(model.model, model.here) for model in store.search.find(Query(sort="name"))] == [
            ("mine", True), ("other", False)
        ]  # fmt: skip
        for text in ("", "mine"):
            assert [model.model for model in store.search.find(Query(text, here=True))] == ["mine"]
        assert [model.model for model in store.search.find(Query("other", here=True))] == []
        # Where no words are found, parts of names are, as without a condition; none of them is counted.
        parts = store.search.find(Query("ine", here=True, facets=True))
        assert [model.model for model in parts] == ["mine"]
        assert parts.counts is not None
        assert parts.counts.of == 0
        assert [model.model for model in store.search.find(Query("ine", here=True, sort="newest"))] == []
        assert [model.model for model in store.search.find(Query("the", here=True))] == []
        store.clearing.remove(entries[0].root)
        assert [model.model for model in store.search.find(Query(here=True))] == []


def test_gates_are_shown_and_asked_for_while_they_stand(
    known: Known, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = {"name": "Parrot-1.0", "licence": "Be kind.", "per": "person"}
    for name in ("ant", "bee", "cow", "dog"):
        known.apply(writer.publish(name, model=name))
    known.apply(writer._add(SetGate, model="ant", approval="automatic", **gate))
    known.apply(writer._add(SetGate, model="bee", approval="manual", **gate))
    known.apply(writer._add(SetGate, model="cow", approval="manual", **gate), writer._add(OpenGate, model="cow"))
    known.apply(writer._add(SetGate, model="nothing-of-it-is-here", approval="manual", **gate))

    assert [(model.model, model.gate) for model in known.page(sort="name")] == [
        ("ant", "automatic"), ("bee", "manual"), ("cow", None), ("dog", None)
    ]  # fmt: skip
    for small_max in (2000, 1):
        monkeypatch.setattr(searchplan, "SMALL_MAX", small_max)
        for sort in ("newest", "name", "size"):
            assert sorted(known.find(gated=True, sort=sort)) == ["ant", "bee"]
            assert sorted(known.find(gated=False, sort=sort)) == ["cow", "dog"]
        assert (known.find("bee", gated=True), known.find("bee", gated=False)) == (["bee"], [])
        assert len(known.every(gated=True, limit=1)) == 2


# ── bounds, and what is said about them ─────────────────────────────────────


def test_a_page_that_looked_at_enough_says_so_and_the_next_goes_on(
    crowd: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = set(crowd.every(parameters_min=60 * 10**9, kind="model"))
    assert wanted
    monkeypatch.setattr(searching, "SCANNED_MAX", 100)
    page = crowd.page(kind="model", size_min=130 * 10**9, sort="newest")

    assert not page.complete
    assert page.cursor
    for sort in ("newest", "size", "name"):
        assert set(crowd.every(kind="model", parameters_min=60 * 10**9, sort=sort)) == wanted


def test_sorting_many_matches_says_that_only_the_newest_were(crowd: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    assert crowd.page("model", sort="size").complete
    monkeypatch.setattr(searching, "MATCHES_MAX", 50)
    page = crowd.page("model", sort="size", limit=50)

    assert not page.complete
    assert set(names(page)) == set(names(crowd.page("model", sort="newest", limit=50)))


def test_a_cursor_is_of_its_search_alone(crowd: Known) -> None:
    cursor = crowd.page("model", limit=3).cursor
    assert cursor
    later = crowd.page("model", limit=30, cursor=cursor, facets=True)
    assert names(later) == crowd.every("model", limit=1000)[3:33]

    for fields in ({"text": "the"}, {"text": "model", "kind": "model"}, {"text": "model", "sort": "newest"}):
        with pytest.raises(InvalidData, match="another search"):
            crowd.page(cursor=cursor, **fields)
    for text in ("", "x", "e30", cursor[:-4], "W10"):
        with pytest.raises(InvalidData, match="cursor"):
            crowd.page("model", cursor=text)


@given(st.sampled_from(["relevance", "newest", "size", "name", "created"]), st.lists(
    st.one_of(st.integers(-(2**70), 2**70), st.text(max_size=5), st.floats(allow_nan=False)), max_size=4))  # fmt: skip
def test_a_made_up_place_is_refused_or_a_place(crowd: Known, sort: Any, place: list[Any]) -> None:
    from p2phub.core.search import encode_cursor

    query = Query("model", sort=sort)
    forged = msgspec.structs.replace(query, cursor=encode_cursor(query, tuple(place)))
    try:
        page = crowd.search.find(forged)
    except InvalidData:
        return
    assert len(page) <= 20


def test_what_was_published_meanwhile_moves_nothing(known: Known, writer: Writer) -> None:
    for number in range(30):
        known.apply(writer.publish(f"{number}", model=f"parrot-{number}", summary=summary(size=number)))
    for sort in ("relevance", "newest", "size", "name"):
        before = known.find("parrot", sort=sort, limit=1000)
        page = known.page("parrot", sort=sort, limit=10)
        known.apply(writer.publish(sort, model=f"parrot-new-{sort}", summary=summary(size=50)))
        cursor, seen = page.cursor, [model.model for model in page]
        while cursor:
            page = known.page("parrot", sort=sort, limit=10, cursor=cursor)
            seen += [model.model for model in page]
            cursor = page.cursor

        assert [name for name in seen if name in before] == before


# ── following the logs ──────────────────────────────────────────────────────


def test_a_yanked_release_gives_way_to_the_one_before(known: Known, writer: Writer) -> None:
    known.apply(writer.publish("a", version="1.0.0", summary=summary(title="First")))
    known.apply(writer.publish("b", version="2.0.0", summary=summary(title="Second")))
    known.apply(writer.yank("2.0.0"))
    assert [(model.version, model.title) for model in known.page()] == [("1.0.0", "First")]
    assert known.find("second") == []

    # All yanked, but a branch still stands.
    known.apply(writer.yank("1.0.0"))
    assert [model.version for model in known.page()] == ["2.0.0"]
    known.apply(writer.branch(None))
    assert known.find() == known.find("second") == []
    assert known.search.count() == 0
    known.apply(writer.branch("a"))
    assert known.find("second") == ["parrot"]


def test_a_recalled_release_is_found_no_more_whatever_stands_for_it(known: Known, writer: Writer) -> None:
    known.apply(writer.publish("a", version="1.0.0", summary=summary(title="First")))
    known.apply(writer.publish("b", version="2.0.0", summary=summary(title="Second")))
    known.apply(writer.recall("b"))
    assert [(model.version, model.title) for model in known.page()] == [("1.0.0", "First")]

    known.apply(writer.recall("a"))
    assert known.find() == []
    assert known.search.count() == 0
    known.apply(writer.publish("c", version="3.0.0", summary=summary(title="Third")))
    assert known.find("third") == ["parrot"]


def test_counts_follow_every_change(known: Known, writer: Writer) -> None:
    known.apply(writer.publish("a", summary=summary(task="one", tags=("x", "y"))))
    known.apply(writer.publish("b", summary=summary(task="two", tags=("y",))))
    known.apply(writer.publish("c", model="finch", summary=summary(task="two")))
    counts = known.page(facets=True, limit=0).counts
    assert counts is not None

    assert {item.value: item.count for item in counts.facets["task"]} == {"two": 2}
    assert {item.value: item.count for item in counts.facets["tag"]} == {"y": 1}
    assert counts.of == 2


def test_many_of_one_second_stand_in_the_order_in_which_they_came(known: Known, writer: Writer) -> None:
    count = 40 * searchindex.PLACES
    for number in range(count):
        known.apply(writer.publish(f"{number}", model=f"m{number}", time=TIME))

    assert known.find(sort="newest", limit=1000) == [f"m{number}" for number in reversed(range(count))]


def test_what_is_rolled_back_leaves_nothing(known: Known, writer: Writer) -> None:
    known.apply(writer.publish("a", summary=summary(task="one")))

    def fail_late() -> None:
        with known.database.write() as connection:
            entry = writer.publish("b", model="finch", summary=summary(task="new", excerpt="novel"))
            known.entries[entry.record.log, entry.record.index] = entry.data
            known.cataloguing.apply(connection, entry.record.log, [entry], place_entry(connection, entry))
            known.database.at_end(lambda connection: raise_error(), lambda: None)

    def raise_error() -> None:
        raise ZeroDivisionError

    # All was written, and then the transaction failed.
    with pytest.raises(ZeroDivisionError):
        fail_late()
    third = writer.publish("c", model="wren", summary=summary(task="third", excerpt="thrice"))
    known.apply(third)

    assert known.find() == ["wren", "parrot"]
    assert known.find(task="new") == known.find("novel") == []
    assert known.find("thric") == known.find(task="third") == ["wren"]


def test_words_that_cannot_be_read_any_more_lead_nowhere(known: Known, writer: Writer) -> None:
    known.apply(writer.publish("a", time=TIME, summary=summary(title="Lost words")))
    known.entries.clear()
    known.apply(writer.publish("b", time=TIME, summary=summary(title="Other")))
    known.apply(writer.publish("c", model="finch", time=TIME, summary=summary(title="Third")))

    assert known.find("lost") == known.find("words") == []
    assert sorted(known.find()) == ["finch", "parrot"]
    for sort in ("size", "name", "created", "replicas"):
        assert sorted(known.find(sort=sort)) == ["finch", "parrot"]
    assert known.search.count() == 2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_however_it_came_in_the_index_is_the_same(tmp_path_factory: Any, seed: int, size: int) -> None:
    """One after the other, all in one transaction, in another order, and filled again: all search alike."""
    entries = [entry for log in make_logs(size, seed=seed) for entry in log.entries]
    folder = tmp_path_factory.mktemp("same")
    one, all_at_once = Known(folder / "one.sqlite"), Known(folder / "all.sqlite")
    for entry in entries:
        one.apply(entry)
    all_at_once.apply(*entries)
    publish = next((entry.record for entry in entries if isinstance(entry.record, Publish)), None)
    text = words(publish.model)[0] if publish else ""

    def answers(known: Known) -> list[Any]:
        pages = [known.page(*arguments, limit=1000, facets=True, sort="name") for arguments in ((), (text,))]
        return [(sorted(page.models, key=lambda m: (m.model, m.namespace)), _counted(page)) for page in pages]

    before = answers(one)
    assert answers(all_at_once) == before
    with one.database.write() as connection:
        SearchIndex.clear(connection)
    assert one.find() == []
    one.index.refill()
    assert answers(one) == before
    all_at_once.clear().apply(*entries)
    assert answers(all_at_once) == before
    one.database.close()
    all_at_once.database.close()


def _counted(page: Page) -> Any:
    assert page.counts is not None
    return {facet: sorted((item.count for item in found), reverse=True) for facet, found in page.counts.facets.items()}


def pages_of_segments(known: Known) -> list[int]:
    with known.database.read() as connection:
        return [row[0] for row in connection.execute("SELECT count(*) FROM search_idx GROUP BY segid")]


def test_an_index_in_many_pieces_is_merged_step_by_step_beside_what_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searchindex, "MERGED_AT_ONCE", 5)
    known, whole = Known(tmp_path / "index.sqlite"), Known(tmp_path / "whole.sqlite")
    logs = list(make_logs(400))
    for log in logs[:-1]:
        known.apply(*log.entries)
    whole.apply(*(entry for log in logs for entry in log.entries))
    assert len(pages_of_segments(known)) > 1
    assert list(known.index.merge()) == []  # It is small.
    monkeypatch.setattr(searchindex, "SCATTERED_MIN", 0)
    steps = known.index.merge()
    assert next(steps)
    assert next(steps)
    known.apply(*logs[-1].entries)
    # It may end early, where what came in was merged with some of it; then there is another look.
    list(steps)
    while list(known.index.merge()):
        pass
    pages = pages_of_segments(known)

    assert sum(pages) - max(pages) <= sum(pages) // searchindex.SCATTERED_PART
    for text in ("model", "llama", "the model", "bert"):
        assert known.every(text, limit=1000) == whole.every(text, limit=1000)
    known.database.close()
    whole.database.close()


def test_two_stores_of_one_home_number_facets_alike(tmp_path: Path) -> None:
    first, second = open_store(tmp_path), open_store(tmp_path)
    writer = Writer()
    for number in range(6):
        store = (first, second)[number % 2]
        about = summary(task=f"task {number // 3}", tags=(f"t{number}",))
        writer.publish(f"{number}", model=f"m{number}", summary=about)
        writer.give(store)

    for store in (first, second):
        found = [model.model for model in store.search.find(Query(task="task 1", sort="name"))]
        assert found == ["m3", "m4", "m5"]
        assert [model.model for model in store.search.find(Query(tags=("t2",)))] == ["m2"]
    first.close()
    second.close()


def test_a_summary_of_extremes_is_taken_in(known: Known, writer: Writer) -> None:
    known.apply(
        writer.publish(
            "a",
            summary=Summary(
                files=2**63 - 1,
                size=2**63 - 1,
                parameters=2**63 - 1,
                scores=(Score("t", "d", "m", "9" * 40), Score("t", "d", "m", "1e-9"), Score("t", "d", "n", "1e9999")),
                tags=tuple(f"tag {number}" for number in range(64)),
            ),
        )
    )

    assert known.find(parameters_min=2**63 - 1) == known.find(size_min=2**63 - 1) == ["parrot"]
    assert known.find(metrics=(MetricBound("m", 1e30),)) == ["parrot"]
    assert known.find(metrics=(MetricBound("n", 0),)) == []
    assert known.find(tags=("tag 63",)) == ["parrot"]
