from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storekit import TIME, Known, Writer, revision, summary, two_keys_identity

from p2phub.core.private import Repository
from p2phub.core.records import Score, VariantSize
from p2phub.core.search import SEARCH_LIMIT_MAX, Model, Query, Result, VariantInfo
from p2phub.store.assessments import Assessments
from p2phub.store.catalogue import Claim
from p2phub.store.recalls import Recalls, Voices
from p2phub.testing import values

TWO = two_keys_identity("laptop", "server")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """A catalogue that is emptied for each example."""
    opened = Known(tmp_path_factory.mktemp("catalogue") / "index.sqlite")
    yield opened
    opened.database.close()


def two_writers() -> tuple[Writer, Writer]:
    return Writer(TWO, values.key("laptop")), Writer(TWO, values.key("server"))


def tip(known: Known, writer: Writer, branch: str = "main") -> Claim:
    claim = known.catalogue.branch(writer.namespace, "parrot", branch)
    assert claim is not None
    return claim


# ── versions ────────────────────────────────────────────────────────────────


def test_the_first_claim_of_a_version_counts_and_the_second_is_refused_and_shown(known: Known, writer: Writer) -> None:
    known.apply(
        writer.publish("a", version="1.0.0"),
        writer.publish("b", version="1.0.0", summary=summary(title="Impostor")),
        writer.publish("c", version="1.1.0"),
    )
    claim = known.catalogue.version(writer.namespace, "parrot", "1.0.0")
    assert claim is not None
    assert (claim.manifest, claim.log, claim.index, claim.conflicts) == (revision("a"), writer.log, 0, 0)
    refusals = known.catalogue.refusals(writer.log)
    assert list(refusals) == [1]
    assert "1.0.0" in refusals[1]
    # Nothing of what was refused has an effect.
    assert tip(known, writer).manifest == revision("c")
    assert known.catalogue.publishers_of(revision("b")) == []
    assert "Impostor" not in {model.title for model in known.search.find(Query())}
    assert list(known.catalogue.versions(writer.namespace, "parrot")) == ["1.0.0", "1.1.0"]


def test_the_same_claim_twice_is_no_conflict(known: Known, writer: Writer) -> None:
    known.apply(writer.publish("a", version="1.0.0"), writer.publish("a", version="1.0.0", branch="stable"))

    assert known.catalogue.refusals(writer.log) == {}
    assert tip(known, writer, "stable").manifest == revision("a")


def test_of_two_logs_the_earlier_claim_of_a_version_counts_and_the_other_is_counted(known: Known) -> None:
    laptop, server = two_writers()
    known.apply(laptop.publish("late", version="1.0.0", time=TIME + 9))
    known.apply(server.publish("early", version="1.0.0", time=TIME + 5))
    claim = known.catalogue.version(TWO.namespace, "parrot", "1.0.0")
    assert claim is not None

    assert (claim.manifest, claim.log, claim.conflicts) == (revision("early"), server.log, 1)


def test_versions_are_listed_in_the_order_they_were_made(known: Known, writer: Writer) -> None:
    for version in ("0.9", "1.10.0", "1.9.0", "0.1.0-rc.1"):
        known.apply(writer.publish(version, version=version))

    assert list(known.catalogue.versions(writer.namespace, "parrot")) == ["0.9", "1.10.0", "1.9.0", "0.1.0-rc.1"]
    assert known.catalogue.versions(writer.namespace, "finch") == {}
    assert known.catalogue.version(writer.namespace, "parrot", "2.0") is None


def test_a_yanked_version_keeps_its_meaning(known: Known, writer: Writer) -> None:
    known.apply(writer.publish("a", version="1.0.0"))
    assert known.catalogue.yanked(writer.namespace, "parrot", "1.0.0") is None
    known.apply(writer.yank("1.0.0", message="broken"))

    assert known.catalogue.yanked(writer.namespace, "parrot", "1.0.0") == "broken"
    assert known.catalogue.yanked(writer.namespace, "finch", "1.0.0") is None
    claim = known.catalogue.version(writer.namespace, "parrot", "1.0.0")
    assert claim is not None
    assert claim.manifest == revision("a")
    known.apply(writer.yank("1.0.0", message="a hole"))
    assert known.catalogue.yanked(writer.namespace, "parrot", "1.0.0") == "a hole"


