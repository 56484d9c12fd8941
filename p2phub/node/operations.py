"""Everything a person or program can ask of a node, as values: one Struct each.

The command line makes a value and runs it: through the daemon of the same home if one
runs, else on a node that it opens for itself. So both do the same.

    cli / python ──Operation──▶ daemon's control API ─┐
                └──────────────▶ own node ────────────┴──▶ dispatch.run ──▶ events, result

Values alone, so that whoever only asks a daemon does not load what does the work.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from p2phub.core.choices import (
    DEFAULT_BRANCH,
    DOMAIN_NODES_MAX,
    LICENCE_SIZE_MAX,
    PLEDGE_DAYS_MAX,
    PLEDGE_REPLICAS_MAX,
    BillForm,
    GateApproval,
    GatePer,
    Judgement,
    Kind,
    LinkClass,
    LinkMode,
    Profile,
    Verdict,
    Visibility,
)
from p2phub.core.limits import RATE_MAX, LinkSettings
from p2phub.core.locked import NAMES_MAX, Locked
from p2phub.core.origins import GIVEN_MAX, ORIGIN_URLS_MAX
from p2phub.core.policy import Policy
from p2phub.core.search import Page, Query
from p2phub.core.terms import INVITE_SIZE_MAX, OFFER_DAYS_MAX, Terms

from .results import (
    Accepted,
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
    FederationInfo,
    FetchResult,
    FileResult,
    Freed,
    GateInfo,
    InviteInfo,
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
    SealResult,
    ShownRules,
    SignatureCheck,
    Status,
    StoredRepository,
    SwarmInfo,
    TrustedMirrors,
    VerifyResult,
    Witnesses,
    WitnessInfo,
    YankResult,
)

Text = Annotated[str, Meta(min_length=1, max_length=4096)]
# The node has a folder of its own that it works in, and not that of who asks.
AbsolutePath = Annotated[str, Meta(pattern="^/", max_length=4096)]
View = Literal["hf"]  # the cache of huggingface_hub
Patterns = Annotated[tuple[Text, ...], Meta(max_length=1000)]
# URLs of origins. What else they must be is checked where they are used, which says why not.
Given = Annotated[tuple[Text, ...], Meta(max_length=GIVEN_MAX)]
Published = Annotated[tuple[Text, ...], Meta(max_length=ORIGIN_URLS_MAX)]


Namespaces = Annotated[tuple[Text, ...], Meta(max_length=1000)]


class Operation(Struct, frozen=True, forbid_unknown_fields=True, tag_field="operation"):
    """Something to do. Paths are absolute."""


class PublishFolder(Operation, tag="publish", frozen=True):
    folder: AbsolutePath
    name: Text
    branch: Text = DEFAULT_BRANCH
    message: Annotated[str, Meta(max_length=4096)] = ""
    in_place: bool = False
    profile: Profile | None = None
    kind: Kind = "model"
    origin_urls: Published = ()
    wait: Annotated[int, Meta(ge=0, le=100)] = 0  # other nodes that are to confirm that they have it
    sealed: bool = False  # so that keepers cannot read it
    sealed_for: Namespaces = ()  # who can, beside the publisher
    is_open: bool = False  # everybody can, though the revision before is sealed
    allow_secrets: bool = False  # also private keys that are no keys of p2phub
    visibility: Visibility | None = None  # None: as it is, or public


class GateSet(Operation, tag="gate-set", frozen=True):
    """Let whoever wants the content of one's own model accept a licence first."""

    model: Text
    name: Annotated[str, Meta(min_length=1, max_length=128)]  # of the licence
    licence: Annotated[str, Meta(min_length=1, max_length=LICENCE_SIZE_MAX)]
    per: GatePer = "institution"
    approval: GateApproval = "automatic"


class GateOff(Operation, tag="gate-off", frozen=True):
    """Let everybody have the content of one's own model again."""

    model: Text
    message: Annotated[str, Meta(max_length=4096)] = ""


class GateShow(Operation, tag="gate-show", frozen=True):
    """What must be accepted for a repository."""

    reference: Text


class GateAccept(Operation, tag="gate-accept", frozen=True):
    """Accept what a repository's gate asks for."""

    reference: Text
    gate: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None  # as it was shown; None: what it asks for now
    to: AbsolutePath | None = None  # a file for the receipt
    given: AbsolutePath | None = None  # such a file of another machine of the same institution


