"""While a node runs, its journals are made smaller and its index of search is kept in few pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from p2phub.core.errors import StoreError
from p2phub.core.search import Query
from p2phub.node import compacting
from p2phub.node.compacting import compact_journals, merge_search
from p2phub.node.node import Node
from p2phub.store import searchindex
from p2phub.store.logs import LogPart, Logs
from p2phub.store.search import Search
from p2phub.store.searchindex import SearchIndex
from p2phub.testing.hostile import open_home
from p2phub.testing.releases import make_log

LOGS = 12


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it look all the time, merge a small index, and see in no number of repositories a catalogue that comes in."""
    for name in ("LOOK_S", "BREAK_S", "MERGE_LOOK_S"):
        monkeypatch.setattr(compacting, name, 0.002)
    monkeypatch.setattr(compacting, "BUSY_RATE", 1e9)
    monkeypatch.setattr(searchindex, "SCATTERED_MIN", 0)
    monkeypatch.setattr(searchindex, "MERGED_AT_ONCE", 5)


def grow(node: Node, *numbers: int) -> None:
    """Take in the logs with these numbers, each in a transaction, and so in a piece, of its own."""
    for number in numbers:
        log = make_log(number, 15)
        node.store.logs.extend_many([LogPart(log.identity, log.head.log, log.head, 0, tuple(log.data))], now=4e9)


def pages_beside_the_largest(node: Node) -> tuple[int, int]:
    """Return how many pages of the index are not in its largest piece, and how many there are."""
    with node.store.database.read() as connection:
        sizes = [row[0] for row in connection.execute("SELECT count(*) FROM search_idx GROUP BY segid")]
    return sum(sizes) - max(sizes), sum(sizes)


def is_scattered(node: Node) -> bool:
    beside, pages = pages_beside_the_largest(node)
    return beside > pages // searchindex.SCATTERED_PART


@asynccontextmanager
async def while_running(task: Callable[[Node], Awaitable[None]], node: Node) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task, node)
        yield
        nursery.cancel_scope.cancel()


async def wait_until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - the disk tells nobody
            await trio.sleep(0.002)


async def test_an_index_in_many_pieces_becomes_one_while_the_node_runs(tmp_path: Path) -> None:
    async with open_home(tmp_path) as node:
        grow(node, *range(LOGS))
        assert is_scattered(node)
        async with while_running(merge_search, node):
            await wait_until(lambda: not is_scattered(node))
            grow(node, *range(LOGS, 2 * LOGS))
            await wait_until(lambda: not is_scattered(node))

        assert node.store.search.count() == len(node.store.search.find(Query(limit=1000)))


async def test_merging_waits_while_a_catalogue_comes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    count = Search.count

    def come_in(search: Search) -> int:
        nonlocal looks
        looks += 1
        if looks <= LOGS:
            grow(node, looks)
        return count(search)

    monkeypatch.setattr(compacting, "BUSY_RATE", 0)
    monkeypatch.setattr(Search, "count", come_in)
    merged_at: list[int] = []
    merge = SearchIndex.merge

    def note(index: SearchIndex) -> Iterator[int]:
        merged_at.append(looks)
        return merge(index)

    monkeypatch.setattr(SearchIndex, "merge", note)
    async with open_home(tmp_path) as node, while_running(merge_search, node):
        await wait_until(lambda: bool(merged_at))
        await wait_until(lambda: not is_scattered(node))

    # The first look knows of no rate, and what came in before the last one is seen by that.
    assert merged_at[0] == LOGS + 1


def full_at_first(calls: list[int]) -> Callable[..., Iterator[int]]:
    """Return what takes the place of steps on the disk: it is full when they are begun for the first time."""

    def steps(*_: object) -> Iterator[int]:
        calls.append(len(calls))
        if len(calls) == 1:
            raise StoreError("no space left", path="index")
        yield from (3, 4)

    return steps


@pytest.mark.parametrize(
    ("task", "owner", "verb", "said"),
    [(merge_search, SearchIndex, "merge", "about 7 pages"), (compact_journals, Logs, "compact", "7 bytes")],
)
async def test_a_full_disk_is_said_and_tried_again(
    task: Callable[[Node], Awaitable[None]],
    owner: type,
    verb: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(owner, verb, full_at_first(calls))
    caplog.set_level("INFO", logger=compacting.__name__)
    async with open_home(tmp_path) as node, while_running(task, node):
        await wait_until(lambda: said in caplog.text)

    assert "for now: no space left" in caplog.text