# ── branches ────────────────────────────────────────────────────────────────


def test_a_branch_moves_rolls_back_and_goes(known: Known, writer: Writer) -> None:
    assert known.catalogue.branch(writer.namespace, "parrot", "main") is None
    known.apply(writer.publish("a", depth=1), writer.publish("b", depth=2))
    assert tip(known, writer).manifest == revision("b")
    known.apply(writer.branch("a", depth=1))
    assert tip(known, writer).manifest == revision("a")
    known.apply(writer.branch("a", branch="stable"), writer.branch(None))

    assert tip(known, writer).manifest is None
    assert list(known.catalogue.branches(writer.namespace, "parrot")) == ["stable"]
    known.apply(writer.publish("c"))
    assert list(known.catalogue.branches(writer.namespace, "parrot")) == ["main", "stable"]


def test_repositories_of_one_name_do_not_mix(known: Known, writer: Writer) -> None:
    other = Writer(values.identity("somebody"), values.key("somebody"))
    known.apply(writer.publish("a", version="1.0.0"), other.publish("b", version="1.0.0", kind="dataset"))

    assert tip(known, writer).manifest == revision("a")
    assert tip(known, other).manifest == revision("b")
    assert known.catalogue.kind(writer.namespace, "parrot") == "model"
    assert known.catalogue.kind(other.namespace, "parrot") == "dataset"
    assert known.catalogue.kind(writer.namespace, "finch") is None
    assert known.search.count() == 2


@given(
    first=st.tuples(st.integers(1, 3), st.integers(0, 2)),
    second=st.tuples(st.integers(1, 3), st.integers(0, 2)),
    swap=st.booleans(),
)
def test_of_two_logs_more_ancestors_win_then_the_later_time_then_the_leaf(
    shared: Known, first: tuple[int, int], second: tuple[int, int], swap: bool
) -> None:
    laptop, server = two_writers()
    claims = [
        (*place, entry.leaf, manifest, writer.log)
        for writer, place, manifest in ((laptop, first, "a"), (server, second, "b"))
        for entry in [writer.publish(manifest, depth=place[0], time=TIME + place[1])]
    ]
    entries = [laptop.entries[0], server.entries[0]]
    shared.clear().apply(*(entries[::-1] if swap else entries))
    depth, time, _, manifest, log = max(claims, key=lambda claim: claim[:3])

    assert tip(shared, laptop) == Claim(revision(manifest), log, 0, TIME + time, depth, 1)


def test_a_repository_has_one_kind_for_ever(known: Known, writer: Writer) -> None:
    known.apply(writer.publish("a"), writer.publish("b", kind="dataset", version="1.0.0", branch="data"))

    assert known.catalogue.kind(writer.namespace, "parrot") == "model"
    assert list(known.catalogue.refusals(writer.log)) == [1]
    assert "dataset" in known.catalogue.refusals(writer.log)[1]
    assert known.catalogue.version(writer.namespace, "parrot", "1.0.0") is None
    assert known.catalogue.branch(writer.namespace, "parrot", "data") is None


# ── the order of arrival ────────────────────────────────────────────────────