class GateDecide(Operation, tag="gate-decide", frozen=True):
    """Approve or refuse what somebody gave for one's own model."""

    model: Text
    who: Text  # a publisher, or the path of the file that `gate-accept` wrote
    approved: bool = True
    days: Annotated[int, Meta(ge=1, le=36500)] | None = None  # None: as long as the gate stands
    message: Annotated[str, Meta(max_length=4096)] = ""


class GateList(Operation, tag="gate-ls", frozen=True):
    """The own gates, and who accepted what they ask for."""


class GateAccepted(Operation, tag="gate-accepted", frozen=True):
    """What was accepted here."""


class SealFor(Operation, tag="seal-add", frozen=True):
    """Let more namespaces open what one sealed as a model."""

    model: Text
    recipients: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=1000)]


class ShowSeal(Operation, tag="seal-ls", frozen=True):
    """Who may open a repository."""

    reference: Text


class UnsealModel(Operation, tag="unseal", frozen=True):
    """Let everybody open what one sealed as a model."""

    model: Text
    message: Annotated[str, Meta(max_length=4096)] = ""


class Fetch(Operation, tag="fetch", frozen=True):
    reference: Text
    to: AbsolutePath | None = None
    include: Patterns = ()
    exclude: Patterns = ()
    link: LinkMode = "auto"
    force: bool = False
    dry_run: bool = False
    kind: Kind | None = None
    origins: Given = ()
    view: View | None = None  # `to` is the cache of a client of this kind
    background: bool = False
    sealed: bool = False  # keep what is sealed as it is, for others
    allow_pickle: bool = False  # pickles are taken too, if a scan finds nothing against them
    with_code: bool = False  # and programs
    recalled: bool = False  # and what its publisher recalled


class FetchFile(Operation, tag="fetch-file", frozen=True):
    """Bring one file of a repository into the store; the result says where it is."""

    reference: Text
    path: Text
    origins: Given = ()


class Search(Operation, tag="search", frozen=True):
    query: Query


class Info(Operation, tag="info", frozen=True):
    reference: Text


class Log(Operation, tag="log", frozen=True):
    name: Text


class ListConflicts(Operation, tag="conflicts", frozen=True):
    """Where the keys of publishers do not agree."""

    namespace: Text | None = None


class ReopenLog(Operation, tag="reopen", frozen=True):
    """Say which history of this home's log counts, which forked, and go on in a new one."""

    size: Annotated[int, Meta(ge=0)] | None = None  # records that count; None: all that are here


class TrustAdd(Operation, tag="trust-add", frozen=True):
    """Let a name mean a publisher here: a domain the one that it names, a petname the one that is given."""

    name: Text
    namespace: Text | None = None


class TrustAccept(Operation, tag="trust-accept", frozen=True):
    """Let a domain mean the publisher that it names now."""

    name: Text


class TrustRemove(Operation, tag="trust-rm", frozen=True):
    name: Text


class TrustWhy(Operation, tag="trust-why", frozen=True):
    """Why a reference, or a publisher's name, means what it means, and what is believed of it."""

    reference: Text


class LockNames(Operation, tag="lock", frozen=True):
    """What names mean now, to be written down."""

    names: Annotated[tuple[Text, ...], Meta(max_length=NAMES_MAX)]


class CheckLocks(Operation, tag="lock-check", frozen=True):
    """Which of the names that were written down mean something else now."""

    locked: Annotated[tuple[Locked, ...], Meta(max_length=NAMES_MAX)]


class TrustList(Operation, tag="trust-ls", frozen=True):
    """What names mean here."""


class ClaimDomain(Operation, tag="id-domain", frozen=True):
    """Claim a domain for this home's publisher, or no longer."""

    domain: Text
    nodes: Annotated[tuple[Text, ...], Meta(max_length=DOMAIN_NODES_MAX)] = ()  # addresses; none: this node's
    drop: bool = False


class CheckDomain(Operation, tag="id-domain-check", frozen=True):
    """What others find who ask for a domain of this home's publisher."""

    domain: Text


class TellIdentity(Operation, tag="id-tell", frozen=True):
    """Tell other nodes of the own identity, which changed."""


class Verify(Operation, tag="verify", frozen=True):
    reference: Text
    repair: bool = False
    origins: Given = ()


class SignModel(Operation, tag="sign-model", frozen=True):
    """Sign what a repository consists of, for tools of OpenSSF model signing."""

    reference: Text


