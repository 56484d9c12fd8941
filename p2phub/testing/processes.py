"""Run p2phub as people do: whole processes, each home in a folder of its own.

    home = Home(tmp_path / "alice")
    home.run("id", "new")
    with home.node("--peer", bob.address) as alice:
        ...

A node listens on any free port, so that tests can run side by side. What a command
printed is shown when its exit code is not the expected one.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from .netns import Machine

COMMAND = (sys.executable, "-c", "from p2phub.cli.main import entry; entry()")
DEADLINE_S = 60.0  # seconds that anything may take; generous, as nothing here proves speed


@dataclass(frozen=True)
class Outcome:
    """A command that has ended."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document that was printed."""
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"p2phub {' '.join(self.arguments)}: exit code {self.code}\n--- stdout\n{self.out}--- stderr\n{self.err}"


@dataclass
class Home:
    """A home and the commands that run in it."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)  # environment
    machine: Machine | None = None  # in whose network its processes are; None: in that of the tests

    @property
    def objects(self) -> list[Path]:
        """The whole files in the store."""
        return sorted(self.store.glob("objects/??/*"))

    @property
    def store(self) -> Path:
        return Path(self.extra.get("P2PHUB_STORE", self.folder / "store"))

    @property
    def daemon_file(self) -> Path:
        return self.folder / "daemon.json"

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a command: that of the tests without what would change p2phub."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("P2PHUB_", "NO_COLOR"))}
        return {**kept, "P2PHUB_HOME": str(self.folder), **self.extra, **(env or {})}

    def start(self, *arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start a command; its output goes to pipes."""
        command = [*COMMAND, *arguments]
        process = subprocess.Popen(
            self.machine.command(command) if self.machine else command,
            env=self.environment(env),
            **{
                "text": True,
                "errors": "surrogateescape",
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **options,
            },
        )
        _started.append(process)
        return process

    def run(
        self,
        *arguments: str,
        code: int | None = 0,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 2 * DEADLINE_S,
        **options: Any,
    ) -> Outcome:
        """Run a command to its end. AssertionError unless its exit code is `code` (None: any)."""
        process = self.start(*arguments, env=env, **options)
        try:
            out, err = process.communicate(timeout=timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        return _checked(Outcome(arguments, process.returncode, out or "", err or ""), code)

    def call(self, *arguments: str, code: int | None = 0, env: Mapping[str, str] | None = None) -> Outcome:
        """Do what `run` does in this process: the same code, without starting Python for every command.

        Not for what processes, pipes, terminals and signals do, and one at a time. On a machine of its own it is `run`.
        """
        if self.machine is not None:
            return self.run(*arguments, code=code, env=env)
        from p2phub.cli.main import main

        # With bytes below, for the commands that print bytes.
        raw = io.BytesIO(), io.BytesIO()
        out, err = (io.TextIOWrapper(stream, "utf-8", "backslashreplace") for stream in raw)
        number = 0
        with (
            mock.patch.dict(os.environ, self.environment(env), clear=True),
            mock.patch.object(sys, "argv", ["p2phub", *arguments]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as exc:
                number = exc.code if isinstance(exc.code, int) else 0
        out.flush()
        err.flush()
        shown, said = (stream.getvalue().decode(errors="surrogateescape") for stream in raw)
        return _checked(Outcome(arguments, number, shown, said), code)

    def json(self, *arguments: str, code: int | None = 0, env: Mapping[str, str] | None = None) -> Any:
        """Run a command with `--json` and return what it printed."""
        return self.run(*arguments, "--json", code=code, env=env).json

    def ask(self, *arguments: str, code: int | None = 0, env: Mapping[str, str] | None = None) -> Any:
        """Return what a command prints with `--json`, done as `call` does it."""
        return self.call(*arguments, "--json", code=code, env=env).json

    @contextlib.contextmanager
    def node(
        self,
        *arguments: str,
        peers: tuple[str, ...] = (),
        listen: str = "127.0.0.1:0",
        env: Mapping[str, str] | None = None,
    ) -> Iterator[RunningNode]:
        """Give a running node of this home. At the end it must stop cleanly, unless it was killed."""
        node = self.start_node(*arguments, peers=peers, listen=listen, env=env)
        try:
            yield node
        except BaseException:
            node.kill()
            raise
        if node.process.poll() is None:
            assert node.stop() == 0, node.errors()

    def start_node(
        self,
        *arguments: str,
        peers: tuple[str, ...] = (),
        listen: str = "127.0.0.1:0",
        env: Mapping[str, str] | None = None,
    ) -> RunningNode:
        """Start a node and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ready_file = self.folder / f"ready-{time.monotonic_ns()}.json"
        log = self.folder / "node.log"
        with open(log, "ab") as errors:
            process = self.start(
                "node", "--listen", listen, "--local", "127.0.0.1:0", "--ready-file", str(ready_file),
                *(word for peer in peers for word in ("--peer", peer)), *arguments,
                env=env, stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
        try:
            wait_until(lambda: ready_file.exists() or process.poll() is not None, "a node to be ready")
            assert process.poll() is None, f"the node ended: {log.read_text()}"
            facts = json.loads(ready_file.read_text())
        except BaseException:
            process.kill()
            process.wait()
            raise
        return RunningNode(self, process, ready_file, log, **facts)


@dataclass
class RunningNode:
    """A node that is a process of its own."""

    home: Home
    process: subprocess.Popen[str]
    ready_file: Path
    log: Path
    node_id: str
    address: str
    local_url: str
    pid: int

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port of the peer door."""
        host, _, port = self.address.rpartition("@")[2].rpartition(":")
        return host, int(port)

    def stop(self, number: int = signal.SIGTERM, *, timeout_s: float = DEADLINE_S) -> int:
        """Ask the node to stop and return its exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """End the process at once, as a crash of the machine would."""
        self.process.kill()
        self.process.wait()

    def errors(self) -> str:
        """Return what the node wrote to stderr."""
        return self.log.read_text()


# What a failing test leaves running must not outlive the tests.
_started: list[subprocess.Popen[str]] = []


@atexit.register
def _kill_all() -> None:
    for process in _started:
        if process.poll() is None:
            process.kill()


def _checked(outcome: Outcome, code: int | None) -> Outcome:
    assert code is None or outcome.code == code, f"expected exit code {code}\n{outcome}"
    assert "Traceback" not in outcome.err, str(outcome)
    return outcome


def wait_until(check: Callable[[], Any], what: str, *, deadline_s: float = DEADLINE_S) -> Any:
    """Return what `check` returns once it is true; AssertionError if that takes too long."""
    end = time.monotonic() + deadline_s
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < end, f"waited {deadline_s:.0f} s for {what}"
        time.sleep(0.05)


class Stranger:
    """A server of loopback that is no node, on a thread. A context manager that gives its port."""

    def __init__(self, kind: Literal["silent", "banner", "http"], port: int = 0) -> None:
        """kind: never answers; greets like sshd; answers 404 to everything. port: 0 is any."""
        self._kind = kind
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen()
        self._open: list[socket.socket] = []

    def __enter__(self) -> int:
        threading.Thread(target=self._serve, daemon=True).start()
        port: int = self._listener.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            if self._kind != "silent":
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        page = b"<html>not found</html>"
        head = b"HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n" % len(page)
        with contextlib.suppress(OSError):
            if self._kind == "banner":
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            while self._kind == "http" and connection.recv(65536):
                connection.sendall(head + page)


def is_running(pid: int) -> bool:
    """Say whether a process runs; one that has ended and that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def copy_home(home: Path, to: Path) -> Path:
    """Copy a home, and let the copy be a node of its own; returns it."""
    shutil.copytree(home, to)
    (to / "keys" / "node.key").unlink()
    return to


def tree(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder`, by path."""
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def flip_byte(path: Path, offset: int, *, keep_time: bool = False) -> None:
    """Change one byte of a file where it lies, as a failing disk does; read-only files too.

    keep_time: leave the time of change as it was, so that only hashing can notice.
    """
    status = path.stat()
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(status.st_mode & 0o7777)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _sha256(path: Path) -> str:
    whole = sha256()
    with open(path, "rb") as file:
        while block := file.read(1024 * 1024):
            whole.update(block)
    return whole.hexdigest()
