"""What peers say to each other on the control plane (spec/peer-protocol.md).

Each message is one CBOR document with a limit of its own. Everything in here that
matters is checked again by hash or signature where it is used: a message only
says where to look.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2phub.core.checkpoint import HEAD_SIZE_MAX
from p2phub.core.envelope import ENVELOPE_SIZE_MAX
from p2phub.core.filetree import FILE_SIZE_MAX, TreePage
from p2phub.core.fingerprints import DEPTH_MAX, SALT_SIZE, SHORT_SIZE
from p2phub.core.fresh import SignedFresh
from p2phub.core.gates import RECEIPT_SIZE_MAX
from p2phub.core.identity import CHAIN_MAX, SignedDocument
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId, NodeId

from .reconcile import BUCKETS_MAX, HAVE_MAX, PREFIXES_MAX

FRAME_SIZE_MAX = 64 * 1024  # bytes of a message or a query without a limit of its own; §1
ANSWER_SIZE_MAX = 4 * 1024 * 1024  # bytes of any answer but content; §1
NODES_MAX = 64  # node records in one answer; §3
HEADS_ANSWER_SIZE = 256 * 1024  # bytes of heads, or of node records, in one answer, about; spec/replication.md §2
IDENTITIES_MAX = 256  # namespaces asked about at once; §4
PROOF_HASHES_MAX = 64  # in a proof of consistency; spec/forks.md §5
RANGES_MAX = 512  # logs asked for records of at once; §4
RECORDS_ANSWER_SIZE = 1024 * 1024  # bytes of entries, or of identities, in one answer, about; §4
INVENTORY_PAGE = 1_000  # repositories in one answer; spec/gossip.md §9
HAVE_ROOTS_MAX = 10_000  # files asked about at once: one whole manifest; §6
RECEIPTS_MAX = 16  # in one query; spec/gates.md §3
TREE_PAGES_MAX = 1_000  # pages asked for at once; §6
TREE_ANSWER_SIZE = 1024 * 1024  # bytes of pages in one answer, about; §6
AREA_SIZE = 1024 * 1024  # bytes of a file that are counted as given together; §6
HAVE_ANSWER_SIZE = 1024 * 1024  # bytes of bitmaps in one answer, about; §6
SPANS_MAX = 1_000  # byte ranges in one request; §7
SPAN_BYTES_MAX = 64 * 1024 * 1024  # bytes in one request; §7
LARGE_QUERY_SIZE_MAX = 512 * 1024  # bytes of a query that lists files; §6

BULK_PREFACE = b"p2pbulk1"  # begins a bulk connection; spec/bulk.md §3
TICKET_ID_SIZE = 16  # bytes; spec/bulk.md §1
TICKET_TTL_S = 600  # seconds; spec/bulk.md §1
DELEGATIONS_MAX = 16  # shown at once; spec/authority.md §3
SESSION_FIELD = "p2phub-session"  # of a signed request, and of the answer to one whose session is over; ibid.
SESSION_OVER = "over"
SIGN_AFTER_FIELD = "p2phub-sign-after"  # of the answer to a request that was signed too early; ibid. §1
TICKETS_PER_QUERY_MAX = 16  # spec/bulk.md §1

EnvelopeBytes = Annotated[bytes, Meta(max_length=ENVELOPE_SIZE_MAX)]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Salt = Annotated[bytes, Meta(min_length=SALT_SIZE, max_length=SALT_SIZE)]
Prefix = Annotated[str, Meta(pattern=r"\A[0-9a-f]*\Z", max_length=DEPTH_MAX - 1)]  # hex digits of a key


Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Reason = Annotated[str, Meta(max_length=200)]

# What a hub lists a file by: the 20 bytes of git, or SHA-256; spec/peer-protocol.md §8.
ListedHash = Annotated[bytes, Meta(min_length=20, max_length=32)]


class Hello(Struct, frozen=True, forbid_unknown_fields=True):
    """A node introduces itself."""

    record: EnvelopeBytes  # its signed node record


class Nodes(Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to a hello: the peer's own record first, then others that it knows."""

    records: Annotated[tuple[EnvelopeBytes, ...], Meta(min_length=1, max_length=NODES_MAX)]