class CheckSignature(Operation, tag="check-signature", frozen=True):
    """Compare a folder with such a signature; one of `key`, `publisher`, `certificates` says whose it must be."""

    folder: AbsolutePath
    bundle: AbsolutePath
    key: AbsolutePath | None = None  # file: a public key as PEM
    publisher: Text | None = None
    certificates: AbsolutePath | None = None  # file: of those who are trusted to vouch, PEM


class ShowBill(Operation, tag="sbom", frozen=True):
    """List what a repository consists of and was made from, for other tools."""

    reference: Text
    form: BillForm = "cyclonedx"


class AddWitness(Operation, tag="witness-add", frozen=True):
    """Count on a witness, and let it cosign the own log if it is said where it is asked."""

    key: Text  # NAME+ID+KEY
    place: Text | None = None  # URL, or p2phub address


class ListWitnesses(Operation, tag="witnesses", frozen=True):
    pass


class RemoveWitness(Operation, tag="witness-remove", frozen=True):
    name: Text  # of its key, or the whole key


class MoveBranch(Operation, tag="branch", frozen=True):
    """Let a branch stand for another revision of the repository, or delete it (`revision` None)."""

    model: Text
    branch: Text
    revision: str | None
    message: Annotated[str, Meta(max_length=4096)] = ""


class YankVersion(Operation, tag="yank", frozen=True):
    name: Text  # MODEL@VERSION
    message: Annotated[str, Meta(max_length=4096)] = ""


class GrantAccess(Operation, tag="grant", frozen=True):
    """Let somebody read a private repository of one's own."""

    name: Text
    who: Text  # a namespace, a name of one, or a node
    days: Annotated[int, Meta(ge=1, le=30)] | None = None  # None: renewed as long as the node runs


class RevokeAccess(Operation, tag="revoke", frozen=True):
    """Take back what was granted."""

    name: Text
    who: Text
    message: Annotated[str, Meta(max_length=4096)] = ""


class ListGrants(Operation, tag="grants", frozen=True):
    """Show who may read private repositories that are here."""

    name: Text | None = None


class ListPeers(Operation, tag="peers", frozen=True):
    pass


class AddPeers(Operation, tag="peers-add", frozen=True):
    addresses: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=100)]
    news: bool = True  # ask them for news at once


class RemovePeer(Operation, tag="peers-rm", frozen=True):
    node: Text  # node id or address


class ExplainSwarm(Operation, tag="swarm", frozen=True):
    """Who gives a repository, at which rate, and what its download waits for."""

    reference: Text


class ListProviders(Operation, tag="providers", frozen=True):
    """Who has a repository, as peers say now and said before."""

    reference: Text


class GetStatus(Operation, tag="status", frozen=True):
    pass


class ShowLimits(Operation, tag="limits", frozen=True):
    """Show what may be used of each class of links, and what belongs to which."""


class SetLimit(Operation, tag="limits-set", frozen=True):
    """Change what may be used of a class of links; None leaves as it is."""

    link: LinkClass
    up: Annotated[int, Meta(ge=0, le=RATE_MAX)] | None = None  # bytes a second; 0: no limit
    down: Annotated[int, Meta(ge=0, le=RATE_MAX)] | None = None
    background: bool | None = None


class SetRange(Operation, tag="limits-range", frozen=True):
    """Let addresses in a range belong to a class of links, or to what they would without (None)."""

    range: Text  # CIDR, or one address
    link: LinkClass | None


class SetLabel(Operation, tag="limits-label", frozen=True):
    """Let nodes with a label, as cluster or site, belong to a class of links, or to what they would without (None)."""

    label: Text
    link: LinkClass | None


class ShowPolicy(Operation, tag="policy", frozen=True):
    """Show whose records are taken in."""


class ChangePolicy(Operation, tag="policy-set", frozen=True):
    """Change whose records are taken in; None leaves as it is, and 0 is no limit."""

    mode: Literal["open", "listed"] | None = None
    follow: Namespaces = ()
    unfollow: Namespaces = ()
    block: Namespaces = ()
    unblock: Namespaces = ()
    records_max: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    bytes_max: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class RecallRevision(Operation, tag="recall", frozen=True):
    """Say that a revision of one's own must not be used any more, for ever."""

    name: Text  # MODEL@REVISION
    message: Annotated[str, Meta(max_length=4096)] = ""


