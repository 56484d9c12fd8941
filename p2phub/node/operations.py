"""Everything a person or program can ask of a node, as values: one Struct each.

The command line makes a value and runs it: through the daemon of the same home if one
runs, else on a node that it opens for itself. So both do the same.

    cli / python ──Operation──▶ daemon's control API ─┐
                └──────────────▶ own node ────────────┴──▶ run ──▶ events, result
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from p2phub.core.choices import DEFAULT_BRANCH, Kind, LinkMode, Profile
from p2phub.core.errors import InvalidName, NotFound
from p2phub.core.ids import NodeId
from p2phub.core.names import parse_address
from p2phub.store.catalogue import Model, Query

from . import branches, housekeeping, inspect
from .disk import on_disk
from .events import Notice, Tell
from .fetch import FetchResult, exact_pattern, fetch
from .node import Node
from .publish import PublishResult, publish
from .replicate import ask_for_news
from .resolve import load_manifest, resolve
from .verify import VerifyResult, verify

SEARCH_SYNC_S = 5.0  # seconds that a search without a daemon waits for news

Text = Annotated[str, Meta(min_length=1, max_length=4096)]
Patterns = Annotated[tuple[Text, ...], Meta(max_length=1000)]


class Operation(Struct, frozen=True, forbid_unknown_fields=True, tag_field="operation"):
    """Something to do. Paths are absolute."""


class PublishFolder(Operation, tag="publish", frozen=True):
    folder: Text
    name: Text
    branch: Text = DEFAULT_BRANCH
    message: Annotated[str, Meta(max_length=4096)] = ""
    in_place: bool = False
    profile: Profile | None = None
    kind: Kind = "model"


class Fetch(Operation, tag="fetch", frozen=True):
    reference: Text
    to: str | None = None
    include: Patterns = ()
    exclude: Patterns = ()
    link: LinkMode = "auto"
    force: bool = False
    dry_run: bool = False
    kind: Kind | None = None


class FetchFile(Operation, tag="fetch-file", frozen=True):
    """Bring one file of a repository into the store; the result says where it is."""

    reference: Text
    path: Text


class Search(Operation, tag="search", frozen=True):
    query: Query


class Info(Operation, tag="info", frozen=True):
    reference: Text


class Log(Operation, tag="log", frozen=True):
    name: Text


class Verify(Operation, tag="verify", frozen=True):
    reference: Text
    repair: bool = False


class MoveBranch(Operation, tag="branch", frozen=True):
    """Let a branch stand for another revision of the repository, or delete it (`revision` None)."""

    model: Text
    branch: Text
    revision: str | None
    message: Annotated[str, Meta(max_length=4096)] = ""


class YankVersion(Operation, tag="yank", frozen=True):
    name: Text  # MODEL@VERSION
    message: Annotated[str, Meta(max_length=4096)] = ""


class ListPeers(Operation, tag="peers", frozen=True):
    pass


class AddPeers(Operation, tag="peers-add", frozen=True):
    addresses: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=100)]


class RemovePeer(Operation, tag="peers-rm", frozen=True):
    node: Text  # node id or address


class GetStatus(Operation, tag="status", frozen=True):
    pass


class StoreList(Operation, tag="store-ls", frozen=True):
    pass


class StoreRemove(Operation, tag="store-rm", frozen=True):
    reference: Text


class StoreCollect(Operation, tag="store-gc", frozen=True):
    unpinned: bool = False


class StorePin(Operation, tag="store-pin", frozen=True):
    reference: Text


class StoreUnpin(Operation, tag="store-unpin", frozen=True):
    reference: Text


class StoreUse(Operation, tag="store-df", frozen=True):
    pass


class StoreRebuild(Operation, tag="store-rebuild", frozen=True):
    pass


class FileResult(Struct, frozen=True):
    """Where a file is."""

    location: str
    size: int  # bytes


class PinResult(Struct, frozen=True):
    revision: str


class Done(Struct, frozen=True):
    """Nothing more to say."""


class RebuildResult(Struct, frozen=True):
    """What a rebuild found."""

    manifests: int
    records: int
    objects: int
    damaged: int


AnyOperation = (
    PublishFolder | Fetch | FetchFile | Search | Info | Log | Verify | MoveBranch | YankVersion | ListPeers
    | AddPeers | RemovePeer | GetStatus | StoreList | StoreRemove | StoreCollect | StorePin | StoreUnpin
    | StoreUse | StoreRebuild
)  # fmt: skip

# What each operation returns, so that both ends of the control API agree.
RESULTS: dict[type[Operation], Any] = {
    PublishFolder: PublishResult,
    Fetch: FetchResult,
    FetchFile: FileResult,
    Search: list[Model],
    Info: inspect.RepositoryInfo,
    Log: list[inspect.LogLine],
    Verify: VerifyResult,
    MoveBranch: branches.BranchResult,
    YankVersion: branches.YankResult,
    ListPeers: list[inspect.PeerInfo],
    AddPeers: list[inspect.PeerInfo],
    RemovePeer: Done,
    GetStatus: inspect.Status,
    StoreList: list[housekeeping.StoredRepository],
    StoreRemove: housekeeping.Freed,
    StoreCollect: housekeeping.Freed,
    StorePin: PinResult,
    StoreUnpin: PinResult,
    StoreUse: housekeeping.DiskUse,
    StoreRebuild: RebuildResult,
}


async def run(node: Node, operation: Operation, tell: Tell) -> Any:
    """Do `operation` and return its result, of the type that RESULTS gives. Raises HubError."""
    handler = _HANDLERS[type(operation)]
    return await handler(node, operation, tell)


async def _publish(node: Node, op: PublishFolder, tell: Tell) -> PublishResult:
    return await publish(
        node,
        Path(op.folder),
        op.name,
        tell,
        branch=op.branch,
        message=op.message,
        in_place=op.in_place,
        profile=op.profile,
        kind=op.kind,
    )


async def _fetch(node: Node, op: Fetch, tell: Tell) -> FetchResult:
    return await fetch(
        node,
        op.reference,
        tell,
        to=Path(op.to) if op.to else None,
        include=op.include,
        exclude=op.exclude,
        link=op.link,
        force=op.force,
        dry_run=op.dry_run,
        kind=op.kind,
    )


async def _fetch_file(node: Node, op: FetchFile, tell: Tell) -> FileResult:
    target = await resolve(node, op.reference, tell, refresh=True)
    root = target.file
    if target.manifest is not None:
        manifest = await load_manifest(node, target.manifest, tell)
        entry = manifest.file(op.path)
        if entry is None:
            raise NotFound(f"{op.reference} has no file {op.path}", hint=f"p2phub ls {op.reference}")
        root = entry.root
        await fetch(node, str(target.manifest), tell, include=(exact_pattern(op.path),), check_out_files=False)
    held = await on_disk(node.store.blobs.find, root) if root else None
    if held is None:
        raise NotFound(f"{op.path} is not in the store")
    return FileResult(str(held.path), held.size)


async def _search(node: Node, op: Search, tell: Tell) -> list[Model]:
    # A daemon hears news by itself; a lone command asks for them first.
    if not node.endpoints:
        await ask_for_news(node, tell, timeout_s=SEARCH_SYNC_S)
    return await inspect.search(node, op.query)


async def _info(node: Node, op: Info, tell: Tell) -> inspect.RepositoryInfo:
    return await inspect.info(node, op.reference, tell, refresh=True)


async def _log(node: Node, op: Log, tell: Tell) -> list[inspect.LogLine]:
    if not node.endpoints:
        await ask_for_news(node, tell, timeout_s=SEARCH_SYNC_S)
    return await inspect.log_lines(node, op.name)


async def _verify(node: Node, op: Verify, tell: Tell) -> VerifyResult:
    return await verify(node, op.reference, tell, repair=op.repair)


async def _move_branch(node: Node, op: MoveBranch, tell: Tell) -> branches.BranchResult:
    return await branches.move_branch(node, op.model, op.branch, op.revision, op.message, tell)


async def _yank(node: Node, op: YankVersion, tell: Tell) -> branches.YankResult:
    return await branches.yank(node, op.name, op.message)


async def _peers(node: Node, op: ListPeers, tell: Tell) -> list[inspect.PeerInfo]:
    return await inspect.list_peers(node)


async def _add_peers(node: Node, op: AddPeers, tell: Tell) -> list[inspect.PeerInfo]:
    addresses = [parse_address(text) for text in op.addresses]
    for address in addresses:
        if address.node == node.id:
            raise InvalidName(f"{address} is this node itself")
        await on_disk(node.store.peers.add, address)
    await ask_for_news(node, tell, timeout_s=SEARCH_SYNC_S)
    added = {str(address.node) for address in addresses}
    return [peer for peer in await inspect.list_peers(node) if peer.node in added]


async def _remove_peer(node: Node, op: RemovePeer, tell: Tell) -> Done:
    peer = parse_address(op.node).node if op.node.startswith("p2phub://") else NodeId.parse(op.node)
    if not await on_disk(node.store.peers.remove, peer):
        raise NotFound(f"no peer {peer} is known")
    return Done()


async def _status(node: Node, op: GetStatus, tell: Tell) -> inspect.Status:
    return await inspect.status(node)


async def _store_list(node: Node, op: StoreList, tell: Tell) -> list[housekeeping.StoredRepository]:
    return await housekeeping.list_repositories(node)


async def _store_remove(node: Node, op: StoreRemove, tell: Tell) -> housekeeping.Freed:
    return await housekeeping.remove(node, op.reference, tell)


async def _store_collect(node: Node, op: StoreCollect, tell: Tell) -> housekeeping.Freed:
    return await housekeeping.collect_garbage(node, unpinned=op.unpinned, tell=tell)


async def _store_pin(node: Node, op: StorePin, tell: Tell) -> PinResult:
    return PinResult(str(await housekeeping.pin(node, op.reference, tell)))


async def _store_unpin(node: Node, op: StoreUnpin, tell: Tell) -> PinResult:
    return PinResult(str(await housekeeping.unpin(node, op.reference, tell)))


async def _store_use(node: Node, op: StoreUse, tell: Tell) -> housekeeping.DiskUse:
    return await housekeeping.disk_use(node)


async def _store_rebuild(node: Node, op: StoreRebuild, tell: Tell) -> RebuildResult:
    start = time.monotonic()
    found = await on_disk(node.store.rebuild, lambda text: None)
    await on_disk(housekeeping.pin_published, node)
    tell(Notice(f"rebuilt in {time.monotonic() - start:.1f} s"))
    return RebuildResult(**found)


_HANDLERS: dict[type[Operation], Callable[[Node, Any, Tell], Awaitable[Any]]] = {
    PublishFolder: _publish,
    Fetch: _fetch,
    FetchFile: _fetch_file,
    Search: _search,
    Info: _info,
    Log: _log,
    Verify: _verify,
    MoveBranch: _move_branch,
    YankVersion: _yank,
    ListPeers: _peers,
    AddPeers: _add_peers,
    RemovePeer: _remove_peer,
    GetStatus: _status,
    StoreList: _store_list,
    StoreRemove: _store_remove,
    StoreCollect: _store_collect,
    StorePin: _store_pin,
    StoreUnpin: _store_unpin,
    StoreUse: _store_use,
    StoreRebuild: _store_rebuild,
}
