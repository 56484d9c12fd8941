from __future__ import annotations

from pathlib import Path

from blake3 import blake3
from storekit import (
    MIB,
    fixed_chunks,
    take_in,
    write_old,
)

from p2phub.store.store import Store
from p2phub.testing import values


def test_chunks_that_whole_files_hold_are_found_there(store: Store, tmp_path: Path) -> None:
    data = values.content("file", 3 * MIB + 5)
    contents = {"copied": data, "in place": data[MIB:] + b"more", "empty": b""}
    for way, content in (("copy", "copied"), ("in place", "in place"), ("copy", "empty")):
        take_in(store, write_old(tmp_path / content, contents[content]), way)
    partial_data = values.content("partial", MIB)
    partial_chunks = fixed_chunks(partial_data, MIB)
    store.chunk_lists.save(partial_chunks.root(), partial_chunks)
    partial = store.partials.begin(partial_chunks.root(), partial_chunks)
    partial.write(0, memoryview(partial_data))
    partial.close()
    wanted = {
        blake3(piece).digest(): piece
        for piece in (data[:MIB], data[2 * MIB : 3 * MIB], data[3 * MIB :] + b"more", partial_data, b"nowhere")
    }
    places = store.chunk_places.find(set(wanted))

    assert set(places) == set(list(wanted)[:3])
    for digest, found in places.items():
        held = store.blobs.find(found.root)
        assert held is not None
        assert held.path.read_bytes()[found.offset : found.offset + found.length] == wanted[digest]
    assert store.chunk_places.find(set()) == {}
