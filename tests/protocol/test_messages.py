from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from p2phub.core import encoding
from p2phub.core.checkpoint import HEAD_SIZE_MAX, sign_head
from p2phub.core.envelope import ENVELOPE_SIZE_MAX
from p2phub.core.errors import InvalidEncoding
from p2phub.core.filetree import FILE_SIZE_MAX, TreePage
from p2phub.core.fingerprints import SHORT_SIZE
from p2phub.core.fresh import SignedFresh
from p2phub.core.identity import CHAIN_MAX, KeySignature
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId
from p2phub.core.noderecord import sign_node_record
from p2phub.protocol import messages
from p2phub.protocol.messages import (
    ANSWER_SIZE_MAX,
    FRAME_SIZE_MAX,
    HAVE_ROOTS_MAX,
    IDENTITIES_MAX,
    INVENTORY_PAGE,
    LARGE_QUERY_SIZE_MAX,
    NODES_MAX,
    RANGES_MAX,
    SPAN_BYTES_MAX,
    SPANS_MAX,
    TICKET_TTL_S,
    TICKETS_PER_QUERY_MAX,
    TREE_PAGES_MAX,
    Bucket,
    BucketsQuery,
    BulkAnswer,
    ByteRange,
    Consistency,
    ConsistencyQuery,
    FreshQuery,
    Have,
    HaveQuery,
    Heads,
    Held,
    Hello,
    Identities,
    IdentitiesQuery,
    IdentityChain,
    Inventory,
    LogHead,
    LogRange,
    MapAnswer,
    MapQuery,
    NodeRecords,
    Nodes,
    PageRef,
    ReceiptsAnswer,
    ReceiptsQuery,
    Reconciled,
    ReconcileQuery,
    Records,
    RecordsQuery,
    SessionAnswer,
    SessionQuery,
    SpansQuery,
    Statements,
    StoppedLog,
    Ticket,
    Tickets,
    TicketsQuery,
    Trees,
    TreesQuery,
    UpstreamFiles,
    UpstreamQuery,
)
from p2phub.protocol.reconcile import BUCKETS_MAX, HAVE_MAX, PREFIXES_MAX
from p2phub.testing import values

ROOT = ContentId(b"\xff" * 32)
LOG = LogId(b"\xff" * 32)
MANIFEST = ManifestId(b"\xff" * 32)
KEY = values.key("publisher")
RECORD = sign_node_record(values.node_record(), values.key("node")).data
HEAD = LogHead(NamespaceId(b"\xff" * 32), 1000, sign_head(LOG, 2**53, bytes(32), KEY).text)
PAGE = TreePage(0, 0, 0, b"", ())
TICKET = Ticket(b"i" * 16, b"c" * 16, b"s" * 16, TICKET_TTL_S)

EXAMPLES: list[Struct] = [
    Hello(RECORD),
    Nodes((RECORD, RECORD)),
    HEAD,
    ReconcileQuery(bytes(32), MapQuery(bytes(32), ("", "0f")), MapQuery(bytes(32), ())),
    Reconciled(nodes=MapAnswer(bytes(32), (bytes(64), b""))),
    BucketsQuery(bytes(32), (Bucket(""), Bucket("f" * 63, bytes(4), bytes(32)))),
    Heads((), 0),
    Heads((HEAD, HEAD), 128),
    Heads((), 1, (StoppedLog(NamespaceId(bytes(32)), 1, LOG, 5, 4), StoppedLog(HEAD.namespace, 2, LOG, 5))),
    NodeRecords((RECORD,), 1),
    IdentityChain(values.rotated_identity().chain),
    IdentitiesQuery((NamespaceId(bytes(32)),)),
    FreshQuery((NamespaceId(bytes(32)),)),
    Statements((None, SignedFresh(b"statement", (KeySignature(values.key("publisher").public_key, bytes(64)),)))),
    Identities((IdentityChain(values.identity().chain), None)),
    SessionQuery(),
    SessionQuery((RECORD,), (IdentityChain(values.identity().chain),)),
    SessionAnswer(),
    SessionAnswer((NamespaceId(bytes(32)),), (HEAD.namespace,), ("it has expired",), b"i" * 16, 86400),
    RecordsQuery((LogRange(LOG, 7, 1),)),
    ConsistencyQuery(LOG, 1, 2**53),
    Consistency(bytes(32), (bytes(32), bytes(32))),
    Records((tuple(entry.data for entry in values.log()), ())),
    Inventory((Held(MANIFEST, 1), Held(MANIFEST, 1000)), True),
    UpstreamQuery((bytes(20), bytes(32))),
    UpstreamFiles((ROOT, None), b"\0\2"),
    HaveQuery((ROOT, ROOT)),
    Have((True, False, b"\x05", b"")),
    TreesQuery((PageRef(ROOT, 3),)),
    Trees((PAGE, None, PAGE)),
    SpansQuery((ByteRange(ROOT, 0, 1), ByteRange(ROOT, 2**41, SPAN_BYTES_MAX))),
    SpansQuery((ByteRange(ROOT, 0, 1),), first_copy=True, background=True),
    TicketsQuery(2),
    ReceiptsQuery((RECORD,), (IdentityChain(values.identity().chain),)),
    ReceiptsAnswer(("good", "waiting", "it is of another gate")),
    Tickets((TICKET, TICKET)),
    BulkAnswer(200, SPAN_BYTES_MAX),
    BulkAnswer(429, 0, 3, "all upload slots are taken"),
]


