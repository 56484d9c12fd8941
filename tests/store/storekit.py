"""What the tests of the stores share: logs that grow, other processes, file systems of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import pytest

from p2phub.core.checkpoint import Head, sign_head
from p2phub.core.choices import Profile
from p2phub.core.filetree import ChunkList, pack
from p2phub.core.identity import Identity, IdentityDocument, Role, new_document, open_identity, sign_document
from p2phub.core.ids import ContentId, LogId, ManifestId
from p2phub.core.merkle import LOG_TREE, Frontier
from p2phub.core.records import (
    NO_PREVIOUS,
    Assess,
    Branch,
    Entry,
    Publish,
    Recall,
    Record,
    Summary,
    Yank,
    log_id,
    sign_record,
)
from p2phub.core.search import Page, Query
from p2phub.core.signing import SigningKey
from p2phub.store.catalogue import Catalogue
from p2phub.store.cataloguewriter import CatalogueWriter, Numbers
from p2phub.store.database import Database
from p2phub.store.ingest import scan
from p2phub.store.intake import Ingested
from p2phub.store.layout import Layout
from p2phub.store.links import reflink
from p2phub.store.search import Search
from p2phub.store.searchindex import SearchIndex
from p2phub.store.store import Store
from p2phub.testing import values

TIME = values.TIME
OLD_S = 3600.0  # seconds; the age of a file that nobody is just writing
HERE = Path(__file__).parent
MIB = 1024 * 1024
WAYS = ("copy", "in place", "hard link")  # of a file into the store


# ── values ──────────────────────────────────────────────────────────────────


def revision(name: str) -> ManifestId:
    return ManifestId(values.content(name, 32))


def summary(**fields: object) -> Summary:
    return Summary(**({"files": 1, "size": 1000} | fields))  # type: ignore[arg-type]


def two_keys_identity(*names: str) -> Identity:
    """Return an identity in which each of the keys called `names` publishes."""
    keys = sorted((values.key(name) for name in names), key=lambda key: key.public_key)
    first = new_document(keys[0].public_key, created=TIME)
    role = Role(tuple(key.public_key for key in keys), 1)
    document = IdentityDocument(schema=1, version=1, created=TIME, root=first.root, publish=role, fresh=first.fresh)
    return open_identity([sign_document(document, [keys[0]])])


class Writer:
    """A publisher's log, as it grows on the publisher's own machine."""

    def __init__(self, identity: Identity | None = None, key: SigningKey | None = None) -> None:
        self.identity = identity or values.identity()
        self.key = key or values.key("publisher")
        self.namespace = self.identity.namespace
        self.log: LogId = log_id(self.namespace, self.key.public_key)
        self.entries: list[Entry] = []
        self._clock = TIME

    def publish(self, manifest: str = "a", **fields: object) -> Entry:
        defaults = {"kind": "model", "depth": 1, "branch": "main", "summary": summary()}
        return self._add(Publish, manifest=revision(manifest), **(defaults | fields))

    def branch(self, manifest: str | None, **fields: object) -> Entry:
        defaults = {"branch": "main", "manifest": None if manifest is None else revision(manifest)}
        return self._add(Branch, **(defaults | fields))

    def yank(self, version: str, **fields: object) -> Entry:
        return self._add(Yank, version=version, **fields)

    def recall(self, manifest: str, **fields: object) -> Entry:
        return self._add(Recall, manifest=revision(manifest), **fields)

    def assess(self, manifest: str, **fields: object) -> Entry:
        return self._add(Assess, manifest=revision(manifest), **({"claim": "review", "verdict": "good"} | fields))

    def grow(self, count: int) -> Writer:
        for number in range(count):
            self.publish(f"revision {len(self.entries)}", message=f"number {number}")
        return self

    def fork(self, size: int) -> Writer:
        """Return another history of the same log, which agrees on its first `size` records."""
        other = Writer(self.identity, self.key)
        other.entries = self.entries[:size]
        other._clock = self._clock + 1
        return other

    def data(self, start: int = 0, end: int | None = None) -> list[bytes]:
        return [entry.data for entry in self.entries[start:end]]

    def head(self, size: int | None = None) -> Head:
        size = len(self.entries) if size is None else size
        frontier = Frontier(LOG_TREE)
        for entry in self.entries[:size]:
            frontier.append(entry.leaf)
        return sign_head(self.log, size, frontier.root(), self.key)

    def give(self, store: Store, size: int | None = None) -> int:
        """Let `store` take the log over, up to `size` records."""
        store.logs.add_identity(self.identity)
        state = store.logs.state(self.log)
        start = state.size if state else 0
        return store.logs.extend(self.identity, self.head(size), self.data(start, size), now=self._clock)

    def _add(self, type_: type[Record], **fields: object) -> Entry:
        self._clock += 1
        position = {
            "namespace": self.namespace,
            "log": self.log,
            "index": len(self.entries),
            "previous": self.entries[-1].leaf if self.entries else NO_PREVIOUS,
            "time": self._clock,
            "model": "parrot",
        }
        self.entries.append(sign_record(type_(**(position | fields)), self.key))  # type: ignore[arg-type]
        return self.entries[-1]


# ── the index alone ─────────────────────────────────────────────────────────


def read_entries(
    database: Database, entries: Mapping[tuple[LogId, int], bytes], keys: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    """Return those of `entries` whose logs have these numbers in the index."""
    with database.read() as connection:
        logs = {row["number"]: LogId(row["log"]) for row in connection.execute("SELECT number, log FROM logs")}
    found = {(number, index): entries.get((logs[number], index)) for number, index in keys}
    return {key: data for key, data in found.items() if data is not None}


def place_entry(connection: Connection, entry: Entry) -> Numbers:
    """Let the index know the place of an entry, as if its log were here; returns what a catalogue needs to know."""
    record = entry.record
    connection.execute(
        "INSERT OR IGNORE INTO identities (namespace, version, chain, number)"
        " VALUES (?, 1, x'', (SELECT coalesce(max(number), 0) + 1 FROM identities))",
        (record.namespace,),
    )
    connection.execute(
        "INSERT OR IGNORE INTO logs (log, namespace, key, size, bytes, peaks, head, number)"
        " VALUES (?, ?, x'', 0, 0, x'', x'', (SELECT coalesce(max(number), 0) + 1 FROM logs))",
        (record.log, record.namespace),
    )
    row = connection.execute(
        "SELECT logs.number AS log, identities.number AS publisher FROM logs JOIN identities USING (namespace)"
        " WHERE log = ?",
        (record.log,),
    ).fetchone()
    connection.execute(
        "INSERT OR REPLACE INTO entry_rows (log_number, idx, leaf, journal, offset, length) VALUES (?, ?, ?, 0, 0, 0)",
        (row["log"], record.index, entry.leaf),
    )
    return Numbers(row["log"], row["publisher"])


class Known:
    """A catalogue whose entries are kept in memory."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.entries: dict[tuple[LogId, int], bytes] = {}
        self.index = SearchIndex(self.database, self.read)
        self.catalogue = Catalogue(self.database)
        self.cataloguing = CatalogueWriter(self.index)
        self.search = Search(self.database, self.read)

    def read(self, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        return read_entries(self.database, self.entries, keys)

    def apply(self, *entries: Entry) -> Known:
        with self.database.write() as connection:
            for entry in entries:
                self.entries[entry.record.log, entry.record.index] = entry.data
                self.cataloguing.apply(connection, entry.record.log, [entry], place_entry(connection, entry))
        return self

    def clear(self) -> Known:
        with self.database.write() as connection:
            empty_catalogue(connection)
            self.index.clear(connection)
        return self

    def page(self, text: str = "", **fields: Any) -> Page:
        return self.search.find(Query(text, **fields))

    def find(self, text: str = "", **fields: Any) -> list[str]:
        return [model.model for model in self.page(text, **fields)]

    def every(self, text: str = "", **fields: Any) -> list[str]:
        """Return what stands on all pages, one after the other."""
        found: list[str] = []
        cursor = None
        while True:
            page = self.page(text, cursor=cursor, **fields)
            found += [f"{model.namespace}/{model.model}" for model in page]
            cursor = page.cursor
            if cursor is None:
                return found

    def every_name(self, text: str) -> list[str]:
        return [name.partition("/")[2] for name in self.every(text, limit=1)]


def empty_catalogue(connection: Connection) -> None:
    """Let the index forget all logs and what they say, but for search."""
    for table in ("identities", "logs", "entry_rows", "repositories", "release_rows", "branch_rows", "version_rows",
                  "yank_rows", "recall_rows", "assessments", "refusals"):  # fmt: skip
        connection.execute(f"DELETE FROM {table}")


# ── files ───────────────────────────────────────────────────────────────────


def open_store(folder: Path) -> Store:
    return Store(Layout(folder / "home", folder / "home" / "store"))


def check_entry_bytes(store: Store) -> None:
    """Check that of each log the bytes are noted that its entries have."""
    with store.database.read() as connection:
        rows = connection.execute(
            "SELECT entry_bytes, (SELECT coalesce(sum(length), 0) FROM entry_rows WHERE log_number = number) FROM logs"
        )
        for noted, there in rows:
            assert noted == there


def write_old(path: Path, data: bytes, *, age_s: float = OLD_S) -> Path:
    """Write a file that was last changed a while ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))
    return path


def fixed_chunks(data: bytes, size: int) -> ChunkList:
    """Return the list of chunks of `size` bytes that `data` is."""
    from blake3 import blake3

    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return ChunkList(b"".join(pack(len(piece), blake3(piece).digest()) for piece in pieces))


def fill(path: Path) -> None:
    """Let a file take all room that is left on its disk."""
    with open(path, "wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))


def take_in(store: Store, path: Path, way: str = "copy", profile: Profile = "fixed-1m", **options: object) -> Ingested:
    if way == "hard link":
        path.chmod(0o444)
    return store.intake.ingest(path, profile, in_place=way == "in place", **options)  # type: ignore[arg-type]


def scan_file(path: Path, profile: Profile = "fixed-1m") -> tuple[ContentId, ChunkList]:
    with open(path, "rb") as file:
        result = scan(file.fileno(), path, profile)
    return result.root, result.chunks


def read(store: Store, root: ContentId) -> bytes | None:
    held = store.blobs.find(root)
    return held.path.read_bytes() if held else None


def objects(store: Store) -> dict[str, bytes]:
    return tree(store.layout.store / "objects")


def clones(folder: Path) -> bool:
    """Say whether files can share extents here: then a copy is a clone, which nobody else can change."""
    with open(folder / "a", "wb+") as one, open(folder / "b", "wb+") as other:
        one.write(b"bytes")
        one.flush()
        return reflink(one.fileno(), other.fileno())


def bring(store: Store, data: bytes, chunks: ChunkList) -> Path:
    """Let another host put an object into the store, of which this host knows only the chunk list."""
    store.chunk_lists.save(chunks.root(), chunks)
    path = store.layout.object(chunks.root())
    write_old(path, data).chmod(0o444)
    return path


def change_by_growing(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def change_by_shrinking(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def change_by_rewriting(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"other")


def tree(folder: Path) -> dict[str, bytes]:
    """Return all files below `folder`, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ── other processes ─────────────────────────────────────────────────────────


def start(function: Callable[..., None], *arguments: object) -> subprocess.Popen[str]:
    """Run `function` of a test module, on text, in a process of its own."""
    return subprocess.Popen(
        _command(function, arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=_environment(),
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    """Return what a process printed, once it has ended well."""
    out, err = process.communicate(timeout=120)

    assert process.returncode == 0, err
    return out


def run_at_once(function: Callable[..., None], *argument_lists: tuple[object, ...]) -> list[str]:
    """Run `function` in several processes that all begin when all are ready; returns what each printed.

    The function calls `wait_for_the_others` when it is ready.
    """
    processes = [start(function, *arguments) for arguments in argument_lists]
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [finish(process) for process in processes]


def wait_for_the_others() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


@cache
def can_mount() -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    return False


def run_in_small_disk(function: Callable[..., None], folder: Path, size: int, *arguments: object) -> str:
    """Run `function(folder, ...)` in a process for which `folder` is a file system of `size` bytes."""
    return _run_mounted(f"mount -t tmpfs -o size={size} tmpfs '{folder}'", function, folder, *arguments)


def run_read_only(function: Callable[..., None], folder: Path, *arguments: object) -> str:
    """Run `function(folder, ...)` in a process that cannot write to `folder`, not even as root."""
    mount = f"mount --bind '{folder}' '{folder}' && mount -o remount,bind,ro '{folder}'"
    return _run_mounted(mount, function, folder, *arguments)


def _run_mounted(mount: str, function: Callable[..., None], *arguments: object) -> str:
    if not can_mount():
        pytest.skip("no mount namespaces here")
    command = [*_command(function, arguments)]
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *command],
        capture_output=True, text=True, check=False, env=_environment(), timeout=120,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    return result.stdout


def _command(function: Callable[..., None], arguments: tuple[object, ...]) -> list[str]:
    module = function.__module__
    code = f"import sys, {module}; {module}.{function.__name__}(*sys.argv[1:])"
    return [sys.executable, "-c", code, *map(str, arguments)]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent)])}


def open_files() -> Iterator[str]:
    """Yield what this process has open, but for its standard streams."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/self/fd/{number}")
