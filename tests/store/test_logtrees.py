"""Log trees: roots and proofs are those of the spec at every size, and cost the same however long a log is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from sqlite3 import Connection

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storekit import Writer

from p2phub.core import merkle
from p2phub.core.errors import NotFound
from p2phub.core.identity import Epoch, next_document, open_identity, sign_document
from p2phub.core.merkle import LOG_TREE, Frontier
from p2phub.store import logtrees
from p2phub.store.database import Database
from p2phub.store.logs import LogPart
from p2phub.store.logtrees import LogTree
from p2phub.store.store import Store
from p2phub.testing import values

NUMBER = 7
LEAVES = [LOG_TREE.leaf(b"%d" % index) for index in range(400)]


@pytest.fixture(autouse=True)
def few_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the root of each 4 records, so that short logs have many levels."""
    monkeypatch.setattr(logtrees, "STEP", 2)
    monkeypatch.setattr(logtrees, "_FANOUT", 4)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(tmp_path_factory.mktemp("home") / "index.sqlite")


def append(connection: Connection, leaves: Sequence[bytes], start: int = 0) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO entry_rows (log_number, idx, leaf, journal, offset, length) VALUES (?, ?, ?, 1, 0, 0)",
        [(NUMBER, index, leaf) for index, leaf in enumerate(leaves, start)],
    )
    LogTree(connection, NUMBER).grow(start + len(leaves))


def clear(connection: Connection) -> None:
    connection.execute("DELETE FROM entry_rows")
    connection.execute("DELETE FROM log_blocks")


def kept(connection: Connection) -> list[tuple[int, int]]:
    rows = connection.execute("SELECT level, idx FROM log_blocks ORDER BY level, idx")
    return [(row["level"], row["idx"]) for row in rows]


@settings(max_examples=60)
@given(
    ends=st.lists(st.integers(1, 400), min_size=1, max_size=6, unique=True).map(sorted),
    lost=st.sampled_from([None, 1, 2]),
    data=st.data(),
)
def test_roots_and_proofs_are_those_of_the_leaves_however_a_log_grew(
    database: Database, ends: list[int], lost: int | None, data: st.DataObject
) -> None:
    with database.write() as connection:
        clear(connection)
        for number, (begin, end) in enumerate(pairwise([0, *ends])):
            append(connection, LEAVES[begin:end], begin)
            if number == 0 and lost:
                # As an index that an older version wrote.
                connection.execute("DELETE FROM log_blocks WHERE level >= ?", (lost,))
        size = ends[-1]
        tree = LogTree(connection, NUMBER)
        new = data.draw(st.integers(1, size))
        old = data.draw(st.integers(1, new))
        frontier = Frontier(LOG_TREE)
        for leaf in LEAVES[:new]:
            frontier.append(leaf)

        assert tree.root(new) == merkle.root(LOG_TREE, LEAVES[:new])
        assert tree.frontier(new) == frontier
        assert tree.consistency(old, new) == merkle.consistency_proof(LOG_TREE, LEAVES[:new], old)
        with pytest.raises(NotFound):
            tree.root(size + 1)


@settings(max_examples=40)
@given(first=st.integers(1, 400), size=st.integers(0, 400))
def test_what_was_cut_off_says_nothing_of_what_comes_in_its_place(database: Database, first: int, size: int) -> None:
    size = min(first, size)
    with database.write() as connection:
        clear(connection)
        append(connection, LEAVES[:first])
        LogTree(connection, NUMBER).cut(size)
        others = [LOG_TREE.leaf(b"other %d" % index) for index in range(size, 400)]
        append(connection, others, size)

        assert LogTree(connection, NUMBER).root(400) == merkle.root(LOG_TREE, [*LEAVES[:size], *others])


def test_a_proof_of_a_long_log_reads_few_of_its_records(database: Database) -> None:
    with database.write() as connection:
        clear(connection)
        append(connection, LEAVES)
        # All but those beside the two edges.
        connection.execute("DELETE FROM entry_rows WHERE idx NOT BETWEEN 148 AND 151 AND idx < 396")
        connection.execute("DELETE FROM log_blocks WHERE level = 1 AND idx NOT BETWEEN 36 AND 39 AND idx < 96")

        proof = LogTree(connection, NUMBER).consistency(150, 399)
        assert proof == merkle.consistency_proof(LOG_TREE, LEAVES[:399], 150)


def test_a_log_that_goes_and_one_that_gets_its_number_have_nothing_in_common(store: Store) -> None:
    one, other = Writer().grow(20), Writer(values.identity("other"), values.key("other")).grow(20)
    one.give(store)
    with store.database.write() as connection:
        assert kept(connection) != []
        connection.execute("DELETE FROM entry_rows")
        connection.execute("DELETE FROM logs")

        assert kept(connection) == []
    other.give(store)

    assert store.logs.root(other.log, 16) == other.head(16).root
    assert store.logs.root(other.log, 21) is None
    assert store.logs.root(one.log, 16) is None


def test_a_rebuild_makes_the_trees_again(store: Store) -> None:
    writer = Writer().grow(20)
    writer.give(store)
    with store.database.write() as connection:
        before = kept(connection)
        connection.execute("UPDATE log_blocks SET hash = zeroblob(32)")
    assert store.logs.root(writer.log, 16) != writer.head(16).root
    store.logs.rebuild()

    assert store.logs.root(writer.log, 16) == writer.head(16).root
    with store.database.read() as connection:
        assert kept(connection) == before


def test_a_history_that_the_publisher_did_not_choose_leaves_nothing_behind(store: Store) -> None:
    one = Writer().grow(20)
    other = one.fork(0).grow(18)
    one.give(store)
    end = Epoch(one.key.public_key, 1, 18, other.head().root)
    document = msgspec.structs.replace(next_document(one.identity, created=values.TIME), epochs=(end,))
    closed = open_identity([*one.identity.chain, sign_document(document, [one.key])])
    store.logs.add_identity(closed)
    assert store.logs.root(one.log, 1) is None
    part = LogPart(closed, one.log, None, 0, tuple(other.data()))
    assert store.logs.extend_many([part], now=4e9) == [18]

    assert store.logs.root(one.log, 18) == other.head().root
