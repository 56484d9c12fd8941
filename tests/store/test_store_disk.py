from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from storekit import fill, open_files, run_in_small_disk, run_read_only, start

from p2phub.core.errors import NoSpace, StoreError
from p2phub.store.disk import boot_id, disk_errors, free_bytes, sync_file_system, sync_folder, write_file


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_has_an_error_of_its_own(number: int) -> None:
    with pytest.raises(NoSpace, match="no space left for /a/path") as caught, disk_errors("/a/path"):
        raise OSError(number, os.strerror(number))

    assert caught.value.path == "/a/path"
    assert caught.value.hint


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES, errno.ENOENT, errno.ESTALE])
def test_every_other_error_names_the_path_and_the_reason(number: int) -> None:
    with pytest.raises(StoreError) as caught, disk_errors(Path("/a/path")):
        raise OSError(number, os.strerror(number))

    assert caught.value.path == "/a/path"
    assert str(caught.value) == f"cannot use /a/path: {os.strerror(number)}"
    assert not isinstance(caught.value, NoSpace)


def test_what_is_no_error_of_the_disk_passes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), disk_errors(tmp_path):
        raise ValueError("mine")


@pytest.mark.parametrize("mode", [0o444, 0o600, 0o644])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_file_is_written_with_its_folders_and_its_mode(tmp_path: Path, mode: int, umask: int) -> None:
    path = tmp_path / "a" / "b" / "file"
    before = os.umask(umask)
    try:
        for data in (b"first", b"", b"second" * 100_000):
            write_file(path, data, mode=mode)
            assert path.read_bytes() == data
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert os.listdir(path.parent) == ["file"]


def test_an_exclusive_file_is_never_overwritten(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"first", exclusive=True)
    with pytest.raises(StoreError) as caught:
        write_file(tmp_path / "file", b"second", exclusive=True)

    assert isinstance(caught.value.__cause__, FileExistsError)
    assert (tmp_path / "file").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    before = sorted(open_files())
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "folder", tmp_path / "file" / "below"):
        with pytest.raises(StoreError) as caught:
            write_file(path, b"data")
        assert caught.value.path == str(path)

    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert sorted(open_files()) == before


def write_on_a_full_disk(folder: str) -> None:
    path = Path(folder) / "file"
    write_file(path, b"old")
    fill(Path(folder) / "filler")
    with pytest.raises(NoSpace) as caught:
        write_file(path, bytes(1_000_000))
    assert caught.value.path == str(path)
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(folder)) == ["file", "filler"]
    assert free_bytes(path) == 0


def test_on_a_full_disk_the_old_file_stays(tmp_path: Path) -> None:
    run_in_small_disk(write_on_a_full_disk, tmp_path, 64 * 1024)


def write_on_a_closed_disk(folder: str) -> None:
    with pytest.raises(StoreError, match="Read-only"):
        write_file(Path(folder) / "file", b"new")
    sync_file_system(Path(folder))
    sync_folder(Path(folder))


def test_a_read_only_disk_is_said_to_be(tmp_path: Path) -> None:
    run_read_only(write_on_a_closed_disk, tmp_path)


def test_syncing_what_is_not_there_is_an_error_with_its_path(tmp_path: Path) -> None:
    for sync in (sync_file_system, sync_folder, free_bytes):
        with pytest.raises(StoreError) as caught:
            sync(tmp_path / "nowhere")
        assert caught.value.path == str(tmp_path / "nowhere")
    sync_file_system(tmp_path)
    sync_folder(tmp_path)


def print_boot() -> None:
    print(boot_id())


def test_all_processes_of_one_boot_agree_on_its_name() -> None:
    process = start(print_boot)
    out, _ = process.communicate()

    assert out.strip() == boot_id()
    assert len(bytes.fromhex(boot_id())) == 16
    assert boot_id() != "0" * 32
