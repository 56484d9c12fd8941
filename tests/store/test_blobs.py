from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from storekit import (
    fill,
    finish,
    fixed_chunks,
    open_files,
    open_store,
    run_in_small_disk,
    run_read_only,
    start,
    tree,
    write_old,
)

from p2phub.core.choices import Profile
from p2phub.core.errors import NoSpace, NotFound, StoreError
from p2phub.core.filetree import ChunkList
from p2phub.core.ids import ContentId
from p2phub.store.blobs import INLINE_SIZE_MAX, Blobs, Held, Ingested
from p2phub.store.ingest import Progress, Stamp, scan
from p2phub.store.layout import Layout
from p2phub.store.links import place, reflink
from p2phub.store.store import Store
from p2phub.testing import values
from p2phub.testing.processes import flip_byte

MIB = 1024 * 1024
SIZES = (0, 1, 1000, MIB, MIB + 1, 2 * MIB, 5 * MIB + 7)
WAYS = ("copy", "in place", "hard link")


def take_in(store: Store, path: Path, way: str = "copy", profile: Profile = "fixed-1m", **options: object) -> Ingested:
    if way == "hard link":
        path.chmod(0o444)
    return store.blobs.ingest(path, profile, in_place=way == "in place", **options)  # type: ignore[arg-type]


def scan_file(path: Path, profile: Profile = "fixed-1m") -> tuple[ContentId, ChunkList]:
    with open(path, "rb") as file:
        result = scan(file.fileno(), path, profile)
    return result.root, result.chunks


def read(store: Store, root: ContentId) -> bytes | None:
    held = store.blobs.find(root)
    return held.path.read_bytes() if held else None


def objects(store: Store) -> dict[str, bytes]:
    return tree(store.layout.store / "objects")


def clones(folder: Path) -> bool:
    """Say whether files can share extents here: then a copy is a clone, which nobody else can change."""
    with open(folder / "a", "wb+") as one, open(folder / "b", "wb+") as other:
        one.write(b"bytes")
        one.flush()
        return reflink(one.fileno(), other.fileno())


# ── taking files in ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", WAYS)
def test_the_same_bytes_have_the_same_root_whatever_the_way_in(
    store: Store, tmp_path: Path, size: int, way: str
) -> None:
    data = values.content("file", size)
    path = write_old(tmp_path / "file", data)
    root, chunks = scan_file(path)
    result = take_in(store, path, way)

    assert (result.root, result.size, result.sha256) == (root, size, sha256(data).digest())
    assert read(store, root) == data
    assert store.blobs.chunk_list(root) == chunks
    assert store.blobs.held_map(root) is True
    assert store.blobs.roots() == [root]


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", WAYS)
def test_the_order_of_the_ways_in_does_not_matter(store: Store, tmp_path: Path, first: str, second: str) -> None:
    data = values.content("file", 3 * MIB + 5)
    one = take_in(store, write_old(tmp_path / "one", data), first)
    two = take_in(store, write_old(tmp_path / "two", data), second)

    assert one.root == two.root
    assert one.sha256 == two.sha256
    assert read(store, one.root) == data


@pytest.mark.parametrize("way", WAYS)
def test_publishing_again_writes_nothing(store: Store, tmp_path: Path, way: str) -> None:
    path = write_old(tmp_path / "file", values.content("file", 3 * MIB))
    first = take_in(store, path, way)
    before = tree(store.layout.store)
    again = take_in(store, path, way)
    os.utime(path)
    touched = take_in(store, path, way)
    other = take_in(store, write_old(tmp_path / "elsewhere" / "copy", path.read_bytes()), way)

    assert [again.written, touched.written, other.written] == [0, 0, 0]
    assert {again.root, touched.root, other.root} == {first.root}
    assert {again.sha256, touched.sha256, other.sha256} == {first.sha256}
    assert tree(store.layout.store) == before


