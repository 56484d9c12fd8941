"""What is here already is not fetched."""

from __future__ import annotations

import os

from blake3 import blake3

from p2phub.core.filetree import ChunkList, pack
from p2phub.node.dedup import KnownChunks, count_known, find_known
from p2phub.store.layout import Layout
from p2phub.store.store import Store

CHUNK = 1024 * 1024


def chunk_list(*chunks: bytes) -> ChunkList:
    return ChunkList(b"".join(pack(len(chunk), blake3(chunk).digest()) for chunk in chunks))


def test_a_chunk_that_another_file_holds_is_found_and_read(tmp_path):
    first, second, new = (os.urandom(CHUNK) for _ in range(3))
    (tmp_path / "base").write_bytes(first + second)
    with Store(Layout(tmp_path / "home", tmp_path / "store")) as store:
        store.intake.ingest(tmp_path / "base", "fixed-1m")
        wanted = chunk_list(new, second)
        places = find_known(store, [wanted], [bytearray(2)])
        known = KnownChunks(store, places)
        nothing, found = known.read(wanted.hash(0)), known.read(wanted.hash(1))
        known.close()

    assert nothing is None
    assert found is not None
    assert found.data == second
    assert found.stays
    assert count_known([wanted], [bytearray(2)], places) == CHUNK


def test_a_rotten_chunk_is_not_taken(tmp_path):
    chunk = os.urandom(CHUNK)
    (tmp_path / "base").write_bytes(chunk)
    with Store(Layout(tmp_path / "home", tmp_path / "store")) as store:
        root = store.intake.ingest(tmp_path / "base", "fixed-1m").root
        held = store.blobs.find(root)
        assert held is not None
        status = os.stat(held.path)
        os.chmod(held.path, 0o644)
        with open(held.path, "r+b") as file:
            file.write(bytes([chunk[0] ^ 1]))
        # Rot changes no time of change.
        os.utime(held.path, ns=(status.st_atime_ns, status.st_mtime_ns))
        known = KnownChunks(store, find_known(store, [chunk_list(chunk)], [bytearray(1)]))
        read = known.read(blake3(chunk).digest())
        known.close()

    assert read is None


def test_nothing_is_looked_for_when_nothing_is_missing(tmp_path):
    chunk = os.urandom(1000)
    with Store(Layout(tmp_path / "home", tmp_path / "store")) as store:
        assert find_known(store, [chunk_list(chunk)], [bytearray(b"\1")]) == {}
