from __future__ import annotations

import os

from storekit import (
    MIB,
    fixed_chunks,
)

from p2phub.store.store import Store
from p2phub.testing import values


def test_what_is_open_for_reading_says_what_it_has(store: Store) -> None:
    data = values.content("file", 3 * MIB + 10)
    chunks = fixed_chunks(data, MIB)
    root = chunks.root()
    assert store.readables.open(root) is None
    store.chunk_lists.save(root, chunks)
    assert store.readables.open(root) is None
    partial = store.partials.begin(root, chunks)
    for index in (1, 3):
        partial.write(index, memoryview(data)[index * MIB : (index + 1) * MIB])
    partial.save()
    some = store.readables.open(root)
    assert some is not None
    assert some.size == len(data)
    for offset, length, here in (
        (MIB, MIB, True), (MIB, 1, True), (2 * MIB - 1, 1, True), (2 * MIB - 1, 2, False), (0, 1, False),
        (0, 3 * MIB, False), (3 * MIB, 10, True), (3 * MIB, 11, False), (3 * MIB + 9, 1, True),
    ):  # fmt: skip
        assert some.has(offset, length) is here
    assert os.pread(some.file, MIB, MIB) == data[MIB : 2 * MIB]
    os.close(some.file)
    for index in (0, 2):
        partial.write(index, memoryview(data)[index * MIB : (index + 1) * MIB])
    store.blobs.finish(root, partial)
    partial.close()
    whole = store.readables.open(root)
    assert whole is not None

    assert whole.has(0, len(data))
    assert not whole.has(0, len(data) + 1)
    os.close(whole.file)


def test_content_that_was_half_removed_is_fetched_anew(store: Store) -> None:
    """A crash while a partial is removed must not leave a claim without bytes."""
    data = values.content("file", 3 * MIB)
    chunks = fixed_chunks(data, MIB)
    root = chunks.root()
    store.chunk_lists.save(root, chunks)
    partial = store.partials.begin(root, chunks)
    partial.write(1, memoryview(data)[MIB : 2 * MIB])
    partial.close()
    store.layout.partial(root).unlink()

    assert store.readables.held_map(root) is False
    assert store.partials.recover(root, chunks) == bytes(3)
    partial = store.partials.begin(root, chunks)
    assert partial.missing() == [0, 1, 2]
    partial.close()
