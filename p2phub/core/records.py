"""Records: the signed statements of a publisher, and the log they stand in (spec/records.md).

Every record signs its namespace, log, index, the leaf before it, and its time:
so it cannot be replayed at another place. A new statement is a new class in the
union `Record`; unknown types are refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

from blake3 import blake3
from msgspec import Meta, Struct

from .choices import LICENCE_SIZE_MAX, GateApproval, GatePer, GranteeKind, Judgement, Kind, Verdict
from .encoding import decode, encode, read
from .envelope import ENVELOPE_SIZE_MAX, PAYLOAD_SIZE_MAX, Envelope, seal
from .errors import InvalidData
from .ids import ContentId, LogId, ManifestId, NamespaceId, NodeId, PublicKey
from .manifest import Time
from .merkle import LOG_TREE
from .names import BranchName, ModelName, VersionName
from .pledges import Replicas, Subject
from .signing import Signer
from .upstream import NAMES_MAX, CommitName, HubName, OwnerName, RevisionName

PURPOSE = "record"  # spec/signing.md §2
GRANT_MAX_S = 30 * 24 * 3600  # seconds that a grant counts at most; spec/private.md §2
SKEW_MAX_S = 600  # seconds a record may be ahead of our clock; spec/records.md §4
NO_PREVIOUS = bytes(32)  # the leaf before index 0; spec/records.md §2
MESSAGE_SIZE_MAX = 4096  # characters; spec/records.md §2
RECIPIENTS_MAX = 256  # in one record, so that it fits an envelope; spec/sealing.md §4

_LOG_CONTEXT = "p2phub 1 log"  # spec/records.md §3

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Message = Annotated[str, Meta(max_length=MESSAGE_SIZE_MAX)]
Word = Annotated[str, Meta(min_length=1, max_length=128)]
Words = Annotated[tuple[Word, ...], Meta(max_length=64)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Score(Struct, frozen=True, forbid_unknown_fields=True):
    """A result that the card claims."""

    task: Word
    dataset: Word
    metric: Word
    value: Annotated[str, Meta(pattern=r"\A-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z", max_length=40)]  # decimal


class VariantSize(Struct, frozen=True, forbid_unknown_fields=True):
    """One choice among the files, such as a quantization."""

    name: Word
    size: Count  # bytes of its files


class Summary(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What search needs to know of a release, without its manifest."""

    files: Count
    size: Count  # bytes of all files
    title: Annotated[str, Meta(max_length=256)] = ""
    excerpt: Annotated[str, Meta(max_length=500)] = ""
    task: Word | None = None
    library: Word | None = None
    license: Word | None = None  # SPDX
    languages: Words = ()
    tags: Words = ()
    base_models: Words = ()  # names as the card has them
    datasets: Words = ()
    scores: Annotated[tuple[Score, ...], Meta(max_length=32)] = ()
    architecture: Word | None = None
    parameters: Count | None = None
    tensor_types: Words = ()
    variants: Annotated[tuple[VariantSize, ...], Meta(max_length=64)] = ()


