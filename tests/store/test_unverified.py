from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from storekit import OLD_S

from p2phub.core.choices import PROFILES, Profile
from p2phub.core.errors import NoSpace
from p2phub.core.ids import ContentId
from p2phub.store import unverified as module
from p2phub.store.store import Store
from p2phub.testing import values

DATA = values.content("whole", 3_000_000)


def root_by(store: Store, folder: Path, profile: Profile, data: bytes = DATA) -> ContentId:
    """Return the root of `data` cut by `profile`, as a publisher finds it out."""
    source = folder / "source"
    source.write_bytes(data)
    found = store.intake.ingest(source, profile).root
    store.clearing.remove(found)
    return found


def objects(store: Store) -> list[Path]:
    return sorted(store.layout.store.glob("objects/**/*"))


@pytest.mark.parametrize("profile", ["fixed-1m", "cdc-1m"])
def test_what_has_the_root_that_was_asked_for_becomes_an_object(store: Store, tmp_path: Path, profile: Profile) -> None:
    root = root_by(store, tmp_path, profile)
    file = store.intake.begin_unverified()
    for at in range(0, len(DATA), 70_001):
        file.write(DATA[at : at + 70_001])
        assert store.blobs.find(root) is None
    adopted = store.intake.adopt(file, root, PROFILES[::-1])
    file.close()
    store.blobs.sync()
    held = store.blobs.find(root)
    chunks = store.chunk_lists.find(root)

    assert adopted
    assert held is not None
    assert held.path.read_bytes() == DATA
    assert held.path.stat().st_mode & 0o777 == 0o444
    assert chunks is not None
    assert chunks.root() == root
    assert not store.blobs.bad_chunks(held)
    assert [path for path in objects(store) if path.is_file()] == [held.path]


@pytest.mark.parametrize(
    ("data", "profiles"),
    [(DATA[:-1] + b"!", PROFILES), (DATA[:-1], PROFILES), (b"", PROFILES), (DATA, ["fixed-1m"])],
    ids=["other bytes", "shorter", "empty", "cut otherwise"],
)
def test_what_has_another_root_leaves_nothing(
    store: Store, tmp_path: Path, data: bytes, profiles: list[Profile]
) -> None:
    root = root_by(store, tmp_path, "cdc-1m")
    before = objects(store)
    file = store.intake.begin_unverified()
    file.write(data)
    adopted = store.intake.adopt(file, root, profiles)
    file.close()

    assert not adopted
    assert store.blobs.find(root) is None
    assert [path for path in objects(store) if path.is_file()] == [path for path in before if path.is_file()]


def test_an_empty_file_becomes_an_object_too(store: Store, tmp_path: Path) -> None:
    root = root_by(store, tmp_path, "cdc-1m", b"")
    file = store.intake.begin_unverified()
    adopted = store.intake.adopt(file, root, ["cdc-1m"])
    file.close()

    assert adopted
    assert store.blobs.find(root) is not None


def test_what_was_written_can_be_forgotten(store: Store, tmp_path: Path) -> None:
    root = root_by(store, tmp_path, "cdc-1m")
    file = store.intake.begin_unverified()
    file.write(DATA + b"too much")
    file.start_over()
    assert file.size == 0
    file.write(DATA)

    assert store.intake.adopt(file, root, ["cdc-1m"])
    file.close()


def test_what_a_killed_process_left_is_cleaned_up(store: Store) -> None:
    file = store.intake.begin_unverified()
    file.write(b"x" * 5000)
    os.close(file.file)
    os.utime(file.path, (0, 0))

    # Not while it may be written to: the change of its time is new.
    assert store.clearing.remove_leftovers(age_s=OLD_S) == 0
    assert store.clearing.remove_leftovers(age_s=-1) > 0
    assert not file.path.exists()


def test_a_full_disk_is_said_to_be(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = store.intake.begin_unverified()
    monkeypatch.setattr(module.os, "pwrite", full)
    with pytest.raises(NoSpace, match="no space left"):
        file.write(b"x")
    file.close()
    assert not file.path.exists()
