"""Parts of files from another hub outlive who wrote to them, and never have two writers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from p2phub.store.disk import boot_id
from p2phub.store.parts import Parts

ID = bytes(range(32))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_part_goes_on_where_it_was(tmp_path):
    parts = Parts(tmp_path)
    part = parts.begin(ID)
    part.write(b"abc")
    part.close(keep=True)
    again = parts.begin(ID)
    again.write(b"def")

    assert (part.was_resumed, again.was_resumed) == (False, True)
    assert again.path.read_bytes() == b"abcdef"
    again.start_over()
    again.write(b"x")
    assert again.path.read_bytes() == b"x"
    again.close(keep=False)
    assert names(tmp_path) == []


def test_two_writers_have_a_part_each(tmp_path):
    parts = Parts(tmp_path)
    first, second = parts.begin(ID), parts.begin(ID)
    first.write(b"abc")
    second.write(b"x")
    second.close(keep=True)
    first.close(keep=True)

    assert first.path != second.path
    assert (tmp_path / ID.hex()).read_bytes() == b"abc"


def test_what_a_dead_process_left_is_taken_over_and_what_a_living_one_writes_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid, data in ((dead.pid, b"dead"), (os.getppid(), b"living")):
        (tmp_path / f"{ID.hex()}.{boot_id()}-{pid}-{'0' * 16}").write_bytes(data)
    part = Parts(tmp_path).begin(ID)

    assert part.path.read_bytes() == b"dead"
    assert (tmp_path / f"{ID.hex()}.{boot_id()}-{os.getppid()}-{'0' * 16}").read_bytes() == b"living"


def test_what_another_machine_left_is_taken_over_after_a_while(tmp_path):
    path = tmp_path / f"{ID.hex()}.{'0' * 32}-1-{'0' * 16}"
    path.write_bytes(b"abc")
    fresh = Parts(tmp_path).begin(ID)
    fresh.close(keep=False)
    os.utime(path, (time.time() - 200, time.time() - 200))
    late = Parts(tmp_path).begin(ID)

    assert (fresh.size, late.size) == (0, 3)


def test_old_parts_go_with_the_garbage(tmp_path):
    parts = Parts(tmp_path)
    part = parts.begin(ID)
    part.write(b"abc")
    part.close(keep=True)

    assert parts.remove_old(age_s=60) == 0
    assert names(tmp_path) == [ID.hex()]
    assert parts.remove_old(age_s=-60) > 0
    assert names(tmp_path) == []