class AssessContent(Operation, tag="attest", frozen=True):
    """Say what was found of a repository, or of a file of it."""

    reference: Text
    claim: Judgement
    verdict: Verdict
    path: str | None = None
    metric: str | None = None  # TASK/DATASET/METRIC=VALUE
    tool: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    message: Annotated[str, Meta(max_length=4096)] = ""


class ShowRules(Operation, tag="rules", frozen=True):
    """Show what the policy file says."""


class CheckRules(Operation, tag="rules-check", frozen=True):
    """Say what the policy file means for a repository, or (an absolute path) for files on disk."""

    reference: Text
    allow_pickle: bool = False
    with_code: bool = False


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


class StoreView(Operation, tag="store-view", frozen=True):
    """Place all that is whole here in the cache of another hub's client."""

    view: View
    folder: AbsolutePath
    link: LinkMode = "auto"
    allow_pickle: bool = False
    with_code: bool = False


class StoreAdopt(Operation, tag="store-adopt", frozen=True):
    """Take files of other tools in where they lie."""

    folder: AbsolutePath


class StoreRebuild(Operation, tag="store-rebuild", frozen=True):
    pass


class MirrorAdd(Operation, tag="mirror-add", frozen=True):
    """Fetch all of another hub's repository, keep it, and vouch for it."""

    reference: Text  # hf://ORG/NAME[@REVISION]
    kind: Kind | None = None


class MirrorList(Operation, tag="mirror-ls", frozen=True):
    pass


class MirrorUpdate(Operation, tag="mirror-update", frozen=True):
    """Fetch what changed since, of one mirror or (None) of all."""

    reference: Text | None = None
    kind: Kind | None = None


class MirrorRemove(Operation, tag="mirror-rm", frozen=True):
    reference: Text
    kind: Kind | None = None


class MirrorTrust(Operation, tag="mirror-trust", frozen=True):
    """Take a publisher at his word about mirrors, or no longer; without one, show whom."""

    namespace: Text | None = None
    trusted: bool = True


class PledgeAdd(Operation, tag="pledge-add", frozen=True):
    """Promise that this node keeps a repository, a revision, or all of a publisher."""

    reference: Text  # REF, or a namespace
    replicas: Annotated[int, Meta(ge=1, le=PLEDGE_REPLICAS_MAX)] | None = None
    days: Annotated[int, Meta(ge=1, le=PLEDGE_DAYS_MAX)] = 365


class PledgeList(Operation, tag="pledge-ls", frozen=True):
    """Show what this node promised, or who promised to keep `reference`."""

    reference: Text | None = None


class PledgeRemove(Operation, tag="pledge-rm", frozen=True):
    reference: Text


FederationText = Annotated[str, Meta(min_length=1, max_length=64)]  # its name, or its id


class FederationInvite(Operation, tag="federation-invite", frozen=True):
    """Invite somebody to a federation, which is founded with `terms` if there is none of this name."""

    name: FederationText
    namespace: Text | None = None  # who alone may use it
    days: Annotated[int, Meta(ge=1, le=OFFER_DAYS_MAX)] = 7
    terms: Terms | None = None


class FederationRead(Operation, tag="federation-read", frozen=True):
    """Show what an invitation invites to."""

    text: Annotated[str, Meta(min_length=1, max_length=INVITE_SIZE_MAX)]


class FederationJoin(Operation, tag="federation-join", frozen=True):
    """Agree to the terms of an invitation, and become a member."""

    text: Annotated[str, Meta(min_length=1, max_length=INVITE_SIZE_MAX)]


class FederationList(Operation, tag="federation-ls", frozen=True):
    name: FederationText | None = None


class FederationLeave(Operation, tag="federation-leave", frozen=True):
    name: FederationText


class FederationAccept(Operation, tag="federation-accept", frozen=True):
    """Agree to the terms as they are now."""

    name: FederationText


class FederationSetTerms(Operation, tag="federation-terms", frozen=True):
    """Change the terms of a federation that this home coordinates."""

    name: FederationText
    terms: Terms


class FederationRemove(Operation, tag="federation-rm", frozen=True):
    """Let a member belong to it no longer."""

    name: FederationText
    namespace: Text