def test_a_copy_is_counted_as_written_and_nothing_else(store: Store, tmp_path: Path) -> None:
    data = values.content("file", 3 * MIB)
    linked = take_in(store, write_old(tmp_path / "linked", data), "hard link")
    in_place = take_in(store, write_old(tmp_path / "in place", b"x" + data), "in place")
    copied = take_in(store, write_old(tmp_path / "copied", b"y" + data))

    assert (linked.written, in_place.written) == (0, 0)
    assert copied.written == (0 if clones(tmp_path) else len(data) + 1)


def test_an_object_cannot_be_written_to(store: Store, tmp_path: Path) -> None:
    take_in(store, write_old(tmp_path / "file", b"bytes"))

    assert [stat.S_IMODE(path.stat().st_mode) for path in store.layout.store.glob("objects/??/*")] == [0o444]


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o444, 0o555, 0o600, 0o644])
def test_publishing_leaves_the_source_as_it_is(store: Store, tmp_path: Path, mode: int) -> None:
    path = write_old(tmp_path / "file", b"bytes")
    path.chmod(mode)
    before = path.stat()
    store.blobs.ingest(path, "fixed-1m")
    after = path.stat()

    assert (after.st_mode, after.st_mtime_ns, after.st_ino) == (before.st_mode, before.st_mtime_ns, before.st_ino)