class _Place(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What every record signs beside its own fields: where it stands."""

    schema: Literal[1] = 1
    namespace: NamespaceId
    log: LogId
    index: Count
    previous: Hash  # leaf hash of the record before, NO_PREVIOUS at index 0
    time: Time


class _Position(_Place, frozen=True, kw_only=True):
    """What records sign that are about one repository."""

    model: ModelName


class Publish(_Position, frozen=True, tag_field="type", tag="publish", kw_only=True):
    """A new revision: `manifest` becomes the tip of `branch` and, if given, `version` for ever."""

    kind: Kind
    manifest: ManifestId
    depth: Annotated[int, Meta(ge=1, le=2**31)]  # of the manifest
    branch: BranchName
    version: VersionName | None = None
    message: Message = ""
    summary: Summary
    listed: bool = True  # False: not found by search, only by its name


class Branch(_Position, frozen=True, tag_field="type", tag="branch", kw_only=True):
    """Moves `branch` to `manifest`, which may be an older one (a rollback), or deletes it."""

    branch: BranchName
    manifest: ManifestId | None = None  # None deletes
    depth: Annotated[int, Meta(ge=1, le=2**31)] = 1  # of the manifest
    message: Message = ""


class Yank(_Position, frozen=True, tag_field="type", tag="yank", kw_only=True):
    """`version` is not chosen any more, but can still be fetched by its name or hash."""

    version: VersionName
    message: Message = ""


class Attest(_Position, frozen=True, tag_field="type", tag="attest", kw_only=True):
    """Vouches for a claim about `manifest`: that it holds what another hub has as `owner/model` at `commit`."""

    claim: Literal["mirror-of"]
    kind: Kind
    manifest: ManifestId
    hub: HubName
    owner: OwnerName
    commit: CommitName
    names: Annotated[tuple[RevisionName, ...], Meta(max_length=NAMES_MAX)] = ()  # that stood for the commit there
    message: Message = ""


class WrappedKey(Struct, frozen=True, forbid_unknown_fields=True):
    """The key of a sealed repository, for one of those who may open it."""

    namespace: NamespaceId  # who may
    recipient: Hash  # the X25519 key of theirs that it was wrapped for
    box: Annotated[bytes, Meta(min_length=80, max_length=80)]  # HPKE: key of the sender, then 32 bytes and a tag


class Seal(_Position, frozen=True, tag_field="type", tag="seal", kw_only=True):
    """Lets `recipients` open what is sealed with a key; spec/sealing.md §4."""

    key: Hash  # names the key and does not tell it
    recipients: Annotated[tuple[WrappedKey, ...], Meta(min_length=1, max_length=RECIPIENTS_MAX)]


class Unseal(_Position, frozen=True, tag_field="type", tag="unseal", kw_only=True):
    """Lets everybody open what is sealed with a key: this is the key; spec/sealing.md §5."""

    key: Hash
    message: Message = ""


class Grant(_Position, frozen=True, tag_field="type", tag="grant", kw_only=True):
    """Lets a namespace, or one node, read the private repository. Means something in a private log alone."""

    to: Hash  # a namespace id or a node id
    to_kind: GranteeKind
    until: Time
    renewed: bool = False  # the publisher's node means to renew it

    @property
    def end(self) -> int:
        """Until when it counts, in seconds since 1970."""
        return min(self.until, self.time + GRANT_MAX_S)


class Ungrant(_Position, frozen=True, tag_field="type", tag="ungrant", kw_only=True):
    """Takes back what was granted to a namespace, or to one node."""

    to: Hash
    to_kind: GranteeKind
    message: Message = ""


class Pledge(_Place, frozen=True, tag_field="type", tag="pledge", kw_only=True):
    """Promises that `node` keeps what `subject` is, and gives it to others, until a time (spec/pledges.md)."""

    node: NodeId
    subject: Subject
    # Copies that all who pledge so are to keep together; None: this node keeps one whatever others do.
    replicas: Replicas | None = None
    until: Time


class Unpledge(_Place, frozen=True, tag_field="type", tag="unpledge", kw_only=True):
    """Takes the promise back that `node` keeps what `subject` is."""

    node: NodeId
    subject: Subject


class Recall(_Position, frozen=True, tag_field="type", tag="recall", kw_only=True):
    """`manifest` must not be used any more: it is not chosen by any name, not fetched and not served. For ever."""

    manifest: ManifestId
    message: Message = ""


class Assess(_Position, frozen=True, tag_field="type", tag="assess", kw_only=True):
    """What the publisher found of content, which may be anybody's: a manifest or a single file."""

    claim: Judgement
    verdict: Verdict
    manifest: ManifestId | None = None  # one of the two
    file: ContentId | None = None
    publisher: NamespaceId | None = None  # whose `model` it was found as
    score: Score | None = None  # of an evaluation
    tool: Word | None = None  # what it was found with
    message: Message = ""

    def __post_init__(self) -> None:
        if (self.manifest is None) == (self.file is None):
            raise ValueError("an assessment is about a manifest or about a file")
        if self.score is not None and self.claim != "evaluation":
            raise ValueError(f"a {self.claim} has no score")
        if self.claim == "blocked" and self.verdict == "good":
            raise ValueError("what is blocked is not good: it is bad, or the word is withdrawn")


class SetGate(_Position, frozen=True, tag_field="type", tag="gate", kw_only=True):
    """Whoever wants the content of `model` must accept `licence`; spec/gates.md §1."""

    name: Word  # of the licence
    licence: Annotated[str, Meta(min_length=1, max_length=LICENCE_SIZE_MAX)]
    per: GatePer  # who must: each person, or once for all who act for the same publisher
    approval: GateApproval  # manual: the publisher's word is needed, too


class OpenGate(_Position, frozen=True, tag_field="type", tag="ungate", kw_only=True):
    """Nothing need be accepted for `model` any more."""

    message: Message = ""


class Approve(_Position, frozen=True, tag_field="type", tag="approve", kw_only=True):
    """Whoever gave `receipt` may have the content of `model`."""

    receipt: Hash  # BLAKE3 of it
    until: Time | None = None  # None: as long as the gate stands
    message: Message = ""


class Refuse(_Position, frozen=True, tag_field="type", tag="refuse", kw_only=True):
    """Whoever gave `receipt` may not have the content of `model`, or not any more."""

    receipt: Hash
    message: Message = ""


Record = (
    Publish | Branch | Yank | Attest | Seal | Unseal | Grant | Ungrant | Pledge | Unpledge
    | Recall | Assess | SetGate | OpenGate | Approve | Refuse
)  # fmt: skip


class Entry(Struct, frozen=True):
    """A record as it stands in a log: its value, its bytes, and its leaf hash."""

    record: Record
    data: bytes  # the encoded envelope
    leaf: bytes  # 32 bytes


def log_id(namespace: NamespaceId, key: PublicKey, epoch: int = 0) -> LogId:
    """Return the id of the log that `key` keeps in `namespace`.

    epoch: how many logs of the key were closed before this one; spec/identity.md §4.
    """
    material = namespace + key + (epoch.to_bytes(4, "big") if epoch else b"")
    return LogId(blake3(material, derive_key_context=_LOG_CONTEXT).digest())


def sign_record(record: Record, key: Signer) -> Entry:
    """Return `record` signed by the key of its log."""
    envelope = seal(record, key, PURPOSE)
    # Our own statement passes the door that others will open for it.
    decode(envelope.payload, Record, size_max=PAYLOAD_SIZE_MAX)  # type: ignore[arg-type]
    data = encode(envelope)
    return Entry(record, data, LOG_TREE.leaf(data))


def open_entry(data: bytes, *, namespace: NamespaceId, key: PublicKey, index: int, previous: bytes) -> Entry:
    """Return the entry that `data` encodes, checked to be `key`'s and to stand at `index` after `previous`.

    Raises InvalidData: no record, a signature by another key, or a record of another place.
    """
    entry = open_signed_entry(data, namespace=namespace, log=log_id(namespace, key), key=key, index=index)
    check_follows(entry, previous)
    return entry


def open_signed_entry(data: bytes, *, namespace: NamespaceId, log: LogId, key: PublicKey, index: int) -> Entry:
    """Return the entry that `data` encodes, checked as `open_entry` does but for what it follows.

    log: that of `key`. Whoever takes many at once checks later that each follows the one before it.
    """
    envelope = decode(data, Envelope, size_max=ENVELOPE_SIZE_MAX)
    envelope.check(key, PURPOSE)
    record: Record = decode(envelope.payload, Record, size_max=PAYLOAD_SIZE_MAX)  # type: ignore[arg-type]
    if (record.namespace, record.log, record.index) != (namespace, log, index):
        raise InvalidData(f"the record was signed for another place than index {index} of this log")
    return Entry(record, data, LOG_TREE.leaf(data))


def check_follows(entry: Entry, previous: bytes) -> None:
    """Raise InvalidData unless `entry` was signed to follow the leaf `previous`."""
    if entry.record.previous != previous:
        raise InvalidData(f"record {entry.record.index} was signed for another place: it follows another record")


def read_entry(data: bytes) -> Entry:
    """Return the entry that `data` encodes, for data that `open_entry` accepted before."""
    record: Record = read(read(data, Envelope).payload, Record)  # type: ignore[arg-type]
    return Entry(record, data, LOG_TREE.leaf(data))
