"""Answer questions about what is known here: search, info, log, peers, status."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from datetime import UTC, datetime

import trio
from msgspec.structs import replace

from p2phub.core.errors import InvalidName, NotFound, Offline
from p2phub.core.httpsig import SKEW_MAX_S
from p2phub.core.ids import ManifestId, NamespaceId, misspelling
from p2phub.core.manifest import Manifest
from p2phub.core.names import HashRef, parse_reference
from p2phub.core.private import Grantee
from p2phub.core.records import (
    Approve,
    Assess,
    Attest,
    Branch,
    Grant,
    OpenGate,
    Pledge,
    Publish,
    Recall,
    Record,
    Refuse,
    Seal,
    SetGate,
    Ungrant,
    Unpledge,
    Unseal,
    Yank,
    read_entry,
)
from p2phub.core.search import Page, Query
from p2phub.core.upstream import Foreign
from p2phub.store.logs import LogState
from p2phub.store.store import Store

from . import federationinfo, pledging
from .assessing import found_by
from .confirm import own_confirmations, own_log
from .disk import on_disk
from .early import early_records
from .events import Tell, ignore
from .housekeeping import kept_manifests
from .identity import own_namespace
from .names import find, find_alone, with_ids
from .node import Node
from .opened import Opened
from .opening import open_sealed
from .operations.catalogue import FileInfo, FoundBy, LogLine, RepositoryInfo
from .operations.status import ClockState, ConfirmedBy, Status
from .recalled import recall_of
from .resolve import Target, find_namespace, load_manifest, resolve
from .visibility import visibility_of

_SHOWN_MAX = 253_370_764_800  # seconds since 1970: the first day of the year 9999, in any time zone


async def search(node: Node, query: Query, asked: Query | None = None) -> Page:
    """Return a page of the repositories that match; names that are pinned may stand for ids. Raises InvalidData.

    asked: as for `Search.find`; None: `query` is as somebody wrote it.
    """
    # All in one turn of a thread: who comes back from one waits for those that compute.
    return await on_disk(
        lambda: node.store.search.find(replace(query, text=with_ids(node, query.text)), asked or query)
    )


async def info(node: Node, reference: str, tell: Tell, *, refresh: bool) -> RepositoryInfo:
    """Return what is known of a repository at one revision. Raises NotFound."""
    target = await resolve(node, reference, tell, refresh=refresh)
    if target.manifest is None:
        raise NotFound(f"{reference} is no manifest that is known here", hint="`p2phub fetch` fetches a single file")
    manifest = await load_manifest(node, target.manifest, tell)
    opened = None
    if manifest.sealed:
        # What can be said of it without its index is worth saying, too.
        with contextlib.suppress(NotFound, Offline):
            opened, _ = await open_sealed(node, target.manifest, manifest, tell, refresh=refresh)
    return await on_disk(_info, node, target, manifest, opened, str(target.manifest))


def _info(node: Node, target: Target, kept: Manifest, opened: Opened | None, revision: str) -> RepositoryInfo:
    """Return what is said of a revision. kept: its manifest as everybody sees it."""
    manifest = opened.manifest if opened else kept
    roots = [each.sealed.root for each in opened.files] if opened else [file.root for file in kept.files]
    catalogue = node.store.catalogue
    namespace, model = target.namespace, target.model
    files = [
        FileInfo(
            path=file.path,
            size=file.size,
            root=str(file.root),
            sha256=file.sha256.hex(),
            role=file.role,
            profile=file.profile,
            here=node.store.blobs.find(root) is not None,
        )
        for file, root in zip(manifest.files, roots, strict=True)
    ]
    versions = catalogue.versions(namespace, model) if namespace and model else {}
    branches = catalogue.branches(namespace, model) if namespace and model else {}
    yanked = [name for name in versions if namespace and model and catalogue.yanked(namespace, model, name) is not None]
    return RepositoryInfo(
        visibility=visibility_of(node, namespace, model) if namespace and model else None,
        reference=target.reference,
        namespace=str(namespace) if namespace else None,
        model=model,
        kind=manifest.kind,
        revision=revision,
        commit=revision.removeprefix("b3:")[:40],
        version=target.version,
        branch=target.branch,
        created=kept.created,
        size=manifest.size,
        here=sum(file.size for file in files if file.here),
        pinned=target.manifest in kept_manifests(node),
        parents=[str(parent) for parent in kept.parents],
        base_models={str(base.manifest): base.relation for base in manifest.base_models},
        versions={name: str(claim.manifest) for name, claim in versions.items()},
        branches={name: str(claim.manifest) for name, claim in branches.items()},
        yanked=yanked,
        card=manifest.card,
        facts=manifest.facts,
        variants={variant.name: list(variant.paths) for variant in manifest.variants},
        origin_urls=list(manifest.origin_urls),
        files=files,
        sealed=_seal_of(kept, opened),
        gate=_gate_of(node, target),
        recalled=_recalled(node, target),
        found=_found(node, target, manifest),
    )


def _recalled(node: Node, target: Target) -> str | None:
    if target.manifest is None:
        return None
    return recall_of(node, target)


def _gate_of(node: Node, target: Target) -> str | None:
    gate = node.store.gates.of_repository(target.namespace, target.model) if target.namespace and target.model else None
    return gate.name if gate else None


def _seal_of(kept: Manifest, opened: Opened | None) -> str | None:
    if kept.sealed is None:
        return None
    return "closed" if opened is None else "open to all" if opened.is_public else "open to you"


def _found(node: Node, target: Target, manifest: Manifest) -> list[FoundBy]:
    assert target.manifest is not None
    paths = {bytes(file.root): file.path for file in manifest.files}
    return found_by(node.store.assessments.about([target.manifest, *paths]), paths)


async def log_lines(node: Node, name: str, tell: Tell = ignore) -> list[LogLine]:
    """Return the records about `NAMESPACE/MODEL`, or of a whole `NAMESPACE`, newest first. Raises NotFound."""
    namespace, model = await _whose(node, name, tell)
    return await on_disk(_log_lines, node, namespace, model, name)


async def _whose(node: Node, name: str, tell: Tell) -> tuple[NamespaceId, str | None]:
    """Return the publisher that `name` is about, and the model of his; None: all."""
    if (alone := await find_alone(node, name, tell)) is not None:
        return alone, None
    reference = parse_reference(name)
    if isinstance(reference, HashRef):
        raise NotFound(f"{name} is a hash; a log belongs to a name")
    try:
        return await find_namespace(node, reference, tell), reference.model
    except InvalidName:
        if reference.namespace is not None:
            raise
        # Nothing is published here, so a single word is no model of one's own.
        return await find(node, name, tell), None


def _log_lines(node: Node, namespace: NamespaceId, model: str | None, name: str) -> list[LogLine]:
    lines: list[LogLine] = []
    order: dict[tuple[str, int], int] = {}
    for state in node.store.logs.logs_of(namespace, private=True):
        refusals = node.store.catalogue.refusals(state.log)
        limit, why = _limit(node.store, state)
        start = since = 0
        while start < state.size:
            page = node.store.logs.entries(state.log, start, size_max=4 * 1024 * 1024, private=True)
            if not page:
                break
            for data in page:
                record = read_entry(data).record
                # Within a log its order counts, also where the clock of who signed it was set back.
                since = max(since, record.time)
                order[str(record.log), record.index] = since
                if model is None or _model_of(record) == model:
                    lines.append(_line(record, why if record.index >= limit else refusals.get(record.index)))
            start += len(page)
    if not lines:
        hint = misspelling(name.partition("/")[0]) or "`p2phub log NAME --peer ADDRESS` asks a node that has them"
        raise NotFound(f"no records of {name} are known here", hint=hint)
    return sorted(lines, key=lambda line: (order[line.log, line.index], line.index), reverse=True)


def _limit(store: Store, state: LogState) -> tuple[int, str]:
    """Return how many records of a log count, and why those behind them do not."""
    fork, identity = store.forks.get(state.log), store.logs.identity(state.namespace)
    limit = identity.size_max(state.log) if identity else None
    if fork is not None and not fork.is_settled and (limit is None or fork.common < limit):
        return fork.common, "the log was signed with two histories, which part before this record"
    return (state.size if limit is None else limit), "the publisher has ended the log before this record"


def first_publications(
    store: Store, namespace: NamespaceId, model: str, revisions: Collection[ManifestId]
) -> dict[ManifestId, Publish]:
    """Return the first record that published each of `revisions` as `model`, as far as there is one."""
    found: dict[ManifestId, Publish] = {}
    for revision, log, index in store.listing.releases(namespace, model):
        if revision in revisions and revision not in found:
            entries = store.logs.entries(log, index, size_max=0, private=True)
            record = read_entry(entries[0]).record if entries else None
            if isinstance(record, Publish):
                found[revision] = record
    return found


def _line(record: Record, refused: str | None) -> LogLine:
    branch: str | None
    version: str | None
    match record:
        case Publish():
            kind, branch, version, revision = "publish", record.branch, record.version, str(record.manifest)
        case Branch():
            kind, branch, version = "branch", record.branch, None
            revision = str(record.manifest) if record.manifest else ""
        case Yank():
            kind, branch, version, revision = "yank", None, record.version, ""
        case Attest():
            kind, branch, version, revision = "attest", None, None, str(record.manifest)
        case Recall():
            kind, branch, version, revision = "recall", None, None, str(record.manifest)
        case Assess():
            kind, branch, version, revision = "assess", None, None, str(record.manifest or record.file)
        case Seal():
            kind, branch, version, revision = "seal", None, None, ""
        case Unseal():
            kind, branch, version, revision = "unseal", None, None, ""
        case Grant():
            kind, branch, version, revision = "grant", None, None, ""
        case Ungrant():
            kind, branch, version, revision = "ungrant", None, None, ""
        case Pledge() | Unpledge():
            kind = "pledge" if isinstance(record, Pledge) else "unpledge"
            branch, version, revision = None, None, str(record.subject.manifest or "")
        case SetGate() | OpenGate() | Approve() | Refuse():
            kind, branch, version, revision = _GATE_TYPES[type(record)], None, None, ""
    return LogLine(
        log=str(record.log),
        index=record.index,
        time=record.time,
        type=kind,
        model=_model_of(record) or "",
        branch=branch,
        version=version,
        revision=revision or None,
        message=_message(record),
        refused=refused,
    )


def _model_of(record: Record) -> str | None:
    """Return the model that a record is about, None if it is about none, or about those of others."""
    return None if isinstance(record, Pledge | Unpledge) else record.model


_GATE_TYPES: dict[type[Record], str] = {SetGate: "gate", OpenGate: "ungate", Approve: "approve", Refuse: "refuse"}


def _message(record: Record) -> str:
    if isinstance(record, Assess):
        text = f"{record.claim}: {record.verdict}" + (f", {record.score.value}" if record.score else "")
        return f"{text}: {record.message}" if record.message else text
    if isinstance(record, SetGate):
        return f"{record.name}, to be accepted by each {record.per}, {record.approval}"
    if isinstance(record, Seal):
        return "for " + ", ".join(str(each.namespace) for each in record.recipients)
    if isinstance(record, Grant | Ungrant):
        who = f"{record.to_kind} {Grantee(record.to_kind, record.to)}"
        return who if isinstance(record, Grant) else f"{who}: {record.message}" if record.message else who
    if isinstance(record, Pledge):
        until = datetime.fromtimestamp(min(record.until, _SHOWN_MAX), UTC).date()
        return f"node {str(record.node)[:12]}… keeps {record.subject} until {until}"
    if isinstance(record, Unpledge):
        return f"node {str(record.node)[:12]}… need not keep {record.subject} any more"
    if not isinstance(record, Attest):
        return record.message
    claim = f"mirror of {Foreign(record.hub, record.kind, record.owner, record.model)}@{record.commit} at {record.hub}"
    return f"{claim}: {record.message}" if record.message else claim


async def status(node: Node) -> Status:
    """Return the state of the node."""
    peers = [peer for peer in await on_disk(node.store.peers.all) if peer.node != node.id]
    recent = node.clock() - 300

    def count() -> tuple[int, int, list[str], int, int]:
        states = node.store.logs.states()
        forks = node.store.forks
        forked = [str(log) for log in sorted({*forks.suspected(), *(f.log for f in forks.all() if not f.is_settled)})]
        records = sum(state.size for state in states)
        return node.store.search.count(), len(states), forked, records, len(node.store.manifests.all())

    models, logs, forked, records, manifests = await on_disk(count)
    await node.links.refresh()
    namespace = await on_disk(own_namespace, node)
    own_records, confirmations = await on_disk(own_confirmations, node)
    own = await on_disk(own_log, node)
    return Status(
        node_id=str(node.id),
        namespace=str(namespace) if namespace else None,
        addresses=node.addresses,
        serving=bool(node.endpoints),
        started=int(node.started) if node.endpoints else None,
        home=str(node.settings.layout.home),
        store=str(node.settings.layout.store),
        offline=node.settings.offline,
        peers=len(peers),
        peers_seen=sum(1 for peer in peers if peer.last_seen and peer.last_seen > recent),
        models=models,
        logs=logs,
        records=records,
        forked_logs=forked,
        manifests=manifests,
        uploaded=node.uploaded,
        uploads=node.links.uploads,
        limits=node.links.in_force,
        neighbours=[str(each) for each in node.neighbours.members.active],
        own_records=own_records,
        confirmed=[ConfirmedBy(str(each.node), each.size, each.time) for each in confirmations],
        upstream=node.hub.state(trio.current_time()),
        pledged=await on_disk(pledging.state, node),
        federations=await on_disk(federationinfo.states, node),
        clock=_clock(node),
        early=await on_disk(early_records, node, own) if own else None,
        policy_trouble=await on_disk(node.rules.trouble),
    )


def _clock(node: Node) -> ClockState | None:
    clocks = node.calls.clocks()
    apart = sorted(ahead for ahead in clocks if abs(ahead) > SKEW_MAX_S)
    return ClockState(len(clocks), len(apart), int(apart[len(apart) // 2])) if apart else None
