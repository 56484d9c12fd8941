"""Small files of another hub: several by one connection, checked in memory, placed together (spec/mirrors.md §3).

    a group of files ──one connection──▶ bytes, each of the listed hash? ──one transaction──▶ objects

What a file costs besides its bytes, a thread, a part on the disk, a transaction, is paid once for a group of
them. Nothing is kept of a small file that broke off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from p2phub.core.choices import Profile
from p2phub.core.errors import HashMismatch
from p2phub.core.ids import ContentId
from p2phub.core.upstream import Foreign, UpstreamFile, git_id_of
from p2phub.store.ingest import Scan, scan_bytes
from p2phub.store.mirrors import UpstreamContent

from .bring import check_space
from .disk import on_disk
from .events import Tell
from .node import Node
from .upstream import ask

if TYPE_CHECKING:
    from p2phub.net.upstream import UpstreamConnection

SMALL_SIZE_MAX = 256 * 1024  # bytes of such a file
GROUP_SIZE_MAX = 2 * 1024 * 1024  # bytes that one connection brings until they are placed
GROUP_FILES_MAX = 32


class _Came(Struct, frozen=True):
    """A file that came, and has the listed hash."""

    file: UpstreamFile
    data: bytes
    profile: Profile  # how it was cut
    scan: Scan

    @property
    def root(self) -> ContentId:
        return self.scan.root


def groups(files: Iterable[UpstreamFile]) -> Iterator[list[UpstreamFile]]:
    """Give small files in groups that are fetched together, each content once."""
    group: list[UpstreamFile] = []
    size = 0
    for file in {file.id: file for file in files}.values():
        if group and (len(group) == GROUP_FILES_MAX or size + file.size > GROUP_SIZE_MAX):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group


async def fetch_small(
    node: Node, repository: Foreign, commit: str, files: Sequence[UpstreamFile], tell: Tell, *, shared: bool
) -> None:
    """Fetch small files from the hub, one after the other, check them, and make them objects.

    shared: others may have them. What came before a failure stays.
    Raises HashMismatch if the hub sends other bytes than it lists, and what `ask` raises.
    """
    came: list[_Came] = []
    counted = 0

    def work(connection: UpstreamConnection) -> None:
        while len(came) < len(files):
            came.append(_read(connection, repository, commit, files[len(came)], node.hub.name))

    def has_moved() -> bool:
        nonlocal counted
        moved, counted = len(came) > counted, len(came)
        return moved

    try:
        await ask(node, work, tell, has_moved=has_moved)
    finally:
        with trio.CancelScope(shield=True):
            await on_disk(_place, node, came, shared)


def _read(connection: UpstreamConnection, repository: Foreign, commit: str, file: UpstreamFile, hub: str) -> _Came:
    """Return a file that the hub sends. Raises HashMismatch if it is another than was listed."""
    from p2phub.core.chunking import profile_for  # reads the formats of weights

    came = bytearray()
    if file.size:
        connection.stream(
            repository, commit, file.path, begin=0, size=file.size, sink=came.extend, start_over=came.clear
        )
    data = bytes(came)
    if file.id != (sha256(data).digest() if file.sha256 else git_id_of([data], len(data))):
        what = f"{file.path} of {repository}@{commit[:12]}"
        raise HashMismatch(f"the hub {hub} sends other bytes for {what} than it lists")
    profile = profile_for(file.path, len(data), lambda offset, size: data[offset : offset + size])
    return _Came(file, data, profile, scan_bytes(data, profile))


def _place(node: Node, came: Sequence[_Came], shared: bool) -> None:
    """Make objects of files that came."""
    if not came:
        return
    store = node.store
    new = {each.root: each for each in came}
    for root in store.blobs.find_all(new):
        del new[root]
    check_space(node, sum(len(each.data) for each in new.values()))
    if not shared:
        # Before they become objects, which peers could ask for.
        store.mirrors.withhold(new)
    store.chunk_lists.save_all({root: each.scan.chunks for root, each in new.items()})
    store.blobs.add_small([(root, each.data, each.scan.sha256) for root, each in new.items()])
    store.mirrors.note_contents(
        {each.file.id: UpstreamContent(each.root, each.scan.sha256, each.profile) for each in came}
    )
