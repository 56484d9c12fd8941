"""Lists of repositories, as long as a catalogue is."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
from doorkit import open_door

from p2phub.gateway.hub import listing as hub_listing
from p2phub.testing.hostile import open_home
from p2phub.testing.samples import publish_crowd

COUNT = 600


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Make a home whose catalogue has many repositories; gives it and the namespace."""
    home = tmp_path_factory.mktemp("crowd") / "home"
    return home, trio.run(publish_crowd, home, COUNT)


@pytest.fixture
async def door(crowd):
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(crowd[0], offline=True))
        yield await stack.enter_async_context(open_door(node))


async def every(door, **query):
    """Return the names on all pages, in order, and how many pages there were."""
    url, params, names, pages = "/api/models", query, [], 0
    while url:
        answer = await door.get(url, params=params)
        assert answer.status_code == 200, answer.text
        names += [row["id"].partition("/")[2] for row in answer.json()]
        url, params, pages = answer.links.get("next", {}).get("url"), None, pages + 1
    return names, pages


@pytest.mark.parametrize("sort", ["lastModified", "createdAt", "downloads", "trendingScore"])
async def test_all_come_once_and_the_newest_first(door, sort):
    names, pages = await every(door, sort=sort, limit="80")

    assert names == [f"model-{number:04}" for number in reversed(range(COUNT))]
    assert pages == 8


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ({"pipeline_tag": "fill-mask"}, lambda n: n % 2 == 0),
        ({"filter": "odd"}, lambda n: n % 2 == 1),
        ({"filter": "n_3"}, lambda n: n % 10 == 3),
        ({"filter": ["text-generation", "license:mit"]}, lambda n: n % 2 == 1 and n // 2 % 2 == 1),
        ({"filter": ["fr", "library:transformers"]}, lambda n: n % 3 == 0),
        ({"filter": "base_model:org/base"}, lambda n: n % 100 == 0),
        ({"filter": "language:fr"}, lambda n: n % 3 == 0),
        ({"filter": "n%3"}, lambda n: False),
        ({"num_parameters": "min:0.1B,max:150M"}, lambda n: 100 <= n <= 150),
        ({"num_parameters": "min:999999999999T"}, lambda n: False),
        ({"num_parameters": "max:999999999999T"}, lambda n: True),
        ({"search": "model 77"}, lambda n: ("77" in str(n) and f"{n:04}".startswith("77")) or str(n).startswith("77")),
        ({"search": "nothing like it"}, lambda n: False),
        ({"gated": "true"}, lambda n: False),
        ({"gated": "false", "filter": "odd"}, lambda n: n % 2 == 1),
        ({"apps": "vllm"}, lambda n: False),
    ],
)
async def test_conditions_are_kept_over_all_pages(door, query, matches):
    names, _ = await every(door, limit="40", **query)

    assert sorted(names) == [f"model-{number:04}" for number in range(COUNT) if matches(number)]


async def test_a_page_is_full_and_not_the_last_one(door, monkeypatch):
    monkeypatch.setattr(hub_listing, "SEARCH_LIMIT_MAX", 100)
    names, pages = await every(door)

    assert (len(names), pages) == (COUNT, 6)


async def test_an_author_is_a_namespace(door, crowd):
    mine, _ = await every(door, author=crowd[1], limit="500")
    nobody, _ = await every(door, author="a" * 52)
    odd, _ = await every(door, author="nobody")

    assert (len(mine), nobody, odd) == (COUNT, [], [])


async def test_only_the_fields_that_were_asked_for_come(door):
    rows = (await door.get("/api/models", params={"limit": "2", "expand": ["sha", "tags"]})).json()

    assert [set(row) for row in rows] == [{"_id", "id", "modelId", "sha", "tags"}] * 2


async def test_a_list_without_the_manifests_shows_the_summaries(door):
    rows = (await door.get("/api/models", params={"limit": "3", "full": "true"})).json()

    assert [row["pipeline_tag"] for row in rows] == ["text-generation", "fill-mask", "text-generation"]


async def test_there_are_no_datasets(door):
    assert (await door.get("/api/datasets")).json() == []
