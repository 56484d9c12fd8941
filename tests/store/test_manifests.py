from __future__ import annotations

from pathlib import Path

import pytest
from storekit import open_store, tree

from p2phub.core import manifest as manifests
from p2phub.core.errors import InvalidData, StoreError
from p2phub.core.ids import ManifestId
from p2phub.core.manifest import manifest_id
from p2phub.store.store import Store
from p2phub.testing import values
from p2phub.testing.processes import flip_byte

SMALL = manifests.encode(values.manifest())
FULL = manifests.encode(values.full_manifest())


def test_a_manifest_that_was_added_is_here(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        assert store.manifests.add(FULL) == manifest_id(FULL)
        assert store.manifests.add(FULL) == manifest_id(FULL)
    with open_store(tmp_path) as store:
        assert store.manifests.data(manifest_id(FULL)) == FULL
        assert store.manifests.get(manifest_id(FULL)) == values.full_manifest()
        assert store.manifests.all() == [manifest_id(FULL)]
        assert list(tree(store.layout.store / "manifests").values()) == [FULL]


def test_what_is_no_manifest_is_refused(store: Store) -> None:
    for data in (b"", b"\xa0", FULL[:-1], FULL + b"\0"):
        with pytest.raises(InvalidData):
            store.manifests.add(data)

    assert store.manifests.all() == []
    assert tree(store.layout.store) == {}


def test_a_damaged_manifest_is_not_here_until_it_comes_again(store: Store) -> None:
    identifier = store.manifests.add(FULL)
    flip_byte(store.layout.manifest(identifier), 100)
    assert store.manifests.data(identifier) is None
    assert store.manifests.get(identifier) is None
    store.manifests.add(FULL)

    assert store.manifests.data(identifier) == FULL


def test_a_manifest_whose_file_is_gone_is_not_here_until_it_comes_again(store: Store) -> None:
    identifier = store.manifests.add(FULL)
    store.layout.manifest(identifier).unlink()
    assert store.manifests.data(identifier) is None
    store.manifests.add(FULL)

    assert store.manifests.get(identifier) == values.full_manifest()


def test_a_manifest_that_cannot_be_read_is_an_error_with_its_path(store: Store) -> None:
    identifier = ManifestId(bytes(32))
    store.layout.manifest(identifier).mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        store.manifests.data(identifier)

    assert caught.value.path == str(store.layout.manifest(identifier))


def test_manifests_are_found_by_the_beginning_of_their_hash(store: Store) -> None:
    for data in (SMALL, FULL):
        store.manifests.add(data)
    digits = manifest_id(FULL).hex()

    for length in (12, 13, 63, 64):
        assert store.manifests.find_prefix(digits[:length]) == [manifest_id(FULL)]
    assert store.manifests.find_prefix("") == store.manifests.all() == sorted(map(manifest_id, (SMALL, FULL)))
    other = f"{int(digits[:12], 16) ^ 1:012x}"
    assert store.manifests.find_prefix(other) == []


def test_a_removed_manifest_needs_nothing_any_more(store: Store) -> None:
    for data in (SMALL, FULL):
        store.manifests.add(data)
    roots = {name: {file.root for file in value.files} for name, value in
             (("small", values.manifest()), ("full", values.full_manifest()))}  # fmt: skip
    assert store.manifests.needed_content() == roots["small"] | roots["full"]
    store.manifests.remove(manifest_id(FULL))
    store.manifests.remove(manifest_id(FULL))

    assert store.manifests.needed_content() == roots["small"]
    assert store.manifests.data(manifest_id(FULL)) is None
    assert store.manifests.all() == [manifest_id(SMALL)]


def test_profiles_are_those_of_the_files(store: Store) -> None:
    store.manifests.add(FULL)

    assert store.manifests.profiles() == {file.root: file.profile for file in values.full_manifest().files}