AnyOperation = (
    PublishFolder | Fetch | FetchFile | Search | Info | Log | ListConflicts | Verify | MoveBranch | YankVersion
    | GrantAccess | RevokeAccess | ListGrants
    | ListPeers | AddPeers | RemovePeer | ExplainSwarm | ListProviders | GetStatus | ShowLimits | SetLimit | SetRange
    | SetLabel | ShowPolicy | ChangePolicy | AddWitness | ListWitnesses | RemoveWitness
    | SetLabel | ShowPolicy | ChangePolicy | ShowRules | CheckRules
    | RecallRevision | AssessContent
    | StoreList | StoreRemove | StoreCollect | StorePin | StoreUnpin | StoreUse | StoreView | StoreAdopt | StoreRebuild
    | SealFor | ShowSeal | UnsealModel
    | GateSet | GateOff | GateShow | GateAccept | GateDecide | GateList | GateAccepted
    | MirrorAdd | MirrorList | MirrorUpdate | MirrorRemove | MirrorTrust | ReopenLog
    | SignModel | CheckSignature | ShowBill
    | TrustAdd | TrustAccept | TrustRemove | TrustList | ClaimDomain | CheckDomain
    | LockNames | CheckLocks
    | TrustAdd | TrustAccept | TrustRemove | TrustList | TrustWhy | ClaimDomain | CheckDomain
    | TellIdentity
    | PledgeAdd | PledgeList | PledgeRemove
    | FederationInvite | FederationRead | FederationJoin | FederationList | FederationLeave | FederationAccept
    | FederationSetTerms | FederationRemove
)  # fmt: skip

# What each operation returns, so that both ends of the control API agree.
RESULTS: dict[type[Operation], Any] = {
    PublishFolder: PublishResult,
    GateSet: GateInfo,
    GateOff: Done,
    GateShow: GateInfo,
    GateAccept: Accepted,
    GateDecide: GateInfo,
    GateList: list[GateInfo],
    GateAccepted: list[Accepted],
    SealFor: SealResult,
    ShowSeal: SealResult,
    UnsealModel: SealResult,
    Fetch: FetchResult,
    FetchFile: FileResult,
    Search: Page,
    Info: RepositoryInfo,
    Log: list[LogLine],
    ListConflicts: list[ConflictInfo],
    ReopenLog: Done,
    TrustAdd: BindingInfo,
    TrustAccept: BindingInfo,
    TrustRemove: BindingInfo,
    TrustList: list[BindingInfo],
    TrustWhy: list[Reason],
    LockNames: list[Locked],
    CheckLocks: list[str],
    ClaimDomain: DomainFile,
    CheckDomain: list[Reason],
    TellIdentity: Done,
    Verify: VerifyResult,
    SignModel: ModelSignature,
    CheckSignature: SignatureCheck,
    ShowBill: BillOfMaterials,
    AddWitness: WitnessInfo,
    ListWitnesses: Witnesses,
    RemoveWitness: WitnessInfo,
    MoveBranch: BranchResult,
    YankVersion: YankResult,
    GrantAccess: PrivateInfo,
    RevokeAccess: PrivateInfo,
    ListGrants: list[PrivateInfo],
    ListPeers: list[PeerInfo],
    AddPeers: list[PeerInfo],
    RemovePeer: Done,
    ExplainSwarm: SwarmInfo,
    ListProviders: Providers,
    GetStatus: Status,
    ShowLimits: LinkSettings,
    SetLimit: LinkSettings,
    SetRange: LinkSettings,
    SetLabel: LinkSettings,
    ShowPolicy: Policy,
    ChangePolicy: Policy,
    RecallRevision: RecallResult,
    AssessContent: AssessResult,
    ShowRules: ShownRules,
    CheckRules: PolicyCheck,
    StoreList: list[StoredRepository],
    StoreRemove: Freed,
    StoreCollect: Freed,
    StorePin: PinResult,
    StoreUnpin: PinResult,
    StoreUse: DiskUse,
    StoreView: CacheView,
    StoreAdopt: Adopted,
    StoreRebuild: RebuildResult,
    MirrorAdd: MirrorInfo,
    MirrorList: list[MirrorInfo],
    MirrorUpdate: list[MirrorInfo],
    MirrorRemove: MirrorInfo,
    MirrorTrust: TrustedMirrors,
    PledgeAdd: PledgeInfo,
    PledgeList: list[PledgeInfo],
    PledgeRemove: PledgeInfo,
    FederationInvite: InviteInfo,
    FederationRead: FederationInfo,
    FederationJoin: FederationInfo,
    FederationList: list[FederationInfo],
    FederationLeave: FederationInfo,
    FederationAccept: FederationInfo,
    FederationSetTerms: FederationInfo,
    FederationRemove: FederationInfo,
}


def exact_pattern(path: str) -> str:
    """Return the glob pattern that matches `path` alone."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)
