"""What people use today: servers that are started, commands that are measured, and how to install them.

Servers stop when the `stack` closes that they were started with. What is not installed
raises Missing; a case leaves it out with that word.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from p2phub.testing.netns import Machine
from p2phub.testing.processes import free_port

from .nodes import beside, clean_environment, start
from .workplace import Missing, Workplace

PROGRAMS = Path(__file__).parent / "programs"
LIMIT = [sys.executable, str(PROGRAMS / "limit.py")]
TORRENT = [sys.executable, str(PROGRAMS / "torrent.py")]
PORT = 18680  # of servers on a machine of their own
DEBIAN_PACKAGES = ("nginx", "aria2", "rsync", "rclone", "b3sum", "curl", "iproute2")
PYTHON_PACKAGES = ("libtorrent>=2.0",)


_HASH_FILES = """
import sys
from blake3 import blake3
for path in sys.argv[1:]:
    print(blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest())
"""


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    address: str  # HOST:PORT
    pid: int


def install() -> int:
    """Install the others with apt-get and pip; returns an exit code."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print("tools/bench: error: --install needs root and apt-get", file=sys.stderr)
        return 1
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "install", "--yes", "--no-install-recommends", *DEBIAN_PACKAGES]
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *PYTHON_PACKAGES]
    for command in (["apt-get", "update"], apt, pip):
        if code := subprocess.run(command, env=environment, check=False).returncode:
            return code
    return 0


def need(*programs: str) -> None:
    """Raise Missing unless all `programs` are installed."""
    for program in programs:
        if not shutil.which(program):
            raise Missing(f"{program} is not installed")


def hash_command() -> list[str]:
    """Return the command that prints the BLAKE3 hash of a file: b3sum, or the same library from Python."""
    if shutil.which("b3sum"):
        return ["b3sum"]
    return [sys.executable, "-c", _HASH_FILES]


def digest(file: Path) -> str:
    """Return the BLAKE3 hash of `file`, in hex."""
    whole = blake3()
    whole.update_mmap(file)
    return whole.hexdigest()


def then_sync(fetch: Sequence[str], target: Path) -> list[str]:
    """Return a command that fetches the file `target` and forces it to disk."""
    return ["sh", "-c", f"{shlex.join(fetch)} >/dev/null && sync {shlex.quote(str(target))}"]


def then_hash(fetch: Sequence[str], target: Path) -> list[str]:
    """Return a command that fetches `target`, forces it to disk, and prints its hash."""
    file = shlex.quote(str(target))
    return ["sh", "-c", f"{shlex.join(fetch)} >/dev/null && sync {file} && {shlex.join(hash_command())} {file}"]


def then_hash_all(fetch: Sequence[str], target: Path) -> list[str]:
    """Return a command that fetches files into the folder `target` and prints their hashes."""
    files = f"find {shlex.quote(str(target))} -type f -print0 | xargs -0 {shlex.join(hash_command())}"
    return ["sh", "-c", f"{shlex.join(fetch)} >/dev/null && {files}"]


# ── the limit ───────────────────────────────────────────────────────────────


def start_limit(place: Workplace, stack: ExitStack, file: Path, kind: str) -> Server:
    """Serve `file` with the limit program of a kind: plain, frames or tls."""
    ready = place.new("port")
    process = start(
        stack, [*LIMIT, "serve", str(file), str(ready), kind], clean_environment(), place.new("limit.log"), ready.exists
    )
    return Server(f"127.0.0.1:{ready.read_text()}", process.pid)


def limit_fetch(server: Server, target: Path, size: int, kind: str) -> list[str]:
    """Return the command that fetches the served file, of `size` bytes, to `target`."""
    return [*LIMIT, "fetch", server.address.rpartition(":")[2], str(target), str(size), kind]


# ── nginx, and the clients of a web server ──────────────────────────────────


def start_nginx(
    place: Workplace, stack: ExitStack, folder: Path, machine: Machine | None = None, *, directives: str = ""
) -> Server:
    """Serve `folder` over HTTP from one process, with `sendfile`. directives: more of its own. Raises Missing."""
    need("nginx")
    home = place.new("nginx")
    home.mkdir()
    host, port = _endpoint(machine)
    configuration = home / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {home}/pid; error_log stderr;\n"
        "events { worker_connections 1024; }\n"
        "http {\n"
        f"  access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;\n"
        f"  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;\n"
        f"  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;\n"
        f"  server {{ listen {host}:{port}; root {folder}; autoindex on; {directives} }}\n"
        "}\n"
    )
    command = beside(machine, ["nginx", "-p", str(home), "-c", str(configuration), "-e", "stderr"])
    ready = (home / "pid").exists if machine else _answers(host, port)
    process = start(stack, command, clean_environment(), home / "log", ready)
    return Server(f"{host}:{port}", process.pid)


