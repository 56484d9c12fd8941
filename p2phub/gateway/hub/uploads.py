"""Take large files in: the batch, the body, and the question whether it came (spec/hub-api.md §8.2).

    batch (token) ──▶ an address for one file ──PUT, no token──▶ uploads/<sha256>

A client sends the body without its token: the address itself is the permission. It is
good for one file of one size and hash, for an hour.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2phub.core.choices import Kind
from p2phub.core.errors import HashMismatch
from p2phub.core.filetree import FILE_SIZE_MAX
from p2phub.node.disk import on_disk
from p2phub.node.node import Node
from p2phub.store.uploads import Upload

from .account import Account
from .errors import Refusal
from .requests import base_url, body_pieces, read_json

PERMISSION_S = 3600.0  # seconds that an upload address is good for
PERMISSIONS_MAX = 100_000  # at a time
OBJECTS_MAX = 10_000  # in one batch
WRITE_SIZE = 4 * 1024 * 1024  # bytes hashed and written at once

Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class LargeObject(Struct, frozen=True):
    """A file by what it must be."""

    oid: Sha256
    size: Annotated[int, Meta(ge=0, le=FILE_SIZE_MAX)]


class Batch(Struct, frozen=True):
    """What a client wants to send."""

    objects: Annotated[list[LargeObject], Meta(max_length=OBJECTS_MAX)]
    operation: str = "upload"
    hash_algo: str = "sha256"


@dataclass(frozen=True)
class _Permission:
    wanted: LargeObject
    until: float  # seconds since 1970


class UploadRequests:
    """Answers for those who send large files."""

    def __init__(self, node: Node, account: Account) -> None:
        self._node = node
        self._account = account
        self._permissions: dict[str, _Permission] = {}

    async def batch(self, request: Request, kind: Kind, name: str) -> Response:
        """Say where to send which files; nowhere for what is here already."""
        self._account.require(request)
        batch: Batch = await read_json(request, Batch)
        if batch.operation != "upload" or batch.hash_algo != "sha256":
            raise Refusal(501, "files are only sent here, and by SHA-256; to read them use /resolve/")
        self._forget_old()
        objects: list[dict[str, Any]] = []
        for wanted in batch.objects:
            row: dict[str, Any] = {"oid": wanted.oid, "size": wanted.size}
            if not await self._is_here(wanted):
                if len(self._permissions) >= PERMISSIONS_MAX:
                    raise Refusal(429, "too many uploads were begun", headers={"retry-after": "60"})
                ticket = secrets.token_urlsafe(32)
                self._permissions[ticket] = _Permission(wanted, time.time() + PERMISSION_S)
                row["actions"] = {
                    "upload": {"href": f"{base_url(request)}/upload/{ticket}", "header": {}},
                    "verify": {"href": f"{base_url(request)}/upload/{ticket}/verify", "header": {}},
                }
            objects.append(row)
        return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")

    async def receive(self, request: Request, kind: Kind, ticket: str) -> Response:
        """Take the body of one file."""
        wanted = self._permission(ticket)
        if await self._is_here(wanted):
            return Response(status_code=200)
        length = request.headers.get("content-length")
        if length is not None and length != str(wanted.size):
            raise Refusal(400, f"the file was announced with {wanted.size} bytes, not {length}")
        upload = await on_disk(self._node.store.uploads.begin, wanted.size)
        with upload:
            await receive_into(upload, request, wanted.size)
            try:
                await on_disk(upload.finish, bytes.fromhex(wanted.oid), wanted.size)
            except HashMismatch as exc:
                raise Refusal(400, str(exc)) from exc
        return Response(status_code=200)

    async def verify(self, request: Request, kind: Kind, ticket: str) -> Response:
        """Say whether a file has come."""
        self._account.require(request)
        wanted = self._permission(ticket)
        if not await self._is_here(wanted):
            raise Refusal(404, f"{wanted.oid} has not come")
        return JSONResponse({"oid": wanted.oid, "size": wanted.size})

    def _permission(self, ticket: str) -> LargeObject:
        known = self._permissions.get(ticket)
        if known is None or known.until < time.time():
            raise Refusal(403, "nothing may be sent to this address, or not any more")
        return known.wanted

    def _forget_old(self) -> None:
        now = time.time()
        for ticket in [ticket for ticket, known in self._permissions.items() if known.until < now]:
            del self._permissions[ticket]

    async def _is_here(self, wanted: LargeObject) -> bool:
        def look() -> bool:
            digest = bytes.fromhex(wanted.oid)
            path = self._node.store.uploads.find(digest)
            if path is not None:
                return path.stat().st_size == wanted.size
            held = self._node.store.blobs.find_sha256(digest)
            return held is not None and held.size == wanted.size

        return await on_disk(look)


async def receive_into(upload: Upload, request: Request, size_max: int) -> None:
    """Write the body of `request` into `upload`. Raises Refusal if it is longer than `size_max` bytes."""
    waiting = bytearray()
    async for piece in body_pieces(request):
        waiting += piece
        if upload.size + len(waiting) > size_max:
            raise Refusal(413, f"the body has more than {size_max} bytes", headers={"connection": "close"})
        if len(waiting) >= WRITE_SIZE:
            await on_disk(upload.write, waiting)
            waiting = bytearray()
    await on_disk(upload.write, waiting)
