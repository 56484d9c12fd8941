"""A store or a catalogue of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from storekit import Known, Writer, check_entry_bytes, open_store

from p2phub.store.store import Store
from p2phub.testing.releases import make_logs


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path) as opened:
        yield opened
        check_entry_bytes(opened)


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Known]:
    opened = Known(tmp_path / "index.sqlite")
    yield opened
    opened.database.close()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """A catalogue like that of a hub. Nobody changes it."""
    opened = Known(tmp_path_factory.mktemp("crowd") / "index.sqlite")
    for log in make_logs(1500):
        opened.apply(*log.entries)
    yield opened
    opened.database.close()


@pytest.fixture
def writer() -> Writer:
    return Writer()