@st.composite
def two_logs(draw: st.DrawFn) -> tuple[Writer, Writer]:
    """Return two logs of one namespace that say things about the same two names, often at the same second."""
    writers = two_writers()
    for writer in writers:
        for _ in range(draw(st.integers(0, 5))):
            common = {
                "model": draw(st.sampled_from(["parrot", "finch"])),
                "time": TIME + draw(st.integers(0, 2)),
                "message": draw(st.sampled_from(["", "x", "y"])),
            }
            manifest = draw(st.sampled_from("abc"))
            branch = draw(st.sampled_from(["main", "dev"]))
            depth = draw(st.integers(1, 2))
            version = draw(st.sampled_from([None, "1.0.0", "2.0.0"]))
            match draw(st.sampled_from(["publish", "publish", "publish", "branch", "delete", "yank",
                                         "recall", "assess"])):  # fmt: skip
                case "publish":
                    kind = draw(st.sampled_from(["model", "model", "dataset"]))
                    title = draw(st.sampled_from(["Red", "Green"]))
                    writer.publish(
                        manifest, kind=kind, depth=depth, branch=branch, version=version,
                        summary=summary(title=title), **common,
                    )  # fmt: skip
                case "branch":
                    writer.branch(manifest, branch=branch, depth=depth, **common)
                case "delete":
                    writer.branch(None, branch=branch, **common)
                case "yank":
                    writer.yank(version or "1.0.0", **common)
                case "recall":
                    writer.recall(manifest, **common)
                case "assess":
                    writer.assess(manifest, verdict=draw(st.sampled_from(["good", "bad", "withdrawn"])), **common)
    return writers


def answers(known: Known, logs: Sequence[Writer]) -> dict[str, Any]:
    """Return what the catalogue says when it is asked everything."""
    catalogue, namespace = known.catalogue, TWO.namespace
    recalls = Recalls(known.database)
    found: dict[str, Any] = {
        "search": [msgspec.to_builtins(model) for model in known.search.find(Query(sort="name"))],
        "red": known.find("red", sort="name"),
        "publishers": {name: sorted(catalogue.publishers_of(revision(name))) for name in "abc"},
        "recalled": [recalls.message(revision(name), Voices()) for name in "abc"],
        "withheld": sorted(recalls.withheld([revision(name) for name in "abc"], frozenset)),
        "found": Assessments(known.database).about([revision(name) for name in "abc"]),
        "refusals": [catalogue.refusals(writer.log) for writer in logs],
    }
    for model in ("parrot", "finch"):
        found[model] = (
            catalogue.kind(namespace, model),
            catalogue.branches(namespace, model),
            [catalogue.branch(namespace, model, name) for name in ("main", "dev")],
            catalogue.versions(namespace, model),
            [catalogue.version(namespace, model, name) for name in ("1.0.0", "2.0.0")],
            [catalogue.yanked(namespace, model, name) for name in ("1.0.0", "2.0.0")],
            sorted(catalogue.revisions(namespace, model, "")),
            [recalls.message(revision(name), Voices(Repository(namespace, model))) for name in "abc"],
        )
    return found


@given(two_logs(), st.randoms(use_true_random=False))
def test_the_order_in_which_logs_arrive_does_not_matter(
    shared: Known, logs: tuple[Writer, Writer], random: Any
) -> None:
    first, second = (list(writer.entries) for writer in logs)
    expected = answers(shared.clear().apply(*first, *second), logs)
    turns = [0] * len(first) + [1] * len(second)
    random.shuffle(turns)
    rest = [iter(first), iter(second)]

    assert answers(shared.clear().apply(*second, *first), logs) == expected
    assert answers(shared.clear().apply(*(next(rest[turn]) for turn in turns)), logs) == expected


def test_a_recall_that_is_heard_before_the_release_hides_it(known: Known) -> None:
    first, second = two_writers()
    known.apply(second.recall("a", message="bad"))
    known.apply(first.publish("a", version="1.0.0"))

    assert known.find("") == []
    assert Recalls(known.database).message(revision("a"), Voices(Repository(first.namespace, "parrot"))) == "bad"


# ── search: words ───────────────────────────────────────────────────────────


