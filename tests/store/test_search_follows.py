"""The index of search follows what the logs say, however that came in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storekit import TIME, Known, Writer, open_store, place_entry, summary

from p2phub.core.records import Publish, Score, Summary
from p2phub.core.search import MetricBound, Page, Query
from p2phub.core.words import words
from p2phub.store import searchindex
from p2phub.store.searchindex import SearchIndex
from p2phub.testing.releases import make_logs


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
