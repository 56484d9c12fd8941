"""Take uploads by the Xet protocol in, as far as a client needs it to send files (spec/hub-api.md §9).

    token ──▶ blocks of chunks ──▶ uploads/part-… ──shard──▶ files by SHA-256 in uploads/

Nothing is ever read by this protocol. Blocks are kept for a while after the files they belong to
were put together: a client does not send them again for the next file.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2phub.core.choices import Kind
from p2phub.core.errors import HashMismatch, InvalidData
from p2phub.core.xet import ShardFile, read_block, read_shard
from p2phub.node.disk import on_disk
from p2phub.node.node import Node
from p2phub.store.disk import disk_errors
from p2phub.store.uploads import copy_ranges

from .account import Account
from .errors import Refusal
from .lookup import Lookup
from .requests import base_url, read_body

SESSION_S = 3600.0  # seconds that a token is good for
IDLE_S = 600.0  # seconds without a request after which the blocks of a session go
SESSIONS_MAX = 64  # at a time
BLOCK_SIZE_MAX = 80 * 1024 * 1024  # bytes of a body; clients send 64 MiB
BLOCKS_MAX = 100_000  # of one session
SHARD_SIZE_MAX = 80 * 1024 * 1024  # bytes of a body


@dataclass
class _Block:
    """Chunks in a file, one after the other."""

    path: Path
    ends: list[int]  # where each chunk ends, in bytes


@dataclass
class _Session:
    until: float  # seconds since 1970
    used: float  # when the last request came, in seconds since 1970
    blocks: dict[str, _Block] = field(default_factory=dict)


class XetRequests:
    """Answers for clients that upload by Xet."""

    def __init__(self, node: Node, lookup: Lookup, account: Account) -> None:
        self._node = node
        self._lookup = lookup
        self._account = account
        self._sessions: dict[str, _Session] = {}

    async def write_token(self, request: Request, kind: Kind, name: str, revision: str) -> Response:
        """Give a token for uploads."""
        self._account.require(request)
        await self._lookup.repository(kind, name)
        await self._forget_old()
        if len(self._sessions) >= SESSIONS_MAX:
            raise Refusal(429, "too many uploads were begun", headers={"retry-after": "60"})
        token = secrets.token_urlsafe(32)
        until = time.time() + SESSION_S
        self._sessions[token] = _Session(until, time.time())
        # Of one address a client remembers for weeks which blocks it sent, and does not send them again.
        address = f"{base_url(request)}/xet/{secrets.token_hex(8)}"
        return JSONResponse({"accessToken": token, "exp": int(until), "casUrl": address})

    async def block(self, request: Request, kind: Kind, name: str) -> Response:
        """Keep a block of chunks."""
        session = self._session(request)
        known = name in session.blocks
        if not known:
            if len(session.blocks) >= BLOCKS_MAX:
                raise Refusal(429, f"more than {BLOCKS_MAX} blocks", headers={"retry-after": "60"})
            body = await read_body(request, size_max=BLOCK_SIZE_MAX)
            try:
                session.blocks[name] = await on_disk(self._keep, body)
            except InvalidData as exc:
                raise Refusal(400, str(exc)) from exc
        return JSONResponse({"was_inserted": not known})

    async def shard(self, request: Request) -> Response:
        """Put the files together that a shard describes."""
        session = self._session(request)
        body = await read_body(request, size_max=SHARD_SIZE_MAX)
        try:
            files = read_shard(body)
            for file in files:
                await on_disk(self._assemble, session, file)
        except (InvalidData, HashMismatch) as exc:
            raise Refusal(400, str(exc)) from exc
        return JSONResponse({"result": 1})

    def _session(self, request: Request) -> _Session:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        session = self._sessions.get(token)
        if session is None or session.until < time.time():
            raise Refusal(401, "the token is wrong, or not good any more")
        session.used = time.time()
        return session

    def _keep(self, body: bytes) -> _Block:
        with self._node.store.uploads.begin(len(body)) as upload:
            ends: list[int] = []
            for chunk in read_block(body):
                upload.write(chunk)
                ends.append(upload.size)
            return _Block(upload.finish_part(), ends)

    def _assemble(self, session: _Session, file: ShardFile) -> None:
        with self._node.store.uploads.begin(file.size) as upload:
            for term in file.terms:
                block = session.blocks.get(term.block)
                if block is None or term.end > len(block.ends):
                    raise InvalidData(f"the chunks of block {term.block} did not come")
                begin = block.ends[term.first - 1] if term.first else 0
                copy_ranges(block.path, [(begin, block.ends[term.end - 1])], upload.write)
                if upload.size > file.size:
                    raise InvalidData("a file is longer than its parts say")
            upload.finish(file.sha256, file.size)

    async def _forget_old(self) -> None:
        now = time.time()
        for token, session in list(self._sessions.items()):
            if session.until < now or session.used + IDLE_S < now:
                del self._sessions[token]
                await on_disk(_remove, [block.path for block in session.blocks.values()])


def _remove(paths: list[Path]) -> None:
    for path in paths:
        with disk_errors(path), contextlib.suppress(FileNotFoundError):
            path.unlink()
