"""The body of a commit, an operation a line, read as it comes (spec/hub-api.md §8)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct
from starlette.requests import Request

from p2phub.core.filetree import FILE_SIZE_MAX
from p2phub.core.records import MESSAGE_SIZE_MAX

from .errors import Refusal
from .requests import body_pieces, check_length, too_large
from .uploads import Sha256

LINE_SIZE_MAX = 16 * 1024 * 1024  # bytes of one line of a commit: a file of 11 MiB
COMMIT_SIZE_MAX = 1024 * 1024 * 1024  # bytes of a commit

Text = Annotated[str, Meta(max_length=MESSAGE_SIZE_MAX)]
Path = Annotated[str, Meta(min_length=1, max_length=4096)]


class CommitLine(Struct, frozen=True):
    """One operation, or the header: what it is, and its value."""

    key: str
    value: Raw


class CommitHeader(Struct, frozen=True, rename="camel"):
    """What is said of the whole commit."""

    summary: Text = ""
    description: Annotated[str, Meta(max_length=65536)] = ""
    parent_commit: Annotated[str, Meta(max_length=64)] | None = None


class RegularFile(Struct, frozen=True):
    """A file that comes inside the commit."""

    path: Path
    content: str
    encoding: str = "base64"


class LargeFile(Struct, frozen=True):
    """A file that was sent before the commit."""

    path: Path
    oid: Sha256
    algo: str = "sha256"
    size: Annotated[int, Meta(ge=0, le=FILE_SIZE_MAX)] | None = None


class Deleted(Struct, frozen=True):
    """A file or folder that goes."""

    path: Path


async def commit_lines(request: Request) -> AsyncIterator[CommitLine]:
    """Give the lines of a commit as they come. Raises Refusal."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/x-ndjson", "application/json"):
        raise Refusal(415, "a commit is application/x-ndjson")
    check_length(request, COMMIT_SIZE_MAX)
    buffer = bytearray()
    size = 0
    async for piece in body_pieces(request):
        size += len(piece)
        if size > COMMIT_SIZE_MAX:
            raise too_large(COMMIT_SIZE_MAX)
        searched = len(buffer)
        buffer += piece
        while (end := buffer.find(b"\n", searched)) >= 0:
            line, searched = bytes(buffer[:end]), 0
            del buffer[: end + 1]
            if line.strip():
                yield _line(line)
        if len(buffer) > LINE_SIZE_MAX:
            raise too_large(LINE_SIZE_MAX)
    if buffer.strip():
        yield _line(bytes(buffer))


def decode_value(data: Raw, type_: Any) -> Any:
    """Return the value of `type_` that `data` writes. Raises Refusal."""
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Refusal(400, f"not a line of a commit: {exc}") from exc


def content_of(file: RegularFile) -> bytes:
    """Return the bytes that a line of a commit carries. Raises Refusal."""
    if file.encoding == "utf-8":
        return file.content.encode()
    if file.encoding != "base64":
        raise Refusal(400, f"{file.path} is encoded in {file.encoding}, not base64")
    try:
        return base64.b64decode(file.content, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Refusal(400, f"{file.path} is no base64") from exc


def _line(data: bytes) -> CommitLine:
    line: CommitLine = decode_value(Raw(data), CommitLine)
    return line