def test_all_words_must_be_there_and_the_last_may_be_the_beginning_of_one(known: Known, writer: Writer) -> None:
    known.apply(
        writer.publish("a", model="parrot-7b", summary=summary(title="A talking bird", tags=("speech",))),
        writer.publish("b", model="finch-7b", summary=summary(title="A singing bird", languages=("fr",))),
    )

    assert set(known.find("")) == set(known.find("bird")) == set(known.find("bi")) == {"parrot-7b", "finch-7b"}
    assert known.find("bird parrot") == known.find("PARROT bird") == known.find("speech") == ["parrot-7b"]
    assert known.find("talking bi") == ["parrot-7b"]
    assert known.find("bi talking") == []
    assert known.find("7b sing") == known.find("fr") == ["finch-7b"]
    assert known.find("bird fish") == []
    assert known.find(str(writer.namespace)) != []


@pytest.mark.parametrize("field", ["title", "excerpt", "task", "library", "architecture"])
def test_every_described_field_is_searched(known: Known, writer: Writer, field: str) -> None:
    known.apply(writer.publish("a", summary=summary(**{field: "Unmistakable"})), writer.publish("b", model="finch"))

    assert known.find("unmistakable") == ["parrot"]


@pytest.mark.parametrize("field", ["languages", "tags", "base_models", "datasets"])
def test_every_list_is_searched(known: Known, writer: Writer, field: str) -> None:
    known.apply(
        writer.publish("a", summary=summary(**{field: ("one", "Two words", "acme/finch-7b")})),
        writer.publish("b", model="finch"),
    )

    for text in ("one", "two", "words", "two words", "acme", "acme/finch-7b"):
        assert known.find(text) == ["parrot"]


TYPED = (
    "bird AND", "bird OR", "NOT bird", "bird NEAR", "NEAR(bird, 2)", '"bird', 'bird"', '""', "bird*", "*bird",
    "-bird", "+bird", "^bird", "title:bird", "title : bird", "{title} : bird", "(bird", "bird)", "bird'", "bird;--",
    "bird%", "bi_d", "\\bird", "bird\0", "bird\n", "models_fts", "rank", "bird\ud800", "🦜 bird", "_", "__ bird",
    "bird _",
)  # fmt: skip


@pytest.mark.parametrize("text", TYPED)
def test_what_people_type_is_never_an_operator(known: Known, writer: Writer, text: str) -> None:
    known.apply(writer.publish("a", summary=summary(title="A bird")))
    operators = {"AND", "OR", "NOT", "NEAR", "NEAR(bird, 2)", "title:bird", "models_fts", "rank", "bi_d"}
    for sort in ("relevance", "newest"):
        found = known.find(text, sort=sort)

        # An operator's name is a word like any other, which is not in the card.
        assert found == ([] if any(word in text for word in operators) or "title" in text else ["parrot"])


@given(st.text(max_size=60), st.sampled_from(["relevance", "name"]))
def test_no_text_breaks_the_search(shared: Known, text: str, sort: str) -> None:
    shared.clear().apply(Writer().publish("a", summary=summary(title=text)))
    shared.find(text, sort=sort)


@given(st.text(min_size=1, max_size=30))
def test_a_word_of_a_title_finds_it(shared: Known, text: str) -> None:
    words = [word for word in text.split() if word.isascii() and word.isalnum()]
    shared.clear().apply(Writer().publish("a", summary=summary(title=text)))
    for word in words:
        assert shared.find(word) == ["parrot"]


def test_the_longest_text_can_be_searched_for(known: Known, writer: Writer) -> None:
    known.apply(writer.publish("a", summary=summary(excerpt="a b c " * 80)))

    assert known.find("a b c " * 160) == ["parrot"]
    assert known.find("a " * 499 + "z") == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_do_not_matter(known: Known, writer: Writer, form: Any) -> None:
    title = unicodedata.normalize(form, "Forêts brûlées de Nẵng")
    known.apply(writer.publish("a", summary=summary(title=title)))

    for text in ("forets", "Forêts", "brulees", "BRÛLÉES", "nang", "NẴNG", "brul"):
        for typed in (unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)):
            assert known.find(typed) == ["parrot"], typed


