from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storekit import (
    MIB,
    bring,
    change_by_growing,
    change_by_shrinking,
    fill,
    fixed_chunks,
    objects,
    open_store,
    read,
    run_in_small_disk,
    run_read_only,
    take_in,
    tree,
    write_old,
)

from p2phub.core.choices import Profile
from p2phub.core.errors import NoSpace, NotFound, StoreError
from p2phub.core.ids import ContentId
from p2phub.store.blobs import Blobs, Held
from p2phub.store.ingest import Progress, Stamp
from p2phub.store.layout import Layout
from p2phub.store.links import place
from p2phub.store.store import Store
from p2phub.testing import values
from p2phub.testing.processes import flip_byte

# ── downloads ────────────────────────────────────────────────────────────────


@settings(max_examples=20)
@given(st.dictionaries(st.text("abc", min_size=1), st.binary(max_size=2000), max_size=5))
def test_small_files_are_objects_like_any_other(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("small")
    files = [(fixed_chunks(data, MIB), data) for data in contents.values()]
    with open_store(folder) as store:
        store.chunk_lists.save_all({chunks.root(): chunks for chunks, _ in files})
        for _ in range(2):
            store.blobs.add_small([(chunks.root(), data, None) for chunks, data in files])

        assert objects(store).keys() == {f"{root.hex()[:2]}/{root.hex()}" for root in store.clearing.roots()}
        for chunks, data in files:
            held = store.blobs.find(chunks.root())
            assert held is not None
            assert held.path.read_bytes() == data
            assert store.blobs.bad_chunks(held) == []
    shutil.rmtree(folder)


# ── disks that are full or closed ───────────────────────────────────────────


def fill_the_disk(folder_name: str, home_name: str) -> None:
    folder, home = Path(folder_name), Path(home_name)
    store = Store(Layout(home, folder / "store"))
    first = store.intake.ingest(write_old(home / "first", values.content("first", 3 * MIB)), "fixed-1m")
    second = write_old(home / "second", values.content("second", 7 * MIB))
    before = tree(folder)
    for _ in range(2):
        with pytest.raises(NoSpace, match="no space left") as caught:
            store.intake.ingest(second, "fixed-1m")
        assert caught.value.path.startswith(folder_name)
        assert caught.value.hint
    assert tree(folder) == before
    held = store.blobs.find(first.root)
    assert held is not None
    assert store.blobs.bad_chunks(held) == []

    assert store.clearing.remove(first.root) == 3 * MIB
    again = store.intake.ingest(second, "fixed-1m")
    assert again.written == 7 * MIB
    assert read(store, again.root) == second.read_bytes()


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").mkdir()

    run_in_small_disk(fill_the_disk, tmp_path / "disk", 8 * MIB, tmp_path / "home")


def fill_the_disk_of_the_index(folder_name: str, other_name: str) -> None:
    folder, other = Path(folder_name), Path(other_name)
    store = open_store(folder)
    first = store.intake.ingest(write_old(other / "first", values.content("first", 1 * MIB)), "fixed-1m")
    filler = folder / "filler"
    fill(filler)

    def publish_many() -> None:
        # Some pages of the index have room left.
        for number in range(500):
            store.intake.ingest(write_old(other / f"file {number}", b"%d" % number), "fixed-1m", in_place=True)

    for _ in range(2):
        with pytest.raises(NoSpace) as caught:
            publish_many()
        assert caught.value.path.startswith(folder_name)
    store.close()
    # A process that begins on the full disk can still read, or says what is wrong.
    with contextlib.suppress(NoSpace), open_store(folder) as store:
        assert store.blobs.find(first.root)
    filler.unlink()
    store = open_store(folder)
    held = store.blobs.find(first.root)
    assert held is not None
    assert store.blobs.bad_chunks(held) == []
    publish_many()
    assert store.blobs.in_place()[0] == 500


def test_a_disk_without_room_for_the_index_is_said(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "other").mkdir()

    run_in_small_disk(fill_the_disk_of_the_index, tmp_path / "disk", 16 * MIB, tmp_path / "other")


def use_a_closed_store(store_name: str, home_name: str, root_text: str, partial_text: str) -> None:
    home = Path(home_name)
    store = Store(Layout(home, Path(store_name)))
    root, partial = ContentId.parse(root_text), ContentId.parse(partial_text)
    assert read(store, root) == values.content("file", 3 * MIB)
    held = store.blobs.find(root)
    assert held is not None
    assert store.blobs.bad_chunks(held) == []
    assert store.readables.held_map(partial) == b"\0\1\0"
    new = write_old(home / "new", b"new")
    chunks = store.chunk_lists.find(partial)
    assert chunks is not None
    for change in (
        lambda: store.intake.ingest(new, "fixed-1m"),
        lambda: store.partials.begin(partial, chunks),
        lambda: store.clearing.remove(root),
    ):
        with pytest.raises(StoreError, match="Read-only") as caught:
            change()
        assert caught.value.path.startswith(store_name)
    assert read(store, root) == values.content("file", 3 * MIB)
    assert store.intake.ingest(new, "fixed-1m", in_place=True).size == 3


def test_a_read_only_store_gives_what_it_has_and_takes_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        root = take_in(store, write_old(tmp_path / "file", values.content("file", 3 * MIB))).root
        data = values.content("partial", 3 * MIB)
        chunks = fixed_chunks(data, MIB)
        store.chunk_lists.save(chunks.root(), chunks)
        partial = store.partials.begin(chunks.root(), chunks)
        partial.write(1, memoryview(data)[MIB : 2 * MIB])
        partial.close()

    run_read_only(use_a_closed_store, store.layout.store, store.layout.home, root, chunks.root())


# ── files that stay where they lie ──────────────────────────────────────────


def test_a_file_in_place_is_the_file_itself(store: Store, tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", b"bytes")
    result = take_in(store, path, "in place")

    held = store.blobs.find(result.root)
    assert held == Held(result.root, 5, str(path), is_object=False, stamp=Stamp.of(path.stat()))
    assert objects(store) == {}
    assert store.blobs.in_place() == (1, 5)


@pytest.mark.parametrize("size", [0, 1, 3 * MIB])
@pytest.mark.parametrize("change", ["grown", "shrunk", "rewritten", "replaced", "gone"])
def test_a_file_in_place_that_changed_is_not_handed_out(store: Store, tmp_path: Path, size: int, change: str) -> None:
    path = write_old(tmp_path / "file", values.content("file", size))
    result = take_in(store, path, "in place")
    if change == "grown":
        change_by_growing(path)
    elif change == "gone":
        path.unlink()
    elif not size:
        pytest.skip("nothing to change")
    elif change == "shrunk":
        change_by_shrinking(path)
    elif change == "rewritten":
        flip_byte(path, size - 1)
    else:
        write_old(tmp_path / "new", values.content("new", size))
        os.replace(tmp_path / "new", path)

    for _ in range(2):
        assert store.blobs.find(result.root) is None
        assert store.readables.held_map(result.root) is False
        assert store.readables.open(result.root) is None


@pytest.mark.parametrize("size", [0, 1, 3 * MIB])
@pytest.mark.parametrize("change", ["touched", "replaced by a copy"])
def test_a_file_in_place_with_the_same_bytes_is_still_held(
    store: Store, tmp_path: Path, size: int, change: str
) -> None:
    path = write_old(tmp_path / "file", values.content("file", size))
    result = take_in(store, path, "in place")
    if change == "touched":
        os.utime(path)
    else:
        write_old(tmp_path / "new", path.read_bytes())
        os.replace(tmp_path / "new", path)

    for _ in range(2):
        held = store.blobs.find(result.root)
        assert held is not None
        assert held.path == path


def test_content_that_is_an_object_as_well_outlives_its_file_in_place(store: Store, tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", b"bytes")
    root = take_in(store, path, "in place").root
    bring(store, b"bytes", fixed_chunks(b"bytes", MIB))
    path.unlink()

    assert read(store, root) == b"bytes"


def test_a_file_in_place_is_taken_in_by_a_second_publish_from_its_own_path(store: Store, tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", b"bytes")
    result = take_in(store, path, "in place")
    take_in(store, path, "copy")
    path.unlink()

    assert read(store, result.root) == b"bytes"


# ── rot ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bad", [0, 2, 5])
def test_a_flipped_bit_is_found_in_its_chunk_and_costs_only_this_chunk(store: Store, tmp_path: Path, bad: int) -> None:
    data = values.content("file", 5 * MIB + 100)
    root = take_in(store, write_old(tmp_path / "file", data)).root
    held = store.blobs.find(root)
    assert held is not None
    flip_byte(held.path, bad * MIB + 50, keep_time=True)

    assert store.blobs.bad_chunks(held) == [bad]
    assert store.blobs.find(root) is None
    assert objects(store) == {}
    chunks = store.chunk_lists.find(root)
    assert chunks is not None
    partial = store.partials.begin(root, chunks)
    assert partial.missing() == [bad]
    # What is still good is served on.
    partial.save()
    assert store.readables.held_map(root) == bytes(index != bad for index in range(6))

    partial.write(bad, memoryview(data)[bad * MIB : (bad + 1) * MIB])
    store.blobs.finish(root, partial)
    partial.close()
    assert read(store, root) == data
    assert not list(store.layout.store.glob("partial/??/*"))


@pytest.mark.parametrize("good", [True, False])
def test_what_another_process_finished_meanwhile_is_hashed_before_it_is_believed(store: Store, good: bool) -> None:
    data = values.content("file", 3 * MIB)
    chunks = fixed_chunks(data, MIB)
    root = chunks.root()
    store.chunk_lists.save(root, chunks)
    partial = store.partials.begin(root, chunks)
    for index in range(3):
        partial.write(index, memoryview(data)[index * MIB : (index + 1) * MIB])
    store.layout.partial(root).unlink()
    write_old(store.layout.object(root), data if good else data[:-1] + b"x")
    if good:
        assert store.blobs.finish(root, partial).path.read_bytes() == data
    else:
        with pytest.raises(StoreError, match="another process"):
            store.blobs.finish(root, partial)
    partial.close()

    assert read(store, root) == (data if good else None)


def test_a_repair_heals_the_hard_links_too(store: Store, tmp_path: Path) -> None:
    data = values.content("file", 2 * MIB)
    root = take_in(store, write_old(tmp_path / "file", data)).root
    held = store.blobs.find(root)
    assert held is not None
    place(held.path, tmp_path / "view" / "file", "hard", shared=True)
    flip_byte(tmp_path / "view" / "file", 7, keep_time=True)
    assert store.blobs.bad_chunks(held) == [0]
    chunks = store.chunk_lists.find(root)
    assert chunks is not None
    partial = store.partials.begin(root, chunks)
    partial.write(0, memoryview(data)[:MIB])
    store.blobs.finish(root, partial)
    partial.close()

    assert (tmp_path / "view" / "file").read_bytes() == data
    assert stat.S_IMODE((tmp_path / "view" / "file").stat().st_mode) == 0o444


@pytest.mark.parametrize("size", [0, 1, 3 * MIB])
def test_an_object_that_is_too_long_is_noticed_and_cut(store: Store, tmp_path: Path, size: int) -> None:
    data = values.content("file", size)
    root = take_in(store, write_old(tmp_path / "file", data)).root
    held = store.blobs.find(root)
    assert held is not None
    held.path.chmod(0o644)
    change_by_growing(held.path)

    assert store.blobs.find(root) is None
    chunks = store.chunk_lists.find(root)
    assert chunks is not None
    partial = store.partials.begin(root, chunks)
    assert partial.missing() == []
    store.blobs.finish(root, partial)
    partial.close()
    assert read(store, root) == data


@pytest.mark.parametrize("size", [0, 1, 3 * MIB])
def test_a_whole_file_that_is_wrong_has_a_bad_chunk(store: Store, tmp_path: Path, size: int) -> None:
    data = values.content("file", size)
    longer = store.blobs.find(take_in(store, write_old(tmp_path / "longer", data), "in place").root)
    assert longer is not None
    change_by_growing(longer.path)
    assert store.blobs.bad_chunks(longer) != []
    gone = store.blobs.find(take_in(store, write_old(tmp_path / "gone", data), "in place").root)
    assert gone is not None
    gone.path.unlink()

    assert store.blobs.bad_chunks(gone) != []


def test_rot_that_moved_the_time_is_found_without_being_asked_for(store: Store, tmp_path: Path) -> None:
    root = take_in(store, write_old(tmp_path / "file", values.content("file", 3 * MIB))).root
    held = store.blobs.find(root)
    assert held is not None
    flip_byte(held.path, MIB)

    assert store.blobs.find(root) is None
    assert not held.path.exists()


def test_an_object_that_cannot_be_read_is_kept(store: Store, tmp_path: Path) -> None:
    """An error of the disk says nothing about the bytes."""
    root = take_in(store, write_old(tmp_path / "file", b"bytes")).root
    held = store.blobs.find(root)
    assert held is not None
    moved = tmp_path / "moved"
    os.rename(held.path, moved)
    held.path.mkdir()
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            store.blobs.bad_chunks(held)
        assert caught.value.path == str(held.path)
    held.path.rmdir()
    os.rename(moved, held.path)

    assert read(store, root) == b"bytes"


def test_what_has_no_chunk_list_cannot_be_checked(store: Store, tmp_path: Path) -> None:
    held = Held(ContentId(bytes(32)), 5, str(write_old(tmp_path / "file", b"bytes")), is_object=False)

    with pytest.raises(NotFound):
        store.blobs.bad_chunks(held)


# ── after a power cut ───────────────────────────────────────────────────────


def restart(store: Store) -> None:
    """Let what was noted in this boot look as if it was noted in one before."""
    with store.database.write() as connection:
        connection.execute("UPDATE content SET boot = 'another boot' WHERE boot IS NOT NULL")


@pytest.mark.parametrize("way", ["published", "fetched", "small"])
@pytest.mark.parametrize("synced", [False, True])
def test_what_was_not_synced_before_a_power_cut_is_hashed_before_it_is_believed(
    store: Store, tmp_path: Path, way: str, synced: bool
) -> None:
    data = values.content("file", 3 * MIB)
    chunks = fixed_chunks(data, MIB)
    root = chunks.root()
    if way == "published":
        take_in(store, write_old(tmp_path / "file", data))
    elif way == "small":
        store.chunk_lists.save(root, chunks)
        store.blobs.add_small([(root, data, None)])
    else:
        store.chunk_lists.save(root, chunks)
        partial = store.partials.begin(root, chunks)
        for index in range(3):
            partial.write(index, memoryview(data)[index * MIB : (index + 1) * MIB])
        store.blobs.finish(root, partial)
        partial.close()
    if synced:
        store.blobs.sync()
    restart(store)
    assert read(store, root) == data
    restart(store)
    flip_byte(store.layout.object(root), MIB, keep_time=True)
    if synced:
        # Nothing tells that it is not on disk: this is rot, which `verify` finds.
        assert store.blobs.find(root)
        return

    assert store.blobs.find(root) is None
    assert store.partials.recover(root, chunks) == b"\1\0\1"


def test_a_file_in_place_is_its_owners_to_sync(store: Store, tmp_path: Path) -> None:
    root = take_in(store, write_old(tmp_path / "file", b"bytes"), "in place").root
    restart(store)

    assert read(store, root) == b"bytes"


def test_syncing_nothing_is_no_error(store: Store) -> None:
    store.blobs.sync()
    store.blobs.sync()


# ── a store that others use ─────────────────────────────────────────────────


def test_an_object_of_another_host_is_found(store: Store) -> None:
    data = values.content("file", 3 * MIB)
    chunks = fixed_chunks(data, MIB)
    bring(store, data, chunks)

    assert read(store, chunks.root()) == data


def test_an_object_of_another_host_that_is_damaged_becomes_a_partial(store: Store) -> None:
    data = values.content("file", 3 * MIB)
    chunks = fixed_chunks(data, MIB)
    flip_byte(bring(store, data, chunks), 2 * MIB)

    for _ in range(2):
        assert store.blobs.find(chunks.root()) is None
    assert store.partials.recover(chunks.root(), chunks) == b"\1\1\0"


def test_an_object_is_not_believed_while_it_is_hashed(store: Store) -> None:
    data = values.content("file", 3 * MIB)
    chunks = fixed_chunks(data, MIB)
    flip_byte(bring(store, data, chunks), 2 * MIB)
    seen: list[bool] = []

    class Watched(Blobs):
        def bad_chunks(self, held: Held, *, progress: Progress | None = None) -> list[int]:
            # What another process sees that asks just now.
            with store.database.read() as connection:
                row = connection.execute("SELECT 1 FROM content WHERE root = ?", (held.root,)).fetchone()
            seen.append(row is not None)
            return super().bad_chunks(held, progress=progress)

    assert Watched(store.layout, store.database, store.chunk_lists).find(chunks.root()) is None
    assert seen == [False]


def test_an_object_that_could_not_be_read_is_not_believed_later(store: Store) -> None:
    chunks = fixed_chunks(b"bytes", MIB)
    store.chunk_lists.save(chunks.root(), chunks)
    store.layout.object(chunks.root()).mkdir(parents=True)

    for _ in range(2):
        with pytest.raises(StoreError):
            store.blobs.find(chunks.root())


def test_an_object_of_another_host_that_is_too_long_is_not_believed(store: Store) -> None:
    chunks = fixed_chunks(b"bytes", MIB)
    bring(store, b"bytes and more", chunks)

    assert store.blobs.find(chunks.root()) is None
    assert store.partials.recover(chunks.root(), chunks) == b"\1"


def test_without_a_chunk_list_an_object_is_not_believed(store: Store) -> None:
    chunks = fixed_chunks(b"bytes", MIB)
    write_old(store.layout.object(chunks.root()), b"bytes")

    assert store.blobs.find(chunks.root()) is None
    assert store.clearing.roots() == [chunks.root()]


def test_what_is_fetched_again_while_the_store_is_rebuilt_stays_listed(store: Store, tmp_path: Path) -> None:
    """Hashing a large store takes hours, in which what was found missing can come back."""
    source, never = tmp_path / "source", tmp_path / "never"
    source.write_bytes(os.urandom(1000))
    never.write_bytes(os.urandom(1000))
    root, lost = take_in(store, source).root, take_in(store, never).root
    for each in (root, lost):
        store.layout.object(each).unlink()

    class Profiles(dict[ContentId, Profile]):
        def items(self):
            yield root, "fixed-1m"
            yield lost, "fixed-1m"
            # Both were found missing, and the end has not come.
            take_in(store, source)

    assert store.blobs.list_again(Profiles()) == (0, 0)
    assert read(store, root) == source.read_bytes()
    assert store.blobs.find(root) is not None
    assert store.chunk_lists.find(root) is not None
    assert store.blobs.find(lost) is None
