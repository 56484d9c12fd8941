"""What operations return, as values: the same in this process and from a daemon (spec/local-api.md §2.2)."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from p2phub.core.choices import GranteeKind, LinkClass, Visibility
from p2phub.core.description import Card, Facts
from p2phub.core.findings import Finding
from p2phub.core.limits import Limit


class PublishResult(Struct, frozen=True):
    """What was published."""

    namespace: str
    model: str
    version: str | None
    branch: str
    revision: str
    files: int
    size: int  # bytes
    written: int  # bytes that had to be written to the store
    new: bool  # False: exactly this was published before
    log_index: int | None
    confirmed: list[str] = []  # node ids, if others were waited for
    sealed: bool = False  # its keepers cannot read it
    visibility: Visibility = "public"


class ReceiptInfo(Struct, frozen=True):
    """Who accepted what a gate asks for."""

    namespace: str
    node: str | None  # where each person must accept
    time: int  # seconds since 1970
    state: str  # good, waiting, refused


class GateInfo(Struct, frozen=True):
    """What must be accepted for a repository."""

    reference: str  # NAMESPACE/MODEL
    gate: str  # leaf hash of its record, in hex
    name: str  # of the licence
    licence: str  # its text
    per: str  # person or institution
    approval: str  # automatic or manual
    time: int  # when it was set, seconds since 1970
    state: str  # yours; asked, waiting (for the publisher's word), good, refused
    receipts: list[ReceiptInfo]  # of one's own gate: what was shown to this node


class Accepted(Struct, frozen=True):
    """What was accepted here."""

    reference: str  # NAMESPACE/MODEL
    name: str  # of the licence
    namespace: str  # who accepted
    state: str  # good, waiting (for the publisher's word), refused
    told: int  # peers that took the receipt now
    file: str | None  # where it was written


class SealResult(Struct, frozen=True):
    """Who may open a repository."""

    model: str
    keys: int  # that its revisions are sealed with
    recipients: list[str]  # namespaces that can open all of them
    unsealed: bool  # everybody can
    log_index: int | None  # of the new record; None: it was so already


class GrantInfo(Struct, frozen=True):
    """Somebody who may read a private repository."""

    kind: GranteeKind
    to: str  # namespace id or node id
    until: int  # seconds since 1970
    renewed: bool  # the publisher's node means to renew it


class PrivateInfo(Struct, frozen=True):
    """A private repository, and who may read it beside its publisher."""

    namespace: str
    model: str
    kind: str | None  # None: nothing of it counts
    grants: list[GrantInfo]
    told: int = 0  # nodes that may read it and took what was just said of it


class ProviderSummary(Struct, frozen=True):
    """What one provider did: a peer or an HTTP origin."""

    node: str | None  # node id
    received: int  # bytes
    rate: float  # bytes a second
    state: str
    reason: str | None
    origin: str | None = None  # host and port
    link: LinkClass | None = None  # of the link to it; None: it was never asked


class LinkShare(Struct, frozen=True):
    """What came over links of one class, or is expected to."""

    link: LinkClass
    size: int  # bytes
    providers: int  # over these links: who gave something, or offer something


class LeftOut(Struct, frozen=True):
    """A file that the policy left out."""

    path: str
    reason: str
    hint: str | None = None


class RecallResult(Struct, frozen=True):
    """A revision that was recalled."""

    model: str
    revision: str
    log_index: int


class AssessResult(Struct, frozen=True):
    """What was signed of some content."""

    subject: str  # id of a manifest or a file
    claim: str
    verdict: str
    log_index: int


class FoundBy(Struct, frozen=True):
    """What a publisher found of a repository, or of one of its files."""

    namespace: str
    claim: str
    verdict: str
    path: str | None
    metric: str | None
    value: str | None
    tool: str | None
    message: str
    time: int  # seconds since 1970


class ShownRules(Struct, frozen=True):
    """The policy file, as it is understood."""

    path: str
    exists: bool  # False: these are the rules that hold without one
    rules: dict[str, Any]  # as the file has them


class PolicyCheck(Struct, frozen=True):
    """What the policy says of a repository, or of files."""

    reference: str
    revision: str | None
    findings: list[Finding]


class FetchResult(Struct, frozen=True):
    """What was fetched, and where it is."""

    reference: str
    revision: str | None  # None for a single file
    path: str | None  # the folder, or the single file; None if nothing was checked out
    files: int
    size: int  # bytes of the files asked for
    here_before: int  # bytes of them that were here already
    copied: int  # bytes that were taken from other files here
    shared: int  # of these, that lie on disk once: extents that both files share
    received: int  # bytes that came from providers
    duplicates: int  # bytes that came twice
    seconds: float
    linked: str | None  # how the files were placed
    providers: list[ProviderSummary]
    dry_run: bool = False
    links: list[LinkShare] = []  # what came, or would come, over which class of links
    unoffered: int = 0  # bytes that nobody offers, of a dry run
    expected_s: float | None = None  # seconds that what would come takes; None: not known, or no dry run
    left_out: list[LeftOut] = []  # files of it that the policy does not let in


class CachedRepository(Struct, frozen=True):
    """A revision that was placed in the cache of another hub's client."""

    name: str
    kind: str
    commit: str
    references: list[str]
    folder: str  # of the snapshot


