"""The releases of a manifest are found without going through all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from storekit import TIME, Writer, open_store, revision

from p2phub.core.ids import NodeId
from p2phub.core.search import Query
from p2phub.store.database import Database
from p2phub.testing import values


@contextlib.contextmanager
def no_scans(database: Database) -> Iterator[None]:
    """Fail if a statement of this thread goes through all releases."""
    statements: list[str] = []
    with database.read() as connection:
        connection.set_trace_callback(statements.append)
        try:
            yield
        finally:
            connection.set_trace_callback(None)
        asked = {
            each for each in statements if each.startswith(("SELECT", "UPDATE", "WITH")) and "release_rows" in each
        }
        assert asked
        for statement in asked:
            plan = [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
            assert not {"SCAN r", "SCAN o", "SCAN release_rows"} & set(plan), (statement, plan)


def test_the_releases_of_a_manifest_are_found_by_their_index(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        writer = Writer()
        writer.publish("a", model="ant")
        writer.publish("b", model="bee")
        writer.give(store)
        node = NodeId(values.key("alice").public_key)

        with no_scans(store.database):
            store.holdings.note(node, [(revision("a"), 1000)], TIME)
        with no_scans(store.database):
            assert len(store.search.find(Query(here=True))) == 0
        with no_scans(store.database):
            assert len(store.catalogue.publishers_of(revision("a"))) == 1
        with no_scans(store.database):
            assert len(store.gates.of_manifest(revision("a"))) == 1
        with no_scans(store.database):
            assert store.gates.of_content([values.content("file", 32)]) == {}
        assert store.search.find(Query("ant"))[0].replicas == 1
