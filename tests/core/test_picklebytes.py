"""Reading files that may hold pickles: the right bytes, each read once, forwards, and not too many of them."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core import picklebytes
from p2phub.core.picklebytes import Bytes, Seekable, Unclear, Unpacked, Window

BLOCK = 8
DATA = bytes(range(64))


class Forwards:
    """A file that can be read forwards only, and gives at most `most` bytes at once."""

    def __init__(self, data: bytes, most: int) -> None:
        self._data = data
        self._most = most
        self.size = len(data)
        self.place = 0
        self.reads = 0

    def read(self, offset: int, size: int) -> bytes:
        assert offset >= self.place
        found = self._data[offset : offset + min(size, self._most)]
        self.place = offset + len(found)
        self.reads += 1
        return found


@given(st.binary(max_size=64), st.lists(st.tuples(st.integers(0, 12), st.integers(0, 20))), st.integers(1, 9))
def test_a_window_gives_what_stands_there_and_reads_forwards_alone(
    data: bytes, steps: list[tuple[int, int]], most: int
) -> None:
    file = Forwards(data, most)
    window = Window(file)
    with mock.patch.object(picklebytes, "BLOCK", BLOCK):
        for skip, size in steps:
            place = window.place + skip
            window.seek(place)
            there = data[place : place + size]

            assert window.peek(size) == there
            assert window.read(size) == there
            assert window.place == place + len(there)
            assert file.place <= max(place, place + max(size, BLOCK))


def test_a_window_reads_a_block_at_once() -> None:
    file = Forwards(DATA, 64)
    window = Window(file)
    with mock.patch.object(picklebytes, "BLOCK", BLOCK):
        assert b"".join(window.read(1) for _ in range(16)) == DATA[:16]

    assert file.reads == 2


def test_a_line_ends_with_its_end_with_the_file_or_where_it_is_too_long() -> None:
    window = Window(Bytes(b"one\ntwo words\nlast"))

    assert [window.line(6) for _ in range(5)] == [b"one\n", b"two wo", b"rds\n", b"last", b""]
    assert window.place == window.size


def test_a_file_is_read_as_zipfile_reads_it() -> None:
    file = Seekable(Window(Bytes(DATA)))

    assert file.read(2) == DATA[:2]
    assert (file.seek(10), file.seek(5, 1), file.tell()) == (10, 15, 15)
    assert file.read(0) == b""
    assert file.read(3) == DATA[15:18]
    assert (file.seek(-4, 2), file.read()) == (60, DATA[60:])
    assert (file.read(1), file.tell()) == (b"", 64)
    assert file.seek(-100, 1) == 0


def test_a_list_of_files_may_have_so_many_bytes_and_no_more() -> None:
    file = Seekable(Window(Bytes(DATA)))
    with mock.patch.object(picklebytes, "UNPACKED_MAX", 10):
        assert file.read(10) == DATA[:10]
        with pytest.raises(Unclear, match="its list of files"):
            file.read(11)


def test_so_much_is_unpacked_and_no_more() -> None:
    unpacked = Unpacked()
    with mock.patch.object(picklebytes, "UNPACKED_MAX", 10):
        unpacked.count(6)
        unpacked.count(4)
        with pytest.raises(Unclear, match="unpacks to more"):
            unpacked.count(1)