class LogHead(Struct, frozen=True, forbid_unknown_fields=True):
    """A head, and the namespace whose identity proves its key."""

    namespace: NamespaceId
    version: Annotated[int, Meta(ge=1, le=CHAIN_MAX)]  # of the newest identity document that the sender has
    head: Annotated[bytes, Meta(max_length=HEAD_SIZE_MAX)]


class MapQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks what the peer has under prefixes of one map, unless its map is the same as the asker's."""

    root: Hash  # fingerprint of the asker's whole map
    prefixes: Annotated[tuple[Prefix, ...], Meta(max_length=PREFIXES_MAX)]


class ReconcileQuery(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Compares maps: of logs, of nodes, or both."""

    salt: Salt
    logs: MapQuery | None = None
    nodes: MapQuery | None = None


class MapAnswer(Struct, frozen=True, forbid_unknown_fields=True):
    """The fingerprint of the peer's whole map; if it is another one, what each prefix has."""

    root: Hash
    # Of each prefix the short fingerprints of its 16 children; none if it has few items.
    children: Annotated[tuple[Annotated[bytes, Meta(max_length=16 * SHORT_SIZE)], ...], Meta(max_length=PREFIXES_MAX)]


class Reconciled(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The answer for each map that was asked about."""

    logs: MapAnswer | None = None
    nodes: MapAnswer | None = None


class Bucket(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A prefix whose items are asked for, but for those that the asker has."""

    prefix: Prefix
    have: Annotated[bytes, Meta(max_length=HAVE_MAX * SHORT_SIZE)] = b""  # short fingerprints of items
    after: Hash | None = None  # only items whose key sorts after this one


class BucketsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for the items of buckets: heads of logs, or node records."""

    salt: Salt
    buckets: Annotated[tuple[Bucket, ...], Meta(min_length=1, max_length=BUCKETS_MAX)]


class StoppedLog(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A log that goes on no more: it forked, or its publisher closed it."""

    namespace: NamespaceId
    version: Annotated[int, Meta(ge=1, le=CHAIN_MAX)]  # of the newest identity document that the sender has
    log: LogId
    held: Annotated[int, Meta(ge=0, le=2**53)]  # records that count and that the sender has
    common: Annotated[int, Meta(ge=0, le=2**53)] | None = None  # records at which a fork froze it; None: it was closed


class Heads(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The heads in the buckets, in order, as many as fit; `complete` counts the buckets of which none is left out."""

    heads: Annotated[tuple[LogHead, ...], Meta(max_length=4096)]
    complete: Annotated[int, Meta(ge=0, le=BUCKETS_MAX)]
    stopped: Annotated[tuple[StoppedLog, ...], Meta(max_length=4096)] = ()


class NodeRecords(Struct, frozen=True, forbid_unknown_fields=True):
    """The signed node records in the buckets, in order, as many as fit; `complete` as in Heads."""

    records: Annotated[tuple[EnvelopeBytes, ...], Meta(max_length=4096)]
    complete: Annotated[int, Meta(ge=0, le=BUCKETS_MAX)]


class IdentityChain(Struct, frozen=True, forbid_unknown_fields=True):
    """All identity documents of a namespace, version 1 first."""

    documents: Annotated[tuple[SignedDocument, ...], Meta(min_length=1, max_length=CHAIN_MAX)]


class IdentitiesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for the identities of namespaces."""

    namespaces: Annotated[tuple[NamespaceId, ...], Meta(min_length=1, max_length=IDENTITIES_MAX)]


class Identities(Struct, frozen=True, forbid_unknown_fields=True):
    """The first identities asked for, in order, as many as fit; None for what the peer does not know."""

    chains: Annotated[tuple[IdentityChain | None, ...], Meta(max_length=IDENTITIES_MAX)]


class SessionQuery(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Says for whom the node that asks acts."""

    delegations: Annotated[tuple[EnvelopeBytes, ...], Meta(max_length=DELEGATIONS_MAX)] = ()
    # Of namespaces that the peer did not know.
    identities: Annotated[tuple[IdentityChain, ...], Meta(max_length=DELEGATIONS_MAX)] = ()


class SessionAnswer(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """For whom the node may act here from now on; with none of them there is no id."""

    namespaces: Annotated[tuple[NamespaceId, ...], Meta(max_length=DELEGATIONS_MAX)] = ()
    unknown: Annotated[tuple[NamespaceId, ...], Meta(max_length=DELEGATIONS_MAX)] = ()  # their identities are needed
    refused: Annotated[tuple[Reason, ...], Meta(max_length=2 * DELEGATIONS_MAX)] = ()
    id: Bytes16 | None = None
    ttl: Annotated[int, Meta(ge=0, le=30 * 86400)] = 0  # seconds


class FreshQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for the newest statements of publishers that nothing newer is there."""

    namespaces: Annotated[tuple[NamespaceId, ...], Meta(min_length=1, max_length=IDENTITIES_MAX)]


class Statements(Struct, frozen=True, forbid_unknown_fields=True):
    """The first statements asked for, in order, as many as fit; None for what the peer does not have."""

    statements: Annotated[tuple[SignedFresh | None, ...], Meta(max_length=IDENTITIES_MAX)]


class LogRange(Struct, frozen=True, forbid_unknown_fields=True):
    """`count` entries of a log, from index `start` on."""

    log: LogId
    start: Annotated[int, Meta(ge=0, le=2**53)]
    count: Annotated[int, Meta(ge=1, le=2**53)]


class RecordsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for entries of logs."""

    ranges: Annotated[tuple[LogRange, ...], Meta(min_length=1, max_length=RANGES_MAX)]


class Records(Struct, frozen=True, forbid_unknown_fields=True):
    """The entries of the first ranges, in order, as many as fit: the last of these may be cut short."""

    entries: Annotated[
        tuple[Annotated[tuple[EnvelopeBytes, ...], Meta(max_length=100_000)], ...], Meta(max_length=RANGES_MAX)
    ]


class Held(Struct, frozen=True, forbid_unknown_fields=True):
    """A repository that a node has, or has some of."""

    manifest: ManifestId
    share: Annotated[int, Meta(ge=1, le=1000)]  # thousandths of its bytes; 1000: all of it


class Inventory(Struct, frozen=True, forbid_unknown_fields=True):
    """What a node has, sorted by manifest."""

    held: Annotated[tuple[Held, ...], Meta(max_length=INVENTORY_PAGE)]
    more: bool


class ConsistencyQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for the root that a log had at the size `old`, and what proves it to who knows it at the size `new`."""

    log: LogId
    old: Annotated[int, Meta(ge=1, le=2**53)]
    new: Annotated[int, Meta(ge=1, le=2**53)]


class Consistency(Struct, frozen=True, forbid_unknown_fields=True):
    """The root at the smaller size, and a proof of consistency (RFC 9162 §2.1.4)."""

    root: Hash
    proof: Annotated[tuple[Hash, ...], Meta(max_length=PROOF_HASHES_MAX)]


class HaveQuery(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Asks which chunks of these files the peer can send."""

    roots: Annotated[tuple[ContentId, ...], Meta(min_length=1, max_length=HAVE_ROOTS_MAX)]
    fetching: NodeId | None = None  # who asks, if it downloads them and can give in turn


class Have(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """For the first files asked about, as many as fit: all (true), none (false), or a bitmap.

    In a bitmap, number i is bit i % 8, counted from the lowest, of byte i // 8.
    """

    held: Annotated[tuple[bool | bytes, ...], Meta(max_length=HAVE_ROOTS_MAX)]  # bitmaps of chunks
    # For the same files, the areas of AREA_SIZE that it sent to somebody lately; left out if there are none.
    given: Annotated[tuple[bool | bytes, ...], Meta(max_length=HAVE_ROOTS_MAX)] = ()
    fetching: bool = False  # it downloads one of these files now, so that it will have more soon


class UpstreamQuery(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Asks what the peer has, or fetches, of files that another hub lists by these hashes."""

    files: Annotated[tuple[ListedHash, ...], Meta(min_length=1, max_length=HAVE_ROOTS_MAX)]
    wanting: NodeId | None = None  # who asks, if it will fetch them from the hub unless somebody else does


class UpstreamFiles(Struct, frozen=True, forbid_unknown_fields=True):
    """For each of the files, in order: its root if it is here, and whether it will be soon."""

    roots: Annotated[tuple[ContentId | None, ...], Meta(min_length=1, max_length=HAVE_ROOTS_MAX)]
    states: Annotated[bytes, Meta(min_length=1, max_length=HAVE_ROOTS_MAX)]  # 0 nothing, 1 wanted, 2 being fetched


class PageRef(Struct, frozen=True, forbid_unknown_fields=True):
    """One page of one file's chunk list."""

    root: ContentId
    index: Annotated[int, Meta(ge=0, le=FILE_SIZE_MAX)]


class TreesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for pages of chunk lists."""

    pages: Annotated[tuple[PageRef, ...], Meta(min_length=1, max_length=TREE_PAGES_MAX)]


class Trees(Struct, frozen=True, forbid_unknown_fields=True):
    """The first pages asked for, in order, as many as fit; None for what the peer does not know."""

    pages: Annotated[tuple[TreePage | None, ...], Meta(max_length=TREE_PAGES_MAX)]


class ByteRange(Struct, frozen=True, forbid_unknown_fields=True):
    """`length` bytes of a file from `offset` on."""

    root: ContentId
    offset: Annotated[int, Meta(ge=0, le=FILE_SIZE_MAX)]
    length: Annotated[int, Meta(ge=1, le=SPAN_BYTES_MAX)]


class SpansQuery(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Asks for bytes; the answer is the bytes of all ranges, one after the other."""

    spans: Annotated[tuple[ByteRange, ...], Meta(min_length=1, max_length=SPANS_MAX)]
    first_copy: bool = False  # only if none of it was given to anybody lately
    background: bool = False  # others go first; spec/links.md §4


class Ticket(Struct, frozen=True, forbid_unknown_fields=True):
    """Opens one bulk connection, once."""

    id: Bytes16
    client_key: Bytes16  # of frames from the client
    server_key: Bytes16  # of frames from the server
    ttl: Annotated[int, Meta(ge=1, le=86400)]  # seconds

    def __repr__(self) -> str:
        return "Ticket(…)"  # keys must not reach a log


class TicketsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for tickets."""

    count: Annotated[int, Meta(ge=1, le=TICKETS_PER_QUERY_MAX)]


class Tickets(Struct, frozen=True, forbid_unknown_fields=True):
    """The tickets asked for."""

    tickets: Annotated[tuple[Ticket, ...], Meta(min_length=1, max_length=TICKETS_PER_QUERY_MAX)]


class ReceiptsQuery(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Shows what was accepted: receipts of the asking node, or of those it acts for."""

    receipts: Annotated[
        tuple[Annotated[bytes, Meta(max_length=RECEIPT_SIZE_MAX)], ...], Meta(min_length=1, max_length=RECEIPTS_MAX)
    ]
    identities: Annotated[tuple[IdentityChain, ...], Meta(max_length=RECEIPTS_MAX)] = ()  # of whom they are


class ReceiptsAnswer(Struct, frozen=True, forbid_unknown_fields=True):
    """For each of the receipts, in order: `good`, `waiting` (for the publisher), `refused`, or what is wrong."""

    states: Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(min_length=1, max_length=RECEIPTS_MAX)]


class BulkAnswer(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The head of an answer on a bulk connection; content follows if the status is 200."""

    status: Annotated[int, Meta(ge=200, le=599)]
    size: Annotated[int, Meta(ge=0, le=SPAN_BYTES_MAX)]  # bytes
    retry_after: Annotated[int, Meta(ge=0, le=3600)] = 0  # seconds
    text: Annotated[str, Meta(max_length=200)] = ""