@pytest.mark.parametrize("text", ["Ελλάδα", "ελλάδα", "Попугай", "попуг", "鹦鹉", "鹦", "한국어", "हिन्दी", "عربي"])
def test_words_of_every_script_are_found(known: Known, writer: Writer, text: str) -> None:
    known.apply(writer.publish("a", summary=summary(title="Ελλάδα Попугай 鹦鹉模型 한국어 हिन्दी عربية عربي")))

    for typed in (unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)):
        assert known.find(typed) == ["parrot"], typed


def test_a_word_in_the_name_counts_more_than_one_in_the_text(known: Known, writer: Writer) -> None:
    filler = {f"other-{number}": summary(title=f"Number {number}") for number in range(20)}
    for name, about in filler.items():
        known.apply(writer.publish(name, model=name, summary=about))
    known.apply(
        writer.publish("a", model="whisper", summary=summary(title="Ears")),
        writer.publish("b", model="ears", summary=summary(title="Ears", excerpt="not whisper")),
    )

    assert known.find("whisper") == ["whisper", "ears"]


# ── search: facets, order, limits ───────────────────────────────────────────


def zoo(known: Known, writer: Writer) -> None:
    known.apply(
        writer.publish("a", model="ant", summary=summary(
            size=10, parameters=1000, task="text-generation", library="transformers", license="Apache-2.0")),
        writer.publish("b", model="Bee", summary=summary(
            size=30, parameters=2000, task="translation", library="transformers", license="MIT")),
        writer.publish("c", model="cow", kind="dataset", summary=summary(size=20)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ({"kind": "model"}, ["ant", "Bee"]), ({"kind": "dataset"}, ["cow"]), ({"kind": "book"}, []),
        ({"task": "translation"}, ["Bee"]), ({"task": "TRANSLATION"}, ["Bee"]), ({"task": "trans"}, []),
        ({"library": "transformers"}, ["ant", "Bee"]), ({"license": "mit"}, ["Bee"]),
        ({"library": "transformers", "license": "apache-2.0"}, ["ant"]), ({"library": "keras", "license": "mit"}, []),
        ({"parameters_min": 1000}, ["ant", "Bee"]), ({"parameters_min": 1001}, ["Bee"]),
        ({"parameters_max": 1999}, ["ant"]), ({"parameters_max": 2000}, ["ant", "Bee"]),
        ({"parameters_min": 1001, "parameters_max": 1999}, []), ({"parameters_min": 0, "kind": "dataset"}, []),
        ({"publisher": str(values.identity().namespace)}, ["ant", "Bee", "cow"]), ({"publisher": "x"}, []),
        ({"task": "' OR 1 --"}, []), ({"task": "%"}, []),
    ],
)  # fmt: skip
def test_every_condition_must_hold(known: Known, writer: Writer, conditions: dict[str, Any], found: list[str]) -> None:
    zoo(known, writer)

    assert known.find(sort="name", **conditions) == found
    # Together with words too, in both ways of ordering.
    for sort in ("name", "relevance"):
        assert sorted(known.find(str(writer.namespace), sort=sort, **conditions), key=str.lower) == found


def test_results_come_in_the_order_asked_for(known: Known, writer: Writer) -> None:
    zoo(known, writer)

    for text in ("", str(writer.namespace)):
        assert known.find(text, sort="newest") == ["cow", "Bee", "ant"]
        assert known.find(text, sort="size") == ["Bee", "cow", "ant"]
        assert known.find(text, sort="parameters") == ["Bee", "ant", "cow"]
        assert known.find(text, sort="name") == ["ant", "Bee", "cow"]
    assert known.find("", sort="relevance") == ["cow", "Bee", "ant"]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, SEARCH_LIMIT_MAX])
@pytest.mark.parametrize("text", ["", "parrot"])
@pytest.mark.parametrize("sort", ["relevance", "newest", "name"])
def test_no_more_comes_than_was_asked_for(known: Known, writer: Writer, limit: int, text: str, sort: str) -> None:
    for number in range(3):
        known.apply(writer.publish(f"{number}", model=f"parrot-{number}"))

    assert len(known.find(text, sort=sort, limit=limit)) == min(3, limit)


