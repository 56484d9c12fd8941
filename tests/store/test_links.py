from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest
from storekit import open_files, run_in_small_disk, write_old

from p2phub.core.choices import LINK_MODES, LinkMode
from p2phub.core.errors import NoSpace, StoreError
from p2phub.store.links import link_read_only, place, reflink
from p2phub.testing import values

MIB = 1024 * 1024
SIZES = (0, 1, 3 * MIB + 1)


def can_clone(folder: Path) -> bool:
    with open(folder / ".a", "wb+") as one, open(folder / ".b", "wb+") as other:
        return reflink(one.fileno(), other.fileno())


def make_object(path: Path, data: bytes) -> Path:
    write_old(path, data).chmod(0o444)
    return path


# ── placing ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", LINK_MODES)
@pytest.mark.parametrize("before", ["nothing", "a file", "a link elsewhere", "a dangling link", "the same file"])
def test_every_mode_places_the_bytes_over_whatever_stood_there(
    tmp_path: Path, mode: LinkMode, size: int, before: str
) -> None:
    if mode == "reflink" and not can_clone(tmp_path):
        pytest.skip("this file system has no reflinks")
    source = make_object(tmp_path / "object", values.content("object", size))
    target = tmp_path / "folder" / "deeper" / "file"
    target.parent.mkdir(parents=True)
    other = write_old(tmp_path / "other", b"other")
    match before:
        case "a file":
            target.write_bytes(b"something else")
        case "a link elsewhere":
            target.symlink_to(other)
        case "a dangling link":
            target.symlink_to(tmp_path / "nowhere")
        case "the same file":
            target.hardlink_to(source)

    used = place(source, target, mode, shared=True)

    assert used == mode or mode == "auto"
    assert target.read_bytes() == values.content("object", size)
    assert other.read_bytes() == b"other"
    assert source.read_bytes() == values.content("object", size)
    assert os.listdir(target.parent) == ["file"]
    assert target.is_symlink() == (used == "sym")
    assert os.path.samefile(source, target) == (used in ("sym", "hard"))


@pytest.mark.parametrize("mode", LINK_MODES)
def test_placing_twice_is_placing_once(tmp_path: Path, mode: LinkMode) -> None:
    if mode == "reflink" and not can_clone(tmp_path):
        pytest.skip("this file system has no reflinks")
    source = make_object(tmp_path / "object", b"bytes")
    for _ in range(2):
        place(source, tmp_path / "view" / "file", mode, shared=True)

    assert (tmp_path / "view" / "file").read_bytes() == b"bytes"
    assert os.listdir(tmp_path / "view") == ["file"]


