from __future__ import annotations

import os
import time
from hashlib import sha256
from pathlib import Path

import pytest

from p2phub.core.errors import HashMismatch, NoSpace
from p2phub.store.uploads import Uploads, copy_ranges


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads")


def test_a_file_is_found_by_its_hash(uploads: Uploads) -> None:
    with uploads.begin(6) as upload:
        upload.write(b"abc")
        upload.write(memoryview(b"def"))
        path = upload.finish(sha256(b"abcdef").digest(), 6)

    assert uploads.find(sha256(b"abcdef").digest()) == path
    assert path.read_bytes() == b"abcdef"
    assert path.stat().st_mode & 0o777 == 0o444
    assert uploads.find(sha256(b"other").digest()) is None


@pytest.mark.parametrize(("digest", "size"), [(sha256(b"abd").digest(), 3), (sha256(b"abc").digest(), 4), (None, 2)])
def test_a_file_that_is_not_what_it_should_be_is_thrown_away(uploads: Uploads, digest: bytes, size: int) -> None:
    with uploads.begin(3) as upload:
        upload.write(b"abc")
        with pytest.raises(HashMismatch):
            upload.finish(digest, size)

    assert uploads.find(sha256(b"abc").digest()) is None
    assert uploads.remove_old(age_s=-1) == 0  # nothing is left behind


def test_what_was_begun_and_not_finished_is_thrown_away(uploads: Uploads, tmp_path: Path) -> None:
    with uploads.begin(3) as upload:
        upload.write(b"abc")

    assert list((tmp_path / "uploads").iterdir()) == []


def test_more_than_the_disk_holds_is_not_begun(uploads: Uploads) -> None:
    with pytest.raises(NoSpace, match="stay free") as failure:
        uploads.begin(2**60)

    assert "p2phub store gc" in (failure.value.hint or "")


def test_what_nobody_committed_goes_after_a_while(uploads: Uploads, tmp_path: Path) -> None:
    for data in (b"old", b"new"):
        with uploads.begin(3) as upload:
            upload.write(data)
            upload.finish(None, 3)
    old = uploads.find(sha256(b"old").digest())
    assert old is not None
    os.utime(old, (0, 0))
    kept = uploads.remove_old(age_s=3600)
    # Its times cannot be set back by hand, only waited for.
    time.sleep(0.05)
    freed = uploads.remove_old(age_s=0.01)

    assert kept == 0
    assert freed > 0
    assert list((tmp_path / "uploads").iterdir()) == []


def test_ranges_of_a_file_are_copied_in_order(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(range(100)))
    got = bytearray()
    copy_ranges(tmp_path / "source", [(90, 100), (0, 3)], got.extend)

    assert got == bytes([*range(90, 100), 0, 1, 2])
    with pytest.raises(HashMismatch):
        copy_ranges(tmp_path / "source", [(90, 101)], got.extend)
