from __future__ import annotations

import os
import pickle
import stat
import traceback
from pathlib import Path

import pytest
from storekit import fill, run_at_once, run_in_small_disk, wait_for_the_others

from p2phub.core.errors import HubError, NoSpace, NotFound, StoreError
from p2phub.core.signing import SEED_SIZE
from p2phub.store.keys import create_key, load_key, load_or_create_key
from p2phub.testing import values

SEED = values.content("a secret", SEED_SIZE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keys" / "node.key"


def write_key(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(data)
    path.chmod(mode)
    return path


def line(seed: bytes = SEED) -> bytes:
    return b"p2phub-key-1 " + seed.hex().encode() + b"\n"


def test_a_key_that_was_made_can_be_loaded(path: Path) -> None:
    key = create_key(path)

    assert load_key(path).seed == key.seed
    assert load_or_create_key(path).public_key == key.public_key
    assert path.read_bytes() == line(key.seed)
    assert os.listdir(path.parent) == ["node.key"]


def test_two_keys_are_never_the_same(tmp_path: Path) -> None:
    assert create_key(tmp_path / "a").seed != create_key(tmp_path / "b").seed


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_only_the_owner_may_read_a_key_and_its_folder_whatever_the_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        create_key(path)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_folder_that_others_may_enter_is_closed(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o755)
    create_key(path)

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_key_is_never_overwritten(path: Path) -> None:
    key = create_key(path)
    with pytest.raises(StoreError, match="already") as caught:
        create_key(path)

    assert caught.value.path == str(path)
    assert load_key(path).seed == key.seed


def test_a_key_that_is_not_there_is_made_or_missed(path: Path) -> None:
    with pytest.raises(NotFound):
        load_key(path)
    assert not path.exists()

    assert load_or_create_key(path).seed == load_key(path).seed


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o640, 0o644, 0o601, 0o660, 0o777])
def test_a_key_that_others_may_use_is_refused(path: Path, mode: int) -> None:
    write_key(path, line(), mode)
    for load in (load_key, load_or_create_key):
        with pytest.raises(StoreError, match="others") as caught:
            load(path)
        assert caught.value.path == str(path)
        assert caught.value.hint == f"chmod 600 {path}"
    assert path.read_bytes() == line()


def test_an_owner_may_take_the_right_to_write_away(path: Path) -> None:
    assert load_key(write_key(path, line(), 0o400)).seed == SEED


def damaged() -> dict[str, bytes]:
    return {
        "empty": b"",
        "without a seed": b"p2phub-key-1 \n",
        "without a header": SEED.hex().encode() + b"\n",
        "another version": b"p2phub-key-2 " + SEED.hex().encode(),
        "a digit short": line()[:-2],
        "two digits long": line()[:-1] + b"00\n",
        "no hex": line()[:-3] + b"xy\n",
        "raw": SEED,
        "no text": b"p2phub-key-1 \xff\xfe" + SEED.hex().encode(),
        "cut": line()[:40],
        "twice": line() * 2,
        "huge": line() + b" " * 10_000_000 + b"x",
    }


@pytest.mark.parametrize("damage", damaged())
def test_a_damaged_key_is_refused_kept_and_never_shown(path: Path, damage: str) -> None:
    data = damaged()[damage]
    write_key(path, data)
    for load in (load_key, load_or_create_key):
        if damage == "huge":
            continue
        with pytest.raises(StoreError, match="no key file") as caught:
            load(path)
        assert caught.value.path == str(path)
        # Not in what people see, and not in what they paste into a bug report either.
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert SEED.hex()[:16] not in told
        assert repr(SEED)[2:20] not in told
    assert path.read_bytes() == data


def test_a_folder_is_no_key(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        load_key(path)

    assert caught.value.path == str(path)


def test_a_secret_is_in_no_text(path: Path) -> None:
    write_key(path, line())
    key = load_key(path)
    shown = [str(key), repr(key), f"{key}", "%s" % key, str(vars(key)), repr([key]), repr({"key": key})]  # noqa: UP031
    with pytest.raises(TypeError):
        pickle.dumps(key)

    for text in shown:
        assert SEED.hex() not in text.lower()
        assert repr(SEED) not in text


def make_key(path_name: str) -> None:
    wait_for_the_others()
    for turn in range(30):
        print(load_or_create_key(Path(path_name) / str(turn) / "node.key").public_key)


def test_processes_that_make_a_key_at_once_get_the_same_one(tmp_path: Path) -> None:
    outs = run_at_once(make_key, *[(tmp_path,)] * 3)

    assert len(set(outs)) == 1
    for turn, public_key in enumerate(outs[0].split()):
        assert str(load_key(tmp_path / str(turn) / "node.key").public_key) == public_key
    assert not list(tmp_path.rglob(".new-*"))


def test_where_no_key_can_be_kept_none_is_given(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("in the way")
    for make in (create_key, load_or_create_key):
        with pytest.raises(HubError) as caught:
            make(tmp_path / "keys" / "node.key")
        assert isinstance(caught.value, StoreError)


def make_a_key_on_a_full_disk(folder: str) -> None:
    path = Path(folder) / "node.key"
    fill(Path(folder) / "filler")
    with pytest.raises(NoSpace):
        load_or_create_key(path)
    assert os.listdir(folder) == ["filler"]
    (Path(folder) / "filler").unlink()
    assert load_or_create_key(path).seed == load_key(path).seed


def test_a_full_disk_makes_no_half_a_key(tmp_path: Path) -> None:
    run_in_small_disk(make_a_key_on_a_full_disk, tmp_path, 64 * 1024)
