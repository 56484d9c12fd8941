"""A repository as one tar, for clients that load a saved model by URL (spec/hub-api.md §10).

    GET /NAMESPACE/MODEL[/REVISION]?tf-hub-format=compressed

The client reads the tar as a stream and makes no folders by itself, so each folder comes
before what is in it. The same revision gives the same bytes, and nothing is kept on disk.
"""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from p2phub.core.errors import HubError
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.node.opened import Opened
from p2phub.node.reading import Readings

from .errors import refusal_of
from .files import PIECE_SIZE
from .requests import while_client_stays
from .trees import Folder, Tree

log = logging.getLogger(__name__)

_BLOCK = 512  # bytes: what everything in a tar is a multiple of
_END = bytes(2 * _BLOCK)

Part = bytes | FileEntry


class TarAnswer(Response):
    """The answer that sends all files of a commit as a tar."""

    def __init__(self, readings: Readings, content: Manifest | Opened, *, commit: str, etag: str, method: str) -> None:
        """commit: what clients know the commit by."""
        self._readings = readings
        self._content = content
        self._parts = list(tar_parts(content.manifest if isinstance(content, Opened) else content))
        self._method = method
        size = sum(len(part) if isinstance(part, bytes) else part.size for part in self._parts)
        super().__init__(
            headers={
                "content-length": str(size),
                "content-type": "application/x-tar",
                "etag": f'"{etag}"',
                "x-repo-commit": commit,
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with while_client_stays(receive):
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Headers of the tar wait for the first byte of a file: until then it can still be refused.
        waiting: bytes | None = b""

        async def put(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        async def start() -> None:
            nonlocal waiting
            if waiting is not None:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                data, waiting = waiting, None
                await put(data)

        try:
            for part in self._parts if self._method == "GET" else ():
                if isinstance(part, bytes):
                    if waiting is None:
                        await put(part)
                    else:
                        waiting += part
                    continue
                async with self._readings.open(part, self._content) as reading:
                    offset = 0
                    while offset < part.size:
                        data = await reading.read(offset, min(PIECE_SIZE, part.size - offset))
                        await start()
                        await put(data)
                        offset += len(data)
        except HubError as exc:
            if waiting is not None:
                await refusal_of(exc).response()(scope, receive, send)
            else:
                log.warning("cannot send all of a tar: %s", exc)
            return
        await start()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def tar_parts(manifest: Manifest) -> Iterator[Part]:
    """Give what a tar of the manifest's files consists of: bytes, and files whose bytes belong there."""
    for node in Tree(manifest.files).below("", recursive=True):
        entry = tarfile.TarInfo(node.path)
        if isinstance(node, Folder):
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            yield _header(entry)
        else:
            entry.size, entry.mode = node.size, 0o644
            yield _header(entry)
            assert isinstance(node, FileEntry)
            if node.size:
                yield node
                yield bytes(-node.size % _BLOCK)
    yield _END


def _header(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
