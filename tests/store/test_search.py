"""Search: orders, pages, counts, bounds, and what is here, against what a person would find who reads all of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searchkit import everything, names
from storekit import TIME, Known, Writer, open_store, revision, summary, write_old

from p2phub.core.errors import InvalidData
from p2phub.core.ids import NodeId
from p2phub.core.manifest import FileEntry, Manifest, encode
from p2phub.core.records import OpenGate, Publish, SetGate
from p2phub.core.search import FACETS, Model, Query
from p2phub.core.words import words
from p2phub.store import search as searching
from p2phub.store import searchplan
from p2phub.store.holdings import FORGET_S, Holdings
from p2phub.testing import values

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
