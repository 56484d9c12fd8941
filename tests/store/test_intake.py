from __future__ import annotations

import os
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from storekit import (
    MIB,
    WAYS,
    change_by_growing,
    change_by_rewriting,
    change_by_shrinking,
    clones,
    finish,
    fixed_chunks,
    objects,
    open_files,
    open_store,
    read,
    scan_file,
    start,
    take_in,
    tree,
    write_old,
)

from p2phub.core.errors import StoreError
from p2phub.core.ids import ContentId
from p2phub.store.blobs import Blobs, Held
from p2phub.store.intake import Intake
from p2phub.store.store import Store
from p2phub.testing import values

SIZES = (0, 1, 1000, MIB, MIB + 1, 2 * MIB, 5 * MIB + 7)


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
    assert store.chunk_lists.find(root) == chunks
    assert store.readables.held_map(root) is True
    assert store.clearing.roots() == [root]


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
    store.intake.ingest(path, "fixed-1m")
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
        partial = store.partials.begin(chunks.root(), chunks)
        partial.write(0, memoryview(data))
        store.blobs.finish(chunks.root(), partial)
        partial.close()
        store.blobs.add_small([(fixed_chunks(small, MIB).root(), small, None)])
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in store.layout.store.glob("objects/??/*")]

    assert modes == [0o444] * 3


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
    assert len(store.clearing.roots()) == known
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
    blobs = Disturbed(store.layout, store.database, store.chunk_lists)
    intake = Intake(store.layout, store.database, blobs, store.chunk_lists)
    blobs.disturb = lambda: change_by_growing(path) if path.stat().st_size == 1000 else None
    try:
        result = intake.ingest(path, "fixed-1m", in_place=way == "in place")
    except StoreError:
        return

    chunks = store.chunk_lists.find(result.root)
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
            store.intake.ingest(path, "fixed-1m", in_place=way == "in place")

        assert caught.value.path == str(path)
        assert str(path) in str(caught.value)
    assert tree(store.layout.store) == before


@pytest.mark.parametrize("way", ["copy", "in place"])
def test_an_error_while_a_file_is_read_names_the_file(store: Store, tmp_path: Path, way: str) -> None:
    path = Path("/sys/class/net/lo/speed")  # a regular file of 4096 bytes, of which the kernel gives none
    if not path.exists() or path.stat().st_size == 0:
        pytest.skip("no file here that cannot be read")
    with pytest.raises(StoreError) as caught:
        store.intake.ingest(path, "fixed-1m", in_place=way == "in place")

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


def publish(home: str, path: str) -> None:
    with open_store(Path(home)) as store:
        print(store.intake.ingest(Path(path), "fixed-1m").root)


def test_two_processes_publish_the_same_file_at_once(tmp_path: Path) -> None:
    path = write_old(tmp_path / "file", values.content("file", 5 * MIB))
    processes = [start(publish, tmp_path, path) for _ in range(3)]
    roots = {finish(process).strip() for process in processes}

    assert roots == {str(scan_file(path)[0])}
    with open_store(tmp_path) as store:
        assert list(objects(store).values()) == [path.read_bytes()]


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
