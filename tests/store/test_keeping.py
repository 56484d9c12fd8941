from __future__ import annotations

import os
from pathlib import Path

import pytest
from storekit import open_store, revision, write_old

from p2phub.core.errors import StoreError
from p2phub.store.keeping import View
from p2phub.store.store import Store


def test_a_pin_holds_until_it_is_taken_back(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.keeping.pin(revision("a"), "published")
        store.keeping.pin(revision("b"), "kept")
        store.keeping.pin(revision("a"), "kept")
    with open_store(tmp_path) as store:
        # Why it was pinned first is why it is pinned.
        assert store.keeping.pins() == {revision("a"): "published", revision("b"): "kept"}
        assert store.keeping.unpin(revision("a"))
        assert not store.keeping.unpin(revision("a"))
        assert not store.keeping.unpin(revision("c"))

        assert store.keeping.pins() == {revision("b"): "kept"}


def test_pins_outlive_a_rebuild(store: Store) -> None:
    store.keeping.pin(revision("a"), "published")
    store.rebuild(lambda text: None)

    assert store.keeping.pins() == {revision("a"): "published"}


def test_a_view_tells_what_was_placed_and_how_it_was(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "view"
    one, two = write_old(folder / "one", b"1"), write_old(folder / "deep" / "two", b"22")
    store.keeping.note_view(folder, revision("a"), ["one", "deep/two"])
    view = store.keeping.view(folder)

    assert isinstance(view, View)
    assert (view.folder, view.manifest, list(view.files)) == (folder, revision("a"), ["one", "deep/two"])
    for path, name in ((one, "one"), (two, "deep/two")):
        status = path.stat()
        stamp = view.files[name]
        assert (stamp.size, stamp.mtime_ns, stamp.inode) == (status.st_size, status.st_mtime_ns, status.st_ino)


def test_a_folder_holds_the_view_that_was_placed_last(store: Store, tmp_path: Path) -> None:
    write_old(tmp_path / "a" / "file", b"1")
    write_old(tmp_path / "b" / "file", b"1")
    store.keeping.note_view(tmp_path / "a", revision("old"), ["file"])
    store.keeping.note_view(tmp_path / "a", revision("new"), ["file"])
    store.keeping.note_view(tmp_path / "b", revision("new"), [])

    assert store.keeping.views_of(revision("old")) == []
    assert sorted(store.keeping.views_of(revision("new"))) == [tmp_path / "a", tmp_path / "b"]
    store.keeping.forget_view(tmp_path / "a")
    assert store.keeping.view(tmp_path / "a") is None
    assert store.keeping.views_of(revision("new")) == [tmp_path / "b"]
    assert (tmp_path / "a" / "file").read_bytes() == b"1"


def test_a_file_that_vanished_meanwhile_is_an_error_with_its_path(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        store.keeping.note_view(tmp_path, revision("a"), ["gone"])

    assert caught.value.path == str(tmp_path / "gone")
    assert store.keeping.view(tmp_path) is None


def test_names_of_every_kind_are_remembered(store: Store, tmp_path: Path) -> None:
    names = ["naïve ☕.txt", 'quo"te', "back\\slash", "line\nbreak", "-"]
    for name in names:
        write_old(tmp_path / name, name.encode())
    store.keeping.note_view(tmp_path, revision("a"), names)
    view = store.keeping.view(tmp_path)
    assert view is not None

    assert [view.files[name].inode for name in names] == [os.stat(tmp_path / name).st_ino for name in names]
