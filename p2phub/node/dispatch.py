"""Do what an operation says, with an open node."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from p2phub.core.errors import InvalidName, NotFound
from p2phub.core.ids import NodeId
from p2phub.core.limits import LinkSettings
from p2phub.core.locked import Locked
from p2phub.core.names import parse_address
from p2phub.core.policy import Policy, changed
from p2phub.core.rules import Consent
from p2phub.core.search import Page

from . import (
    assessing,
    branches,
    claiming,
    federatedgrants,
    federationops,
    gateops,
    granting,
    housekeeping,
    inspect,
    limits,
    locking,
    pledging,
    rulecheck,
    sealops,
    trust,
    whohas,
    witnesses,
)
from .catchup import ready_to_publish
from .confirm import wait_confirmed
from .conflicts import list_conflicts, reopen_log
from .disk import on_disk
from .events import Notice, Tell
from .explain import swarm_info
from .fetch import fetch, locate
from .hubcache import view_store
from .identity import LogBehind, own_identity, tell_identity
from .names import find, with_ids
from .neighbours import contact_of
from .node import Node, open_node
from .operations import (
    AddPeers,
    AddWitness,
    AssessContent,
    ChangePolicy,
    CheckDomain,
    CheckLocks,
    CheckRules,
    CheckSignature,
    ClaimDomain,
    ExplainSwarm,
    Fetch,
    FetchFile,
    GateAccept,
    GateAccepted,
    GateDecide,
    GateList,
    GateOff,
    GateSet,
    GateShow,
    GetStatus,
    GrantAccess,
    Info,
    ListConflicts,
    ListGrants,
    ListPeers,
    ListProviders,
    ListWitnesses,
    LockNames,
    Log,
    MirrorAdd,
    MirrorList,
    MirrorRemove,
    MirrorTrust,
    MirrorUpdate,
    MoveBranch,
    Operation,
    PledgeAdd,
    PledgeList,
    PledgeRemove,
    PublishFolder,
    RecallRevision,
    RemovePeer,
    RemoveWitness,
    ReopenLog,
    RevokeAccess,
    SealFor,
    Search,
    SetLabel,
    SetLimit,
    SetRange,
    ShowBill,
    ShowLimits,
    ShowPolicy,
    ShowRules,
    ShowSeal,
    SignModel,
    StoreAdopt,
    StoreCollect,
    StoreList,
    StorePin,
    StoreRebuild,
    StoreRemove,
    StoreUnpin,
    StoreUse,
    StoreView,
    TellIdentity,
    TrustAccept,
    TrustAdd,
    TrustList,
    TrustRemove,
    TrustWhy,
    UnsealModel,
    Verify,
    YankVersion,
)
from .replicate import ask_for_news
from .results import (
    Adopted,
    AssessResult,
    BillOfMaterials,
    BindingInfo,
    BranchResult,
    CacheView,
    ConflictInfo,
    DiskUse,
    DomainFile,
    Done,
    FetchResult,
    FileResult,
    Freed,
    LogLine,
    MirrorInfo,
    ModelSignature,
    PeerInfo,
    PinResult,
    PledgeInfo,
    PolicyCheck,
    PrivateInfo,
    Providers,
    PublishResult,
    Reason,
    RebuildResult,
    RecallResult,
    RepositoryInfo,
    ShownRules,
    SignatureCheck,
    Status,
    StoredRepository,
    SwarmInfo,
    TrustedMirrors,
    VerifyResult,
    YankResult,
)
from .settings import Settings
from .verify import verify
from .why import why

SEARCH_SYNC_S = 5.0  # seconds that a search without a daemon waits for news


async def run_alone(settings: Settings, operations: Sequence[Operation], tell: Tell) -> Any:
    """Do `operations` one after the other on a node opened for them; returns the result of the last."""
    result = None
    async with open_node(settings) as node:
        for operation in operations:
            result = await run(node, operation, tell)
    return result


async def run(node: Node, operation: Operation, tell: Tell) -> Any:
    """Do `operation` and return its result, of the type that RESULTS gives. Raises HubError."""
    handler = _HANDLERS[type(operation)]
    try:
        return await handler(node, operation, tell)
    except LogBehind:
        # Its first try changed nothing: it signs before all else, or not at all.
        await ready_to_publish(node, tell)
        return await handler(node, operation, tell)


async def _publish(node: Node, op: PublishFolder, tell: Tell) -> PublishResult:
    from .publish import publish  # loads what reads cards and weights, which only publishing does

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
    )
    if op.wait and result.visibility == "private":
        tell(Notice("nobody is waited for: a private repository is not told of to everybody"))
    if not op.wait or result.visibility == "private":
        return result
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
        origins=op.origins,
        in_cache=op.view is not None,
        background=op.background,
        keep_sealed=op.sealed,
        consent=Consent(pickles=op.allow_pickle, code=op.with_code, recalled=op.recalled),
    )


async def _fetch_file(node: Node, op: FetchFile, tell: Tell) -> FileResult:
    return await locate(node, op.reference, op.path, tell, origins=op.origins)


async def _search(node: Node, op: Search, tell: Tell) -> Page:
    # A daemon hears news by itself; a lone command asks for them first.
    if not node.endpoints:
        await ask_for_news(node, tell, timeout_s=SEARCH_SYNC_S)
    query = replace(op.query, text=await on_disk(with_ids, node, op.query.text))
    if query.publisher is not None:
        query = replace(query, publisher=str(await find(node, query.publisher.lower(), tell)))
    return await inspect.search(node, query)


async def _info(node: Node, op: Info, tell: Tell) -> RepositoryInfo:
    return await inspect.info(node, op.reference, tell, refresh=True)


async def _log(node: Node, op: Log, tell: Tell) -> list[LogLine]:
    if not node.endpoints:
        await ask_for_news(node, tell, timeout_s=SEARCH_SYNC_S)
    return await inspect.log_lines(node, op.name, tell)


async def _conflicts(node: Node, op: ListConflicts, tell: Tell) -> list[ConflictInfo]:
    return await list_conflicts(node, op.namespace, tell)


async def _reopen(node: Node, op: ReopenLog, tell: Tell) -> Done:
    closed = await on_disk(reopen_log, node, op.size)
    node.note_news(closed, 0)
    return Done()


async def _trust_add(node: Node, op: TrustAdd, tell: Tell) -> BindingInfo:
    return await trust.add_name(node, op.name, op.namespace, tell)


async def _trust_accept(node: Node, op: TrustAccept, tell: Tell) -> BindingInfo:
    return await trust.accept_name(node, op.name, tell)


async def _trust_remove(node: Node, op: TrustRemove, tell: Tell) -> BindingInfo:
    return await trust.remove_name(node, op.name)


async def _trust_list(node: Node, op: TrustList, tell: Tell) -> list[BindingInfo]:
    return await trust.list_names(node)


async def _lock(node: Node, op: LockNames, tell: Tell) -> list[Locked]:
    return await locking.lock_names(node, op.names, tell)


async def _check_locks(node: Node, op: CheckLocks, tell: Tell) -> list[str]:
    return await locking.check_locks(node, op.locked, tell)


async def _trust_why(node: Node, op: TrustWhy, tell: Tell) -> list[Reason]:
    return await why(node, op.reference, tell)


async def _claim_domain(node: Node, op: ClaimDomain, tell: Tell) -> DomainFile:
    if op.drop:
        return await claiming.drop_domain(node, op.domain)
    return await claiming.claim_domain(node, op.domain, op.nodes, tell)


async def _check_domain(node: Node, op: CheckDomain, tell: Tell) -> list[Reason]:
    return await claiming.check_domain(node, op.domain)


async def _tell_identity(node: Node, op: TellIdentity, tell: Tell) -> Done:
    identity = await on_disk(own_identity, node)
    await tell_identity(node, identity.namespace)
    return Done()


async def _verify(node: Node, op: Verify, tell: Tell) -> VerifyResult:
    return await verify(node, op.reference, tell, repair=op.repair, origins=op.origins)


async def _sign_model(node: Node, op: SignModel, tell: Tell) -> ModelSignature:
    from . import vouching  # loads what only other tools need

    return await vouching.sign(node, op.reference, tell)


async def _check_signature(node: Node, op: CheckSignature, tell: Tell) -> SignatureCheck:
    from . import vouching

    key, certificates = (Path(path) if path else None for path in (op.key, op.certificates))
    return await vouching.check(
        node, Path(op.folder), Path(op.bundle), tell, key=key, publisher=op.publisher, certificates=certificates
    )


async def _sbom(node: Node, op: ShowBill, tell: Tell) -> BillOfMaterials:
    from . import vouching

    return await vouching.bill(node, op.reference, op.form, tell)


async def _move_branch(node: Node, op: MoveBranch, tell: Tell) -> BranchResult:
    return await branches.move_branch(node, op.model, op.branch, op.revision, op.message, tell)


async def _yank(node: Node, op: YankVersion, tell: Tell) -> YankResult:
    return await branches.yank(node, op.name, op.message, tell)


async def _grant(node: Node, op: GrantAccess, tell: Tell) -> PrivateInfo:
    if op.who.startswith(federatedgrants.PREFIX):
        if op.days is not None:
            raise InvalidName("a grant to a federation lasts as long as its members are in it: it takes no --days")
        return await federatedgrants.grant(node, op.name, op.who.removeprefix(federatedgrants.PREFIX), tell)
    return await granting.grant(node, op.name, op.who, op.days, tell)


async def _revoke(node: Node, op: RevokeAccess, tell: Tell) -> PrivateInfo:
    if op.who.startswith(federatedgrants.PREFIX):
        return await federatedgrants.revoke(node, op.name, op.who.removeprefix(federatedgrants.PREFIX), tell)
    return await granting.revoke(node, op.name, op.who, op.message, tell)


async def _grants(node: Node, op: ListGrants, tell: Tell) -> list[PrivateInfo]:
    return await granting.show(node, op.name, tell)


async def _peers(node: Node, op: ListPeers, tell: Tell) -> list[PeerInfo]:
    return await inspect.list_peers(node)


async def _add_peers(node: Node, op: AddPeers, tell: Tell) -> list[PeerInfo]:
    addresses = [parse_address(text) for text in op.addresses]
    for address in addresses:
        if address.node == node.id:
            raise InvalidName(f"{address} is this node itself")
        await on_disk(node.store.peers.add, address)
        if peer := await on_disk(node.store.peers.get, address.node):
            node.neighbours.members.know(contact_of(peer), "added")
        # A download that runs uses it at once.
        for arriving in node.arriving.values():
            arriving.note_mate(address.node)
    if op.news:
        await ask_for_news(node, tell, timeout_s=SEARCH_SYNC_S)
    added = {str(address.node) for address in addresses}
    return [peer for peer in await inspect.list_peers(node) if peer.node in added]


async def _remove_peer(node: Node, op: RemovePeer, tell: Tell) -> Done:
    peer = parse_address(op.node).node if op.node.startswith("p2phub://") else NodeId.parse(op.node)
    if not await on_disk(node.store.peers.remove, peer):
        raise NotFound(f"no peer {peer} is known")
    node.neighbours.forget(peer)
    return Done()


async def _swarm(node: Node, op: ExplainSwarm, tell: Tell) -> SwarmInfo:
    return await swarm_info(node, op.reference, tell)


async def _providers(node: Node, op: ListProviders, tell: Tell) -> Providers:
    return await whohas.providers(node, op.reference, tell)


async def _status(node: Node, op: GetStatus, tell: Tell) -> Status:
    return await inspect.status(node)


async def _limits(node: Node, op: ShowLimits, tell: Tell) -> LinkSettings:
    return await node.links.refresh()


async def _set_limit(node: Node, op: SetLimit, tell: Tell) -> LinkSettings:
    return await limits.set_limit(node, op.link, up=op.up, down=op.down, background=op.background)


async def _set_range(node: Node, op: SetRange, tell: Tell) -> LinkSettings:
    return await limits.set_range(node, op.range, op.link)


async def _set_label(node: Node, op: SetLabel, tell: Tell) -> LinkSettings:
    return await limits.set_label(node, op.label, op.link)


async def _policy(node: Node, op: ShowPolicy, tell: Tell) -> Policy:
    return await on_disk(node.following.refresh)


async def _set_policy(node: Node, op: ChangePolicy, tell: Tell) -> Policy:
    # Members of federations are followed anyway where only some publishers are: nothing is to be noted.
    named = [name for name in op.follow if not await federationops.is_federation(node, name)]
    follow, unfollow, block, unblock = [
        tuple([str(await find(node, name, tell)) for name in names])
        for names in (named, op.unfollow, op.block, op.unblock)
    ]

    def change(old: Policy) -> Policy:
        return Policy(
            mode=op.mode or old.mode,
            followed=changed(old.followed, follow, unfollow),
            blocked=changed(old.blocked, block, unblock),
            records_max=old.records_max if op.records_max is None else op.records_max or None,
            bytes_max=old.bytes_max if op.bytes_max is None else op.bytes_max or None,
        )

    return await on_disk(node.following.change, change)


async def _recall(node: Node, op: RecallRevision, tell: Tell) -> RecallResult:
    return await branches.recall(node, op.name, op.message, tell)


async def _assess(node: Node, op: AssessContent, tell: Tell) -> AssessResult:
    return await assessing.assess(
        node,
        op.reference,
        op.claim,
        op.verdict,
        path=op.path,
        metric=op.metric,
        tool=op.tool,
        message=op.message,
        tell=tell,
    )


async def _show_rules(node: Node, op: ShowRules, tell: Tell) -> ShownRules:
    return await rulecheck.show(node)


async def _check_rules(node: Node, op: CheckRules, tell: Tell) -> PolicyCheck:
    consent = Consent(pickles=op.allow_pickle, code=op.with_code)
    return await rulecheck.check_reference(node, op.reference, consent, tell)


async def _store_list(node: Node, op: StoreList, tell: Tell) -> list[StoredRepository]:
    return await housekeeping.list_repositories(node)


async def _store_remove(node: Node, op: StoreRemove, tell: Tell) -> Freed:
    return await housekeeping.remove(node, op.reference, tell)


async def _store_collect(node: Node, op: StoreCollect, tell: Tell) -> Freed:
    return await housekeeping.collect_garbage(node, unpinned=op.unpinned, tell=tell)


async def _store_pin(node: Node, op: StorePin, tell: Tell) -> PinResult:
    return PinResult(str(await housekeeping.pin(node, op.reference, tell)))


async def _store_unpin(node: Node, op: StoreUnpin, tell: Tell) -> PinResult:
    return PinResult(str(await housekeeping.unpin(node, op.reference, tell)))


async def _store_use(node: Node, op: StoreUse, tell: Tell) -> DiskUse:
    return await housekeeping.disk_use(node)


async def _store_rebuild(node: Node, op: StoreRebuild, tell: Tell) -> RebuildResult:
    start = time.monotonic()
    found = await on_disk(node.store.rebuild, lambda text: None)
    await on_disk(housekeeping.pin_published, node)
    tell(Notice(f"rebuilt in {time.monotonic() - start:.1f} s"))
    return RebuildResult(**found)


async def _store_view(node: Node, op: StoreView, tell: Tell) -> CacheView:
    consent = Consent(pickles=op.allow_pickle, code=op.with_code)
    return await view_store(node, Path(op.folder), op.link, tell, consent=consent)


async def _store_adopt(node: Node, op: StoreAdopt, tell: Tell) -> Adopted:
    from .adopt import adopt  # loads what publishing does

    return await adopt(node, Path(op.folder), tell)


async def _mirror_add(node: Node, op: MirrorAdd, tell: Tell) -> MirrorInfo:
    from . import mirroring  # loads what publishing does

    return await mirroring.add(node, op.reference, op.kind, tell)


async def _mirror_list(node: Node, op: MirrorList, tell: Tell) -> list[MirrorInfo]:
    from . import mirroring

    return await mirroring.show(node)


async def _mirror_update(node: Node, op: MirrorUpdate, tell: Tell) -> list[MirrorInfo]:
    from . import mirroring

    return await mirroring.update(node, op.reference, op.kind, tell)


async def _mirror_remove(node: Node, op: MirrorRemove, tell: Tell) -> MirrorInfo:
    from . import mirroring

    return await mirroring.remove(node, op.reference, op.kind)


async def _mirror_trust(node: Node, op: MirrorTrust, tell: Tell) -> TrustedMirrors:
    from . import mirroring

    namespace = await find(node, op.namespace, tell) if op.namespace else None
    return await mirroring.trust(node, namespace, is_trusted=op.trusted)


async def _pledge(node: Node, op: PledgeAdd, tell: Tell) -> PledgeInfo:
    return await pledging.pledge(node, op.reference, replicas=op.replicas, days=op.days, tell=tell)


async def _pledge_list(node: Node, op: PledgeList, tell: Tell) -> list[PledgeInfo]:
    return await pledging.show(node, op.reference, tell)


async def _pledge_remove(node: Node, op: PledgeRemove, tell: Tell) -> PledgeInfo:
    return await pledging.unpledge(node, op.reference, tell)


_HANDLERS: dict[type[Operation], Callable[[Node, Any, Tell], Awaitable[Any]]] = {
    PublishFolder: _publish,
    GateSet: gateops.set_gate,
    GateOff: gateops.off,
    GateShow: gateops.show,
    GateAccept: gateops.accept,
    GateDecide: gateops.decide,
    GateList: gateops.list_gates,
    GateAccepted: gateops.list_accepted,
    SealFor: sealops.seal_for,
    ShowSeal: sealops.show_seal,
    UnsealModel: sealops.unseal,
    Fetch: _fetch,
    FetchFile: _fetch_file,
    Search: _search,
    Info: _info,
    Log: _log,
    ListConflicts: _conflicts,
    ReopenLog: _reopen,
    TrustAdd: _trust_add,
    TrustAccept: _trust_accept,
    TrustRemove: _trust_remove,
    TrustList: _trust_list,
    TrustWhy: _trust_why,
    LockNames: _lock,
    CheckLocks: _check_locks,
    ClaimDomain: _claim_domain,
    CheckDomain: _check_domain,
    TellIdentity: _tell_identity,
    Verify: _verify,
    SignModel: _sign_model,
    CheckSignature: _check_signature,
    ShowBill: _sbom,
    AddWitness: witnesses.add,
    ListWitnesses: witnesses.show,
    RemoveWitness: witnesses.remove,
    MoveBranch: _move_branch,
    YankVersion: _yank,
    GrantAccess: _grant,
    RevokeAccess: _revoke,
    ListGrants: _grants,
    ListPeers: _peers,
    AddPeers: _add_peers,
    RemovePeer: _remove_peer,
    ExplainSwarm: _swarm,
    ListProviders: _providers,
    GetStatus: _status,
    ShowLimits: _limits,
    SetLimit: _set_limit,
    SetRange: _set_range,
    SetLabel: _set_label,
    ShowPolicy: _policy,
    ChangePolicy: _set_policy,
    RecallRevision: _recall,
    AssessContent: _assess,
    ShowRules: _show_rules,
    CheckRules: _check_rules,
    StoreList: _store_list,
    StoreRemove: _store_remove,
    StoreCollect: _store_collect,
    StorePin: _store_pin,
    StoreUnpin: _store_unpin,
    StoreUse: _store_use,
    StoreView: _store_view,
    StoreAdopt: _store_adopt,
    StoreRebuild: _store_rebuild,
    MirrorAdd: _mirror_add,
    MirrorList: _mirror_list,
    MirrorUpdate: _mirror_update,
    MirrorRemove: _mirror_remove,
    MirrorTrust: _mirror_trust,
    PledgeAdd: _pledge,
    PledgeList: _pledge_list,
    PledgeRemove: _pledge_remove,
    **federationops.HANDLERS,
}
