"""A file in place may be exchanged for anything by whoever owns its folder: it is never handed out, nor even opened."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from storekit import write_old

from p2phub.core.ids import ContentId
from p2phub.store.store import Store

pytestmark = pytest.mark.timeout(30)

LOOK = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('select count(*) from sqlite_master'); c.close()"
)


def to_index(path: Path, store: Store) -> None:
    path.symlink_to(store.layout.index)


def to_index_by_a_folder(path: Path, store: Store) -> None:
    folder = path.parent
    folder.rmdir()
    folder.symlink_to(store.layout.index.parent)
    # Its name there is that of the index.
    assert path.exists()


def to_key(path: Path, store: Store) -> None:
    key = store.layout.keys / "publish.key"
    key.parent.mkdir(exist_ok=True)
    key.write_text("p2phub-key-1 " + "0" * 64)
    path.symlink_to(key)


def to_pipe(path: Path, store: Store) -> None:
    os.mkfifo(path)


def to_copy(path: Path, store: Store) -> None:
    """Another name for the very same bytes: that is a link, too, and may lead elsewhere tomorrow."""
    other = path.with_name("other")
    write_old(other, b"the bytes")
    path.symlink_to(other)


EXCHANGES: list[Callable[[Path, Store], None]] = [to_index, to_index_by_a_folder, to_key, to_pipe, to_copy]


def registered(store: Store, folder: Path) -> tuple[Path, ContentId]:
    folder.mkdir()
    path = write_old(folder / store.layout.index.name, b"the bytes")
    return path, store.intake.ingest(path, "cdc-1m", in_place=True).root


def watch_opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list in which all files stand that are opened to be read from now on."""
    opened: list[str] = []
    really = os.open

    def noting(path: str, flags: int, *more: int, **rest: int) -> int:
        file = really(path, flags, *more, **rest)
        if not flags & os.O_PATH:
            opened.append(os.readlink(f"/proc/self/fd/{file}"))
        return file

    monkeypatch.setattr(os, "open", noting)
    return opened


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda each: each.__name__)
def test_what_stands_in_its_place_is_not_opened(
    exchange: Callable[[Path, Store], None], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, root = registered(store, tmp_path / "models")
    held = store.blobs.find(root)
    path.unlink()
    exchange(path, store)
    opened = watch_opens(monkeypatch)

    assert store.readables.open_found(root, held) is None
    assert store.blobs.find(root) is None
    assert store.readables.read_small(root, 100) is None
    assert store.blobs.in_place() == (0, 0)
    assert [name for name in opened if not name.endswith(("boot_id", "sharing"))] == []


def test_the_index_stays_locked(store: Store, tmp_path: Path) -> None:
    """SQLite would let go of it, if any of its files were closed in this process."""
    path, root = registered(store, tmp_path / "models")
    path.unlink()
    path.symlink_to(store.layout.index)
    log = Path(f"{store.layout.index}-wal")
    assert store.blobs.find(root) is None
    assert log.exists()
    subprocess.run([sys.executable, "-c", LOOK, str(store.layout.index)], check=True)

    assert log.exists()


def test_an_answer_of_many_files_sends_none_that_was_exchanged_meanwhile(store: Store, tmp_path: Path) -> None:
    """Not all that a peer asked for are open: some are opened when their turn comes."""
    path, root = registered(store, tmp_path / "models")
    readable = store.readables.open(root)
    assert readable is not None
    os.close(readable.file)
    path.unlink()
    write_old(path, b"a secret!")

    with pytest.raises(FileNotFoundError):
        readable.reopen()


def test_a_file_that_was_moved_with_its_folder_and_linked_to_is_the_same(store: Store, tmp_path: Path) -> None:
    """Who moves his models to another disk and leaves a link behind has done nothing wrong."""
    path, root = registered(store, tmp_path / "models")
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    (tmp_path / "models").symlink_to(tmp_path / "elsewhere")
    assert path.exists()
    os.utime(path)

    assert store.readables.read_small(root, 100) == b"the bytes"
