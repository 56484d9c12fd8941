"""A log of one's own, checked as a stranger would."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from sqlite3 import Connection

import pytest
from storekit import TIME, open_store, revision, summary

from p2phub.core.checkpoint import open_head
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId
from p2phub.core.merkle import LOG_TREE, Frontier
from p2phub.core.records import NO_PREVIOUS, Publish, Record, log_id, open_entry
from p2phub.store.logs import MakeRecord
from p2phub.store.store import Store
from p2phub.testing import values

MIB = 1024 * 1024


def make(name: str, *, model: str = "parrot", time: int = TIME) -> MakeRecord:
    def make_record(connection: Connection, log: LogId, index: int, previous: bytes, since: int) -> Record:
        return Publish(
            namespace=values.identity().namespace,
            log=log,
            index=index,
            previous=previous,
            time=time + index,
            model=model,
            kind="model",
            manifest=revision(name),
            depth=1,
            branch="main",
            summary=summary(),
        )

    return make_record


def append(store: Store, name: str, **options: object) -> None:
    identity = values.identity()
    store.logs.add_identity(identity)
    store.logs.append_own(identity.namespace, values.key("publisher"), make(name, **options))  # type: ignore[arg-type]


def check_whole(store: Store, identity: Identity, log: LogId) -> int:
    """Check the log from its first record to its head, as a stranger would; returns its size."""
    state = store.logs.state(log)
    assert state is not None
    key = identity.logs[log]
    frontier, previous = Frontier(LOG_TREE), NO_PREVIOUS
    data = store.logs.entries(log, 0, size_max=10**9)
    for index, encoded in enumerate(data):
        entry = open_entry(encoded, namespace=identity.namespace, key=key, index=index, previous=previous)
        frontier.append(entry.leaf)
        previous = entry.leaf
    head = open_head(state.head, log=log, key=key)

    assert len(data) == state.size == head.size
    assert frontier.root() == state.root == head.root
    return state.size


def check_own(store: Store) -> int:
    identity = values.identity()
    return check_whole(store, identity, log_id(identity.namespace, values.key("publisher").public_key))


@contextmanager
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    with open_store(folder) as store:
        yield store
    shutil.rmtree(folder)