class CacheView(Struct, frozen=True):
    """What was placed in the cache of another hub's client."""

    cache: str
    repositories: list[CachedRepository]


class WantedRepository(Struct, frozen=True):
    """A repository that adopted files belong to."""

    revision: str
    names: list[str]
    files: int  # of the adopted ones
    here: int  # bytes of it that are in the store now
    size: int  # bytes


class Adopted(Struct, frozen=True):
    """What was taken in where it lies."""

    folder: str
    shape: str  # "hub-cache", "ollama" or "folder"
    files: int
    size: int  # bytes
    repositories: list[WantedRepository]


class FileResult(Struct, frozen=True):
    """Where a file is."""

    location: str
    size: int  # bytes


class FileInfo(Struct, frozen=True):
    """One file of a repository."""

    path: str
    size: int  # bytes
    root: str
    sha256: str
    role: str
    profile: str
    here: bool


class RepositoryInfo(Struct, frozen=True):
    """A repository at one revision."""

    reference: str
    namespace: str | None
    model: str | None
    kind: str
    revision: str
    commit: str
    version: str | None
    branch: str | None
    created: int  # seconds since 1970
    size: int  # bytes
    here: int  # bytes of it that are in the store, whole files only
    pinned: bool
    parents: list[str]
    base_models: dict[str, str]  # revision -> relation
    versions: dict[str, str]
    branches: dict[str, str]
    yanked: list[str]
    card: Card | None
    facts: Facts | None
    variants: dict[str, list[str]]
    origin_urls: list[str]
    files: list[FileInfo]
    sealed: str | None = None  # whether it can be read here: "closed", "open to you", "open to all"; None: not sealed
    gate: str | None = None  # name of the licence that must be accepted first
    recalled: str | None = None  # why its publisher took it back; None: it was not
    found: list[FoundBy] = []  # what publishers found of it
    visibility: Visibility | None = None  # None: nothing is known by a name here


class LogLine(Struct, frozen=True):
    """One record, as people read it."""

    log: str
    index: int
    time: int  # seconds since 1970
    type: str
    model: str
    branch: str | None
    version: str | None
    revision: str | None
    message: str
    refused: str | None  # why it does not count


class ConflictInfo(Struct, frozen=True):
    """Something about which the keys of one publisher do not agree."""

    kind: str  # identity, fork, version, branch, refused
    namespace: str
    text: str
    log: str | None = None
    index: int | None = None  # of the record: the first that does not count of a fork
    model: str | None = None
    name: str | None = None  # of the version or branch
    counts: str | None = None  # revision
    others: list[str] = []  # revisions that do not


class BindingInfo(Struct, frozen=True):
    """What a name means on this machine."""

    name: str
    namespace: str
    source: str  # domain or petname
    how: str  # first use, added, accepted: how it came to mean this publisher
    since: int  # seconds since 1970
    checked: int | None  # when the domain last said so, seconds since 1970
    problem: str | None  # why it did not say so when it was last asked
    offered: str | None  # another publisher, whom the domain names now


class DomainFile(Struct, frozen=True):
    """What the web server of a domain is to have, so that the domain stands for a publisher."""

    domain: str
    namespace: str
    url: str  # where it is to be found
    text: str  # of the file
    version: int  # of the identity document that says which domains are claimed
    claimed: bool  # it claims this one


class Reason(Struct, frozen=True):
    """One thing that speaks for or against what is asked about."""

    about: str
    verdict: Literal["good", "bad", "unknown", "off"]  # off: it was not asked for
    text: str


class ByteSpan(Struct, frozen=True):
    """Bytes `begin` to `end - 1` of a file."""

    begin: int
    end: int


class Damage(Struct, frozen=True):
    """A file that is not as it should be, and where."""

    path: str
    location: str  # on disk
    spans: list[ByteSpan]
    missing: bool  # nothing of it is here
    repaired: bool


class VerifyResult(Struct, frozen=True):
    """What was found."""

    reference: str
    revision: str | None
    files: int
    size: int  # bytes hashed
    damaged: list[Damage]
    received: int  # bytes fetched to repair
    seconds: float

    @property
    def good(self) -> bool:
        return all(damage.repaired for damage in self.damaged)