def test_a_file_that_can_be_written_to_is_never_linked_into_the_store(store: Store, tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", b"bytes")
    result = take_in(store, path)
    path.write_bytes(b"BYTES")

    assert read(store, result.root) == b"bytes"


def test_what_was_published_as_a_copy_outlives_the_file_that_was_in_place(store: Store, tmp_path: Path) -> None:
    result = take_in(store, write_old(tmp_path / "in place", b"bytes"), "in place")
    take_in(store, write_old(tmp_path / "copied", b"bytes"), "copy")
    (tmp_path / "in place").unlink()
    (tmp_path / "copied").unlink()

    assert read(store, result.root) == b"bytes"


def test_one_file_in_two_profiles_is_two_contents(store: Store, tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", bytes(3 * MIB))
    fixed, cut = take_in(store, path, profile="fixed-1m"), take_in(store, path, profile="cdc-1m")

    assert fixed.root != cut.root
    assert read(store, fixed.root) == read(store, cut.root) == bytes(3 * MIB)


def test_a_file_that_was_just_written_is_read_again(store: Store, tmp_path: Path) -> None:
    """Clocks of file systems are coarse: a second change may have the time of the first."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    times = path.stat()
    take_in(store, path)
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert take_in(store, path).sha256 == sha256(b"two").digest()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_an_object_is_readable_and_read_only_whatever_the_umask(store: Store, tmp_path: Path, umask: int) -> None:
    path = write_old(tmp_path / "file", values.content("file", 1000))
    folders = [store.layout.store / name / f"{number:02x}" for name in ("objects", "partial") for number in range(256)]
    for folder in folders:
        folder.mkdir()
    data = values.content("fetched", 1000)
    chunks = fixed_chunks(data, MIB)
    small = values.content("small", 10)
    before = os.umask(umask)
    try:
        take_in(store, path)
        partial = store.blobs.begin(chunks.root(), chunks)
        partial.write(0, memoryview(data))
        store.blobs.finish(chunks.root(), partial)
        partial.close()
        store.blobs.add_small([(fixed_chunks(small, MIB).root(), small, None)])
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in store.layout.store.glob("objects/??/*")]

    assert modes == [0o444] * 3


@settings(max_examples=20)
@given(st.dictionaries(st.text("abc", min_size=1), st.binary(max_size=2000), max_size=5))
def test_small_files_are_objects_like_any_other(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("small")
    files = [(fixed_chunks(data, MIB), data) for data in contents.values()]
    with open_store(folder) as store:
        store.blobs.save_chunk_lists({chunks.root(): chunks for chunks, _ in files})
        for _ in range(2):
            store.blobs.add_small([(chunks.root(), data, None) for chunks, data in files])

        assert objects(store).keys() == {f"{root.hex()[:2]}/{root.hex()}" for root in store.blobs.roots()}
        for chunks, data in files:
            held = store.blobs.find(chunks.root())
            assert held is not None
            assert held.path.read_bytes() == data
            assert store.blobs.bad_chunks(held) == []
    shutil.rmtree(folder)


# ── what cannot be taken in ─────────────────────────────────────────────────


def change_by_growing(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def change_by_shrinking(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def change_by_rewriting(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"other")


@pytest.mark.parametrize("change", [change_by_growing, change_by_shrinking, change_by_rewriting])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("known", [False, True], ids=["new", "one of its size is here"])
def test_a_file_that_changes_while_it_is_read_leaves_nothing(
    store: Store, tmp_path: Path, change: Callable[[Path], None], way: str, known: bool
) -> None:
    if clones(tmp_path) and way == "copy":
        pytest.skip("a clone does not change with the file")
    if known:
        take_in(store, write_old(tmp_path / "other", bytes(5 * MIB)))
    before = tree(store.layout.store)
    path = write_old(tmp_path / "file", values.content("file", 5 * MIB))
    steps: list[int] = []

    def progress(size: int) -> None:
        if not steps:
            change(path)
        steps.append(size)

    with pytest.raises(StoreError, match="changed while it was read") as caught:
        take_in(store, path, way, progress=progress)

    assert caught.value.path == str(path)
    assert tree(store.layout.store) == before
    assert len(store.blobs.roots()) == known
    assert path.stat().st_nlink == 1
    # And the file as it is now can be taken in.
    data = path.read_bytes()
    assert read(store, take_in(store, path, way).root) == data


class Disturbed(Blobs):
    """Lets somebody else act each time that something is looked up."""

    disturb: Callable[[], None] = staticmethod(lambda: None)

    def find(self, root: ContentId) -> Held | None:
        self.disturb()
        return super().find(root)


@pytest.mark.parametrize("way", ["copy", "in place"])
def test_a_file_that_changes_between_two_readings_is_told_as_it_was_read(
    store: Store, tmp_path: Path, way: str
) -> None:
    take_in(store, write_old(tmp_path / "other", bytes(1000)))
    path = write_old(tmp_path / "file", values.content("file", 1000))
    blobs = Disturbed(store.layout, store.database)
    blobs.disturb = lambda: change_by_growing(path) if path.stat().st_size == 1000 else None
    try:
        result = blobs.ingest(path, "fixed-1m", in_place=way == "in place")
    except StoreError:
        return

    chunks = store.blobs.chunk_list(result.root)
    assert chunks is not None
    assert result.size == chunks.size


def unreadable(folder: Path) -> dict[str, Path]:
    """Return files that cannot be published, by what they are."""
    (folder / "folder").mkdir()
    (folder / "dangling link").symlink_to(folder / "nowhere")
    (folder / "circle").symlink_to(folder / "circle")
    os.mkfifo(folder / "pipe")
    found = {name: folder / name for name in ("folder", "dangling link", "circle", "pipe", "missing")}
    found["device"] = Path("/dev/zero")
    found["part of a file"] = write_old(folder / "file", b"") / "part"
    if os.geteuid() != 0:
        found["closed"] = write_old(folder / "closed", b"secret")
        found["closed"].chmod(0)
    return found


@pytest.mark.parametrize("way", ["copy", "in place"])
def test_what_is_no_readable_file_is_refused_by_its_name(store: Store, tmp_path: Path, way: str) -> None:
    take_in(store, write_old(tmp_path / "known", bytes(4096)))
    before = tree(store.layout.store)
    for path in unreadable(tmp_path).values():
        with pytest.raises(StoreError) as caught:
            store.blobs.ingest(path, "fixed-1m", in_place=way == "in place")

        assert caught.value.path == str(path)
        assert str(path) in str(caught.value)
    assert tree(store.layout.store) == before


@pytest.mark.parametrize("way", ["copy", "in place"])
def test_an_error_while_a_file_is_read_names_the_file(store: Store, tmp_path: Path, way: str) -> None:
    path = Path("/sys/class/net/lo/speed")  # a regular file of 4096 bytes, of which the kernel gives none
    if not path.exists() or path.stat().st_size == 0:
        pytest.skip("no file here that cannot be read")
    with pytest.raises(StoreError) as caught:
        store.blobs.ingest(path, "fixed-1m", in_place=way == "in place")

    assert caught.value.path == str(path)
    assert objects(store) == {}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("known", ["nothing", "its size", "the file"])
def test_progress_adds_up_to_the_size(store: Store, tmp_path: Path, way: str, known: str) -> None:
    data = values.content("file", 5 * MIB)
    if known != "nothing":
        take_in(store, write_old(tmp_path / "known", data if known == "the file" else bytes(5 * MIB)))
    path = write_old(tmp_path / "file", data)
    for _ in range(2):
        steps: list[int] = []
        take_in(store, path, way, progress=steps.append)

        assert sum(steps) == len(data)


# ── disks that are full or closed ───────────────────────────────────────────


def fill_the_disk(folder_name: str, home_name: str) -> None:
    folder, home = Path(folder_name), Path(home_name)
    store = Store(Layout(home, folder / "store"))
    first = store.blobs.ingest(write_old(home / "first", values.content("first", 3 * MIB)), "fixed-1m")
    second = write_old(home / "second", values.content("second", 7 * MIB))
    before = tree(folder)
    for _ in range(2):
        with pytest.raises(NoSpace, match="no space left") as caught:
            store.blobs.ingest(second, "fixed-1m")
        assert caught.value.path.startswith(folder_name)
        assert caught.value.hint
    assert tree(folder) == before
    held = store.blobs.find(first.root)
    assert held is not None
    assert store.blobs.bad_chunks(held) == []

    assert store.blobs.remove(first.root) == 3 * MIB
    again = store.blobs.ingest(second, "fixed-1m")
    assert again.written == 7 * MIB
    assert read(store, again.root) == second.read_bytes()


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").mkdir()

    run_in_small_disk(fill_the_disk, tmp_path / "disk", 8 * MIB, tmp_path / "home")


def fill_the_disk_of_the_index(folder_name: str, other_name: str) -> None:
    folder, other = Path(folder_name), Path(other_name)
    store = open_store(folder)
    first = store.blobs.ingest(write_old(other / "first", values.content("first", 1 * MIB)), "fixed-1m")
    filler = folder / "filler"
    fill(filler)

    def publish_many() -> None:
        # Some pages of the index have room left.
        for number in range(500):
            store.blobs.ingest(write_old(other / f"file {number}", b"%d" % number), "fixed-1m", in_place=True)

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
    assert store.blobs.held_map(partial) == b"\0\1\0"
    new = write_old(home / "new", b"new")
    chunks = store.blobs.chunk_list(partial)
    assert chunks is not None
    for change in (
        lambda: store.blobs.ingest(new, "fixed-1m"),
        lambda: store.blobs.begin(partial, chunks),
        lambda: store.blobs.remove(root),
    ):
        with pytest.raises(StoreError, match="Read-only") as caught:
            change()
        assert caught.value.path.startswith(store_name)
    assert read(store, root) == values.content("file", 3 * MIB)
    assert store.blobs.ingest(new, "fixed-1m", in_place=True).size == 3


def test_a_read_only_store_gives_what_it_has_and_takes_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        root = take_in(store, write_old(tmp_path / "file", values.content("file", 3 * MIB))).root
        data = values.content("partial", 3 * MIB)
        chunks = fixed_chunks(data, MIB)
        store.blobs.save_chunk_list(chunks.root(), chunks)
        partial = store.blobs.begin(chunks.root(), chunks)
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
        assert store.blobs.held_map(result.root) is False
        assert store.blobs.open_readable(result.root) is None


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


def test_removing_content_never_touches_a_file_in_place(store: Store, tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", b"bytes")
    result = take_in(store, path, "in place")

    assert store.blobs.remove(result.root) == 0
    assert path.read_bytes() == b"bytes"
    assert store.blobs.find(result.root) is None
    assert store.blobs.roots() == []


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
    chunks = store.blobs.chunk_list(root)
    assert chunks is not None
    partial = store.blobs.begin(root, chunks)
    assert partial.missing() == [bad]
    # What is still good is served on.
    partial.save()
    assert store.blobs.held_map(root) == bytes(index != bad for index in range(6))

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
    store.blobs.save_chunk_list(root, chunks)
    partial = store.blobs.begin(root, chunks)
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
    chunks = store.blobs.chunk_list(root)
    assert chunks is not None
    partial = store.blobs.begin(root, chunks)
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
    chunks = store.blobs.chunk_list(root)
    assert chunks is not None
    partial = store.blobs.begin(root, chunks)
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
        store.blobs.save_chunk_list(root, chunks)
        store.blobs.add_small([(root, data, None)])
    else:
        store.blobs.save_chunk_list(root, chunks)
        partial = store.blobs.begin(root, chunks)
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
    assert store.blobs.recover(root, chunks) == b"\1\0\1"


def test_a_file_in_place_is_its_owners_to_sync(store: Store, tmp_path: Path) -> None:
    root = take_in(store, write_old(tmp_path / "file", b"bytes"), "in place").root
    restart(store)

    assert read(store, root) == b"bytes"


def test_syncing_nothing_is_no_error(store: Store) -> None:
    store.blobs.sync()
    store.blobs.sync()


# ── a store that others use ─────────────────────────────────────────────────


def bring(store: Store, data: bytes, chunks: ChunkList) -> Path:
    """Let another host put an object into the store, of which this host knows only the chunk list."""
    store.blobs.save_chunk_list(chunks.root(), chunks)
    path = store.layout.object(chunks.root())
    write_old(path, data).chmod(0o444)
    return path


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
    assert store.blobs.recover(chunks.root(), chunks) == b"\1\1\0"


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

    assert Watched(store.layout, store.database).find(chunks.root()) is None
    assert seen == [False]


def test_an_object_that_could_not_be_read_is_not_believed_later(store: Store) -> None:
    chunks = fixed_chunks(b"bytes", MIB)
    store.blobs.save_chunk_list(chunks.root(), chunks)
    store.layout.object(chunks.root()).mkdir(parents=True)

    for _ in range(2):
        with pytest.raises(StoreError):
            store.blobs.find(chunks.root())


def test_an_object_of_another_host_that_is_too_long_is_not_believed(store: Store) -> None:
    chunks = fixed_chunks(b"bytes", MIB)
    bring(store, b"bytes and more", chunks)

    assert store.blobs.find(chunks.root()) is None
    assert store.blobs.recover(chunks.root(), chunks) == b"\1"


def test_without_a_chunk_list_an_object_is_not_believed(store: Store) -> None:
    chunks = fixed_chunks(b"bytes", MIB)
    write_old(store.layout.object(chunks.root()), b"bytes")

    assert store.blobs.find(chunks.root()) is None
    assert store.blobs.roots() == [chunks.root()]


def publish_slowly(home: str, path: str) -> None:
    def progress(size: int) -> None:
        print(size, flush=True)
        input()

    open_store(Path(home)).blobs.ingest(Path(path), "fixed-1m", progress=progress)


@pytest.mark.parametrize("way", ["copy", "hard link"])
def test_a_publish_that_is_killed_leaves_nothing_for_ever(store: Store, tmp_path: Path, way: str) -> None:
    path = write_old(tmp_path / "file", values.content("file", 5 * MIB))
    path.chmod(0o444 if way == "hard link" else 0o644)
    process = start(publish_slowly, tmp_path, path)
    assert process.stdout
    assert process.stdout.readline()
    process.kill()
    process.communicate()

    assert store.blobs.roots() == []
    # Somebody else may be at work, so that what is young is left alone, however old the bytes are.
    assert store.blobs.remove_leftovers(age_s=3600) == 0
    leftovers = [entry for entry in store.layout.store.rglob("*") if entry.is_file()]
    assert len(leftovers) == 1
    assert (store.blobs.remove_leftovers(age_s=-10) > 0) == (way == "copy")
    assert tree(store.layout.store) == {}
    assert path.read_bytes() == values.content("file", 5 * MIB)
    assert read(store, take_in(store, path).root) == path.read_bytes()
    assert store.blobs.remove_leftovers(age_s=-10) == 0
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

    assert store.blobs.remove_leftovers(age_s=-10) == 7 * 4096
    assert [path for path in (*begun, *kept) if path.exists()] == kept


def publish(home: str, path: str) -> None:
    with open_store(Path(home)) as store:
        print(store.blobs.ingest(Path(path), "fixed-1m").root)


def test_two_processes_publish_the_same_file_at_once(tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", values.content("file", 5 * MIB))
    processes = [start(publish, tmp_path, path) for _ in range(3)]
    roots = {finish(process).strip() for process in processes}

    assert roots == {str(scan_file(path)[0])}
    with open_store(tmp_path) as store:
        assert list(objects(store).values()) == [path.read_bytes()]


# ── chunk lists ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [0, 1, INLINE_SIZE_MAX // 36, INLINE_SIZE_MAX // 36 + 1, 5000])
def test_a_chunk_list_of_any_length_is_kept(tmp_path: Path, count: int) -> None:
    chunks = fixed_chunks(values.content("list", count), 1)
    with open_store(tmp_path) as store:
        assert store.blobs.chunk_list(chunks.root()) is None
        store.blobs.save_chunk_list(chunks.root(), chunks)
    others = [ContentId(values.content(str(number), 32)) for number in range(100)]
    with open_store(tmp_path) as store:
        assert store.blobs.chunk_list(chunks.root()) == chunks
    with open_store(tmp_path) as store:
        assert store.blobs.chunk_lists([*others, chunks.root()]) == {chunks.root(): chunks}


def test_a_long_chunk_list_outlives_the_index_and_is_checked(tmp_path: Path) -> None:
    chunks = fixed_chunks(values.content("list", 5000), 1)
    with open_store(tmp_path) as store:
        store.blobs.save_chunk_list(chunks.root(), chunks)
    store.layout.index.unlink()
    with open_store(tmp_path) as store:
        assert store.blobs.chunk_list(chunks.root()) == chunks
    store.layout.index.unlink()
    flip_byte(store.layout.tree(chunks.root()), 5)
    with open_store(tmp_path) as store:
        assert store.blobs.chunk_list(chunks.root()) is None


def test_rot_in_a_long_chunk_list_condemns_no_good_chunk(store: Store) -> None:
    data = values.content("list", 5000)
    chunks = fixed_chunks(data, 1)
    bring(store, data, chunks)
    assert read(store, chunks.root()) == data
    flip_byte(store.layout.tree(chunks.root()), 5, keep_time=True)

    assert store.blobs.chunk_list(chunks.root()) in (None, chunks)


def test_chunks_that_whole_files_hold_are_found_there(store: Store, tmp_path: Path) -> None:
    data = values.content("file", 3 * MIB + 5)
    contents = {"copied": data, "in place": data[MIB:] + b"more", "empty": b""}
    for way, content in (("copy", "copied"), ("in place", "in place"), ("copy", "empty")):
        take_in(store, write_old(tmp_path / content, contents[content]), way)
    partial_data = values.content("partial", MIB)
    partial_chunks = fixed_chunks(partial_data, MIB)
    store.blobs.save_chunk_list(partial_chunks.root(), partial_chunks)
    partial = store.blobs.begin(partial_chunks.root(), partial_chunks)
    partial.write(0, memoryview(partial_data))
    partial.close()
    wanted = {
        blake3(piece).digest(): piece
        for piece in (data[:MIB], data[2 * MIB : 3 * MIB], data[3 * MIB :] + b"more", partial_data, b"nowhere")
    }
    places = store.blobs.find_chunks(set(wanted))

    assert set(places) == set(list(wanted)[:3])
    for digest, found in places.items():
        held = store.blobs.find(found.root)
        assert held is not None
        assert held.path.read_bytes()[found.offset : found.offset + found.length] == wanted[digest]
    assert store.blobs.find_chunks(set()) == {}


# ── reading ─────────────────────────────────────────────────────────────────


def test_what_is_open_for_reading_says_what_it_has(store: Store) -> None:
    data = values.content("file", 3 * MIB + 10)
    chunks = fixed_chunks(data, MIB)
    root = chunks.root()
    assert store.blobs.open_readable(root) is None
    store.blobs.save_chunk_list(root, chunks)
    assert store.blobs.open_readable(root) is None
    partial = store.blobs.begin(root, chunks)
    for index in (1, 3):
        partial.write(index, memoryview(data)[index * MIB : (index + 1) * MIB])
    partial.save()
    some = store.blobs.open_readable(root)
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
    whole = store.blobs.open_readable(root)
    assert whole is not None

    assert whole.has(0, len(data))
    assert not whole.has(0, len(data) + 1)
    os.close(whole.file)


def test_everything_that_was_opened_is_closed(store: Store, tmp_path: Path) -> None:
    take_in(store, write_old(tmp_path / "warm", b"up"))
    before = sorted(open_files())
    for way in WAYS:
        path = write_old(tmp_path / way, values.content(way, 5 * MIB))
        held = store.blobs.find(take_in(store, path, way).root)
        assert held is not None
        store.blobs.bad_chunks(held)
    for path in unreadable(tmp_path).values():
        with pytest.raises(StoreError):
            take_in(store, path)

    assert sorted(open_files()) == before


# ── removing ────────────────────────────────────────────────────────────────


def test_content_that_was_half_removed_is_fetched_anew(store: Store) -> None:
    """A crash while a partial is removed must not leave a claim without bytes."""
    data = values.content("file", 3 * MIB)
    chunks = fixed_chunks(data, MIB)
    root = chunks.root()
    store.blobs.save_chunk_list(root, chunks)
    partial = store.blobs.begin(root, chunks)
    partial.write(1, memoryview(data)[MIB : 2 * MIB])
    partial.close()
    store.layout.partial(root).unlink()

    assert store.blobs.held_map(root) is False
    assert store.blobs.recover(root, chunks) == bytes(3)
    partial = store.blobs.begin(root, chunks)
    assert partial.missing() == [0, 1, 2]
    partial.close()


def test_removed_content_is_gone_and_can_come_back(store: Store, tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", values.content("file", 3 * MIB))
    root = take_in(store, path).root

    assert store.blobs.remove(root) == 3 * MIB
    assert store.blobs.find(root) is None
    assert store.blobs.chunk_list(root) is None
    assert store.blobs.roots() == []
    assert store.blobs.remove(root) == 0
    assert take_in(store, path).written == 3 * MIB


def test_what_a_checkout_links_to_is_not_counted_as_freed(store: Store, tmp_path: Path) -> None:
    root = take_in(store, write_old(tmp_path / "file", values.content("file", 3 * MIB))).root
    held = store.blobs.find(root)
    assert held is not None
    place(held.path, tmp_path / "view", "hard", shared=True)

    assert store.blobs.remove(root) == 0
    assert blake3((tmp_path / "view").read_bytes()).digest() == blake3(values.content("file", 3 * MIB)).digest()


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
    assert store.blobs.chunk_list(root) is not None
    assert store.blobs.find(lost) is None
