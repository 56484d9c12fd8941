"""The stores together: what can be rebuilt from the files is rebuilt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from storekit import Writer, open_store, revision, summary, two_keys_identity, write_old

from p2phub.core import manifest as manifests
from p2phub.core.errors import ForkedLog
from p2phub.core.ids import ContentId, ManifestId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.core.search import Page, Query
from p2phub.store.store import Store
from p2phub.testing import values
from p2phub.testing.processes import flip_byte

MIB = 1024 * 1024
TWO = two_keys_identity("laptop", "server")


def publish_files(store: Store, folder: Path) -> ManifestId:
    """Take some files into the store, and a manifest that lists them."""
    entries = []
    for name, data in (("empty", b""), ("large", values.content("large", 3 * MIB)), ("small", b"bytes")):
        result = store.intake.ingest(write_old(folder / name, data), "cdc-1m")
        entries.append(FileEntry(name, result.size, result.root, result.sha256, "other", "cdc-1m"))
    return store.manifests.add(
        manifests.encode(Manifest(schema=1, kind="model", created=values.TIME, files=tuple(entries)))
    )


def fill_store(store: Store, folder: Path, *, in_own_files: bool = False) -> tuple[ManifestId, list[Writer]]:
    manifest = publish_files(store, folder)
    laptop, server = Writer(TWO, values.key("laptop")), Writer(TWO, values.key("server"))
    alone = Writer().grow(3)
    laptop.publish("a", version="1.0.0", depth=1, summary=summary(title="First words", tags=("one", "two")))
    laptop.publish("b", version="1.0.0", depth=2)  # refused
    laptop.publish("c", branch="dev", kind="dataset")  # refused
    laptop.yank("1.0.0", message="broken")
    server.publish("d", version="1.0.0", depth=2, branch="main")
    server.branch(None, branch="old")
    server.publish("e", model="finch", summary=summary(title="Other words"))
    writers = [laptop, server, alone]
    for writer in writers:
        if in_own_files:
            write_own_files(store, writer)
        writer.give(store)
    return manifest, writers


def write_own_files(store: Store, writer: Writer) -> None:
    """Let a log be as one that is written in this home: it stays in a file of its own."""
    store.logs.add_identity(writer.identity, own=True)
    first = writer.data()[0]
    write_old(store.layout.log(writer.log), len(first).to_bytes(4, "big") + first)


def everything(store: Store, writers: list[Writer]) -> dict[str, Any]:
    """Return all that the files say, as it is told."""
    catalogue = store.catalogue
    models = [(writer.namespace, model) for writer in writers for model in ("parrot", "finch")]
    return {
        "logs": store.logs.states(),
        "entries": [store.logs.entries(writer.log, 0, size_max=10**9) for writer in writers],
        "identities": [store.logs.identity(writer.namespace) for writer in writers],
        "search": [msgspec.to_builtins(model) for model in store.search.find(Query(sort="name"))],
        "words": [model.title for model in store.search.find(Query(text="words"))],
        "branches": [catalogue.branches(*model) for model in models],
        "versions": [catalogue.versions(*model) for model in models],
        "yanked": [catalogue.yanked(*model, "1.0.0") for model in models],
        "refusals": [catalogue.refusals(writer.log) for writer in writers],
        "publishers": [sorted(catalogue.publishers_of(revision(name))) for name in "abcde"],
        "manifests": store.manifests.all(),
        "needed": store.manifests.needed_content(),
        "content": {root: store.blobs.find(root) for root in store.clearing.roots()},
        "chunks": {root: store.chunk_lists.find(root) for root in store.clearing.roots()},
    }


def rebuild(store: Store) -> dict[str, int]:
    told: list[str] = []
    found = store.rebuild(told.append)

    assert told
    return found


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[tuple[Store, ManifestId, list[Writer]]]:
    with open_store(tmp_path) as store:
        yield store, *fill_store(store, tmp_path / "files")


Filled = tuple[Store, ManifestId, list[Writer]]


def lose_index(store: Store) -> Store:
    """Return the same store opened anew, with an index that knows nothing."""
    store.close()
    for path in store.layout.home.glob("index.sqlite*"):
        path.unlink()
    return Store(store.layout)


@pytest.mark.parametrize("lost", [False, True], ids=["the index is here", "the index is gone"])
def test_a_rebuilt_index_says_what_the_old_one_said(filled: Filled, lost: bool) -> None:
    store, _, writers = filled
    before = everything(store, writers)
    if lost:
        store = lose_index(store)
        assert store.logs.states() == []
    found = rebuild(store)

    assert found == {"manifests": 1, "records": 10, "objects": 3, "damaged": 0}
    assert everything(store, writers) == before
    assert rebuild(store) == found
    store.close()


@pytest.mark.parametrize(
    "step", ["p2phub.core.manifest.decode", "p2phub.store.rebuild.Rebuild.run", "p2phub.store.blobs.scan"]
)
def test_a_rebuild_that_is_broken_off_loses_nothing(filled: Filled, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _, writers = filled
    before = everything(store, writers)

    def break_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(step, break_off)
        with pytest.raises(KeyboardInterrupt):
            rebuild(store)

    assert everything(store, writers) == before


def test_a_rebuild_forgets_what_is_no_file_any_more(filled: Filled) -> None:
    store, manifest, _ = filled
    roots = list(store.clearing.roots())
    store.layout.object(roots[0]).unlink()
    assert rebuild(store)["objects"] == 2
    assert [store.blobs.find(root) is None for root in roots] == [True, False, False]
    assert store.chunk_lists.find(roots[0]) is None
    store.layout.manifest(manifest).unlink()

    assert rebuild(store) == {"manifests": 0, "records": 10, "objects": 0, "damaged": 0}
    assert (store.manifests.all(), store.manifests.needed_content()) == ([], set())
    assert [store.blobs.find(root) for root in roots] == [None, None, None]


def test_what_only_this_machine_knows_is_kept(filled: Filled, tmp_path: Path) -> None:
    store, manifest, writers = filled
    store.keeping.pin(manifest, "published")
    store.keeping.note_view(tmp_path / "files", manifest, ["small"])
    fork = writers[2].fork(1)
    fork.publish("other")
    with pytest.raises(ForkedLog):
        store.logs.check_head(fork.head())
    rebuild(store)

    assert store.keeping.pins() == {manifest: "published"}
    assert store.keeping.view(tmp_path / "files")
    assert store.logs.fork(writers[2].log)


def test_files_in_place_must_be_published_again(store: Store, tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", b"bytes")
    root = store.intake.ingest(path, "fixed-1m", in_place=True).root
    rebuild(store)
    assert store.blobs.find(root) is None

    assert store.intake.ingest(path, "fixed-1m", in_place=True).root == root
    assert store.blobs.find(root)


def roots_by_name(store: Store, manifest: ManifestId) -> dict[str, ContentId]:
    value = store.manifests.get(manifest)
    assert value is not None
    return {file.path: file.root for file in value.files}


def test_damaged_objects_are_counted_and_not_handed_out(filled: Filled) -> None:
    store, manifest, _ = filled
    roots = roots_by_name(store, manifest)
    flip_byte(store.layout.object(roots["large"]), MIB, keep_time=True)
    store.layout.object(roots["small"]).unlink()
    store.layout.object(roots["small"]).mkdir()
    store = lose_index(store)

    assert rebuild(store) == {"manifests": 1, "records": 10, "objects": 1, "damaged": 2}
    assert store.blobs.find(roots["large"]) is None
    assert store.blobs.find(roots["empty"])
    store.close()


@pytest.mark.parametrize("damage", ["a flipped bit", "cut", "empty", "noise", "a folder"])
def test_a_damaged_file_costs_only_what_it_said(tmp_path: Path, damage: str) -> None:
    store = open_store(tmp_path / "own")
    manifest, writers = fill_store(store, tmp_path / "files", in_own_files=True)
    laptop, server, alone = writers
    paths = {
        "manifest": store.layout.manifest(manifest),
        "identity": store.layout.identity(alone.namespace),
        "log": store.layout.log(server.log),
        "head": store.layout.log(laptop.log).with_suffix(".head"),
    }
    for path in paths.values():
        data = path.read_bytes()
        path.chmod(0o644)
        if damage == "a flipped bit":
            flip_byte(path, len(data) // 2)
        elif damage == "cut":
            path.write_bytes(data[: len(data) // 2])
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "noise":
            path.write_bytes(values.content("noise", len(data)))
        else:
            path.unlink()
            path.mkdir()
    store = lose_index(store)
    found = rebuild(store)

    assert found["manifests"] == 0
    assert 4 <= found["records"] < 10
    assert store.logs.identity(alone.namespace) is None
    state = store.logs.state(laptop.log)
    assert state is not None
    assert state.size == 4
    # And all of it can come again, once nothing stands in the way.
    for path in paths.values():
        if path.is_dir():
            path.rmdir()
    for writer in writers:
        writer.give(store)
        state = store.logs.state(writer.log)
        assert state is not None
        assert (state.size, state.head) == (len(writer.entries), writer.head().text)
    store.close()


def test_what_a_crash_left_behind_is_passed_over(filled: Filled) -> None:
    store, _, writers = filled
    before = everything(store, writers)
    for folder in ("manifests/ab", "identities/ab", "logs/ab", "objects/ab", "objects"):
        for name in (".new-x", "strange"):
            write_old(store.layout.store / folder / name, b"half a file")
    store = lose_index(store)

    assert rebuild(store) == {"manifests": 1, "records": 10, "objects": 3, "damaged": 0}
    assert everything(store, writers) == before
    store.close()


def test_an_empty_store_is_rebuilt_to_an_empty_one(store: Store) -> None:
    assert rebuild(store) == {"manifests": 0, "records": 0, "objects": 0, "damaged": 0}


def test_a_store_that_is_closed_can_be_opened_again(tmp_path: Path) -> None:
    for _ in range(3):
        with open_store(tmp_path) as store:
            store.keeping.pin(revision("a"), "kept")
    with open_store(tmp_path) as store:
        assert store.keeping.pins() == {revision("a"): "kept"}


def test_searches_find_what_they_found_while_a_store_is_rebuilt(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    Writer().grow(3).give(store)
    everything = Query(facets=True)
    before = store.search.find(everything)
    assert len(before) == 1
    during: list[Page] = []
    logs, refill = store.logs.rebuild, store.index.refill

    def rebuild_logs() -> int:
        count = logs()
        during.append(store.search.find(everything))
        return count

    def rebuild_search() -> None:
        during.append(store.search.find(everything))
        refill()

    monkeypatch.setattr(store.logs, "rebuild", rebuild_logs)
    monkeypatch.setattr(store.index, "refill", rebuild_search)
    rebuild(store)
    first, second = during

    assert first == before
    # It says so while it cannot know.
    assert second.counts is not None
    assert (second.models, second.complete, second.counts.complete) == ([], False, False)
    assert store.search.find(everything) == before
