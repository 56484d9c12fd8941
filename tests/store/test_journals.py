"""Journals: what is written to them is found again, whatever a crash or the disk did to them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2phub.core.errors import StoreError
from p2phub.store import journals
from p2phub.store.database import Database
from p2phub.store.journals import ENTRY, HEAD, IDENTITY, MARK, Frame, Journals
from p2phub.testing import values

Item = tuple[bytes, bytes]  # kind and data of a frame

items = st.tuples(st.sampled_from([ENTRY, HEAD, IDENTITY]), st.integers(0, 300)).map(
    lambda pair: (pair[0], values.content(f"{pair}", pair[1]))
)
batches = st.lists(st.lists(items, min_size=1, max_size=4), min_size=1, max_size=5)


class Home:
    """An index and its journals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database(folder / "index.sqlite")
        self.journals = Journals(folder / "journals")

    def write(self, *batch: Item) -> list[journals.Place]:
        with self.database.write() as connection:
            written = self.journals.begin(connection)
            places = [written.add(kind, data) for kind, data in batch]
            self.journals.write(connection, written)()
        return places

    def frames(self) -> list[Frame]:
        return [frame for number in self.journals.numbers() for frame in self.journals.frames(number)]

    def tail(self) -> list[Item]:
        with self.database.write() as connection:
            return [(frame.kind, frame.data) for frame in self.journals.tail(connection)]

    def close(self) -> None:
        self.journals.close()
        self.database.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@settings(max_examples=25)
@given(batches=batches)
def test_what_was_written_is_found_in_order_and_at_its_place(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Item]]
) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    places = [place for batch in batches for place in home.write(*batch)]
    frames = home.frames()

    assert [(frame.kind, frame.data) for frame in frames] == [item for batch in batches for item in batch]
    assert [frame.place for frame in frames] == places
    assert [home.journals.read(place) for place in places] == [frame.data for frame in frames]
    home.close()


@settings(max_examples=60)
@given(batches=batches, damage=st.binary(max_size=60), at=st.floats(0, 1), read_size=st.integers(1, 700))
def test_it_does_not_matter_in_what_pieces_a_damaged_journal_is_read(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Item]], damage: bytes, at: float, read_size: int
) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    for batch in batches:
        home.write(*batch)
    path = home.journals.path(1)
    data = bytearray(path.read_bytes())
    place = int(at * len(data))
    data[place : place + len(damage)] = damage
    path.write_bytes(data)
    at_once = home.frames()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "READ_SIZE", read_size)

        assert home.frames() == at_once
    # What stands before the damage is all there.
    whole = [item for batch in batches for item in batch]
    before = [frame for frame in at_once if frame.place.offset + frame.place.length <= place]
    assert [(frame.kind, frame.data) for frame in before] == whole[: len(before)]
    home.close()


@pytest.mark.parametrize("damage", [bytes(100), b"\xff" * 100, b"e" * 100, MARK[:9]])
def test_behind_damage_reading_goes_on_at_the_next_batch(home: Home, damage: bytes) -> None:
    written = [[(ENTRY, values.content(f"{number} {part}", 200)) for part in range(3)] for number in range(4)]
    places = [home.write(*batch) for batch in written]
    with open(home.journals.path(1), "r+b") as file:
        file.seek(places[1][0].offset - 5)
        file.write(damage)
    found = [(frame.kind, frame.data) for frame in home.frames()]

    assert found[:3] == written[0]
    assert found[-6:] == written[2] + written[3]
    home.close()


def test_a_flipped_bit_in_a_frame_costs_this_frame_alone(home: Home) -> None:
    batch = [(ENTRY, values.content(f"{number}", 100)) for number in range(3)]
    places = home.write(*batch)
    with open(home.journals.path(1), "r+b") as file:
        file.seek(places[1].offset + 50)
        file.write(b"?")
    found = [(frame.kind, frame.data) for frame in home.frames()]

    assert (found[0], found[2]) == (batch[0], batch[2])
    assert found[1] != batch[1]
    home.close()


@pytest.mark.parametrize("garbage", [b"", b"e", b"e\0\0\1\0abc", bytes(1000)])
def test_what_a_crash_left_at_the_end_is_told_once_and_never_overwritten(home: Home, garbage: bytes) -> None:
    home.write((ENTRY, b"before"))
    path = home.journals.path(1)
    known = path.stat().st_size
    with open(path, "ab") as file:
        file.write(MARK + b"e\0\0\0\4left" + garbage)
    size = path.stat().st_size
    assert home.tail() == [(ENTRY, b"left")]
    (place,) = home.write((ENTRY, b"after"))

    assert place.offset > size > known
    assert home.tail() == []
    assert [frame.data for frame in home.frames()] == [b"before", b"left", b"after"]
    assert path.read_bytes()[known:size] == MARK + b"e\0\0\0\4left" + garbage
    home.close()


def test_nothing_is_written_for_nothing(home: Home) -> None:
    home.write()

    assert home.frames() == []
    home.close()


def test_a_full_journal_is_followed_by_another(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "JOURNAL_SIZE", 300)
    written = [(ENTRY, values.content(f"{number}", 100)) for number in range(10)]
    places = [place for item in written for place in home.write(item)]

    assert len(home.journals.numbers()) > 2
    assert [(frame.kind, frame.data) for frame in home.frames()] == written
    assert [home.journals.read(place) for place in places] == [data for _, data in written]
    home.close()


def test_journals_that_a_lost_index_knew_are_not_written_to(home: Home) -> None:
    home.write((ENTRY, b"old"))
    before = home.journals.path(1).read_bytes()
    home.close()
    for path in home.folder.glob("index.sqlite*"):
        path.unlink()
    home = Home(home.folder)
    (place,) = home.write((ENTRY, b"new"))

    assert place.journal == 2
    assert home.journals.path(1).read_bytes() == before
    home.close()


def test_a_journal_that_is_gone_holds_nothing_and_is_no_error(home: Home) -> None:
    (place,) = home.write((ENTRY, b"gone"))
    home.close()
    home.journals.path(1).unlink()

    assert home.journals.read(place) == b""
    (place,) = home.write((ENTRY, b"new"))
    assert home.journals.read(place) == b"new"
    home.close()


def test_a_journal_that_cannot_be_written_is_said(home: Home) -> None:
    home.write((ENTRY, b"old"))
    home.close()
    path = home.journals.path(1)
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError) as caught:
        home.write((ENTRY, b"new"))

    assert caught.value.path == str(path)
    home.close()


def test_the_room_of_a_deleted_journal_is_given_back_though_others_had_it_open(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "JOURNAL_SIZE", 100)
    (first,) = home.write((ENTRY, bytes(200)))
    (second,) = home.write((ENTRY, bytes(200)))
    other = Journals(home.folder / "journals")
    assert other.read(first) == bytes(200)
    path = home.journals.path(first.journal)
    assert home.journals.delete(first.journal) >= 200
    assert home.journals.delete(first.journal) == 0

    assert str(path) in " ".join(open_files())
    assert other.read(second) == bytes(200)
    assert str(path) not in " ".join(open_files())
    assert other.read(first) == b""
    home.close()


def open_files() -> list[str]:
    """Return what this process has open, by name."""
    names = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            names.append(os.readlink(link))
    return names
