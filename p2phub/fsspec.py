"""Read repositories as files of a file system: `p2p://NAMESPACE/MODEL@REVISION/path` for fsspec.

    import pandas
    pandas.read_parquet("p2p://NAMESPACE/DATASET@1.0.0/data/train.parquet")

Through a running node a read fetches and checks the chunks it needs; without one the
whole file is fetched and checked first.
"""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import quote

import httpx
from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

import p2phub
from p2phub.core.errors import InvalidName, NotFound, Offline
from p2phub.core.names import HashRef, parse_reference
from p2phub.gateway.client import Daemon, find_daemon
from p2phub.node.operations.catalogue import FileInfo, RepositoryInfo
from p2phub.node.settings import Settings
from p2phub.store.layout import Layout

READ_TIMEOUT_S = 60.0  # without a byte
RETRIES = 3  # of a range that ended early; what came is in the store by then


class P2PFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The files of repositories, read only."""

    protocol = "p2p"
    root_marker = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._infos: dict[str, RepositoryInfo] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return str(path).removeprefix("p2p://").strip("/")

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        """List what is in a folder of a repository."""
        path = self._strip_protocol(path)
        name, inside = _split(path)
        files = self._info(name).files
        rows: dict[str, dict[str, Any]] = {}
        for file in files:
            if file.path == inside:
                return [_row(name, file)] if detail else [path]
            rest = file.path.removeprefix(f"{inside}/" if inside else "")
            if inside and rest == file.path:
                continue
            first, slash, _ = rest.partition("/")
            folder = "/".join(part for part in (name, inside, first) if part)
            rows[folder] = {"name": folder, "size": 0, "type": "directory"} if slash else _row(name, file)
        if not rows:
            raise FileNotFoundError(path)
        found = sorted(rows.values(), key=lambda row: str(row["name"]))
        return found if detail else [row["name"] for row in found]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Return what is known of a file or folder."""
        path = self._strip_protocol(path)
        name, inside = _split(path)
        for file in self._info(name).files:
            if file.path == inside:
                return _row(name, file)
            if not inside or file.path.startswith(f"{inside}/"):
                return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ukey(self, path: str) -> str:
        """Return what changes when the content does: its hash."""
        return str(self.info(path)["sha256"])

    def invalidate_cache(self, path: str | None = None) -> None:
        """Look again where branches stand."""
        self._infos.clear()
        super().invalidate_cache(path)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            raise NotImplementedError("p2p:// is read only; publish with p2phub.publish")
        name, inside = _split(path)
        info = self._info(name)
        if not any(file.path == inside for file in info.files):
            raise FileNotFoundError(path)
        daemon = None if Settings.from_environment().offline else find_daemon(Layout.from_environment())
        if daemon is None or info.namespace is None:
            return open(p2phub.locate(info.revision, inside), "rb")
        options.pop("size", None)
        return _RemoteFile(self, path, daemon=daemon, info=info, inside=inside, **options)

    def _info(self, name: str) -> RepositoryInfo:
        known = self._infos.get(name)
        if known is None:
            try:
                known = self._infos[name] = p2phub.info(name)
            except (NotFound, InvalidName, Offline) as exc:
                raise FileNotFoundError(str(exc)) from exc
        return known


class _RemoteFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is read through the running node, range by range, each chunk checked before it comes."""

    def __init__(
        self, fs: P2PFileSystem, path: str, *, daemon: Daemon, info: RepositoryInfo, inside: str, **options: Any
    ) -> None:
        prefix = "/datasets" if info.kind == "dataset" else ""
        revision = info.revision.removeprefix("b3:")
        self._url = f"{daemon.local_url}{prefix}/{info.namespace}/{info.model}/resolve/{revision}/{quote(inside)}"
        # As the owner, who may read what is not for everybody.
        headers = {"authorization": f"Bearer {daemon.token}"} if daemon.token else {}
        self._client = httpx.Client(timeout=READ_TIMEOUT_S, trust_env=False, headers=headers)
        options.setdefault("cache_type", "readahead")
        super().__init__(fs, path, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        got = bytearray()
        failure = ""
        for _ in range(1 + RETRIES):
            headers = {"range": f"bytes={start + len(got)}-{end - 1}", "accept-encoding": "identity"}
            with (
                contextlib.suppress(httpx.RemoteProtocolError),
                self._client.stream("GET", self._url, headers=headers) as answer,
            ):
                if answer.status_code not in (200, 206):
                    answer.read()
                    raise OSError(f"{self.path}: {answer.headers.get('x-error-message', answer.status_code)}")
                for piece in answer.iter_raw():
                    got += piece
            if len(got) >= end - start:
                return bytes(got[: end - start])
            failure = f"{len(got)} of {end - start} bytes came"
        raise OSError(f"{self.path}: {failure}")

    def close(self) -> None:
        super().close()
        self._client.close()


def _split(path: str) -> tuple[str, str]:
    """Return the name of the repository and the path in it. Raises FileNotFoundError if it names none."""
    parts = path.split("/")
    # A hash names a repository in one part, NAMESPACE/MODEL@REVISION in two; a branch with a slash has none.
    count = 1 if path.startswith("b3:") else 2
    name, inside = "/".join(parts[:count]), "/".join(parts[count:])
    try:
        reference = parse_reference(name)
    except InvalidName as exc:
        raise FileNotFoundError(f"{path}: {exc}") from exc
    if not isinstance(reference, HashRef) and len(parts) < count:
        raise FileNotFoundError(f"{path}: expected NAMESPACE/MODEL[@REVISION]/path")
    return name, inside


def _row(name: str, file: FileInfo) -> dict[str, Any]:
    return {"name": f"{name}/{file.path}", "size": file.size, "type": "file", "sha256": file.sha256, "root": file.root}
