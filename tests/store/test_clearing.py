from __future__ import annotations

from pathlib import Path

import pytest
from blake3 import blake3
from storekit import (
    MIB,
    objects,
    open_store,
    read,
    start,
    take_in,
    tree,
    write_old,
)

from p2phub.store.links import place
from p2phub.store.store import Store
from p2phub.testing import values


def publish_slowly(home: str, path: str) -> None:
    def progress(size: int) -> None:
        print(size, flush=True)
        input()

    open_store(Path(home)).intake.ingest(Path(path), "fixed-1m", progress=progress)


@pytest.mark.parametrize("way", ["copy", "hard link"])
def test_a_publish_that_is_killed_leaves_nothing_for_ever(store: Store, tmp_path: Path, way: str) -> None:
    path = write_old(tmp_path / "file", values.content("file", 5 * MIB))
    path.chmod(0o444 if way == "hard link" else 0o644)
    process = start(publish_slowly, tmp_path, path)
    assert process.stdout
    assert process.stdout.readline()
    process.kill()
    process.communicate()

    assert store.clearing.roots() == []
    # Somebody else may be at work, so that what is young is left alone, however old the bytes are.
    assert store.clearing.remove_leftovers(age_s=3600) == 0
    leftovers = [entry for entry in store.layout.store.rglob("*") if entry.is_file()]
    assert len(leftovers) == 1
    assert (store.clearing.remove_leftovers(age_s=-10) > 0) == (way == "copy")
    assert tree(store.layout.store) == {}
    assert path.read_bytes() == values.content("file", 5 * MIB)
    assert read(store, take_in(store, path).root) == path.read_bytes()
    assert store.clearing.remove_leftovers(age_s=-10) == 0
    assert len(objects(store)) == 1


def test_leftovers_of_every_store_are_removed_and_nothing_else(store: Store) -> None:
    begun = [
        store.layout.store / name for name in
        ("objects/.new-a", "objects/ab/.new-b", "trees/ab/.new-c", "manifests/ab/.new-d", "logs/ab/.new-e",
         "identities/ab/.new-f", "objects/.new-a-link")
    ]  # fmt: skip
    kept = [
        store.layout.store / name for name in
        ("objects/ab/whole", "partial/ab/some.data", "views/ns/model/rev/.new-file-of-the-model", "logs/ab/log")
    ]  # fmt: skip
    for path in (*begun, *kept):
        write_old(path, bytes(4096))

    assert store.clearing.remove_leftovers(age_s=-10) == 7 * 4096
    assert [path for path in (*begun, *kept) if path.exists()] == kept


def test_removed_content_is_gone_and_can_come_back(store: Store, tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", values.content("file", 3 * MIB))
    root = take_in(store, path).root

    assert store.clearing.remove(root) == 3 * MIB
    assert store.blobs.find(root) is None
    assert store.chunk_lists.find(root) is None
    assert store.clearing.roots() == []
    assert store.clearing.remove(root) == 0
    assert take_in(store, path).written == 3 * MIB


def test_what_a_checkout_links_to_is_not_counted_as_freed(store: Store, tmp_path: Path) -> None:
    root = take_in(store, write_old(tmp_path / "file", values.content("file", 3 * MIB))).root
    held = store.blobs.find(root)
    assert held is not None
    place(held.path, tmp_path / "view", "hard", shared=True)

    assert store.clearing.remove(root) == 0
    assert blake3((tmp_path / "view").read_bytes()).digest() == blake3(values.content("file", 3 * MIB)).digest()


def test_removing_content_never_touches_a_file_in_place(store: Store, tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", b"bytes")
    result = take_in(store, path, "in place")

    assert store.clearing.remove(result.root) == 0
    assert path.read_bytes() == b"bytes"
    assert store.blobs.find(result.root) is None
    assert store.clearing.roots() == []