class ModelSignature(Struct, frozen=True):
    """A signature of OpenSSF model signing."""

    reference: str
    revision: str
    files: int
    bundle: str  # JSON
    public_key: str  # PEM: of the key that signed it


class SignatureCheck(Struct, frozen=True):
    """How the files of a folder compare with what was signed."""

    signer: str
    model: str  # as the signer calls it
    files: int  # that were signed
    size: int  # bytes hashed
    wrong: list[str]  # paths: of another content than signed
    missing: list[str]
    unsigned: list[str]

    @property
    def good(self) -> bool:
        return not (self.wrong or self.missing or self.unsigned)


class BillOfMaterials(Struct, frozen=True):
    """What a revision consists of, for other tools."""

    reference: str
    revision: str
    form: str
    text: str  # JSON


class BranchResult(Struct, frozen=True):
    """Where a branch stands now."""

    model: str
    branch: str
    revision: str | None  # None: it was deleted
    log_index: int


class YankResult(Struct, frozen=True):
    """A version that is not chosen any more."""

    model: str
    version: str
    log_index: int


class WitnessInfo(Struct, frozen=True):
    """A witness, and how it stands with the own log."""

    name: str
    key: str  # NAME+ID+KEY
    place: str | None  # where it is asked
    size: int  # records of the own log that it cosigned last
    answered: int | None  # when it last cosigned, seconds since 1970
    problem: str | None  # why it did not when it was last asked


class Witnesses(Struct, frozen=True):
    """The witnesses that are known, and what this node does as one."""

    witnesses: list[WitnessInfo]
    own_records: int  # in the log that this home publishes in
    stated: int | None  # when it was last stated what is newest of one's own, seconds since 1970
    key: str | None  # of the witness that this node is
    cosigned: int  # logs of which that witness cosigned a head


class PeerInfo(Struct, frozen=True):
    """One peer."""

    node: str
    addresses: list[str]
    link: LinkClass
    added: bool
    last_seen: int | None  # seconds since 1970
    last_error: str | None
    failures: int
    received: int  # bytes of content
    banned_until: int | None  # seconds since 1970
    ban_reason: str | None
    skew: str | None = None  # what it said last that this version does not know; None: it is understood


class SwarmProvider(Struct, frozen=True):
    """One who gives, gave or could give a repository."""

    name: str  # node id, or the host of an origin
    state: str  # giving, slow, busy, gone, banned, has nothing, asked; of one just asked also: offers, fetching
    has: float | None  # the share of what is asked for, 0 to 1; None if that is not known
    rate: float  # bytes a second, to this node
    received: int  # bytes
    reason: str | None  # why it does not give


class SwarmInfo(Struct, frozen=True):
    """Who gives a repository, and how its download goes."""

    reference: str
    revision: str | None  # None for a single file
    files: int
    size: int  # bytes
    here: int  # bytes of it on disk
    fetching: bool  # a download of it runs in this node
    rate: float  # bytes a second
    waiting_for: str | None  # why nothing arrives, if nothing does
    providers: list[SwarmProvider]


class KnownProvider(Struct, frozen=True):
    """A node that has a repository, or has some of it."""

    node: str
    addresses: list[str]
    link: LinkClass
    state: str  # offers, fetching: it says so now; said so: it did before; busy, gone: it did, and does not answer now
    has: float | None  # the share of it, 0 to 1
    time: int | None  # when it said so, seconds since 1970
    reason: str | None  # why it does not answer


class Providers(Struct, frozen=True):
    """Who has a repository."""

    reference: str
    revision: str
    asked: int  # peers that were asked now
    providers: list[KnownProvider]


class ConfirmedBy(Struct, frozen=True):
    """Another node that said to have the own log."""

    node: str
    records: int
    time: int  # seconds since 1970


class UpstreamState(Struct, frozen=True):
    """The hub that is asked for what no peer has."""

    url: str
    hub: str  # HOST[:PORT] of the hub whose names it has
    token: bool  # whether one is shown to it
    state: Literal["ready", "busy", "down"]  # busy: it asked to be left alone; down: it did not answer lately


class Pledger(Struct, frozen=True):
    """A node that promised to keep the same, and counts."""

    node: str
    holds: int  # revisions of it
    gone: bool  # it was not seen for so long that it is not counted on
    lied: bool  # it said to have some of it, and did not give it


class PledgeInfo(Struct, frozen=True):
    """A promise that a node keeps something."""

    subject: str  # revision, NAMESPACE/MODEL or namespace
    namespace: str  # who promised
    node: str  # which node of his
    own: bool  # it is this node
    replicas: int | None  # that all who pledge so keep together; None: the node keeps one
    until: int  # seconds since 1970
    revisions: int  # that it is about now
    here: int  # of these, whole on this node
    size: int  # bytes of those whose manifest is here
    have: int | None  # copies, of the revision that lacks the most; None: this node did not promise it
    needed: int | None
    short: int  # revisions of which there are fewer copies than were promised
    others: int  # further nodes that have all of it, and promised nothing that counts
    pledgers: list[Pledger]
    problem: str | None  # why some of it does not come


