"""Search by words: how texts are compared, and which match better."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from searchkit import everything, names
from storekit import Known, Writer, summary

from p2phub.core.search import Model
from p2phub.core.words import words
from p2phub.store import search as searching
from p2phub.store import searchplan
from p2phub.testing import values


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
