"""Do what an operation says, with an open node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from importlib import import_module
from typing import Any

import trio

from p2phub.store.agent import waiting_told

from .disk import from_thread
from .events import Event, Notice, Tell
from .handlers import Handler, Handlers
from .identity import LogBehind
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
    FederationAccept,
    FederationInvite,
    FederationJoin,
    FederationLeave,
    FederationList,
    FederationRead,
    FederationRemove,
    FederationSetTerms,
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
from .settings import Settings

# What does each operation: a module of `doing`, loaded when it is needed, since a command does one thing.
_DONE_BY: dict[str, tuple[type[Operation], ...]] = {
    "content": (
        PublishFolder,
        Fetch,
        FetchFile,
    ),
    "checking": (
        LockNames,
        CheckLocks,
        Verify,
        SignModel,
        CheckSignature,
        ShowBill,
    ),
    "peers": (
        ListPeers,
        AddPeers,
        RemovePeer,
    ),
    "catalogue": (
        Search,
        Info,
        Log,
        ListConflicts,
        ReopenLog,
        TellIdentity,
        MoveBranch,
        YankVersion,
        RecallRevision,
        AssessContent,
    ),
    "trust": (
        TrustAdd,
        TrustAccept,
        TrustRemove,
        TrustList,
        TrustWhy,
        ClaimDomain,
        CheckDomain,
        AddWitness,
        ListWitnesses,
        RemoveWitness,
        GrantAccess,
        RevokeAccess,
        ListGrants,
        ShowRules,
        CheckRules,
    ),
    "network": (
        ExplainSwarm,
        ListProviders,
        GetStatus,
        ShowLimits,
        SetLimit,
        SetRange,
        SetLabel,
        ShowPolicy,
        ChangePolicy,
        PledgeAdd,
        PledgeList,
        PledgeRemove,
    ),
    "storage": (
        StoreList,
        StoreRemove,
        StoreCollect,
        StorePin,
        StoreUnpin,
        StoreUse,
        StoreView,
        StoreAdopt,
        StoreRebuild,
        MirrorAdd,
        MirrorList,
        MirrorUpdate,
        MirrorRemove,
        MirrorTrust,
    ),
    "gates": (
        GateSet,
        GateOff,
        GateShow,
        GateAccept,
        GateDecide,
        GateList,
        GateAccepted,
    ),
    "seals": (
        SealFor,
        ShowSeal,
        UnsealModel,
    ),
    "federations": (
        FederationInvite,
        FederationRead,
        FederationJoin,
        FederationList,
        FederationLeave,
        FederationAccept,
        FederationSetTerms,
        FederationRemove,
    ),
}
_MODULES = {operation: module for module, operations in _DONE_BY.items() for operation in operations}


async def run_alone(settings: Settings, operations: Sequence[Operation], tell: Tell) -> Any:
    """Do `operations` one after the other on a node opened for them; returns the result of the last."""
    result = None
    async with open_node(settings) as node, _handing_over(node, tell):
        for operation in operations:
            result = await run(node, operation, tell)
    return result


def _handing_over(node: Node, tell: Tell) -> AbstractAsyncContextManager[None]:
    if node.settings.key_file is None:
        return nullcontext()
    from .confirm import handing_over  # loads what talks

    return handing_over(node, tell)


async def run(node: Node, operation: Operation, tell: Tell) -> Any:
    """Do `operation` and return its result, of the type that RESULTS gives. Raises HubError."""
    handler = handler_of(type(operation))
    with _waiting_told(tell):
        try:
            return await handler(node, operation, tell)
        except LogBehind:
            from .catchup import ready_to_publish  # seldom needed

            # Its first try changed nothing: it signs before all else, or not at all.
            await ready_to_publish(node, tell)
            return await handler(node, operation, tell)


def handler_of(operation: type[Operation]) -> Handler:
    """Return what does an operation."""
    handlers: Handlers = import_module(f"{__package__}.doing.{_MODULES[operation]}").HANDLERS
    return handlers[operation]


@contextlib.contextmanager
def _waiting_told(tell: Tell) -> Iterator[None]:
    """Tell it as a notice if the ssh-agent keeps what is done in here waiting."""
    is_over = False

    def tell_while_it_runs(event: Event) -> None:
        # What the operation started may sign later, when nobody listens any more.
        if not is_over:
            tell(event)

    tell_from_thread = from_thread(tell_while_it_runs)

    def watcher(text: str) -> None:
        say = tell_while_it_runs if trio.lowlevel.in_trio_task() else tell_from_thread
        say(Notice(text))

    try:
        with waiting_told(watcher):
            yield
    finally:
        is_over = True
