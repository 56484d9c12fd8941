"""Serve the bytes of a file: HEAD, GET and ranges, verified while peers still deliver (spec/hub-api.md §4).

HEAD is answered from the manifest alone. GET sends the first byte when the first chunk
is here and right, then what is here from a worker thread, chunk by chunk. What cannot
be had any more ends the answer with a plain close, so that the client sees a short body
and asks for the rest.
"""

from __future__ import annotations

import logging
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from p2phub.core.errors import HubError
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.net.asgi import WRITE_BODY, Put, WriteBody
from p2phub.node.opened import Opened
from p2phub.node.reading import Reading, Readings

from .errors import Refusal, refusal_of
from .requests import while_client_stays

log = logging.getLogger(__name__)

FIRST_BYTE_S = 8.0  # seconds until headers are sent without a byte: clients wait ten for them
PIECE_SIZE = 1024 * 1024  # bytes at most that wait for a receiver


@dataclass(frozen=True)
class Span:
    """The bytes of a file that an answer holds."""

    begin: int
    end: int  # the first byte after them
    size: int  # of the whole file

    @property
    def is_part(self) -> bool:
        return (self.begin, self.end) != (0, self.size)


def parse_range(header: str | None, size: int) -> Span | None:
    """Return what the header `Range` asks for of a file of `size` bytes; None if it asks for nothing we give in parts.

    Several ranges, other units and nonsense are ignored, as RFC 9110 §14.2 allows.
    Raises Refusal if no byte of the file is in the range.
    """
    match = re.fullmatch(r"bytes=([0-9]{0,100})-([0-9]{0,100})", header.strip()) if header else None
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if not first:
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < begin:
            return None
    if begin >= size or begin >= end:
        raise Refusal(416, f"the file has {size} bytes", headers={"content-range": f"bytes */{size}"})
    return Span(begin, end, size)


class FileAnswer(Response):
    """The answer that sends one file, or a part of it."""

    def __init__(
        self,
        readings: Readings,
        content: Manifest | Opened,
        file: FileEntry,
        *,
        commit: str,
        method: str,
        headers: Mapping[str, str],
        etag: str | None = None,
    ) -> None:
        """headers: those of the request that matter: `range`, `if-range`, `if-match`, `if-none-match`. Raises Refusal.

        content: what `file` is one of. commit: what clients know the commit by. etag: what they know the
        file by, if not its SHA-256.
        """
        self._readings = readings
        self._content = content
        self._file = file
        self._method = method
        etag = f'"{etag or file.sha256.hex()}"'
        fields = {
            "etag": etag,
            "x-repo-commit": commit,
            "accept-ranges": "bytes",
            "x-linked-size": str(file.size),
            "x-linked-etag": etag,
        }
        # As it is written: what is called alike only (`W/`) may have other bytes.
        if (expected := headers.get("if-match")) is not None and not _listed(expected) & {"*", etag}:
            raise Refusal(412, f"{file.path} is another file than the one that If-Match names")
        if _names(headers.get("if-none-match"), etag):
            super().__init__(status_code=304, headers=fields)
            del self.headers["content-length"]
            self._span = Span(0, 0, file.size)
            return
        condition = headers.get("if-range")
        wanted = headers.get("range") if condition is None or condition == etag else None
        span = parse_range(wanted, file.size)
        self._span = span or Span(0, file.size, file.size)
        fields["content-length"] = str(self._span.end - self._span.begin)
        fields["content-type"] = mimetypes.guess_type(file.path)[0] or "application/octet-stream"
        # What people publish is no page of this door: a browser shows it as it is, and runs nothing.
        fields["x-content-type-options"] = "nosniff"
        fields["content-security-policy"] = "default-src 'none'; sandbox"
        if span:
            fields["content-range"] = f"bytes {span.begin}-{span.end - 1}/{file.size}"
        super().__init__(status_code=206 if span else 200, headers=fields)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._method == "HEAD" or self._span.begin == self._span.end:
            await self._start(send, b"", more=False)
            return
        async with while_client_stays(receive), self._readings.open(self._file, self._content) as reading:
            try:
                first = await self._first_bytes(reading)
            except HubError as exc:
                await refusal_of(exc).response()(scope, receive, send)
            else:
                await self._start(send, first, more=True)
                await self._send(reading, self._span.begin + len(first), send, scope["extensions"][WRITE_BODY])

    async def _start(self, send: Send, data: bytes, *, more: bool) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": data, "more_body": more})

    async def _first_bytes(self, reading: Reading) -> bytes:
        """Return the first bytes to send, or none if they take too long."""
        with trio.move_on_after(FIRST_BYTE_S):
            return await reading.read(self._span.begin, min(PIECE_SIZE, self._span.end - self._span.begin))
        return b""

    async def _send(self, reading: Reading, offset: int, send: Send, write_body: WriteBody) -> None:
        """Send the body from `offset` on; returns early, without its end, if the rest cannot be had."""
        is_here = True

        def pour(put: Put) -> None:
            nonlocal is_here
            is_here = reading.pour(offset, self._span.end, put)

        try:
            while offset < self._span.end:
                offset += await write_body(pour)
                if not is_here:
                    data = await reading.read(offset, min(PIECE_SIZE, self._span.end - offset))
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                    offset += len(data)
        except HubError as exc:
            log.warning("cannot send all of %s: %s", self._file.path, exc)
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _names(header: str | None, etag: str) -> bool:
    """Say whether the header `If-None-Match` names `etag`."""
    if header is None:
        return False
    return bool({name.removeprefix("W/") for name in _listed(header)} & {"*", etag})


def _listed(header: str) -> set[str]:
    return {name.strip() for name in header.split(",")}
