"""Two processes that download one file: what the one finished, the other does not spoil, and finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2phub.core.choices import Profile
from p2phub.core.errors import StoreError
from p2phub.node.partials import DownloadPartials, WantedFile
from p2phub.store.layout import Layout
from p2phub.store.store import Store
from p2phub.testing import values

DATA = values.content("at once", 3_000_000)
PROFILE: Profile = "fixed-1m"


@pytest.fixture
def wanted(tmp_path: Path) -> WantedFile:
    """Return a file with its chunk list, as another store has it."""
    (tmp_path / "file").write_bytes(DATA)
    with Store(Layout(tmp_path / "other", tmp_path / "other/store")) as store:
        root = store.intake.ingest(tmp_path / "file", PROFILE).root
        chunks = store.chunk_lists.find(root)
    assert chunks is not None
    return WantedFile(root, chunks)


@pytest.fixture
def store(tmp_path: Path, wanted: WantedFile):
    with Store(Layout(tmp_path / "home", tmp_path / "home/store")) as opened:
        opened.chunk_lists.save_all({wanted.root: wanted.chunks})
        yield opened


def write(partials: DownloadPartials, wanted: WantedFile, *indices: int) -> None:
    for index in indices:
        begin = wanted.chunks.offset(index)
        partials.write(0, index, memoryview(DATA)[begin : begin + wanted.chunks.length(index)])


def test_what_another_process_finished_since_it_was_looked_at_is_as_good(store, wanted):
    last = len(wanted.chunks) - 1
    other, ours = (DownloadPartials(store, [wanted]) for _ in range(2))
    write(other, wanted, *range(last))
    other.save()
    here = ours.recover()[0]
    write(other, wanted, last)
    other.finish(0)
    other.close()
    write(ours, wanted, last)
    ours.finish(0)
    ours.close()

    assert list(here) == [1] * last + [0]
    held = store.blobs.find(wanted.root)
    assert held is not None
    assert held.path.read_bytes() == DATA
    assert os.listdir(store.layout.partial(wanted.root).parent) == []


def test_a_partial_that_was_removed_since_it_was_looked_at_is_told_of(store, wanted):
    ours = DownloadPartials(store, [wanted])
    write(ours, wanted, 1)

    with pytest.raises(StoreError, match="was removed while it was written"):
        ours.finish(0)
    ours.close()
