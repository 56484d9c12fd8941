"""Do what publish and fetch say."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from p2phub.core.rules import Consent

from ..events import Notice, Tell
from ..fetch import fetch, locate
from ..handlers import Handlers
from ..node import Node
from ..operations.content import Fetch, FetchFile, FetchResult, FileResult, PublishFolder, PublishResult
from ..origins import GivenOrigins


async def _publish(node: Node, op: PublishFolder, tell: Tell) -> PublishResult:
    from ..publish import publish  # loads what reads cards and weights, which only publishing does

    result = await publish(
        node,
        Path(op.folder),
        op.name,
        tell,
        branch=op.branch,
        message=op.message,
        in_place=op.in_place,
        profile=op.profile,
        kind=op.kind,
        origin_urls=op.origin_urls,
        sealed=op.sealed,
        sealed_for=op.sealed_for,
        is_open=op.is_open,
        visibility=op.visibility,
        allow_secrets=op.allow_secrets,
    )
    if op.wait and result.visibility == "private":
        tell(Notice("nobody is waited for: a private repository is not told of to everybody"))
    if not op.wait or result.visibility == "private":
        return result
    from ..confirm import wait_confirmed

    # Whoever has waited long enough, or knows no peer, must not take it for lost.
    tell(Notice("it is published; what is waited for is that other nodes have it, and to interrupt ends only that"))
    return replace(result, confirmed=[str(each) for each in await wait_confirmed(node, op.wait, tell)])


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
        origins=GivenOrigins(op.origins, op.standing_origins),
        in_cache=op.view is not None,
        background=op.background,
        keep_sealed=op.sealed,
        consent=Consent(pickles=op.allow_pickle, code=op.with_code, recalled=op.recalled),
    )


async def _fetch_file(node: Node, op: FetchFile, tell: Tell) -> FileResult:
    return await locate(node, op.reference, op.path, tell, origins=GivenOrigins(op.origins, op.standing_origins))


HANDLERS: Handlers = {
    PublishFolder: _publish,
    Fetch: _fetch,
    FetchFile: _fetch_file,
}
