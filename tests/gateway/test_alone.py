"""One node runs in a home; tests/cli/test_at_once.py shows it of whole nodes."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from p2phub.core.errors import HubError, StoreError
from p2phub.gateway.alone import LOCK, only_node
from p2phub.store.layout import Layout
from p2phub.testing.processes import Home

# Has the kernel answer every `flock` of this process as a file system does that cannot lock, then is p2phub.
PROGRAM = """
import ctypes, struct, sys

number, code = int(sys.argv.pop(1)), int(sys.argv.pop(1))
steps = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | code), (0x06, 0, 0, 0x7FFF0000))
filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(filter)))
prctl = ctypes.CDLL(None).prctl
if prctl(38, 1, 0, 0, 0) or prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0):
    sys.exit("no seccomp here")
from p2phub.cli.main import entry
entry()
"""
FLOCK = {"x86_64": 73, "aarch64": 32}.get(platform.machine())  # its number, of Linux


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "home", tmp_path / "home/store")


def test_a_home_has_one_node_at_a_time(layout: Layout) -> None:
    with only_node(layout), pytest.raises(HubError, match="runs already") as refused, only_node(layout):
        pass
    with only_node(layout):
        pass

    assert str(layout.home) in str(refused.value)
    assert f"process {os.getpid()}" in str(refused.value)
    assert "P2PHUB_HOME" in str(refused.value.hint)


def test_a_home_by_another_name_is_the_same(layout: Layout, tmp_path: Path) -> None:
    layout.create()
    (tmp_path / "link").symlink_to(layout.home)

    same = Layout(tmp_path / "link", layout.store)

    with only_node(layout), pytest.raises(HubError, match="runs already"), only_node(same):
        pass


def test_what_a_node_began_does_not_keep_the_next_one_out(layout: Layout) -> None:
    with only_node(layout):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with only_node(layout):
            pass
        outlived = child.poll() is None
    finally:
        child.kill()
        child.wait()

    assert outlived


def test_what_a_dead_process_said_of_itself_keeps_nobody_out(layout: Layout) -> None:
    layout.create()
    dead = {"node_id": "a" * 52, "address": "", "local_url": "http://127.0.0.1:1", "pid": os.getpid(), "token": "t"}
    layout.daemon.write_text(json.dumps(dead))

    with only_node(layout):
        pass


def test_a_lock_that_cannot_be_opened_is_named(layout: Layout) -> None:
    layout.create()
    (layout.home / LOCK).mkdir()

    with pytest.raises(StoreError, match=LOCK), only_node(layout):
        pass


@pytest.mark.skipif(FLOCK is None, reason="needs to know which system call takes a lock")
def test_a_home_on_a_disk_that_cannot_lock_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    words = ("node", "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(FLOCK), str(errno.ENOLCK), *words],
        env=home.environment(),
        capture_output=True,
        text=True,
    )
    if "no seccomp here" in ended.stderr:
        pytest.skip("this machine lets no process filter its own system calls")

    assert ended.returncode == 1
    assert str(home.folder / LOCK) in ended.stderr
    assert os.strerror(errno.ENOLCK) in ended.stderr
    assert "hint: a home needs a disk on which files can be locked" in ended.stderr
    assert not home.daemon_file.exists()
