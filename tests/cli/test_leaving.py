"""How the process of a command ends: at once, and with nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from p2phub.testing.processes import DEADLINE_S

# Ends with what a command must see to, and with what it need not.
PROGRAM = """
import atexit, sys, threading, time
from pathlib import Path

def work():
    time.sleep(0.3)
    Path("worked").touch()

class Kept:
    def __del__(self):
        Path("taken apart").touch()

kept = Kept()
atexit.register(Path("told").touch)
if "thread" in sys.argv[1]:
    threading.Thread(target=work).start()
sys.stderr.write("no end of line")
del sys.argv[1]
from p2phub.cli.main import entry
entry()
"""


def run(folder: Path, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S)


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["fetch"], 2), (["fetch", "a/b", "--help"], 0)])
def test_a_command_ends_with_its_code_and_takes_nothing_apart(tmp_path: Path, arguments: list[str], code: int) -> None:
    ended = run(tmp_path, "alone", *arguments)

    assert ended.stderr.startswith("no end of line")
    assert (ended.returncode, bool(ended.stdout)) == (code, code == 0)
    assert (tmp_path / "told").exists()
    assert not (tmp_path / "taken apart").exists()


def test_a_thread_that_must_be_waited_for_is_waited_for(tmp_path: Path) -> None:
    ended = run(tmp_path, "thread", "--version")

    assert ended.returncode == 0
    assert (tmp_path / "worked").exists()


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        ended = run(tmp_path, "alone", "--version", stdout=full.fileno())

    assert ended.returncode == 1
    assert "cannot write the output" in ended.stderr


def test_an_interrupt_before_the_first_command_is_loaded_is_one_line(tmp_path):
    """As if ^C came while the largest library is loaded: what whoever typed the wrong command does."""
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    program = [sys.executable, "-c", "from p2phub.cli.main import entry; entry()", "log", "parrot"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)

    assert done.returncode == 130
    assert done.stderr == "p2phub: interrupted\n"


def test_an_interrupt_that_python_ignores_is_none_the_less_one(tmp_path: Path) -> None:
    """As if ^C came in a callback of an import, of which Python says only that its exception is ignored."""
    program = """
import sys, time
from p2phub.cli import main

class Kept:
    def __del__(self):
        raise KeyboardInterrupt

def work():
    kept = Kept()
    del kept
    for _ in range(500):
        time.sleep(0.01)

main.main = work
try:
    main.entry()
except KeyboardInterrupt:
    sys.exit("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE_S)

    assert done.stderr == "interrupted\n"


def test_an_interrupt_while_a_command_ends_shows_no_traceback(tmp_path: Path) -> None:
    program = """
import atexit, os, signal, sys
from p2phub.cli.main import entry

atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["p2phub", "--version"]
entry()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE_S)

    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""
    assert done.stdout


CLOSED = "2>&-", ">&-", "<&- >&- 2>&-", "2>/dev/full"


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize(
    ("command", "code"), [("nonsense", 2), ("fetch a/b --offline", 3), ("--version", 0), ("info b3:00", 2)]
)
def test_a_command_without_streams_ends_with_its_code(closed: str, command: str, code: int, tmp_path: Path) -> None:
    line = f'"{sys.executable}" -m p2phub {command} {closed}'
    done = subprocess.run(
        ["bash", "-c", line], env={**os.environ, "P2PHUB_HOME": str(tmp_path / "home")}, capture_output=True, text=True
    )

    # Nobody has read what was to be printed.
    assert done.returncode == (1 if code == 0 and ">&-" in closed.replace("2>&-", "") else code)
    assert "Traceback" not in done.stderr


def test_what_is_printed_goes_to_no_file_that_took_the_place_of_a_stream(tmp_path: Path) -> None:
    program = "from p2phub.cli.main import entry; import sys, os; sys.argv = ['p2phub', 'store', 'df']; entry()"
    environment = {**os.environ, "P2PHUB_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{program}" >&-'], env=environment, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert done.stderr == "p2phub: error: cannot write the output: Bad file descriptor\n"
    assert (tmp_path / "home" / "index.sqlite").read_bytes()[:6] == b"SQLite"
