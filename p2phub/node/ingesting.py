"""Take files into the store that are to be published, some at a time (spec/store.md §2)."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from p2phub.core.choices import Kind, Profile
from p2phub.core.chunking import profile_for
from p2phub.core.errors import HubError
from p2phub.core.manifest import FileEntry
from p2phub.core.private import Repository
from p2phub.store.disk import disk_errors
from p2phub.store.ingest import Progress as Advance
from p2phub.store.intake import Ingested
from p2phub.store.keyring import HEAD_SIZE

from .describing import role_of
from .disk import on_disk
from .events import Progress, Tell
from .node import Node
from .sources import SourceFile, refuse_head

TICK_S = 0.1  # seconds between looks at how far hashing is
INGEST_TASKS = 2  # files hashed at the same time


async def ingest_sources(
    node: Node,
    sources: list[SourceFile],
    tell: Tell,
    *,
    in_place: bool,
    profile: Profile | None,
    kind: Kind,
    only_in: Repository | None = None,
) -> tuple[list[FileEntry], int]:
    """Take all files into the store; returns their entries in order, and the bytes written.

    only_in: the private repository that they are for.
    """

    def take(source: SourceFile, advance: Advance) -> tuple[Ingested, Profile]:
        return _ingest_file(node, source, in_place, profile, advance, only_in)

    return await read_sources(sources, take, tell, kind=kind)


async def read_sources(
    sources: list[SourceFile],
    take: Callable[[SourceFile, Advance], tuple[Ingested, Profile]],
    tell: Tell,
    *,
    kind: Kind,
) -> tuple[list[FileEntry], int]:
    """Let `take` read all files, each in a worker thread; returns their entries in order, and the bytes written.

    take: returns what a file is and how it was cut, and tells of the bytes it has read.
    """
    total = sum(source.size for source in sources)
    done = 0
    start = trio.current_time()
    entries: dict[str, FileEntry] = {}
    written = 0
    limiter = trio.CapacityLimiter(INGEST_TASKS)
    failure: HubError | None = None

    def advance(size: int) -> None:
        nonlocal done
        done += size

    async def one(source: SourceFile) -> None:
        nonlocal written, failure
        async with limiter:
            if failure:
                return
            try:
                result, used = await on_disk(take, source, advance)
            except HubError as exc:
                failure = failure or exc
                return
        written += result.written
        entries[source.path] = FileEntry(
            source.path, result.size, result.root, result.sha256, role_of(source.path, kind), used
        )

    async def show() -> None:
        while True:
            tell(Progress("hashing", done, total, rate=done / max(trio.current_time() - start, 1e-6)))
            await trio.sleep(TICK_S)

    async with trio.open_nursery() as beside:
        beside.start_soon(show)
        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(one, source)
        beside.cancel_scope.cancel()
    if failure:
        raise failure
    tell(Progress("hashing", total, total, rate=total / max(trio.current_time() - start, 1e-6)))
    return [entries[source.path] for source in sources], written


def fitting_profile(source: SourceFile, profile: Profile | None) -> Profile:
    """Return how a file that is to be published is cut. profile: how it is wanted, None for what suits it.

    Raises InvalidData if it holds keys.
    """
    with disk_errors(source.location), open(source.location, "rb") as file:
        descriptor = file.fileno()
        refuse_head(source, os.pread(descriptor, HEAD_SIZE, 0))
        fitting = profile_for(source.path, source.size, lambda offset, size: os.pread(descriptor, size, offset))
    used = fitting if profile is None else profile
    # Asked for tensors, but this file has none.
    return "cdc-1m" if used == "tensor-1m" and fitting != "tensor-1m" else used


def _ingest_file(
    node: Node,
    source: SourceFile,
    in_place: bool,
    profile: Profile | None,
    advance: Advance,
    only_in: Repository | None,
) -> tuple[Ingested, Profile]:
    used = fitting_profile(source, profile)
    result = node.store.intake.ingest(source.location, used, in_place=in_place, progress=advance)
    if only_in is not None:
        node.store.private.mark(only_in, [result.root])
    return result, used
