from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from p2phub.core.errors import InvalidName, StoreError
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId
from p2phub.store.layout import FOLDERS, Layout


def test_the_environment_says_where_things_lie(tmp_path: Path) -> None:
    home, store = tmp_path / "home", tmp_path / "store"

    assert Layout.from_environment({"P2PHUB_HOME": str(home)}) == Layout(home, home / "store")
    assert Layout.from_environment({"P2PHUB_HOME": str(home), "P2PHUB_STORE": str(store)}) == Layout(home, store)
    assert Layout.from_environment({"P2PHUB_HOME": "", "P2PHUB_STORE": ""}) == Layout.from_environment({})
    assert Layout.from_environment({}).home.is_absolute()
    assert Layout.from_environment({"P2PHUB_HOME": "here"}).home == Path.cwd() / "here"


def test_what_is_missing_is_made_and_what_is_there_is_left_alone(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "a" / "home", tmp_path / "b" / "store")
    layout.create()
    (layout.store / "objects" / "kept").write_text("kept")
    layout.home.chmod(0o750)
    layout.create()

    assert sorted(os.listdir(layout.store)) == sorted(FOLDERS)
    assert (layout.store / "objects" / "kept").read_text() == "kept"
    assert stat.S_IMODE(layout.home.stat().st_mode) == 0o750


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_enter_a_new_home(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        Layout(tmp_path / "home", tmp_path / "home" / "store").create()
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


@pytest.mark.parametrize("where", ["home", "store"])
def test_a_file_in_the_way_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / where).write_text("in the way")
    with pytest.raises(StoreError) as caught:
        Layout(tmp_path / "home", tmp_path / "store").create()

    assert str(tmp_path / where) in caught.value.path


def test_everything_has_a_path_of_its_own(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home", tmp_path / "store")
    digest = bytes(range(32))
    paths = [
        layout.object(ContentId(digest)), layout.tree(ContentId(digest)), layout.partial(ContentId(digest)),
        layout.partial(ContentId(digest)).with_suffix(".map"), layout.manifest(ManifestId(digest)),
        layout.log(LogId(digest)), layout.log(LogId(digest)).with_suffix(".head"),
        layout.identity(NamespaceId(digest)), layout.view("ns", "parrot", ManifestId(digest)),
    ]  # fmt: skip

    assert len(set(paths)) == len(paths)
    assert all(layout.store in path.parents for path in paths)
    assert layout.object(ContentId(digest)) == layout.store / "objects" / "00" / digest.hex()
    assert all(layout.home in path.parents for path in (layout.index, layout.keys, layout.daemon, layout.own_identity))


def test_a_user_whom_the_system_does_not_know_is_told_to_name_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)

    with pytest.raises(InvalidName, match="no home folder is known"):
        Layout.from_environment({})


def test_a_place_that_is_not_utf_8_is_none() -> None:
    for name in ("P2PHUB_HOME", "P2PHUB_STORE"):
        with pytest.raises(InvalidName, match=f"{name}: the path .* is not UTF-8"):
            Layout.from_environment({"P2PHUB_HOME": "/h", name: "/\udcff"})
