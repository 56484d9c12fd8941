"""The maps of a store and their fingerprints: right after any change, whoever made it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from storekit import Writer, open_store

from p2phub.core.fingerprints import EMPTY, branch_of, children_of, log_digest, node_digest, range_of
from p2phub.core.identity import open_identity
from p2phub.core.ids import NodeId
from p2phub.core.noderecord import SignedNodeRecord, sign_node_record
from p2phub.core.signing import SigningKey
from p2phub.store import digests
from p2phub.store.digests import Digest, Digests
from p2phub.store.store import Store
from p2phub.testing import values

NOW = values.TIME
KIND = 9


class Told:
    """A source that says what the test wants."""

    kind = KIND

    def __init__(self) -> None:
        self.items: dict[bytes, Digest] = {}

    def digests(self, connection: Connection, keys: Sequence[bytes], now: float) -> dict[bytes, Digest]:
        found = {key: self.items[key] for key in keys if key in self.items}
        return {key: (digest, end) for key, (digest, end) in found.items() if end is None or end >= now}


def change(store: Store, source: Told, news: dict[bytes, Digest | None]) -> None:
    for key, digest in news.items():
        if digest is None:
            source.items.pop(key, None)
        else:
            source.items[key] = digest
    with store.database.write() as connection:
        connection.executemany(
            "INSERT OR IGNORE INTO digests_changed (kind, key) VALUES (?, ?)", ((KIND, key) for key in news)
        )


def check(maps: Digests, items: dict[bytes, Digest], prefixes: Sequence[str]) -> None:
    """Compare a map with what it must be."""
    expected = sorted((key, digest) for key, (digest, _) in items.items())

    assert maps.root() == branch_of(expected, 0)
    for prefix, children in zip(prefixes, maps.children(prefixes), strict=True):
        low, high = range_of(prefix)
        under = [item for item in expected if low <= item[0] <= high]

        assert maps.items(prefix, 10**6) == under
        if branch_of(under, len(prefix)).is_bucket:
            assert children is None
        else:
            assert children == children_of(under, len(prefix))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), starts=st.lists(st.binary(max_size=3), min_size=1, max_size=3))
def test_a_map_is_what_its_source_says_after_every_change(
    seed: int, starts: list[bytes], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "BATCH", 100)
    rng = random.Random(seed)
    with store.database.write() as connection:
        for table in ("digests", "digests_changed", "prefixes"):
            connection.execute(f"DELETE FROM {table} WHERE kind = ?", (KIND,))
    source = Told()
    maps = Digests(store.database, source)
    for _ in range(5):
        known = sorted(source.items)
        news: dict[bytes, Digest | None] = {}
        for _ in range(rng.choice((1, 20, 300))):
            start = rng.choice(starts)
            news[start + rng.randbytes(32 - len(start))] = rng.randbytes(32), None
        for key in rng.sample(known, rng.randint(0, len(known))):
            news[key] = rng.choice((None, (rng.randbytes(32), None)))
        change(store, source, news)

        assert maps.refresh(NOW)
        prefixes = ["", *(rng.choice(sorted(news)).hex()[: rng.randint(1, 8)] for _ in range(6))]
        check(maps, source.items, prefixes)


def test_an_item_leaves_its_map_when_its_time_is_over(store: Store) -> None:
    source = Told()
    maps = Digests(store.database, source)
    change(store, source, {bytes([n]) * 32: (bytes(32), NOW + n) for n in range(100)})
    maps.refresh(NOW)
    before = maps.root().count
    maps.refresh(NOW + 40)

    assert before == 100
    assert [key[0] for key, _ in maps.items("", 1000)] == list(range(40, 100))
    assert maps.root().count == 60


def test_a_refresh_can_be_had_in_pieces(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "BATCH", 10)
    source = Told()
    maps = Digests(store.database, source)
    change(store, source, {bytes([n]) * 32: (bytes(32), None) for n in range(25)})

    assert not maps.refresh(NOW, keys_max=10)
    assert maps.root().count == 10
    assert maps.refresh(NOW, keys_max=20)
    assert maps.root().count == 25


def test_a_map_without_items_has_the_fingerprint_of_nothing(store: Store) -> None:
    assert store.log_digests.refresh(NOW)
    assert store.log_digests.root() == EMPTY
    assert store.log_digests.children(["", "ab"]) == [None, None]


def log_items(store: Store) -> dict[bytes, bytes]:
    store.log_digests.refresh(NOW)
    return dict(store.log_digests.items("", 1000))


def test_a_log_is_in_the_map_with_its_head_and_the_version_of_its_identity(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, open_store(tmp_path) as other_process:
        writer = Writer().grow(3)
        writer.give(store, 2)
        first = log_items(store)
        head = writer.head(2)
        writer.give(other_process)
        second = log_items(store)

        assert first == {writer.log: log_digest(1, 2, head.root)}
        assert second == {writer.log: log_digest(1, 3, writer.head().root)}
        (shown,) = store.log_states.heads([writer.log])
        assert (shown.namespace, shown.version, shown.head) == (writer.namespace, 1, writer.head().text)


def test_a_new_identity_changes_the_items_of_all_its_logs(store: Store) -> None:
    rotated = values.rotated_identity()
    writer = Writer(open_identity(rotated.chain[:1]), values.key("laptop 1"))
    writer.grow(1).give(store)
    before = log_items(store)
    store.logs.add_identity(rotated)

    assert before == {writer.log: log_digest(1, 1, writer.head().root)}
    assert log_items(store) == {writer.log: log_digest(3, 1, writer.head().root)}


def test_the_map_is_filled_again_with_the_index(store: Store) -> None:
    writer = Writer().grow(2)
    writer.give(store)
    before = log_items(store)
    store.rebuild(lambda _: None)

    assert log_items(store) == before


def record(name: str, *, time: int = NOW, ttl: int = 3600) -> tuple[SigningKey, SignedNodeRecord]:
    key = values.key(name)
    made = replace(values.node_record(), node=NodeId(key.public_key), time=time, ttl=ttl)
    return key, sign_node_record(made, key)


def node_items(store: Store, now: float) -> dict[bytes, bytes]:
    store.node_digests.refresh(now)
    return dict(store.node_digests.items("", 1000))


def test_nodes_are_in_the_map_until_their_record_expires_and_the_own_one_too(store: Store) -> None:
    key, first = record("one")
    own, second = record("two", ttl=7200)
    store.peers.note_record(first)
    store.node_states.note_own(own.public_key, second.data)
    both = node_items(store, NOW)
    later = node_items(store, NOW + 4000)
    _, newer = record("one", time=NOW + 4000)
    store.peers.note_record(newer)
    again = node_items(store, NOW + 4000)
    store.peers.remove(first.record.node)
    last = node_items(store, NOW + 4000)

    assert both == {key.public_key: node_digest(first.data), own.public_key: node_digest(second.data)}
    assert later == last == {own.public_key: node_digest(second.data)}
    assert again[key.public_key] == node_digest(newer.data)
    assert store.node_states.records([key.public_key, own.public_key]) == [second.data]


def test_a_record_may_change_again_and_again_before_anybody_looks(store: Store) -> None:
    for later in range(3):
        key, newest = record("one", time=NOW + later)
        store.peers.note_record(newest)

    assert node_items(store, NOW) == {key.public_key: node_digest(newest.data)}
