from __future__ import annotations

from pathlib import Path

import pytest
from storekit import (
    bring,
    fixed_chunks,
    open_store,
    read,
)

from p2phub.core.ids import ContentId
from p2phub.store.chunklists import INLINE_SIZE_MAX
from p2phub.store.store import Store
from p2phub.testing import values
from p2phub.testing.processes import flip_byte


@pytest.mark.parametrize("count", [0, 1, INLINE_SIZE_MAX // 36, INLINE_SIZE_MAX // 36 + 1, 5000])
def test_a_chunk_list_of_any_length_is_kept(tmp_path: Path, count: int) -> None:
    chunks = fixed_chunks(values.content("list", count), 1)
    with open_store(tmp_path) as store:
        assert store.chunk_lists.find(chunks.root()) is None
        store.chunk_lists.save(chunks.root(), chunks)
    others = [ContentId(values.content(str(number), 32)) for number in range(100)]
    with open_store(tmp_path) as store:
        assert store.chunk_lists.find(chunks.root()) == chunks
    with open_store(tmp_path) as store:
        assert store.chunk_lists.find_all([*others, chunks.root()]) == {chunks.root(): chunks}


def test_a_long_chunk_list_outlives_the_index_and_is_checked(tmp_path: Path) -> None:
    chunks = fixed_chunks(values.content("list", 5000), 1)
    with open_store(tmp_path) as store:
        store.chunk_lists.save(chunks.root(), chunks)
    store.layout.index.unlink()
    with open_store(tmp_path) as store:
        assert store.chunk_lists.find(chunks.root()) == chunks
    store.layout.index.unlink()
    flip_byte(store.layout.tree(chunks.root()), 5)
    with open_store(tmp_path) as store:
        assert store.chunk_lists.find(chunks.root()) is None


def test_rot_in_a_long_chunk_list_condemns_no_good_chunk(store: Store) -> None:
    data = values.content("list", 5000)
    chunks = fixed_chunks(data, 1)
    bring(store, data, chunks)
    assert read(store, chunks.root()) == data
    flip_byte(store.layout.tree(chunks.root()), 5, keep_time=True)

    assert store.chunk_lists.find(chunks.root()) in (None, chunks)