@pytest.mark.parametrize("mode", ["hard", "sym", "copy"])
def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path, mode: LinkMode) -> None:
    sources = [make_object(tmp_path / name, values.content(name, MIB)) for name in ("old", "new")]
    allowed = {source.read_bytes() for source in sources}
    target = tmp_path / "view"
    place(sources[0], target, mode, shared=True)
    seen: set[bytes] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(target.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(100):
            place(sources[turn % 2], target, mode, shared=True)
    finally:
        over.set()
        reader.join()

    assert seen <= allowed


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    source = make_object(tmp_path / "object", b"bytes")
    place(source, tmp_path / "a" / "b" / "c", "copy", shared=True)

    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"bytes"


def test_the_first_way_that_works_is_taken(tmp_path: Path) -> None:
    source = make_object(tmp_path / "object", b"bytes")

    assert place(source, tmp_path / "shared", "auto", shared=True) == ("reflink" if can_clone(tmp_path) else "hard")
    assert place(source, tmp_path / "own", "auto", shared=False) == ("reflink" if can_clone(tmp_path) else "copy")


def test_across_file_systems_a_link_is_symbolic(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system here")
    target = other / f"p2phub-test-{os.getpid()}"
    source = make_object(tmp_path / "object", b"bytes")
    try:
        assert place(source, target, "auto", shared=True) == "sym"
        assert place(source, target, "copy", shared=True) == "copy"
        assert target.read_bytes() == b"bytes"
        with pytest.raises(StoreError, match="cannot make a hard link") as caught:
            place(source, target, "hard", shared=True)

        assert caught.value.path == str(target)
        assert target.read_bytes() == b"bytes"
    finally:
        target.unlink(missing_ok=True)
    assert not list(other.glob(".new-*"))


def test_a_file_that_may_change_is_never_hard_linked(tmp_path: Path) -> None:
    source = write_old(tmp_path / "in place", b"bytes")
    with pytest.raises(StoreError, match="may change") as caught:
        place(source, tmp_path / "view", "hard", shared=False)
    assert caught.value.hint
    for mode in LINK_MODES:
        if mode == "hard" or (mode == "reflink" and not can_clone(tmp_path)):
            continue
        place(source, tmp_path / "view", mode, shared=False)

        assert source.stat().st_nlink == 1
        assert (tmp_path / "view").read_bytes() == b"bytes"


def test_a_copy_of_a_file_that_may_change_does_not_change_with_it(tmp_path: Path) -> None:
    source = write_old(tmp_path / "in place", b"bytes")
    place(source, tmp_path / "view", "auto", shared=False)
    source.write_bytes(b"BYTES")

    assert (tmp_path / "view").read_bytes() == b"bytes"


@pytest.mark.parametrize("mode", ["auto", "hard", "sym", "copy"])
def test_where_a_folder_stands_nothing_is_placed(tmp_path: Path, mode: LinkMode) -> None:
    source = make_object(tmp_path / "object", b"bytes")
    write_old(tmp_path / "view" / "name" / "file", b"kept")
    with pytest.raises(StoreError) as caught:
        place(source, tmp_path / "view" / "name", mode, shared=True)

    assert caught.value.path == str(tmp_path / "view" / "name")
    assert (tmp_path / "view" / "name" / "file").read_bytes() == b"kept"
    assert os.listdir(tmp_path / "view") == ["name"]


@pytest.mark.parametrize("mode", ["auto", "hard", "copy"])
def test_a_source_that_is_gone_leaves_the_target_as_it_was(tmp_path: Path, mode: LinkMode) -> None:
    target = write_old(tmp_path / "view" / "file", b"kept")
    with pytest.raises(StoreError):
        place(tmp_path / "gone", target, mode, shared=True)

    assert target.read_bytes() == b"kept"
    assert os.listdir(tmp_path / "view") == ["file"]


def place_on_a_small_disk(folder_name: str, source_name: str) -> None:
    target = write_old(Path(folder_name) / "file", b"kept")
    with pytest.raises(NoSpace) as caught:
        place(Path(source_name), target, "copy", shared=True)

    assert caught.value.path == str(target)
    assert target.read_bytes() == b"kept"
    assert os.listdir(folder_name) == ["file"]


def test_a_copy_that_does_not_fit_leaves_the_target_as_it_was(tmp_path: Path) -> None:
    source = make_object(tmp_path / "object", bytes(3 * MIB))
    (tmp_path / "disk").mkdir()

    run_in_small_disk(place_on_a_small_disk, tmp_path / "disk", 2 * MIB, source)


def test_placing_closes_what_it_opened(tmp_path: Path) -> None:
    source = make_object(tmp_path / "object", b"bytes")
    before = sorted(open_files())
    for mode in ("auto", "hard", "sym", "copy"):
        place(source, tmp_path / "view", mode, shared=True)
    with pytest.raises(StoreError):
        place(tmp_path / "gone", tmp_path / "view", "copy", shared=True)

    assert sorted(open_files()) == before


# ── taking a file in by a link ──────────────────────────────────────────────


@pytest.mark.parametrize(
    ("mode", "linked"), [(0o444, True), (0o555, True), (0o400, False), (0o440, False), (0o644, False), (0o446, False)]
)
def test_only_a_file_that_all_may_read_and_none_may_write_is_linked(tmp_path: Path, mode: int, linked: bool) -> None:
    path = write_old(tmp_path / "file", b"bytes")
    path.chmod(mode)
    target = write_old(tmp_path / "target", b"")
    with open(path, "rb") as source:
        assert link_read_only(source.fileno(), path, target) is linked

    assert (target.read_bytes() == b"bytes") is linked
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert sorted(os.listdir(tmp_path)) == ["file", "target"]


def test_a_name_that_moved_to_another_file_is_not_linked(tmp_path: Path) -> None:
    path = make_object(tmp_path / "file", b"bytes")
    target = write_old(tmp_path / "target", b"")
    with open(path, "rb") as source:
        os.replace(make_object(tmp_path / "other", b"OTHER"), path)
        assert not link_read_only(source.fileno(), path, target)

    assert target.read_bytes() == b""
    assert sorted(os.listdir(tmp_path)) == ["file", "target"]


def test_a_file_on_another_file_system_is_not_linked(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system here")
    path = make_object(other / f"p2phub-test-{os.getpid()}", b"bytes")
    target = write_old(tmp_path / "target", b"")
    try:
        with open(path, "rb") as source:
            assert not link_read_only(source.fileno(), path, target)
    finally:
        path.unlink()


def test_sharing_extents_fails_aloud_only_when_the_disk_does(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb+") as file, pytest.raises(OSError, match="descriptor") as caught:
        reflink(-1, file.fileno())

    assert caught.value.errno == errno.EBADF