class PledgeState(Struct, frozen=True):
    """How all that this node promised is kept."""

    pledges: int
    revisions: int
    here: int  # of these, whole on this node
    short: int  # of which there are fewer copies than were promised
    problem: str | None  # why one of them does not come


class InviteInfo(Struct, frozen=True):
    """An invitation to a federation."""

    name: str
    federation: str  # its id
    text: str  # to be passed on: whoever has it can use it
    expires: int  # seconds since 1970
    namespace: str | None  # who alone may use it


class FederationTerms(Struct, frozen=True):
    """What members do for each other."""

    publishers: list[str]  # whose repositories it is about; none: the members'
    kinds: list[str]
    licenses: list[str]
    replicas: int  # copies that are kept together; 0: nothing is mirrored
    up: int | None  # bytes a second
    down: int | None
    link: LinkClass


class FederationMember(Struct, frozen=True):
    """A member, and whether its word stands."""

    namespace: str
    state: str  # member, left, other terms, over, key retired, unknown
    nodes: list[str]  # that act for it
    until: int | None  # seconds since 1970


class FederationState(Struct, frozen=True):
    """A federation that this home belongs to, or did not leave."""

    name: str
    member: bool  # this home is in force
    members: int  # that are
    warning: str | None


class FederationInfo(Struct, frozen=True):
    """A federation as far as it is known here."""

    name: str
    federation: str  # its id
    coordinator: str
    version: int  # of its charter
    expires: int  # seconds since 1970
    member: bool  # this home is one now
    members: list[FederationMember]
    terms: FederationTerms
    invitations: int = 0  # that were given out here and not used yet
    contradicted: bool = False  # its coordinator signed two charters of one version
    warning: str | None = None  # what speaks against it


class ClockState(Struct, frozen=True):
    """How this machine's clock agrees with those of the peers that answered lately."""

    peers: int
    apart: int  # of these, with which it differs by more than it may
    ahead: int  # seconds that the clocks of those are ahead of this machine's: the one in the middle


class Status(Struct, frozen=True):
    """The node as a whole."""

    node_id: str
    namespace: str | None
    addresses: list[str]
    serving: bool
    started: int | None  # seconds since 1970
    home: str
    store: str
    offline: bool
    peers: int
    peers_seen: int  # in the last five minutes
    models: int
    logs: int
    records: int
    forked_logs: list[str]
    manifests: int
    uploaded: int  # bytes since the start
    uploads: int  # running now
    limits: list[Limit]  # of classes of links that have any
    neighbours: list[str]  # node ids of those with which news is exchanged
    own_records: int  # in the log that this home publishes in
    confirmed: list[ConfirmedBy]  # who said to have how many of them, the latest first
    pledged: PledgeState
    federations: list[FederationState]
    upstream: UpstreamState | None = None  # None: no hub is asked by itself
    clock: ClockState | None = None  # None: it agrees with all
    policy_trouble: str = ""  # why the policy file cannot be understood, so that nothing is given to anybody


class StoredRepository(Struct, frozen=True):
    """A manifest in the store."""

    revision: str
    names: list[str]  # NAMESPACE/MODEL of those who published it
    kind: str
    size: int  # bytes of all its files
    here: int  # bytes of them in the store
    pinned: str | None  # why: "published", "kept" or "mirrored"


class MirrorInfo(Struct, frozen=True):
    """A revision of another hub's repository that is kept here."""

    reference: str  # hf://…
    hub: str
    kind: str
    name: str  # ORG/NAME
    revision: str
    commit: str | None  # that is whole here
    manifest: str | None
    files: int
    size: int  # bytes
    restricted: bool  # not everybody may have it
    checked: int | None  # when the hub was last asked, in seconds since 1970


class TrustedMirrors(Struct, frozen=True):
    """The publishers, besides one's own, whose word about mirrors counts here."""

    namespaces: list[str]


class Freed(Struct, frozen=True):
    """What was removed."""

    items: int
    bytes: int


class DiskUse(Struct, frozen=True):
    """How much the store takes."""

    store: str
    objects: int
    objects_bytes: int
    partials: int
    partials_bytes: int
    in_place: int
    in_place_bytes: int
    index_bytes: int
    free_bytes: int


class PinResult(Struct, frozen=True):
    revision: str


class RebuildResult(Struct, frozen=True):
    """What a rebuild found."""

    manifests: int
    records: int
    objects: int
    damaged: int


class Done(Struct, frozen=True):
    """Nothing more to say."""