def round_trip(message: Struct, *, size_max: int = ANSWER_SIZE_MAX) -> Struct:
    return encoding.decode(encoding.encode(message), type(message), size_max=size_max)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_reads_back_from_its_bytes(message: Struct) -> None:
    assert round_trip(message) == message


def test_every_message_has_an_example() -> None:
    kinds = {value for value in vars(messages).values() if isinstance(value, type) and issubclass(value, Struct)}
    ours = {kind for kind in kinds if kind.__module__ == messages.__name__}

    parts = {PageRef, ByteRange, Ticket, MapQuery, MapAnswer, Bucket, LogRange, StoppedLog, Held}

    assert ours <= {type(example) for example in EXAMPLES} | parts


@given(st.sampled_from(EXAMPLES), st.data())
def test_a_changed_byte_gives_another_message_or_none(message: Struct, data: st.DataObject) -> None:
    encoded = bytearray(encoding.encode(message))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))

    try:
        changed = encoding.decode(bytes(encoded), type(message), size_max=ANSWER_SIZE_MAX)
    except InvalidEncoding:
        return
    assert changed != message


REFUSED: dict[str, Struct] = {
    "nobody's record": Nodes(()),
    "too many node records": Nodes((b"",) * (NODES_MAX + 1)),
    "a node record over the limit": Hello(bytes(ENVELOPE_SIZE_MAX + 1)),
    "a head over the limit": LogHead(NamespaceId(bytes(32)), 1, bytes(HEAD_SIZE_MAX + 1)),
    "a salt that is too short": ReconcileQuery(bytes(31)),
    "too many prefixes": ReconcileQuery(bytes(32), MapQuery(bytes(32), ("",) * (PREFIXES_MAX + 1))),
    "a prefix of a whole key": ReconcileQuery(bytes(32), MapQuery(bytes(32), ("0" * 64,))),
    "a prefix that is no hex": ReconcileQuery(bytes(32), MapQuery(bytes(32), ("0g",))),
    "a prefix with a line feed": ReconcileQuery(bytes(32), MapQuery(bytes(32), ("0\n",))),
    "a prefix with 17 children": Reconciled(MapAnswer(bytes(32), (bytes(68),))),
    "no buckets": BucketsQuery(bytes(32), ()),
    "too many buckets": BucketsQuery(bytes(32), (Bucket(""),) * (BUCKETS_MAX + 1)),
    "a bucket with too many items": BucketsQuery(bytes(32), (Bucket("", bytes(SHORT_SIZE * (HAVE_MAX + 1))),)),
    "more buckets than can be asked for": Heads((), BUCKETS_MAX + 1),
    "nobody's identity": IdentitiesQuery(()),
    "too many identities": IdentitiesQuery((NamespaceId(bytes(32)),) * (IDENTITIES_MAX + 1)),
    "records of no log": RecordsQuery(()),
    "records of too many logs": RecordsQuery((LogRange(LOG, 0, 1),) * (RANGES_MAX + 1)),
    "what an empty log was": ConsistencyQuery(LOG, 0, 1),
    "a proof with too many hashes": Consistency(bytes(32), (bytes(32),) * 65),
    "no record of a log": RecordsQuery((LogRange(LOG, 0, 0),)),
    "an identity without documents": IdentityChain(()),
    "an identity with too many documents": IdentityChain(values.identity().chain * (CHAIN_MAX + 1)),
    "entries before the first": RecordsQuery((LogRange(LOG, -1, 1),)),
    "nothing of a repository": Inventory((Held(MANIFEST, 0),), False),
    "more than all of a repository": Inventory((Held(MANIFEST, 1001),), False),
    "too many repositories": Inventory((Held(MANIFEST, 1),) * (INVENTORY_PAGE + 1), False),
    "a question about no file": HaveQuery(()),
    "a question about too many files": HaveQuery((ROOT,) * (HAVE_ROOTS_MAX + 1)),
    "an answer about too many files": Have((True,) * (HAVE_ROOTS_MAX + 1)),
    "an answer that is a number": Have((1,)),  # type: ignore[arg-type]
    "a question for no page": TreesQuery(()),
    "a question for too many pages": TreesQuery((PageRef(ROOT, 0),) * (TREE_PAGES_MAX + 1)),
    "a page below 0": TreesQuery((PageRef(ROOT, -1),)),
    "too many pages": Trees((None,) * (TREE_PAGES_MAX + 1)),
    "a question for no bytes": SpansQuery(()),
    "too many spans": SpansQuery((ByteRange(ROOT, 0, 1),) * (SPANS_MAX + 1)),
    "a span of nothing": SpansQuery((ByteRange(ROOT, 0, 0),)),
    "a span over the limit": SpansQuery((ByteRange(ROOT, 0, SPAN_BYTES_MAX + 1),)),
    "a span before the file": SpansQuery((ByteRange(ROOT, -1, 1),)),
    "a question for no ticket": TicketsQuery(0),
    "a question for too many tickets": TicketsQuery(TICKETS_PER_QUERY_MAX + 1),
    "no tickets": Tickets(()),
    "too many tickets": Tickets((TICKET,) * (TICKETS_PER_QUERY_MAX + 1)),
    "a ticket with a short id": Tickets((replace(TICKET, id=bytes(15)),)),
    "a ticket with a long key": Tickets((replace(TICKET, server_key=bytes(17)),)),
    "a ticket that is over": Tickets((replace(TICKET, ttl=0),)),
    "an answer with an unknown class of status": BulkAnswer(600, 0),
    "an answer over the limit": BulkAnswer(200, SPAN_BYTES_MAX + 1),
    "an answer with too many words": BulkAnswer(404, 0, 0, "x" * 201),
    "a span beyond any file": SpansQuery((ByteRange(ROOT, FILE_SIZE_MAX + 1, 1),)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_refuses(what: str) -> None:
    with pytest.raises(InvalidEncoding):
        round_trip(REFUSED[what])


@pytest.mark.parametrize(
    ("message", "size_max"),
    [
        (HaveQuery((ROOT,) * HAVE_ROOTS_MAX), LARGE_QUERY_SIZE_MAX),
        (TreesQuery((PageRef(ROOT, FILE_SIZE_MAX),) * TREE_PAGES_MAX), LARGE_QUERY_SIZE_MAX),
        (SpansQuery((ByteRange(ROOT, FILE_SIZE_MAX, SPAN_BYTES_MAX),) * SPANS_MAX), LARGE_QUERY_SIZE_MAX),
        (ReconcileQuery(bytes(32), *[MapQuery(bytes(32), ("f" * 63,) * PREFIXES_MAX)] * 2), FRAME_SIZE_MAX),
        (BucketsQuery(bytes(32), (Bucket("f" * 63, bytes(256), bytes(32)),) * BUCKETS_MAX), FRAME_SIZE_MAX),
        (IdentitiesQuery((NamespaceId(bytes(32)),) * IDENTITIES_MAX), FRAME_SIZE_MAX),
        (RecordsQuery((LogRange(LOG, 2**53, 2**53),) * RANGES_MAX), FRAME_SIZE_MAX),
        (Inventory((Held(MANIFEST, 1000),) * INVENTORY_PAGE, True), ANSWER_SIZE_MAX),
        (Nodes((RECORD,) * NODES_MAX), ANSWER_SIZE_MAX),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Struct) else "",
)
def test_the_largest_message_fits_its_limit(message: Struct, size_max: int) -> None:
    assert round_trip(message, size_max=size_max) == message


def test_the_keys_of_a_ticket_are_in_no_text() -> None:
    for text in (repr(TICKET), str(TICKET), repr(Tickets((TICKET,)))):
        assert "ccc" not in text
        assert "sss" not in text


def test_a_bitmap_is_told_from_all_and_none() -> None:
    held: Any = round_trip(Have((True, False, b"\x01", b"\x00")))

    assert [type(value) for value in held.held] == [bool, bool, bytes, bytes]