# ── what search says of a repository ────────────────────────────────────────


def only(known: Known) -> Model:
    [model] = known.search.find(Query())
    return model


def test_a_newer_release_describes_the_repository(known: Known, writer: Writer) -> None:
    known.apply(writer.publish("a", version="1.0.0", summary=summary(title="Old title", tags=("old",))))
    known.apply(writer.publish("b", version="2.0.0", summary=summary(title="New title", tags=("new",))))

    assert (only(known).title, only(known).version, only(known).tags) == ("New title", "2.0.0", ["new"])
    assert only(known).revision == str(revision("b"))
    assert known.find("old") == []
    assert known.find("new title") == ["parrot"]


def test_a_later_record_of_the_same_second_describes_the_repository(known: Known, writer: Writer) -> None:
    for title in ("One", "Two", "Three"):
        known.apply(writer.publish(title, time=TIME, summary=summary(title=title)))

    assert only(known).title == "Three"


def test_a_model_is_described_by_all_that_its_summary_says(known: Known, writer: Writer) -> None:
    about = summary(
        files=3, size=1234, title="Parrot", excerpt="It repeats.", task="text-generation", library="transformers",
        license="MIT", languages=("en", "fr"), tags=("birds",), base_models=("acme/finch",), datasets=("acme/song",),
        architecture="ParrotForCausalLM", parameters=7_000_000_000, tensor_types=("BF16", "F32"),
        scores=(Score("qa", "acme/quiz", "f1", "61.5"),), 
        variants=(VariantSize("Q4_K_M", 400), VariantSize("F16", 834)),
    )  # fmt: skip
    known.apply(writer.publish("a", version="1.0.0", time=TIME, summary=about))

    assert only(known) == Model(
        namespace=str(writer.namespace), model="parrot", kind="model", revision=str(revision("a")), version="1.0.0",
        time=TIME, files=3, size=1234, parameters=7_000_000_000, task="text-generation", library="transformers",
        license="MIT", languages=["en", "fr"], tags=["birds"], base_models=["acme/finch"], datasets=["acme/song"],
        tensor_types=["BF16", "F32"], architecture="ParrotForCausalLM", title="Parrot", excerpt="It repeats.",
        created=TIME, variants=[VariantInfo("Q4_K_M", 400), VariantInfo("F16", 834)],
        results=[Result("qa/acme/quiz/f1", "61.5")],
    )  # fmt: skip


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1, max_size=20), max_size=5))
def test_search_shows_as_many_words_as_were_published(shared: Known, words: list[str]) -> None:
    shared.clear().apply(Writer().publish("a", summary=summary(tags=tuple(words))))

    assert len(only(shared).tags) == len(words)


# ── looking up by hash ──────────────────────────────────────────────────────


def test_revisions_are_found_by_the_beginning_of_their_hash(known: Known, writer: Writer) -> None:
    known.apply(writer.publish("a"), writer.publish("b"), writer.publish("a", branch="dev"))
    digits = revision("a").hex()

    assert known.catalogue.revisions(writer.namespace, "parrot", digits[:12]) == [revision("a")]
    assert known.catalogue.revisions(writer.namespace, "parrot", digits) == [revision("a")]
    assert set(known.catalogue.revisions(writer.namespace, "parrot", "")) == {revision("a"), revision("b")}
    assert known.catalogue.revisions(writer.namespace, "parrot", "0" * 64) == []
    assert known.catalogue.revisions(writer.namespace, "finch", "") == []


def test_who_published_a_revision_is_known(known: Known, writer: Writer) -> None:
    other = Writer(values.identity("somebody"), values.key("somebody"))
    known.apply(writer.publish("a"), writer.publish("a", branch="dev"), other.publish("a", model="finch"))

    assert sorted(known.catalogue.publishers_of(revision("a"))) == sorted(
        [(writer.namespace, "parrot"), (other.namespace, "finch")]
    )
    assert known.catalogue.publishers_of(revision("b")) == []