def aria2(server: Server, name: str, target: Path) -> list[str]:
    """Return the command that fetches the file `name` to `target` over several connections."""
    need("aria2c")
    many = ["--split=4", "--max-connection-per-server=4", "--min-split-size=1M"]
    quiet = ["--quiet", "--no-conf", "--file-allocation=none", "--allow-overwrite=true"]
    return [
        "aria2c",
        *many,
        *quiet,
        f"--dir={target.parent}",
        f"--out={target.name}",
        f"http://{server.address}/{name}",
    ]


def aria2_list(server: Server, names: Sequence[str], folder: Path, listing: Path) -> list[str]:
    """Return the command that fetches all files `names` into `folder`."""
    need("aria2c")
    listing.write_text("".join(f"http://{server.address}/{name}\n" for name in names))
    quiet = ["--quiet", "--no-conf", "--file-allocation=none", "--max-concurrent-downloads=16"]
    return ["aria2c", *quiet, f"--dir={folder}", f"--input-file={listing}"]


def rclone(server: Server, folder: Path) -> list[str]:
    """Return the command that fetches all that `server` has into `folder`."""
    need("rclone")
    many = ["--multi-thread-streams=4", "--multi-thread-cutoff=64M", "--transfers=16", "--checkers=16"]
    return ["rclone", "--config=/dev/null", "copy", *many, f":http,url='http://{server.address}/':", str(folder)]


def curl(server: Server, name: str, target: Path) -> list[str]:
    """Return the command that fetches the file `name` to `target`."""
    need("curl")
    return ["curl", "--silent", "--fail", "--output", str(target), f"http://{server.address}/{name}"]


# ── rsync ───────────────────────────────────────────────────────────────────


def start_rsync(place: Workplace, stack: ExitStack, folder: Path) -> Server:
    """Serve `folder` as the module `bench` of an rsync daemon. Raises Missing."""
    need("rsync")
    port = free_port()
    configuration = place.new("rsyncd.conf")
    configuration.write_text(f"use chroot = no\nlog file = /dev/null\n[bench]\npath = {folder}\n")
    daemon = ["--daemon", "--no-detach", f"--config={configuration}", f"--port={port}", "--address=127.0.0.1"]
    log = place.new("rsync.log")
    process = start(stack, ["rsync", *daemon], clean_environment(), log, _answers("127.0.0.1", port))
    return Server(f"127.0.0.1:{port}", process.pid)


def rsync(server: Server, what: str, target: Path, *options: str) -> list[str]:
    """Return the command that fetches the file or folder `what` of the daemon. rsync checks by itself what came."""
    return ["rsync", "--recursive", *options, f"rsync://{server.address}/bench/{what}", str(target)]


# ── libtorrent ──────────────────────────────────────────────────────────────


def make_torrent(place: Workplace, source: Path) -> Path:
    """Return the v2 torrent of the file or folder `source`, which is hashed for it. Raises Missing."""
    if importlib.util.find_spec("libtorrent") is None:
        raise Missing("libtorrent (of PyPI) is not installed")
    torrent = place.new("torrent")
    subprocess.run([*TORRENT, "make", str(source), str(torrent)], check=True)
    return torrent


def start_seed(
    place: Workplace, stack: ExitStack, torrent: Path, folder: Path, machine: Machine | None = None
) -> Server:
    """Seed `torrent`, whose content lies in `folder`."""
    host, port = _endpoint(machine)
    ready = place.new("ready")
    serve = [*TORRENT, "serve", str(torrent), str(folder), f"{host}:{port}", str(ready)]
    process = start(stack, beside(machine, serve), clean_environment(), place.new("torrent.log"), ready.exists)
    return Server(f"{host}:{port}", process.pid)


def torrent_fetch(torrent: Path, folder: Path, *peers: str) -> list[str]:
    """Return the command that fetches what `torrent` holds into `folder`, verified and on disk."""
    return [*TORRENT, "fetch", str(torrent), str(folder), f"127.0.0.1:{free_port()}", *peers]


def torrent_share(torrent: Path, folder: Path, machine: Machine, done: Path, *peers: str) -> list[str]:
    """Return the command that does the same on `machine`, writes `done`, and then goes on as a seed."""
    share = [*TORRENT, "share", str(torrent), str(folder), f"{machine.address}:{PORT}", str(done), *peers]
    return machine.command(share)


# ── helpers ─────────────────────────────────────────────────────────────────


def _endpoint(machine: Machine | None) -> tuple[str, int]:
    return (machine.address, PORT) if machine else ("127.0.0.1", free_port())


def _answers(host: str, port: int) -> Callable[[], bool]:
    def check() -> bool:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            return False
        return True

    return check
